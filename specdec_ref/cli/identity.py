"""Where two greedy texts part, and whether rounding explains it.

A row of a matrix product is rounded differently when it is computed beside others: plain decoding multiplies one row,
checking a draft several. Where the target's two best logits nearly tie, that can turn the choice, and from there on the
texts differ. So both ways are computed at that place: a difference that is no larger than a few times theirs is
rounding (the caches before it were rounded differently as well), a larger one would be a fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from specdec_ref.core import DraftTree

if TYPE_CHECKING:
    from specdec_ref.models.target import Target

__all__ = ["Parting", "parting"]

_MARGIN = 4.0


@dataclass(frozen=True, slots=True)
class Parting:
    """`gap`: distance of the target's two best logits before token `at`. `noise`: how far rounding moves one."""

    at: int
    best: tuple[int, int]
    gap: float
    noise: float

    @property
    def explained(self) -> bool:
        """True if rounding is reason enough."""
        return self.gap <= _MARGIN * self.noise


@torch.inference_mode()
def parting(target: "Target", prompt: Sequence[int], tokens: Sequence[int], at: int) -> Parting:
    """Look at the place before `tokens[at]`, once with all rows together and once with the last row alone."""
    text = [*prompt, *tokens[:at]]
    target.feature_layers = ()
    together = target.start([text], capacity=len(text))
    if together is None:
        raise ValueError("there is no text before the place to look at")
    target.start([text[:-1]], capacity=len(text))
    alone = target.forward([DraftTree(torch.tensor(text[-1:]), torch.tensor([-1]))])
    many, one = together.logits[0, 0].double(), alone.logits[0, 0].double()
    top = one.topk(2)
    first, second = (int(token) for token in top.indices)
    return Parting(at, (first, second), float(top.values[0] - top.values[1]), float((many - one).abs().max()))
