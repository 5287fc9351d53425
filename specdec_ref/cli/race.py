"""The demo's race: plain decoding beside the best drafter, in two columns, replayed as fast as it was measured."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specdec_ref.cli.paint import legend, marked, painted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from specdec_ref.cli.contest import Contest, Run
    from specdec_ref.cli.timing import Pair

__all__ = ["show_race"]

WIDE = 90  # columns from which on both answers stand side by side
LONGEST = 12.0  # seconds of a race that is still played; a longer one is shown as it ended
PAUSE = 1 / 25  # seconds between two pictures
END = float("inf")  # when both have finished


@dataclass(frozen=True, slots=True)
class _Lane:
    """One answer: its text by rounds, and the seconds after which each was there."""

    title: str
    run: "Run"
    pieces: list[Text]

    def column(self, seconds: float) -> "RenderableType":
        """What was there after so many seconds; at the end also the figures."""
        done = sum(moment <= seconds for moment in accumulate(step.seconds for step in self.run.steps))
        words = Text.assemble(*self.pieces[:done])
        forwards = len(self.run.steps)
        figures = f"{len(self.run.tokens)} tokens in {forwards} forward passes, {self.run.speed:.1f} tokens/s"
        return Group(Text(self.title, "bold"), words, Text(figures if done == forwards else " ", "dim"))


def show_race(
    contest: "Contest", pair: "Pair", name: str, out: "Console", sleep: Callable[[float], None] = time.sleep
) -> None:
    """Both answers: played on a terminal that is wide enough, side by side on a wide page, else one after the other."""
    session = contest.session

    def lane(title: str, run: "Run") -> _Lane:
        pieces = painted(run.steps, session.decode, marked=marked(out), rejected=False, byte_tokens=session.byte_tokens)
        return _Lane(title, run, pieces)

    lanes = [lane("plain decoding", pair.plain), lane(f"with guesses by {name}", pair.fast)]
    whole = max(run.seconds for run in (pair.plain, pair.fast))
    if out.width < WIDE:
        for each in lanes:
            out.print(Padding(each.column(END), (0, 0, 1, 2)))
    elif out.is_terminal and not out.is_dumb_terminal and whole <= LONGEST:
        _play(lanes, whole, out, sleep)
    else:
        out.print(_side_by_side(lanes, END))
    out.print(Padding(legend(marked=marked(out), rejected=False), (0, 0, 0, 2)))


def _side_by_side(lanes: Sequence[_Lane], seconds: float) -> Table:
    grid = Table.grid(padding=(0, 4, 0, 0), expand=True)
    for _ in lanes:
        grid.add_column(ratio=1)
    grid.add_row(*(each.column(seconds) for each in lanes))
    return grid


def _play(lanes: Sequence[_Lane], whole: float, out: "Console", sleep: Callable[[float], None]) -> None:
    """Picture after picture, by the clock on the wall."""
    from rich.live import Live

    started = time.perf_counter()
    with Live(_side_by_side(lanes, 0.0), console=out, auto_refresh=False, vertical_overflow="crop") as live:
        while (now := time.perf_counter() - started) < whole:
            live.update(_side_by_side(lanes, now), refresh=True)
            sleep(PAUSE)
        live.update(_side_by_side(lanes, END), refresh=True)
