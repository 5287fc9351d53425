"""The demo's last page: a table of what speculation bought, whether the texts are the same, and what the words mean."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from specdec_ref.cli.contest import PLAIN
from specdec_ref.cli.identity import parting
from specdec_ref.cli.shared import plural
from specdec_ref.identity import first_difference
from specdec_ref.machine import machine_line
from specdec_ref.palette import PALETTE

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.cli.contest import Contest, Run, Task
    from specdec_ref.request import Limits

__all__ = ["print_summary"]

_BAR = 2  # columns of a bar for a speed-up of 1: the table fits 80 columns up to 4.5


def print_summary(
    contest: "Contest", work: "Mapping[Task, tuple[list[int], Limits]]",
    runs: "Mapping[tuple[Task, str], Sequence[Run]]", out: "Console",
) -> None:  # fmt: skip
    """Table, differences, words, machine, what to try next."""
    out.print()
    out.rule("[bold]what it bought[/]", align="left", style="dim")
    table = Table(box=None, pad_edge=True, header_style="bold")
    table.add_column("prompt")
    table.add_column("decoder")
    for column in ("tokens/s", "tau", "alpha"):
        table.add_column(column, justify="right")
    table.add_column("speed-up")
    table.add_column("text")
    notes = []
    for (task, name), row in runs.items():
        reference = runs[task, PLAIN]
        if name == PLAIN and table.row_count:
            table.add_section()
        at = first_difference(row[0].tokens, reference[0].tokens)
        same = "" if name == PLAIN else "identical" if at is None else f"parts at token {at + 1}"
        table.add_row(task.kind if name == PLAIN else "", name, *_numbers(row, reference), same)
        if at is not None:
            notes.append(_note(contest, f"{task.kind}, {name}", work[task][0], reference[0].tokens, row[0].tokens, at))
    out.print(table)
    for note in notes:
        out.print(note, markup=False)
    out.print(_words(contest, len(next(iter(runs.values())))), style="dim")
    out.print("\nnext: [bold]specdec generate[/] asks your own, [bold]specdec doctor[/] measures what guesses cost")


def _numbers(row: "Sequence[Run]", reference: "Sequence[Run]") -> tuple[str, str, str, Text]:
    """Medians over the passes; the speed-up is the median of the ratios within each pass."""
    stats = row[0].stats
    speedup = median(run.speed / plain.speed for run, plain in zip(row, reference, strict=True))
    colour = PALETTE["target" if stats is None else "accepted" if speedup >= 1 else "rejected"]
    bar = Text.assemble(f"{speedup:5.2f} x ", ("█" * max(1, round(_BAR * min(speedup, 4.5))), colour))
    if stats is None:
        return f"{median(run.speed for run in row):.1f}", "1", "", bar
    return f"{median(run.speed for run in row):.1f}", f"{stats.tau:.2f}", f"{stats.alpha:.2f}", bar


def _note(
    contest: "Contest", where: str, prompt: Sequence[int], plain: Sequence[int], other: Sequence[int], at: int
) -> str:
    """Why a text may differ from plain's: measured at the place."""
    if at >= min(len(plain), len(other)):
        return f"{where}: one text ends before the other, which rounding cannot explain: please report it."
    target, decode = contest.session.target, contest.session.decode
    look = parting(target, prompt, plain, at)
    dtype = str(target.dtype).removeprefix("torch.")
    verdict = (
        f"a near tie that {dtype} rounding decides: one row of a matrix product is rounded differently beside others. "
        "--dtype float64 gives the same text"
        if look.explained
        else "more than rounding explains: please report it"
    )
    return (
        f"\n{where}: token {at + 1} is {decode(other[at : at + 1])!r}, plain has {decode(plain[at : at + 1])!r}. The "
        f"target's two best logits there are {look.gap:.2g} apart, and rounding moves a logit by up to "
        f"{look.noise:.2g}: {verdict}."
    )


def _words(contest: "Contest", passes: int) -> Text:
    target = contest.session.target
    dtype = str(target.dtype).removeprefix("torch.")
    return Text(
        "\ntau       mean tokens a forward of the target, its own token included"
        "\nalpha     share of the tested guesses that were accepted"
        f"\nspeed-up  tokens/s over plain's, without prefill; median of {plural(passes, 'pass', 'es')}"
        f"\n\n{contest.session.name} in {dtype} on {machine_line(target.device)}"
    )
