"""Paired timing: A B A B ..., the median of the ratios, and a bootstrap interval for it.

A shared machine drifts by tens of percent within a minute, so an absolute time means nothing alone; the ratio of two
neighbouring runs does. The interval resamples whole pairs (Efron & Tibshirani 1993, §13.3), seeded, 95 %.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Paired", "paired"]

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Paired:
    """Seconds of both sides, pair by pair. `ratio` > 1: the candidate is faster than the baseline."""

    baseline: tuple[float, ...]
    candidate: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Baseline over candidate, a pair each."""
        return [b / c for b, c in zip(self.baseline, self.candidate, strict=True)]

    @property
    def ratio(self) -> float:
        """Median speed-up."""
        return statistics.median(self.ratios)

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of the median ratio."""
        return median_interval(self.ratios, seed)


def median_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the median of `values`."""
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]


def paired(
    baseline: Callable[[], float],
    candidate: Callable[[], float],
    repeats: int,
    *,
    seconds: float = math.inf,
    progress: Callable[[], None] = lambda: None,
) -> Paired:
    """Call both in turn, `repeats` times after one warm-up each; each returns its own seconds.

    Ends early, but not before three pairs, with the pair that passes `seconds`: on a busy machine a few pairs are
    better than none. Every other pair runs in the opposite order, so that a drift within a pair favours neither side.
    """
    baseline(), candidate()
    started = time.perf_counter()
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        sides = [(times[0], baseline), (times[1], candidate)]
        for side, run in sides if repeat % 2 == 0 else reversed(sides):
            side.append(run())
        progress()
        if repeat >= 2 and time.perf_counter() - started > seconds:
            break
    return Paired(tuple(times[0]), tuple(times[1]))
