"""`specdec demo`: two prompts, plain and with drafts: what it bought, the race to watch, then the figures."""

import argparse
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from specdec_ref.cli.contest import PLAIN, Contest, Task
from specdec_ref.cli.flags import add_model
from specdec_ref.cli.nearest import unknown
from specdec_ref.cli.shared import UsageError, announce_control, check_dtype, console, open_session, say
from specdec_ref.config import DraftBudget, SpecConfig

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.cli.timing import Pair
    from specdec_ref.core import Drafter
    from specdec_ref.request import Limits
    from specdec_ref.session import Session

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "TASKS", "add_arguments", "run"]

HELP = "watch it: two prompts, with and without drafts, side by side and measured"
DESCRIPTION = """\
Answer an editing task and a question, by plain decoding and with three drafters
that guess ahead, and show how much faster that was on this machine and whether
the text is identical. On a terminal of at least 90 columns the two answers then
run side by side at the measured speed. About a minute on two cores.
"""
EPILOG = """\
Each drafter is timed next to plain decoding, in up to three pairs of runs. The
figures shown are those of the pair with the median ratio. A ratio below 1 means
that the guesses cost more time than they saved; this depends on the text. No
drafter can be faster than tau times plain decoding. A pair with a ratio above
tau was disturbed by other programs and is not used.

Without colours (or with NO_COLOR set), brackets mark the guesses.
"""


TASKS = (
    Task(
        "editing",
        "Correct the spelling and repeat the whole text:\n\n"
        "The old lighthouse stands at the end of the harbour wall. Every evening the keeper climbs the ninety-two "
        "steps to the lantern room, lights the lamp and watches the ships come home. When the fog is thik, he rings "
        "the bell.",
        80,
    ),
    Task("chat", "Why is the sky blue?", 48),
)

USUAL = ("ngram", "draft", "eagle", "hybrid")  # the others need --all; draft needs --draft-model
ABOUT = {
    "ngram": "copies what followed the same words earlier in the text",
    "trie": "copies what followed them in this or earlier requests",
    "suffix": "copies the most frequent continuation, more of it after a longer match",
    "hybrid": "copies where that pays, asks the EAGLE head elsewhere",
    "layer-skip": "guesses with some of the target's own layers",
    "draft": "guesses with a smaller model",
    "eagle": "guesses from the target's own features",
    "p-eagle": "guesses all tokens from them in one pass",
    "mtp": "guesses from the target's last layer",
    "medusa": "guesses from one hidden state, a small head per position",
    "block": "guesses several tokens in one pass, from the target's own features",
}
PASS_SECONDS = 40.0  # what one pass over everything may take; shorter answers are asked for if it would take longer
DRAFTER_SECONDS = 13.0  # what timing may take per drafter; one pass is always made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_model(parser)
    group = parser.add_argument_group("demo")
    group.add_argument("--all", action="store_true", help="every drafter, not only ngram, eagle and hybrid")
    group.add_argument("-v", "--verbose", action="store_true", help="also show each drafter's guesses, one by one")
    group.add_argument("--draft-model", metavar="MODEL", help="also run the drafter `draft`, with this model")
    group.add_argument(
        "--depth", type=int, metavar="N", help="default: 16 suffix, 3 eagle, 2 layer-skip, 4 draft and block, else 6"
    )
    group.add_argument("--adaptive", metavar="NAME", help="adapt the draft length; names: specdec generate --help")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens per answer (default: 80 and 48)")


def run(args: argparse.Namespace) -> int:
    """Load, time every drafter next to plain decoding, then show the result, the race and the figures."""
    from specdec_ref.adaptive import CONTROLS
    from specdec_ref.cli.race import show_race
    from specdec_ref.cli.summary import best, print_details, print_result, verdict
    from specdec_ref.request import Limits

    DraftBudget(4 if args.depth is None else args.depth)  # refuse bad numbers before a model is loaded
    check_dtype(args.dtype)
    if args.adaptive is not None and args.adaptive not in CONTROLS:
        raise UsageError(f"--adaptive: {unknown('controller', args.adaptive, CONTROLS)}")
    Limits(128 if args.max_new_tokens is None else args.max_new_tokens)
    out = console()
    session = open_session(SpecConfig(target=args.target, dtype=args.dtype, device=args.device))
    decoders, left_out = _decoders(session, args)
    contest = _adapted(Contest(session, decoders), args.adaptive)
    work, pairs = _measure(contest, args.max_new_tokens)
    print_result(pairs, out)
    task, name = next(((task, name) for task, name in best(pairs).items() if name is not None), (None, None))
    if task is not None and name is not None:
        out.print()
        out.rule(f"[bold]the {task.kind} answer, at the measured speed[/]", align="left", style="dim")
        show_race(contest, pairs[task, name], name, out)
    if args.verbose:
        _show_guesses(contest, work, pairs, out)
    print_details(contest, work, pairs, left_out, out)
    out.print(f"\n{verdict(pairs)}", style="bold", markup=False)
    return 0


def _decoders(
    session: "Session", args: argparse.Namespace
) -> "tuple[dict[str, tuple[Drafter, DraftBudget] | None], list[str]]":
    """Plain and the drafters that this model and these arguments allow; for the others a line that gives the reason."""
    from specdec_ref.drafters import DRAFTERS, build_drafter
    from specdec_ref.models.hub import ModelError

    found: dict[str, tuple[Drafter, DraftBudget] | None] = {PLAIN: None}
    left_out = []
    for name in DRAFTERS:
        if name == "draft" and args.draft_model is None:
            left_out.append("draft (it needs a second, smaller model: --draft-model MODEL)")
            continue
        if name not in USUAL and not args.all:
            left_out.append(f"{name} (--all includes it)")
            continue
        usual = DraftBudget.suited_to(name, adaptive=args.adaptive is not None)
        budget = usual if args.depth is None else DraftBudget(args.depth)
        try:
            found[name] = (build_drafter(name, session.target, args.draft_model if name == "draft" else None), budget)
        except (ValueError, ModelError) as error:
            if name == "draft":  # it was asked for
                raise
            left_out.append(f"{name} ({error})")
    return found, left_out


def _adapted(contest: Contest, adaptive: str | None) -> Contest:
    """Every drafter with a controller of its own, which goes on learning from answer to answer."""
    if adaptive is None:
        return contest
    from specdec_ref.calibrate import controller

    decoders, controls = dict(contest.decoders), {}
    for name, chosen in contest.decoders.items():
        if chosen is not None:
            drafter, budget = chosen
            announce_control(adaptive, name)
            controls[name], budget = controller(adaptive, contest.session, name, drafter, budget)
            decoders[name] = drafter, budget
    return Contest(contest.session, decoders, controls)


def _measure(
    contest: Contest, max_new_tokens: int | None
) -> "tuple[dict[Task, tuple[list[int], Limits]], dict[tuple[Task, str], Pair]]":
    """Prompts with their limits, and a pair of runs for every prompt and drafter. Shows progress on stderr."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from specdec_ref.cli.timing import PASSES, measure

    say(f"timing plain decoding and {', '.join(contest.drafters)} on two prompts: about a minute")
    columns = (TextColumn("specdec:"), BarColumn(20), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("timing", total=PASSES * len(TASKS) * len(contest.drafters))
        work = _prepare(contest, max_new_tokens)
        seconds = DRAFTER_SECONDS * len(contest.drafters)
        return work, measure(contest, work, seconds, tick=lambda: bar.advance(task))


def _prepare(contest: Contest, max_new_tokens: int | None) -> "dict[Task, tuple[list[int], Limits]]":
    """Prompts and limits. On a slow or busy machine the answers are shorter, so that nobody waits for minutes."""
    session = contest.session
    raw = not session.tokenizer.chat_template  # a base model continues the text as it is
    lengths = {task: max_new_tokens or task.max_new_tokens for task in TASKS}
    work = {task: (session.encode(task.prompt, raw=raw), session.limits(lengths[task])) for task in TASKS}
    expected = sum(_warm_up(contest, *item) for item in work.values())
    if expected <= PASS_SECONDS or max_new_tokens is not None:
        return work
    share = PASS_SECONDS / expected
    say(f"this machine is slow or busy: answers are cut to {share:.0%} of their length")
    return {task: (prompt, session.limits(max(16, int(share * lengths[task])))) for task, (prompt, _) in work.items()}


def _warm_up(contest: Contest, prompt: Sequence[int], limits: "Limits") -> float:
    """Four rounds of each decoder, since the first use of a shape is slow; the seconds that a pass may take."""
    expected = 0.0
    for name in contest.decoders:
        with closing(contest.rounds(name, prompt, limits)) as steps:
            done = list(islice(steps, 4))[1:]  # plain's first token costs nothing
        runs = len(contest.drafters) if name == PLAIN else 1
        expected += runs * limits.max_new_tokens * min((step.seconds / len(step.tokens) for step in done), default=0.0)
    return expected


def _show_guesses(
    contest: Contest,
    work: "dict[Task, tuple[list[int], Limits]]",
    pairs: "dict[tuple[Task, str], Pair]",
    out: "Console",
) -> None:
    """Every answer with drafts, its guesses coloured, and a line of counts."""
    from rich.padding import Padding
    from rich.text import Text

    from specdec_ref.cli.paint import Painter, legend, marked

    before = None
    for (task, name), pair in pairs.items():
        if task != before:
            before = task
            out.print()
            out.rule(f"[bold]{task.kind}[/]", align="left", style="dim")
            out.print(Padding(Text(task.prompt, style="italic"), (0, 2)))
            out.print(f"  ({len(work[task][0])} tokens with the model's chat template)", style="dim")
            out.print(Padding(legend(marked=marked(out)), (0, 2)))
        chosen = contest.decoders[name]
        gamma = f", gamma {chosen[1].depth}" if chosen else ""
        out.print(f"\n[bold]{name}[/]  [dim]{ABOUT.get(name, '')}{gamma}[/]")
        painter = Painter(out, contest.session.decode, byte_tokens=contest.session.byte_tokens)
        for step in pair.fast.steps:
            painter.show(step)
        painter.end()
        counts = f"{len(pair.fast.tokens)} tokens in {len(pair.fast.steps)} forwards of the target"
        out.print(f"  {counts}: tau {pair.tau:.2f}, alpha {pair.alpha:.2f}", style="dim")
