"""How fast each decoder of the demo is: short runs in turn with plain decoding, medians, and a test of plausibility.

A round emits tau tokens and takes at least as long as a plain step, so no drafter can be more than tau times as fast as
plain decoding. A larger ratio was measured while other programs used the machine, and is not shown.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean, median
from typing import TYPE_CHECKING

from specdec_ref.cli.contest import PLAIN

if TYPE_CHECKING:
    from specdec_ref.cli.contest import Contest, Run, Task
    from specdec_ref.request import Limits

__all__ = ["BUSY", "Timing", "measure"]

BUSY = "machine busy: timing not usable"
SHORT = 24  # tokens of a timed answer
PASSES = 3
SLACK = 1.05  # what a clock may err by before a ratio counts as impossible; the ratio is still shown as tau at most

Pair = tuple["Run", float]  # a decoder's run, and plain decoding's speed around it


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians of one decoder on one prompt. `speedup` is None where the timing is not usable."""

    speed: float
    tau: float
    alpha: float | None
    speedup: float | None


def measure(
    contest: "Contest",
    work: "Mapping[Task, tuple[Sequence[int], Limits]]",
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> "dict[tuple[Task, str], Timing]":
    """Time every decoder on every prompt: up to three passes, as many as fit into `seconds`; impossible ones again."""
    found: dict[tuple[Task, str], Timing] = {}
    drafters = {task: [name for name in contest.decoders if name != PLAIN] for task in work}
    pairs, plain = _passes(contest, work, drafters, seconds, clock)
    for task, runs in plain.items():
        found[task, PLAIN] = Timing(median(run.speed for run in runs), 1.0, None, 1.0)
        found.update({(task, name): _timing(pairs[task, name]) for name in drafters[task]})
    doubtful = {task: [name for name in names if found[task, name].speedup is None] for task, names in drafters.items()}
    if any(doubtful.values()):
        again, _ = _passes(contest, work, doubtful, seconds, clock)
        found.update({key: _timing(each) for key, each in again.items()})
    return found


def _passes(
    contest: "Contest",
    work: "Mapping[Task, tuple[Sequence[int], Limits]]",
    drafters: "Mapping[Task, Sequence[str]]",
    seconds: float,
    clock: Callable[[], float],
) -> "tuple[dict[tuple[Task, str], list[Pair]], dict[Task, list[Run]]]":
    """Plain, drafter, plain, drafter, ..., plain: each drafter is compared with the plain runs before and after it."""
    pairs: dict[tuple[Task, str], list[Pair]] = {}
    plain: dict[Task, list[Run]] = {}
    started = clock()
    for number in range(PASSES):
        if number and (clock() - started) * (number + 1) / number > seconds:
            break
        for task, names in drafters.items():
            if not names and len(contest.decoders) > 1:  # the second time, where nothing is in doubt
                continue
            prompt, limits = work[task][0], contest.session.limits(min(SHORT, work[task][1].max_new_tokens))
            runs = [contest.run(PLAIN, prompt, limits)]
            for name in names:
                done = contest.run(name, prompt, limits)
                runs.append(contest.run(PLAIN, prompt, limits))
                pairs.setdefault((task, name), []).append((done, harmonic_mean([run.speed for run in runs[-2:]])))
            plain.setdefault(task, []).extend(runs)
    return pairs, plain


def _timing(pairs: "Sequence[Pair]") -> Timing:
    """Medians; no speed-up where the ratio is above tau by more than a clock errs."""
    stats = [run.stats for run, _ in pairs if run.stats is not None]
    tau = median(each.tau for each in stats) if stats else 1.0
    alpha = median(each.alpha for each in stats) if stats else None
    ratio = median(run.speed / plain for run, plain in pairs)
    speedup = None if ratio > tau * SLACK else min(ratio, tau)
    return Timing(median(run.speed for run, _ in pairs), tau, alpha, speedup)
