"""What the commands have in common: arguments, checks before anything heavy, errors, the console."""

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from specdec_ref.cli.layout import Layout
from specdec_ref.cli.nearest import did_you_mean, unknown
from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig, SuffixOptions, TrieOptions
from specdec_ref.request import Limits

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.engine import SpecEngine
    from specdec_ref.session import Session

__all__ = [
    "Action", "Parser", "UsageError", "activation", "add_actions", "announce_control", "check_dtype", "check_names",
    "check_plots", "config_from", "console", "engine_for", "give_way", "one_line", "open_session", "plural", "say",
    "spellings", "typed", "version",
]  # fmt: skip


class UsageError(ValueError):
    """Something the user typed or handed in is wrong; the message says what and what to do."""


class _Help(argparse.Action):
    """-h: the parser's help text, its headings and flags picked out in colour on a terminal."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from rich.text import Text

        text = Text(parser.format_help())
        text.highlight_regex(r"(?m)^\S[^\n]*:$", "bold")
        text.highlight_regex(r"(?m)^usage:", "bold")
        text.highlight_regex(r"(?<![\w-])--?[a-zA-Z][\w-]*", "cyan")
        text.highlight_regex(r"(?m)^ +\$ [^\n]*", "bold")
        console().print(text, soft_wrap=True, end="")
        raise SystemExit(0)


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line that are raised like any other bad input."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, add_help=False, allow_abbrev=False, formatter_class=Layout, **settings)
        self._positionals.title = "arguments"
        self.add_argument("-h", "--help", action=_Help, nargs=0, help="show this text and exit")
        self.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)  # main looks for it by itself

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but a list of words (nargs "*") also takes words that stand behind an option.

        A command reports what it does not know itself, so that the error names its own help.
        """
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if action.nargs == "*" and not action.option_strings:
                words = [self._get_value(action, word) for word in rest if not word.startswith("-")]
                setattr(found, action.dest, [*getattr(found, action.dest), *words])
                rest = [word for word in rest if word.startswith("-")]
        if rest:
            self._refuse(rest)
        return found, rest

    def _refuse(self, rest: Sequence[str]) -> NoReturn:
        """Raises UsageError for arguments that belong nowhere: the flags among them, or else the words."""
        flags = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
        if flags:
            suggestion = did_you_mean(flags[0], self._option_string_actions)
            self.error(f"unknown flag {flags[0]}{'.' * bool(suggestion)}{suggestion}")
        self.error(f"unexpected argument {rest[0]!r}: a text with spaces must be in quotes")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse; the message for an unknown command or choice suggests the closest one."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            nested = isinstance(action, argparse._SubParsersAction)
            kind = str(action.metavar).lower() if nested else "/".join(action.option_strings)
            self.error(unknown(kind or action.dest, str(value), names))

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(f"{message}{'' if message.endswith('?') else ';'} see `{self.prog} --help`")


class Action(NamedTuple):
    """The help texts of a command within a command."""

    help: str
    description: str
    epilog: str


def add_actions(parser: Parser, actions: Mapping[str, Action]) -> dict[str, Parser]:
    """Commands within a command, such as `specdec train corpus`: a parser for each. `args.action`: its name or None."""
    known = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", prog=parser.prog)
    return {
        name: known.add_parser(name, help=each.help, description=each.description, epilog=each.epilog)
        for name, each in actions.items()
    }


def config_from(args: argparse.Namespace) -> SpecConfig:
    """The set-up that the arguments spell. Raises ValueError for numbers out of range."""
    usual = DraftBudget.suited_to(args.drafter, adaptive=args.adaptive is not None)
    depth = usual.depth if args.depth is None else args.depth
    return SpecConfig(
        target=args.target,
        drafter=args.drafter,
        draft_model=args.draft_model,
        verifier=args.verifier,
        lossy=args.lossy,
        budget=DraftBudget(depth, args.topk, args.nodes, args.min_confidence),
        trie=TrieOptions(
            args.trie_match,
            args.trie_depth,
            args.trie_min_breadth,
            args.trie_max_breadth,
            args.trie_capacity,
            args.corpus,
        ),
        suffix=SuffixOptions(args.suffix_depth, args.suffix_factor, args.suffix_min_prob, args.suffix_capacity),
        sampling=SamplingParams(args.temperature, args.top_k, args.top_p, args.min_p),
        dtype=args.dtype,
        device=args.device,
        adaptive=args.adaptive,
    )


def check_names(config: SpecConfig) -> None:
    """Refuse unknown names before a model is loaded. Raises UsageError or ValueError."""
    from specdec_ref.adaptive import CONTROLS
    from specdec_ref.drafters import DRAFTERS
    from specdec_ref.verifiers import VERIFIERS, choose_verifier
    from specdec_ref.weights import SHIPPED, TRAINED

    for flag, name, known in (
        ("--drafter", config.drafter, ("none", *DRAFTERS)), ("--verifier", config.verifier, ("auto", *VERIFIERS)),
    ):  # fmt: skip
        if name not in known:
            raise UsageError(f"{flag}: {unknown(flag[2:], name, known)}")
    check_dtype(config.dtype)
    if config.drafter == "draft" and config.draft_model is None and config.target not in SHIPPED:
        raise UsageError("--drafter draft needs --draft-model: a folder or Hugging Face id of a smaller model")
    if config.drafter in TRAINED and config.draft_model is None:
        raise UsageError(
            f"--drafter {config.drafter} needs --draft-model: the folder of a run of `specdec train eagle --kind "
            f"{config.drafter}`; none is shipped"
        )
    if config.drafter not in ("draft", "eagle", "hybrid", "block", *TRAINED) and config.draft_model is not None:
        raise UsageError(
            f"--draft-model is for --drafter draft, eagle, hybrid, block, {', '.join(TRAINED)}, not "
            f"{config.drafter!r}: drop one of the two"
        )
    if config.drafter not in ("trie", "hybrid") and config.trie != TrieOptions():
        raise UsageError(f"--trie-... and --corpus are for --drafter trie or hybrid, not {config.drafter!r}")
    if config.drafter != "suffix" and config.suffix != SuffixOptions():
        raise UsageError(f"--suffix-... is for --drafter suffix, not {config.drafter!r}")
    if config.trie.corpus is not None and not Path(config.trie.corpus).is_file():
        raise UsageError(f"--corpus: there is no file {config.trie.corpus}")
    if config.adaptive is not None and config.adaptive not in CONTROLS:
        raise UsageError(f"--adaptive: {unknown('controller', config.adaptive, CONTROLS)}")
    if config.adaptive is not None and config.drafter == "none":
        raise UsageError("--adaptive decides the draft length, and --drafter none drafts nothing: drop one of the two")
    choose_verifier(config.verifier, config.sampling, lossy=config.lossy)


def check_dtype(name: str) -> None:
    """Refuse an unknown number format. Raises UsageError."""
    from specdec_ref.models.device import DTYPES

    known = ("auto", *DTYPES)
    if name.lower().removeprefix("torch.") not in known:
        raise UsageError(f"--dtype: {unknown('dtype', name, known)}")


def check_plots() -> None:
    """Raises RuntimeError if pictures cannot be drawn. To be called before anything is measured."""
    if find_spec("matplotlib") is None:
        raise RuntimeError("pictures need matplotlib: pip install 'specdec-ref[notebooks]'")


def open_session(config: SpecConfig) -> "Session":
    """The target and its tokenizer."""
    from specdec_ref.session import Session

    give_way()
    say(f"loading {config.target}")
    return Session.from_config(config, lean=True)


def give_way() -> None:
    """On a busy machine use one thread, unless the number was chosen: threads that wait for each other are slower."""
    import torch

    from specdec_ref.machine import thread_advice

    threads = torch.get_num_threads()
    if thread_advice() is not None and threads > 1:
        torch.set_num_threads(1)
        say(f"other programs use this machine: one thread, not {threads} (set OMP_NUM_THREADS={threads} to keep them)")


def engine_for(session: "Session", limits: Limits) -> "SpecEngine | None":
    """The engine of the session's set-up; None for plain decoding. Raises UsageError for a corpus that is no text."""
    config = session.config
    if config is None or config.drafter == "none":
        return None
    if config.adaptive is not None:
        announce_control(config.adaptive, config.drafter)
    return session.engine(limits=limits)


def announce_control(adaptive: str, drafter: str) -> None:
    """Say what an optimal controller may do first."""
    if adaptive == "optimal":
        say(f"what drafting by {drafter} costs on this machine: from the cache, or measured now, some ten seconds")


def console(*, stderr: bool = False) -> "Console":
    """rich's console on stdout or stderr, as they are now."""
    from rich.console import Console

    return Console(file=sys.stderr if stderr else sys.stdout, highlight=False)


def say(message: str, *, style: str = "dim") -> None:
    """One line for people, on stderr."""
    console(stderr=True).print(f"specdec: {message}", style=style, markup=False, soft_wrap=True)


def activation() -> str | None:
    """The command that puts `specdec` on the PATH; None if it is there, or if this environment has no such script."""
    script = Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin") / "activate"
    if shutil.which("specdec") is not None or not script.is_file():
        return None
    short = os.path.relpath(script)
    shown = str(script) if short.startswith("..") else short
    return shown if os.name == "nt" else f"source {shlex.quote(shown)}"


def typed(command: str) -> str:
    """A `specdec` command as it can be typed here: after activating the environment, where that is needed."""
    first = activation()
    return command if first is None else f"{first} && {command}"


def one_line(message: object) -> str:
    """An error's text on a single line."""
    return re.sub(r"\s+", " ", str(message)).strip()


def plural(count: int, noun: str, ending: str = "s") -> str:
    """1 prompt, 2 prompts."""
    return f"{count} {noun}{'' if count == 1 else ending}"


def spellings(budget: DraftBudget) -> str:
    """The three spellings of a budget, a line each."""
    return "  " + budget.describe().replace(" = ", "\n  = ")


def version() -> str:
    """The installed version, or that this is a source tree."""
    try:
        return metadata.version("specdec-ref")
    except metadata.PackageNotFoundError:
        return "(source tree, not installed)"
