"""`specdec export-command`: starts SGLang, vLLM or llama.cpp with this set-up; what became of each setting."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from specdec_ref.cli.flags import add_drafting, add_model, add_suffix, add_trie
from specdec_ref.cli.shared import config_from, console
from specdec_ref.config import SamplingParams

if TYPE_CHECKING:
    from specdec_ref.exporters import Launch

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "the command that starts SGLang, vLLM or llama.cpp with this set-up"
DESCRIPTION = """\
Turn a set-up into the launch command of a serving engine. The command goes to
stdout. stderr lists each of our settings with the engine's name for it and its
effect there. Settings that the engine would refuse, or silently change, are
refused here. Nothing is started, and no model is loaded.
"""
EPILOG = """\
examples:
  $ specdec export-command --engine sglang --target org/model \\
      --drafter eagle --draft-model org/head --depth 5 --topk 4 --nodes 8
  $ specdec train export RUN --out served     writes served/target and /head
  $ specdec export-command --engine vllm --folder served --drafter eagle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--engine", required=True, metavar="NAME", help="sglang, vllm or llamacpp")
    parser.add_argument(
        "--folder", metavar="DIR", help="a folder written by `specdec train export`, with target and head"
    )
    parser.add_argument("--eagle", type=int, choices=(1, 3), default=3, help="version of an EAGLE head (default 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")
    add_model(parser)
    add_drafting(parser)
    add_trie(parser)
    add_suffix(parser)
    group = parser.add_argument_group(
        "sampling", "Engines take these from each request; here they decide which verifier fits."
    )
    for flag, kind in (("--temperature", float), ("--top-k", int), ("--top-p", float), ("--min-p", float)):
        default = getattr(SamplingParams(), flag[2:].replace("-", "_"))
        group.add_argument(flag, type=kind, default=default, metavar="X", help=f"default {default:g}")


def run(args: argparse.Namespace) -> int:
    """Translate and print."""
    from specdec_ref.exporters import export_command

    launch = export_command(config_from(args), args.engine, folder=args.folder, eagle=args.eagle)
    if args.json:
        print(json.dumps(asdict(launch) | {"shell": launch.shell()}))
        return 0
    print(launch.shell(), flush=True)
    _explain(launch)
    return 0


def _explain(launch: "Launch") -> None:
    from rich.table import Table
    from rich.text import Text

    out = console(stderr=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("here", f"{launch.engine} {launch.version}", ""):
        table.add_column(column, overflow="fold")
    for row in launch.fields:
        table.add_row(row.ours, row.theirs or "(nothing to set)", Text(row.why, style="dim"))
    out.print(table)
    out.print(Text(f"each request: {json.dumps(launch.request)}"), soft_wrap=True)
    for finding in launch.findings:
        out.print(Text(f"{finding.kind}: {finding.text}", style="dim"), soft_wrap=True)
