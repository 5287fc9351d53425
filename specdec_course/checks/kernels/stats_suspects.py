"""The wrong answers to task 3 of exercise 07, a row's statistics: blocks folded into a state, with one mistake each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.examine import Suspect
from specdec_course.checks.kernels.suspects import Imitation, piece

__all__ = ["STATS"]

INF = float("inf")
State = tuple[float, float, int]  # peak, mass, best


def _folded(step: Callable[[State, Tensor, int, float], State], fill: float = -INF) -> Imitation:
    """Blocks of a row folded into a state, in float64; `step` gets a block and where it begins."""

    def does(
        grid: Any, x: Tensor, stride: int, peak: Tensor, mass: Tensor, best: Tensor, vocab: int, t: float, n: int
    ) -> None:
        for r in range(grid[0]):
            state = (-INF, 0.0, 0)
            for b in range(-(-vocab // n)):
                state = step(state, piece(x[r, :vocab], b, n, fill).double(), b * n, t)
            peak[r], mass[r], best[r] = state

    return Imitation(does)


def _right(
    state: State, v: Tensor, start: int, t: float, scale: Callable[[float, float, float], float] | None = None
) -> State:
    """One step of the online sums; `scale` replaces what the old sum is multiplied by."""
    peak, mass, best = state
    high = float(v.max())
    top = max(peak, high)
    old = _exp((peak - top) / t) if scale is None else scale(peak, top, t)
    new = float(((v - top) / t).exp().nan_to_num(0.0).sum())
    return top, mass * old + new, start + int(v.argmax()) if high > peak else best


def _exp(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).exp()) if value == value else 0.0


def _scaled(scale: Callable[[float, float, float], float]) -> Imitation:
    return _folded(lambda state, v, start, t: _right(state, v, start, t, scale))


def _late(state: State, v: Tensor, start: int, t: float) -> State:
    peak, mass, best = _right(state, v, start, t)
    return peak, mass, start + int(v.argmax()) if float(v.max()) >= state[0] else best


def _local(state: State, v: Tensor, start: int, t: float) -> State:
    peak, mass, _ = _right(state, v, start, t)
    return peak, mass, int(v.argmax()) if float(v.max()) > state[0] else state[2]


def _naive(state: State, v: Tensor, start: int, t: float) -> State:
    peak, _, best = _right(state, v, start, t)
    return peak, state[1] + float((v.float() / t).exp().sum()), best


def _nan(state: State, v: Tensor, start: int, t: float) -> State:
    """inf - inf where all so far is -inf."""
    peak, mass, best = _right(state, v, start, t)
    return peak, mass if peak > -INF and state[1] == state[1] else float("nan"), best


def _scaled_peak(state: State, v: Tensor, start: int, t: float) -> State:
    return _right(state, v / t, start, 1.0)


STATS = (  # kernel[rows,](x, stride, peak, mass, best, vocab, temperature, BLOCK)
    Suspect(
        "The old sum is not scaled when the maximum rises: its terms were taken against the old maximum, and need the "
        "factor exp((old - new) / T).",
        _scaled(lambda peak, top, t: 1.0),
    ),
    Suspect(
        "The old sum is scaled the wrong way round: when the maximum rises, what was summed before counts for less.",
        _scaled(lambda peak, top, t: _exp((top - peak) / t)),
    ),
    Suspect(
        "The temperature is left out of the factor that the old sum is scaled by.",
        _scaled(lambda peak, top, t: _exp(peak - top)),
    ),
    Suspect(
        "The temperature is left out.",
        _folded(lambda state, v, start, t: _right(state, v, start, 1.0)),
    ),
    Suspect(
        "The peak is divided by the temperature as well. The task asks for the logit itself.",
        _folded(_scaled_peak),
    ),
    Suspect(
        "No maximum is subtracted: e^1000 is infinite, and e^-1000 is 0, in 32 bits.",
        _folded(_naive),
    ),
    Suspect(
        "The tail counts as 0: its lanes add to the sum, and may win. Masked lanes must hold -inf.",
        _folded(_right, fill=0.0),
    ),
    Suspect(
        "-inf minus -inf is NaN: where all logits so far are -inf there is nothing to subtract yet, and the sum is 0.",
        _folded(_nan),
    ),
    Suspect(
        "Of equal maxima the last one wins. torch.argmax, and every engine, takes the first: later must be larger.",
        _folded(_late),
    ),
    Suspect(
        "The argmax is counted from the beginning of its block, not of the row.",
        _folded(_local),
    ),
    Suspect(
        "Only the last block counts: the results of the earlier blocks must be kept and combined.",
        _folded(lambda state, v, start, t: _right((-INF, 0.0, 0), v, start, t)),
    ),
    Suspect(
        "Only the first block counts: the loop ends too soon.",
        _folded(lambda state, v, start, t: state if start else _right(state, v, start, t)),
    ),
)
