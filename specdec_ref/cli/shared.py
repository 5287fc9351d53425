"""What the commands have in common: arguments, checks before anything heavy, errors, the console."""

import argparse
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig, TrieOptions
from specdec_ref.request import Limits

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.adaptive import LengthControl
    from specdec_ref.core import Drafter
    from specdec_ref.engine import SpecEngine
    from specdec_ref.session import Session

__all__ = [
    "ADAPTIVE_DEPTH", "Parser", "UsageError", "check_names", "config_from", "console", "control_for", "default_depth",
    "engine_for", "one_line", "open_session", "plural", "say", "spellings", "version",
]  # fmt: skip

ADAPTIVE_DEPTH = 12  # what a controller may choose up to, unless told
# gamma: the less a guess costs, the longer a draft may be; eagle: the better of 3 and 4 on the dev split, two cores
DEPTHS = {"ngram": 6, "trie": 6, "hybrid": 6, "eagle": 3, "layer-skip": 2}


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
        super().__init__(prog, add_help=False, allow_abbrev=False, formatter_class=_formatter, **settings)
        self.add_argument("-h", "--help", action=_Help, nargs=0, help="show this text and exit")
        self.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)  # main looks for it by itself

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but a list of words (nargs "*") also takes words that stand behind an option."""
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if action.nargs == "*" and not action.option_strings:
                words = [word for word in rest if not word.startswith("-")]
                setattr(found, action.dest, [*getattr(found, action.dest), *words])
                rest = [word for word in rest if word.startswith("-")]
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(f"{message}; see `{self.prog} --help`")


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=24, width=80)


def default_depth(drafter: str) -> int:
    """The draft length gamma for this drafter, unless told."""
    return DEPTHS.get(drafter, DraftBudget().depth)


def config_from(args: argparse.Namespace) -> SpecConfig:
    """The set-up that the arguments spell. Raises ValueError for numbers out of range."""
    depth = args.depth
    if depth is None:
        depth = ADAPTIVE_DEPTH if args.adaptive else default_depth(args.drafter)
    return SpecConfig(
        target=args.target, drafter=args.drafter, draft_model=args.draft_model,
        verifier=args.verifier, lossy=args.lossy,
        budget=DraftBudget(depth, args.topk, args.nodes, args.min_confidence),
        trie=TrieOptions(
            args.trie_match, args.trie_depth, args.trie_min_breadth, args.trie_max_breadth, args.trie_capacity,
            args.corpus,
        ),
        sampling=SamplingParams(args.temperature, args.top_k, args.top_p, args.min_p),
        dtype=args.dtype, device=args.device, adaptive=args.adaptive,
    )  # fmt: skip


def check_names(config: SpecConfig) -> None:
    """Refuse unknown names before a model is loaded. Raises UsageError or ValueError."""
    from specdec_ref.adaptive import CONTROLS
    from specdec_ref.drafters import DRAFTERS
    from specdec_ref.verifiers import choose_verifier
    from specdec_ref.weights import SHIPPED

    if config.drafter not in ("none", *DRAFTERS):
        raise UsageError(f"unknown drafter {config.drafter!r}; choose from none, {', '.join(DRAFTERS)}")
    if config.drafter == "draft" and config.draft_model is None and config.target not in SHIPPED:
        raise UsageError("--drafter draft needs --draft-model: a folder or Hugging Face id of a smaller model")
    if config.drafter not in ("draft", "eagle", "hybrid") and config.draft_model is not None:
        raise UsageError(
            f"--draft-model is for --drafter draft, eagle or hybrid, not {config.drafter!r}: drop one of the two"
        )
    if config.drafter not in ("trie", "hybrid") and config.trie != TrieOptions():
        raise UsageError(f"--trie-... and --corpus are for --drafter trie or hybrid, not {config.drafter!r}")
    if config.trie.corpus is not None and not Path(config.trie.corpus).is_file():
        raise UsageError(f"--corpus: there is no file {config.trie.corpus}")
    if config.adaptive is not None and (config.adaptive not in CONTROLS or config.drafter == "none"):
        raise UsageError(f"--adaptive {config.adaptive!r}: choose from {', '.join(CONTROLS)}, with a drafter")
    choose_verifier(config.verifier, config.sampling, lossy=config.lossy)


def open_session(config: SpecConfig) -> "Session":
    """The target and its tokenizer."""
    from specdec_ref.session import Session

    say(f"loading {config.target}")
    return Session.open(config.target, dtype=config.dtype, device=config.device)


def engine_for(session: "Session", config: SpecConfig, limits: Limits) -> "SpecEngine | None":
    """The engine of this set-up; None for plain decoding."""
    from specdec_ref.drafters import build_drafter

    if config.drafter == "none":
        return None
    drafter = build_drafter(config.drafter, session.target, config.draft_model, config.trie)
    if config.trie.corpus is not None:
        _warm(drafter, session, Path(config.trie.corpus))
    control, budget = None, config.budget
    if config.adaptive is not None:
        name = config.drafter + (f"={config.draft_model}" if config.draft_model else "")
        control, budget = control_for(config.adaptive, session, name, drafter, budget)
    return session.engine(
        drafter, budget=budget, sampling=config.sampling, verifier=config.verifier, limits=limits, lossy=config.lossy,
        control=control,
    )  # fmt: skip


def control_for(
    adaptive: str, session: "Session", name: str, drafter: "Drafter", budget: DraftBudget
) -> "tuple[LengthControl | None, DraftBudget]":
    """A controller by name; the optimal one looks up or measures what this drafter costs here."""
    from specdec_ref.calibrate import controller

    if adaptive == "optimal":
        say(f"what drafting by {name} costs on this machine: from the cache, or measured now, some ten seconds")
    return controller(adaptive, session, name, drafter, budget)


def _warm(drafter: Any, session: "Session", corpus: Path) -> None:
    """Teach a trie a text. Raises UsageError if it is none."""
    try:
        tokens = session.encode(corpus.read_text(encoding="utf-8"), raw=True)
    except ValueError as error:
        raise UsageError(f"--corpus {corpus}: {error}") from error
    drafter.warm(tokens)


def console(*, stderr: bool = False) -> "Console":
    """rich's console on stdout or stderr, as they are now."""
    from rich.console import Console

    return Console(file=sys.stderr if stderr else sys.stdout, highlight=False)


def say(message: str, *, style: str = "dim") -> None:
    """One line for people, on stderr."""
    console(stderr=True).print(f"specdec: {message}", style=style, markup=False, soft_wrap=True)


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
