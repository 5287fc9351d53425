"""The demo's last page: a table of what speculation bought, whether the texts are the same, and what the words mean."""

from collections.abc import Mapping, Sequence
from math import floor
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from specdec_ref.cli.contest import PLAIN
from specdec_ref.cli.identity import parting
from specdec_ref.cli.timing import BUSY
from specdec_ref.identity import first_difference
from specdec_ref.machine import machine_line
from specdec_ref.palette import PALETTE

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.cli.contest import Contest, Run, Task
    from specdec_ref.cli.timing import Timing
    from specdec_ref.request import Limits

__all__ = ["print_summary", "verdict"]

_BAR, _BAR_FROM = 2, 80  # columns of a bar for a speed-up of 1; bars are shown from this width on


def print_summary(
    contest: "Contest",
    work: "Mapping[Task, tuple[list[int], Limits]]",
    answers: "Mapping[tuple[Task, str], Run]",
    timings: "Mapping[tuple[Task, str], Timing]",
    out: "Console",
) -> None:
    """Table, differences, words, machine, what to try next, and the result in one sentence."""
    out.print()
    out.rule("[bold]what it bought[/]", align="left", style="dim")
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for column in ("prompt", "decoder"):
        table.add_column(column, no_wrap=True)
    for column in ("tokens/s", "tau", "alpha"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("speed-up", no_wrap=True)
    table.add_column("text", no_wrap=True)
    notes = []
    for (task, name), answer in answers.items():
        reference = answers[task, PLAIN]
        at = first_difference(answer.tokens, reference.tokens)
        same = "" if name == PLAIN else "identical" if at is None else "differs"
        row = _numbers(timings[task, name], out)
        table.add_row(task.kind if name == PLAIN else "", name, *row, same)
        if at is not None:
            notes.append(_note(contest, f"{task.kind}, {name}", work[task][0], reference.tokens, answer.tokens, at))
    out.print(table)
    if any(timing.speedup is None for timing in timings.values()):
        out.print(f"\n{BUSY} where it reads busy. Other programs used the processor; try again when they are done.")
    for note in notes:
        out.print(note, markup=False)
    out.print(_words(contest), style="dim")
    out.print("\nnext: [bold]specdec generate[/] asks your own, [bold]specdec doctor[/] measures what guesses cost")
    out.print(f"\n{verdict(answers, timings)}", style="bold", markup=False)


def verdict(answers: "Mapping[tuple[Task, str], Run]", timings: "Mapping[tuple[Task, str], Timing]") -> str:
    """The result in a sentence for readers who are new to it."""
    usable = {key: timing.speedup for key, timing in timings.items() if key[1] != PLAIN and timing.speedup is not None}
    texts = [first_difference(answer.tokens, answers[task, PLAIN].tokens) for (task, _), answer in answers.items()]
    same = "every text was identical to the model's own"
    if any(at is not None for at in texts):
        same = "the texts were the model's own except where the notes above say"
    if not usable:
        return f"In short: the machine was too busy to time anything, but {same}."
    (task, name), speedup = max(usable.items(), key=lambda item: item[1])
    if speedup <= 1:
        return f"In short: guessing ahead saved no time on this machine, and {same}."
    return (
        f"In short: by guessing ahead with {name} and letting the model check the guesses, the {task.kind} answer came "
        f"{floor(100 * speedup) / 100:.2f} times as fast, and {same}."
    )


def _numbers(timing: "Timing", out: "Console") -> tuple[str, str, str, Text]:
    """The figures of one row; without a usable timing, the word busy in place of speeds."""
    tau, alpha = f"{timing.tau:.2f}", "" if timing.alpha is None else f"{timing.alpha:.2f}"
    if timing.speedup is None:
        return "busy", tau, alpha, Text("busy")
    shown = floor(100 * timing.speedup) / 100 if timing.alpha is not None else timing.speedup  # never above tau
    cell = Text(f"{shown:.2f} x")
    if out.width >= _BAR_FROM and not out.options.ascii_only:
        colour = PALETTE["target" if timing.alpha is None else "accepted" if timing.speedup >= 1 else "rejected"]
        cell.append(" " + "█" * max(1, round(_BAR * min(timing.speedup, 4.5))), colour)
    return f"{timing.speed:.1f}", tau, alpha, cell


def _note(
    contest: "Contest", where: str, prompt: Sequence[int], plain: Sequence[int], other: Sequence[int], at: int
) -> str:
    """Why a text may differ from plain's: measured at the place."""
    if at >= min(len(plain), len(other)):
        return f"{where}: one text ends before the other, which rounding cannot explain: please report it."
    target, decode = contest.session.target, contest.session.decode
    look = parting(target, prompt, plain, at, other[at])
    dtype = str(target.dtype).removeprefix("torch.")
    verdict = (
        f"a near tie that {dtype} rounding decides: one row of a matrix product is rounded differently beside others. "
        "--dtype float64 gives the same text"
        if look.explained
        else "more than rounding explains: please report it"
    )
    return (
        f"\n{where}: token {at + 1} is {decode(other[at : at + 1])!r}, plain has {decode(plain[at : at + 1])!r}. The "
        f"target's logits for them are {look.gap:.2g} apart, and rounding moves a logit by up to "
        f"{look.noise:.2g}: {verdict}."
    )


def _words(contest: "Contest") -> Text:
    target = contest.session.target
    dtype = str(target.dtype).removeprefix("torch.")
    return Text(
        "\ntau       mean tokens per forward of the target"
        "\nalpha     share of the tested guesses that were accepted"
        "\nspeed-up  tokens/s relative to plain decoding, without"
        "\n          prefill; medians of short runs"
        f"\n\n{contest.session.name} in {dtype} on {machine_line(target.device)}"
    )
