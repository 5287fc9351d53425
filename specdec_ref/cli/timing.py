"""How fast each drafter of the demo is: pairs of runs, one plain and one with drafts, side by side in time.

All figures of a drafter come from one pair, so they agree: the pair with the median ratio, of up to three. The plain
run comes first in the first pass, second in the next, and so on.

A round emits tau tokens and takes at least as long as a plain step, so no drafter can be more than tau times as fast as
plain decoding. A pair with a larger ratio was disturbed by other programs and is not used.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

from specdec_ref.cli.contest import PLAIN

if TYPE_CHECKING:
    from specdec_ref.cli.contest import Contest, Run, Task
    from specdec_ref.request import Limits

__all__ = ["PASSES", "Pair", "measure"]

PASSES = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt decoded twice, the two runs next to each other in time."""

    plain: "Run"
    fast: "Run"

    @property
    def tau(self) -> float:
        """Mean tokens per target forward of the run with drafts."""
        stats = self.fast.stats
        return 1.0 if stats is None else stats.tau

    @property
    def alpha(self) -> float:
        """Share of the tested drafts that were accepted."""
        stats = self.fast.stats
        return 0.0 if stats is None else stats.alpha

    @property
    def ratio(self) -> float:
        """How many times as fast the drafts made it: the quotient of the two speeds that are shown, rounded down."""
        return floor(100 * self.fast.speed / max(self.plain.speed, 1e-9) + 1e-9) / 100

    @property
    def usable(self) -> bool:
        """False if the ratio is above tau, which is impossible."""
        return self.ratio <= self.tau


def measure(
    contest: "Contest",
    work: "Mapping[Task, tuple[Sequence[int], Limits]]",
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    tick: Callable[[], None] = lambda: None,
) -> "dict[tuple[Task, str], Pair]":
    """For every prompt and drafter the pair with the median ratio: up to three passes, as many as fit into `seconds`.

    A drafter without a usable pair is measured in as many passes again; if that brings none either, its last pair is
    returned. `tick` is called after each pair.
    """
    cells = [(task, name) for task in work for name in contest.drafters]
    pairs = _passes(contest, work, cells, seconds, clock, tick)
    doubtful = [cell for cell in cells if not any(pair.usable for pair in pairs[cell])]
    again = _passes(contest, work, doubtful, seconds, clock, tick)
    return {cell: _middle([*pairs[cell], *again.get(cell, [])]) for cell in cells}


def _passes(
    contest: "Contest",
    work: "Mapping[Task, tuple[Sequence[int], Limits]]",
    cells: "Sequence[tuple[Task, str]]",
    seconds: float,
    clock: Callable[[], float],
    tick: Callable[[], None],
) -> "dict[tuple[Task, str], list[Pair]]":
    pairs: dict[tuple[Task, str], list[Pair]] = {cell: [] for cell in cells}
    started = clock()
    for number in range(PASSES if cells else 0):
        if number and (clock() - started) * (number + 1) / number > seconds:
            break
        for task, name in cells:
            order = (PLAIN, name) if number % 2 == 0 else (name, PLAIN)
            runs = {decoder: contest.run(decoder, *work[task]) for decoder in order}
            pairs[task, name].append(Pair(runs[PLAIN], runs[name]))
            tick()
    return pairs


def _middle(pairs: Sequence[Pair]) -> Pair:
    """The usable pair with the median ratio, the lower one of two; the last pair if none is usable."""
    usable = sorted((pair for pair in pairs if pair.usable), key=lambda pair: pair.ratio)
    return usable[(len(usable) - 1) // 2] if usable else pairs[-1]
