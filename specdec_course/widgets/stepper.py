"""Trace stepper: a real run, one round at a time: what was guessed, what stayed, what the target added."""

from collections.abc import Callable, Sequence

from specdec_course.plots import Box, strip
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_course.widgets.painted import LEGEND, painted
from specdec_ref.trace import Round

__all__ = ["step_view", "trace_stepper"]

Decode = Callable[[Sequence[int]], str]
SHOWN = 7  # drafts that fit into a row of the picture


def boxes(step: Round, decode: Decode, odds: Sequence[float] = ()) -> tuple[list[Box], list[Box]]:
    """(what the drafter proposed, what the round emitted). `odds`: acceptance probability of each tested draft."""
    notes = [f"{chance:.2f}" for chance in odds]
    kinds = [(token, "accepted") for token in step.accepted] + [(token, "rejected") for token in step.rejected]
    proposed = [
        Box(decode([token]), kind, notes[i] if i < len(notes) else "") for i, (token, kind) in enumerate(kinds)
    ] + [Box(decode([token]), "prompt") for token in step.untested]
    emitted = [Box(decode([token]), "accepted") for token in step.accepted]
    if step.added is not None:
        emitted.append(Box(decode([step.added]), "bonus" if proposed else "target"))
    return proposed[:SHOWN], emitted[: SHOWN + 1]


def step_view(rounds: Sequence[Round], decode: Decode, number: int, odds: Sequence[Sequence[float]] = ()) -> View:
    """Round `number`, counted from 1: the text up to it, and the round itself as two rows of tokens."""
    step = rounds[number - 1]
    chances = odds[number - 1] if odds else ()
    proposed, emitted = boxes(step, decode, chances)
    so_far = sum(len(done.tokens) for done in rounds[:number])
    drafted = len(step.accepted) + len(step.rejected) + len(step.untested)
    last = {"bonus": "every guess held, so its last token is a bonus", "correction": "its last token corrects a guess"}
    why = "nothing was guessed: a plain step" if not drafted else last[step.kind]
    html = (
        f"<p>{LEGEND}</p>{painted(rounds[:number], decode, rejects=False)}"
        f"<p>Round {number} of {len(rounds)}: {drafted} guessed, <b>{len(step.accepted)} accepted</b>, "
        f"{len(step.tokens)} emitted; {why}. So far {_count(so_far, 'token')} from {_count(number, 'forward')}: "
        f"<b>tau = {so_far / number:.2f}</b>.</p>"
    )
    alt = (
        f"Round {number}: {drafted} drafts proposed, {len(step.accepted)} accepted, {len(step.tokens)} tokens emitted."
    )
    title = "the draft proposes" + "\n(chance of being kept)" * bool(chances)
    rows = [(title, proposed or [Box("no guess", "prompt")]), ("the round emits", emitted)]
    return View(html, strip(rows, alt=alt))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def trace_stepper(rounds: Sequence[Round], decode: Decode, odds: Sequence[Sequence[float]] = ()) -> Explorer:
    """A slider over the rounds; it starts in the middle, where there is text to look back on.

    `odds[i]`: min(1, p/q) of each draft tested in round i, drawn below the boxes. Raises ValueError without rounds.
    """
    if not rounds:
        raise ValueError("there is no round to show: run an engine first, e.g. list(trace.rounds(engine, prompt))")
    knob = Knob("round", "one forward of the target each", 1, len(rounds), (len(rounds) + 1) // 2)
    return Explorer.build([knob], lambda number: step_view(rounds, decode, round(number), odds))
