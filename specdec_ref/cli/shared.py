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
    "ADAPTIVE_DEPTH", "Parser", "UsageError", "add_drafting", "add_model", "add_sampling", "add_trie", "check_names",
    "config_from", "console", "control_for",
    "engine_for", "one_line", "open_session", "plural", "say", "spellings", "version",
]  # fmt: skip

ADAPTIVE_DEPTH = 12  # what a controller may choose up to, unless told


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


def add_model(parser: argparse.ArgumentParser) -> None:
    """--target, --dtype, --device."""
    default = SpecConfig()
    group = parser.add_argument_group("model", "The target is the model whose text is wanted.")
    group.add_argument(
        "--target", default=default.target, metavar="MODEL",
        help=f"{default.target} (the embedded one, default), a local folder, or a Hugging Face id, org/name",
    )  # fmt: skip
    group.add_argument(
        "--dtype", default=default.dtype, metavar="TYPE",
        help="auto (bfloat16 where the processor multiplies it natively, else float32), float32, bfloat16, float16, "
        "float64",
    )  # fmt: skip
    group.add_argument(
        "--device", default=default.device, metavar="NAME", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps"
    )


def add_drafting(parser: argparse.ArgumentParser) -> None:
    """--drafter, --verifier and the budget."""
    default, budget = SpecConfig(), DraftBudget()
    group = parser.add_argument_group(
        "drafting",
        "Each round a drafter guesses up to gamma tokens, and one forward of the target\n"
        f"checks them all. The default budget, in three spellings:\n{spellings(budget)}",
    )
    group.add_argument(
        "--drafter", default=default.drafter, metavar="NAME",
        help="ngram (default): prompt lookup, copies what followed the same words earlier in the text, for nothing; "
        "trie: what followed them in any text, a tree of it; "
        "layer-skip: the target with layers left out; draft: a smaller model; eagle: a trained head that reads the "
        "target's own features; both: the one shipped for this target or --draft-model's; "
        "hybrid: trie and eagle in one tree, each where it is better; none: plain decoding, one forward a token",
    )  # fmt: skip
    group.add_argument(
        "--draft-model", metavar="MODEL",
        help="draft: a folder or id, with the target's vocabulary; eagle, hybrid: a head's folder or file",
    )  # fmt: skip
    group.add_argument(
        "--verifier", default=default.verifier, metavar="NAME",
        help="auto (default): the one of these that fits, and keeps the target's law; greedy: keeps guesses that "
        "are the target's first choice, for temperature 0; rejection: keeps guess x of a chain with probability "
        "min(1, p(x)/q(x)); target_only: trees, keeps the child that a draw from p would have been; multi_round: "
        "trees of drawn children, each tested against the q it came from; block: chains, judged as a whole, accepts "
        "more than rejection; with --lossy also typical: keeps what p finds plausible, and threshold: keeps what p "
        "gives at least 1/2",
    )  # fmt: skip
    group.add_argument("--lossy", action="store_true", help="allow a verifier that changes the law of the text")
    group.add_argument(
        "--adaptive", metavar="NAME",
        help="decide the length anew each round, up to --depth (then 12): plus-minus: transformers' heuristic; ema: "
        "SGLang's tiers; window: by the mean acceptance of ten drafts; confidence: stop after an unsure guess; "
        "optimal: most tokens a second by running acceptance and this machine's costs, measured once, where no guess "
        "is a choice, too; constant",
    )  # fmt: skip
    for flag, kind, value, text in (
        ("--depth", int, None, f"gamma, the longest branch (default {budget.depth}); 0: no guesses"),
        ("--topk", int, budget.topk, f"children a node may have, for drafters that grow trees (default {budget.topk})"),
        ("--nodes", int, budget.nodes, "cap on the tree, its root included (default: depth + 1, a chain)"),
        ("--min-confidence", float, budget.min_confidence, "a draft model stops after a guess less likely than this"),
    ):
        group.add_argument(flag, type=kind, default=value, metavar="N" if kind is int else "Q", help=text)


def add_trie(parser: argparse.ArgumentParser) -> None:
    """The options of the shared trie."""
    default = TrieOptions()
    group = parser.add_argument_group(
        "trie", "For the drafters trie and hybrid. --topk says how wide a draft may get,\n--nodes how large."
    )
    group.add_argument(
        "--trie-match", default=default.match, metavar="NAME",
        help="bfs (default): prefer what was said last; prob: what was said most",
    )  # fmt: skip
    for flag, value, text in (
        ("--trie-depth", default.max_depth, "match and guesses together, in tokens"),
        ("--trie-min-breadth", default.min_breadth, "bfs: children of a node after the longest match"),
        ("--trie-max-breadth", default.max_breadth, "bfs: after the shortest; prob: everywhere"),
        ("--trie-capacity", default.capacity, "nodes, about 0.6 kB each; the least recently used go"),
    ):
        group.add_argument(flag, type=int, default=value, metavar="N", help=f"{text} (default {value})")
    group.add_argument("--corpus", metavar="FILE", help="a text that the trie learns beforehand")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Temperature and the rest, and when to end."""
    group = parser.add_argument_group(
        "sampling", "Temperature 0 takes the likeliest token (greedy). Above it, tokens are drawn\nfrom the law p."
    )
    default = SamplingParams()
    for flag, kind, value, text in (
        ("--temperature", float, default.temperature, "flattens p above 1, sharpens it below (default 0)"),
        ("--top-k", int, default.top_k, "keep the N likeliest tokens (default 0: off)"),
        ("--top-p", float, default.top_p, "keep the likeliest tokens up to this mass (default 1: off)"),
        ("--min-p", float, default.min_p, "drop tokens less likely than this share of the likeliest (default 0: off)"),
        ("--seed", int, 0, "prompt i (from 0) draws with seed + i, whatever its batch (default 0)"),
        ("--max-new-tokens", int, Limits().max_new_tokens, f"default {Limits().max_new_tokens}"),
    ):
        group.add_argument(flag, type=kind, default=value, metavar="N" if kind is int else "X", help=text)
    group.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    group.add_argument("--ignore-eos", action="store_true", help="go on after the model's end-of-text token")


def config_from(args: argparse.Namespace) -> SpecConfig:
    """The set-up that the arguments spell. Raises ValueError for numbers out of range."""
    depth = args.depth
    if depth is None:
        depth = ADAPTIVE_DEPTH if args.adaptive else DraftBudget().depth
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
    from specdec_ref.bench.calibrate import controller

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
