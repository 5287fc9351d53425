"""Chance that can be replayed: a counter-based generator keyed by (seed, position, purpose).

Each round of each request has its own stream, so a token depends on its request's seed and its place in the text, never
on which other requests shared the batch. Nothing reads torch's global generator.

    u = mix64(key + counter * golden) / 2^64          splitmix64: Steele, Lea & Flood, OOPSLA 2014, §3
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["KeyedRandomness", "Purpose"]

Purpose = Literal["draft", "verify", "plain"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_PURPOSES: dict[str, int] = {"draft": 1, "verify": 2, "plain": 3}


def _mix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class KeyedRandomness:
    """`Randomness` for real use. Two objects with the same key give the same coins in the same order."""

    __slots__ = ("_counter", "_state", "position", "purpose", "seed")

    def __init__(self, seed: int, position: int, purpose: Purpose) -> None:
        """`position`: number of tokens committed before the round. Raises KeyError for an unknown purpose."""
        self.seed, self.position, self.purpose = seed, position, purpose
        state = _mix64((seed & _MASK) ^ _GOLDEN)
        state = _mix64((state + position * _GOLDEN) & _MASK)
        self._state = _mix64((state + _PURPOSES[purpose] * _GOLDEN) & _MASK)
        self._counter = 0

    def uniform(self) -> float:
        """The next coin, in [0, 1) with 53 random bits."""
        self._counter += 1
        return (_mix64((self._state + self._counter * _GOLDEN) & _MASK) >> 11) * 2.0**-53

    def accept(self, prob: float) -> bool:
        """True with probability min(1, prob). The comparison is strict: u can be 0, and prob 0 must not pass."""
        return self.uniform() < prob

    def draw(self, weights: Float[Tensor, " n"]) -> int:
        """Inverse CDF in float64. Raises ValueError if no weight is positive."""
        cdf = weights.double().cumsum(0)
        total = float(cdf[-1])
        if not total > 0.0:
            raise ValueError("cannot draw: no outcome has positive weight")
        mark = torch.tensor(self.uniform() * total, dtype=torch.float64, device=cdf.device)
        index = int(torch.searchsorted(cdf, mark, right=True))
        if index >= len(weights):  # the product rounded up to the total itself: take the last possible outcome
            index = int(weights.nonzero()[-1])
        return index
