"""The verify curve of this machine: v(k) = T(k) / T(1), the price of checking k tokens in one forward.

A round that drafts for nothing pays if it emits more than v(gamma + 1) tokens: tau > v(gamma + 1). v stays near 1 while
reading the weights takes the time, since they are read once for all k rows; it rises when arithmetic takes over.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

import torch

from specdec_ref.core import DraftTree

if TYPE_CHECKING:
    from specdec_ref.models.target import Target

__all__ = ["WIDTHS", "measure_verify_curve"]

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 32)


def measure_verify_curve(
    target: "Target", widths: Sequence[int] = WIDTHS, *, context: int = 128, passes: int = 9, seconds: float = 10.0,
    tick: Callable[[], None] = lambda: None,
) -> dict[int, float]:  # fmt: skip
    """Median seconds of one forward over a chain of k nodes, behind `context` cached tokens, for every k in `widths`.

    The widths are interleaved, so that a busy moment of the machine meets them alike; a first pass is thrown away.
    Ends after `passes`, or with the pass that passes `seconds`. `tick` is called after every pass.
    """
    target.feature_layers = ()
    target.start([[token % target.vocab_size for token in range(context)]], capacity=context + max(widths))
    chains = {k: DraftTree(torch.arange(k) % target.vocab_size, torch.arange(-1, k - 1)) for k in widths}
    taken: dict[int, list[float]] = {k: [] for k in widths}
    started = time.perf_counter()
    for _ in range(passes + 1):
        for k, chain in chains.items():
            begin = time.perf_counter()
            float(target.forward([chain]).logits[0, -1, 0])  # reading a number waits for a GPU to finish
            taken[k].append(time.perf_counter() - begin)
        tick()
        if time.perf_counter() - started > seconds:
            break
    return {k: median(times[1:] or times) for k, times in taken.items()}
