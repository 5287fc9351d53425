"""`specdec explain`: a launch command of SGLang, vLLM or llama.cpp, flag by flag."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from specdec_ref.cli.shared import UsageError, console

if TYPE_CHECKING:
    from rich.text import Text

    from specdec_ref.config import SpecConfig
    from specdec_ref.exporters import Explained, Explanation

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "a launch command of SGLang, vLLM or llama.cpp, flag by flag"
DESCRIPTION = """\
Explain a launch command of SGLang, vLLM or llama.cpp: what each speculative
flag means, whether the engine refuses or changes the combination or is no
longer lossless, and the same set-up in our flags. Flags of older versions are
recognised, and the command is rewritten without them. Nothing is started.
"""
EPILOG = """\
Exit code 1 if the engine would refuse the command.

examples:
  $ specdec explain "vllm serve org/model --speculative-config '{...}'"
  $ specdec explain < launch.sh
"""
STYLES = {"refused": "bold red", "changed": "yellow", "lossy": "yellow", "note": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("command", nargs="?", help="the command, in quotes; - or nothing reads standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")


def run(args: argparse.Namespace) -> int:
    """Explain and print."""
    from specdec_ref.exporters import explain

    text = sys.stdin.read() if args.command in (None, "-") else args.command
    if not text.strip():
        raise UsageError("no command to explain: give one in quotes, or on standard input")
    found = explain(text)
    if args.json:
        print(json.dumps(asdict(found)))
    else:
        _print(found)
    return int(any(finding.kind == "refused" for finding in found.findings))


def _print(found: "Explanation") -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in (f"{found.engine} {found.version}", "value", "default", "what it is"):
        table.add_column(column, overflow="fold")
    for flag in found.flags:
        if flag.status != "other":
            default = "" if flag.default is None else str(flag.default)
            table.add_row(flag.name, str(flag.value), default, _words(flag))
    out.print(table)
    for finding in found.findings:
        out.print(Text(f"{finding.kind}: {finding.text}", style=STYLES[finding.kind]), soft_wrap=True)
    if found.translated is not None:
        out.print(Text(f"without what is gone or unknown: {found.translated}"), soft_wrap=True)
    if found.config is not None:
        out.print(Text(f"here: {spelled(found.config)}"), soft_wrap=True)


def _words(flag: "Explained") -> "Text":
    from rich.text import Text

    mark = {"removed": "GONE: ", "unknown": "UNKNOWN: "}.get(flag.status, "")
    return Text(f"{mark}{flag.meaning}{f'; now {flag.now}' if flag.now else ''}", style="red" if mark else "")


def spelled(config: "SpecConfig") -> str:
    """The set-up as arguments of `specdec generate`; defaults are left out."""
    from specdec_ref.config import SpecConfig

    default, budget, trie, suffix = SpecConfig(), config.budget, config.trie, config.suffix
    pairs = (
        ("--target", config.target, default.target), ("--drafter", config.drafter, ""),
        ("--draft-model", config.draft_model, None), ("--depth", budget.depth, default.budget.depth),
        ("--topk", budget.topk, 1), ("--nodes", budget.nodes, 0), ("--trie-match", trie.match, default.trie.match),
        ("--trie-depth", trie.max_depth, default.trie.max_depth),
        ("--trie-min-breadth", trie.min_breadth, default.trie.min_breadth),
        ("--trie-max-breadth", trie.max_breadth, default.trie.max_breadth),
        ("--trie-capacity", trie.capacity, default.trie.capacity),
        ("--suffix-depth", suffix.max_depth, default.suffix.max_depth),
        ("--suffix-factor", suffix.factor, default.suffix.factor),
        ("--suffix-min-prob", suffix.min_prob, default.suffix.min_prob),
        ("--verifier", config.verifier, default.verifier),
        ("--temperature", config.sampling.temperature, 0.0), ("--dtype", config.dtype, default.dtype),
    )  # fmt: skip
    words = [f"{flag} {value}" for flag, value, usual in pairs if value != usual]
    return " ".join(["specdec generate", *words, *["--lossy"] * config.lossy])
