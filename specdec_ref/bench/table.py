"""The benchmark's loop and its rows: all sides in turn on every batch of prompts, each row a side on a task.

    tokens_per_s      median over calls of new tokens / seconds of the whole call, prefill included
    speedup_vs_plain  median over calls of (plain's seconds a token) / (this side's): same prompts, neighbours in time
    ci_low, ci_high   95 % bootstrap interval of it                              speedup_vs_hf the same against `hf`
    identical         texts that are plain's, of `texts`; only at T = 0: above it two samples need not be the same

The task "all" is the geometric mean over tasks. Each method runs at the setting that was best on the dev split.
"""

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from specdec_ref.bench.harness import RESAMPLES, median_interval
from specdec_ref.bench.peers import HF
from specdec_ref.bench.sides import PLAIN, Answer, Side
from specdec_ref.metrics import RunStats

__all__ = ["Batch", "Timing", "best_settings", "overall", "pooled", "ratios", "rows_of", "run_sides"]

Batch = tuple[list[list[int]], list[int]]  # prompts, seeds


@dataclass(frozen=True, slots=True)
class Timing:
    """One call."""

    seconds: float
    answers: list[Answer]

    @property
    def per_token(self) -> float:
        """Seconds a new token of the batch."""
        return self.seconds / sum(len(answer.tokens) for answer in self.answers)


def run_sides(
    sides: Sequence[Side],
    batches: Sequence[Batch],
    repeats: int = 1,
    tick: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Side, list[Timing]]:
    """Every side on every batch, `repeats` times over; each batch starts with another side."""
    done: dict[Side, list[Timing]] = {side: [] for side in sides}
    for repeat in range(repeats):
        calls = {side: side.begin() for side in sides}
        for number, (prompts, seeds) in enumerate(batches):
            shift = (repeat + number) % len(sides)
            for side in [*sides[shift:], *sides[:shift]]:
                started = clock()
                answers = calls[side](prompts, seeds)
                done[side].append(Timing(clock() - started, answers))
                tick()
    return done


def best_settings(timings: Sequence[Mapping[Side, Sequence[Timing]]]) -> list[Side]:
    """Of each method the side that is fastest on these tasks: the lowest geometric mean of median seconds a token."""
    slow: dict[Side, list[float]] = defaultdict(list)
    for task in timings:
        for side, calls in task.items():
            slow[side].append(math.log(median(call.per_token for call in calls)))
    best: dict[str, Side] = {}
    for side, logs in slow.items():
        if side.method not in best or fmean(logs) < fmean(slow[best[side.method]]):
            best[side.method] = side
    return list(best.values())


def rows_of(task: str, timings: Mapping[Side, Sequence[Timing]], *, greedy: bool) -> Iterator[dict[str, Any]]:
    """A row a side."""
    base = {side.method: calls for side, calls in timings.items() if side.method in (PLAIN, HF)}
    for side, calls in timings.items():
        over = ratios(base[PLAIN], calls)
        low, high = median_interval(over) if len(over) > 1 else (None, None)
        stats = pooled(calls)
        texts = [
            (a.tokens, b.tokens)
            for x, y in zip(base[PLAIN], calls, strict=True)
            for a, b in zip(x.answers, y.answers, strict=True)
        ]
        yield {
            "task": task,
            "method": side.method,
            "setting": side.setting,
            "calls": len(calls),
            "tokens_per_s": median(1 / call.per_token for call in calls),
            "tau": stats.tau if stats else 1.0,
            "alpha": stats.alpha if stats and stats.tested else None,
            "speedup_vs_plain": median(over),
            "speedup_vs_hf": median(ratios(base[HF], calls)) if HF in base else None,
            "ci_low": low,
            "ci_high": high,
            "identical": sum(a == b for a, b in texts) if greedy else None,
            "texts": len(texts),
        }


def ratios(base: Sequence[Timing], calls: Sequence[Timing]) -> list[float]:
    """The base's seconds a token over these calls', pair by pair: > 1 is faster."""
    return [b.per_token / c.per_token for b, c in zip(base, calls, strict=True)]


def pooled(calls: Sequence[Timing]) -> RunStats | None:
    """Rounds of all answers, counts added; None where none were counted."""
    found = [answer.stats for call in calls for answer in call.answers if answer.stats is not None]
    if not found:
        return None
    names = ("rounds", "tokens", "drafted", "tested", "accepted")
    return RunStats(**{name: sum(getattr(stats, name) for stats in found) for name in names})


def overall(tasks: Mapping[str, Mapping[Side, Sequence[Timing]]], seed: int = 0) -> Iterator[dict[str, Any]]:
    """A row a method for the task "all": geometric means over tasks; the interval resamples calls within tasks."""
    first = next(iter(tasks.values()))
    for side in first:
        over = {
            base: [ratios(_of(task, base), _of(task, side.method)) for task in tasks.values()]
            for base in (PLAIN, HF)
            if any(s.method == base for s in first)
        }
        rng = random.Random(seed)
        known = min(map(len, over[PLAIN])) > 1  # resampling one call says nothing about its spread
        draws = sorted(
            _geometric([median(rng.choices(values, k=len(values))) for values in over[PLAIN]]) for _ in range(RESAMPLES)
        )
        taus = [(pooled(_of(task, side.method)) or RunStats(1, 1)).tau for task in tasks.values()]
        yield {
            "task": "all",
            "method": side.method,
            "setting": side.setting,
            "calls": sum(map(len, over[PLAIN])),
            "tau": fmean(taus),
            "speedup_vs_plain": _geometric(list(map(median, over[PLAIN]))),
            "speedup_vs_hf": _geometric(list(map(median, over[HF]))) if HF in over else None,
            "ci_low": draws[int(0.025 * RESAMPLES)] if known else None,
            "ci_high": draws[int(0.975 * RESAMPLES) - 1] if known else None,
        }


def _of(task: Mapping[Side, Sequence[Timing]], method: str) -> Sequence[Timing]:
    return next(calls for side, calls in task.items() if side.method == method)


def _geometric(values: Sequence[float]) -> float:
    return math.exp(fmean(map(math.log, values)))
