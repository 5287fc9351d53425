"""`specdec demo`: two prompts, every decoder that can run, the guesses coloured as they come, and what it bought."""

import argparse
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from specdec_ref.cli.contest import PLAIN, Contest, Run, Task
from specdec_ref.cli.flags import add_model
from specdec_ref.cli.nearest import unknown
from specdec_ref.cli.shared import (
    UsageError,
    announce_control,
    check_dtype,
    console,
    open_session,
)
from specdec_ref.config import DraftBudget, SpecConfig

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.core import Drafter
    from specdec_ref.request import Limits
    from specdec_ref.session import Session

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "PLAIN", "TASKS", "Run", "Task", "add_arguments", "run"]

HELP = "watch it: two prompts, plain and with every drafter, coloured and measured"
DESCRIPTION = """\
An editing task and a question, answered by plain decoding and with every
drafter. Guesses appear in colour as they are accepted or rejected. A table then
shows how much faster each drafter was on this machine, and whether the text is
identical. About a minute on two slow cores.
"""
EPILOG = """\
The speed-up is tokens/s relative to plain decoding, without prefill: short runs
of each drafter between two plain ones, medians of up to three passes. Below 1
the guesses cost more time than they saved; this depends on the text. No drafter
can be faster than tau times plain decoding. A measured ratio above tau means
that other programs used the machine: it is measured once more, and then left
out.
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

ABOUT = {
    PLAIN: "one forward of the target a token",
    "ngram": "copies what followed the same words before",
    "trie": "copies what followed any of them, here or in other requests",
    "suffix": "copies the most frequent continuation, more of it after a longer match",
    "hybrid": "copies where that pays, asks the eagle head elsewhere",
    "layer-skip": "guesses with some of the target's own layers",
    "draft": "guesses with a smaller model",
    "eagle": "guesses from the target's own features",
}
SHOW_SECONDS = 28.0  # what the answers may take; shorter ones are asked for where this would not do
MEASURE_SECONDS = 24.0  # what timing may take; one pass is always made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_model(parser)
    group = parser.add_argument_group("demo")
    group.add_argument("--draft-model", metavar="MODEL", help="also run the drafter `draft`, with this model")
    group.add_argument("--depth", type=int, metavar="N", help="default: 3 eagle, 2 layer-skip, 4 draft, 6 others")
    group.add_argument("--adaptive", metavar="NAME", help="let this controller decide the lengths; see generate --help")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens an answer (default: 80 and 48)")


def run(args: argparse.Namespace) -> int:
    """Load, show every decoder once, time them in turn with plain decoding, sum up."""
    from specdec_ref.adaptive import CONTROLS
    from specdec_ref.cli.paint import legend
    from specdec_ref.cli.summary import print_summary
    from specdec_ref.cli.timing import measure
    from specdec_ref.request import Limits

    DraftBudget(4 if args.depth is None else args.depth)  # refuse bad numbers before a model is loaded
    check_dtype(args.dtype)
    if args.adaptive is not None and args.adaptive not in CONTROLS:
        raise UsageError(f"--adaptive: {unknown('controller', args.adaptive, CONTROLS)}")
    Limits(128 if args.max_new_tokens is None else args.max_new_tokens)
    out = console()
    session = open_session(SpecConfig(target=args.target, dtype=args.dtype, device=args.device))
    contest = _adapted(Contest(session, _decoders(session, args, out)), args.adaptive)
    work = _prepare(contest, args.max_new_tokens, out)
    out.print()
    out.print(legend(marked=out.color_system is None))
    answers: dict[tuple[Task, str], Run] = {}
    for task, (prompt, limits) in work.items():
        _introduce(task, len(prompt), out)
        for name in contest.decoders:
            answers[task, name] = _show(contest, name, prompt, limits, out)
    with out.status("timing short runs, each drafter between two plain ones"):
        timings = measure(contest, work, MEASURE_SECONDS)
    print_summary(contest, work, answers, timings, out)
    return 0


def _decoders(
    session: "Session", args: argparse.Namespace, out: "Console"
) -> "dict[str, tuple[Drafter, DraftBudget] | None]":
    """Plain and every drafter that this model and these arguments allow; for the others a line that says why not."""
    from rich.markup import escape

    from specdec_ref.drafters import DRAFTERS, build_drafter
    from specdec_ref.models.hub import ModelError

    found: dict[str, tuple[Drafter, DraftBudget] | None] = {PLAIN: None}
    for name in DRAFTERS:
        if name == "draft" and args.draft_model is None:
            out.print("[bold]draft[/] is left out: it needs a second, smaller model, --draft-model MODEL")
            continue
        usual = DraftBudget.suited_to(name, adaptive=args.adaptive is not None)
        budget = usual if args.depth is None else DraftBudget(args.depth)
        try:
            found[name] = (build_drafter(name, session.target, args.draft_model if name == "draft" else None), budget)
        except (ValueError, ModelError) as error:
            if name == "draft":  # it was asked for
                raise
            out.print(f"[bold]{name}[/] is left out: {escape(str(error))}")
    return found


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


def _prepare(contest: Contest, max_new_tokens: int | None, out: "Console") -> "dict[Task, tuple[list[int], Limits]]":
    """Prompts and limits. A slow or busy machine gets shorter answers rather than its user a long wait."""
    session = contest.session
    raw = not session.tokenizer.chat_template  # a base model goes on from the text as it is
    lengths = {task: max_new_tokens or task.max_new_tokens for task in TASKS}
    work = {task: (session.encode(task.prompt, raw=raw), session.limits(lengths[task])) for task in TASKS}
    expected = sum(_warm_up(contest, *item) for item in work.values())
    if expected <= SHOW_SECONDS or max_new_tokens is not None:
        return work
    share = SHOW_SECONDS / expected
    out.print(f"this machine is slow or busy: answers are cut to {share:.0%} of their length", style="dim")
    return {task: (prompt, session.limits(max(16, int(share * lengths[task])))) for task, (prompt, _) in work.items()}


def _warm_up(contest: Contest, prompt: Sequence[int], limits: "Limits") -> float:
    """Four rounds of each decoder, since the first use of a shape is slow; the seconds that whole answers may take."""
    expected = 0.0
    for name in contest.decoders:
        with closing(contest.rounds(name, prompt, limits)) as steps:
            done = list(islice(steps, 4))[1:]  # plain's first token costs nothing
        expected += limits.max_new_tokens * min((step.seconds / len(step.tokens) for step in done), default=0.0)
    return expected


def _introduce(task: Task, length: int, out: "Console") -> None:
    from rich.padding import Padding
    from rich.text import Text

    out.print()
    out.rule(f"[bold]{task.kind}[/]", align="left", style="dim")
    out.print(Padding(Text(task.prompt, style="italic"), (0, 2)))
    out.print(f"  ({length} tokens with the model's chat template)", style="dim")


def _show(contest: Contest, name: str, prompt: Sequence[int], limits: "Limits", out: "Console") -> Run:
    """One decoder's answer, coloured as it comes, and a line of counts."""
    from specdec_ref.cli.paint import Painter

    chosen = contest.decoders[name]
    gamma = f", gamma {chosen[1].depth}" if chosen else ""
    out.print(f"\n[bold]{name}[/]  [dim]{ABOUT.get(name, '')}{gamma}[/]")
    painter = Painter(out, contest.session.decode, byte_tokens=contest.session.byte_tokens)
    try:
        done = contest.run(name, prompt, limits, painter)
    finally:
        painter.end()
    numbers = f"{len(done.tokens)} tokens, one per forward of the target"
    if done.stats:
        rounds = f"{done.stats.rounds} forwards of the target"
        numbers = f"{len(done.tokens)} tokens in {rounds}: tau {done.stats.tau:.2f}, alpha {done.stats.alpha:.2f}"
    out.print(f"  {numbers}", style="dim")
    return done
