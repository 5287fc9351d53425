"""Where two greedy texts part, and whether rounding explains it.

A row of a matrix product is rounded differently when it is computed beside others: plain decoding multiplies one row,
checking a draft several. Where the target's two best logits nearly tie, that can turn the choice, and from there on the
texts differ. So the place is computed in several ways: a gap no larger than a few times what lies between them is
rounding (the caches before it were rounded differently as well), a larger one would be a fault. Logits are stored in
the model's own format, so one step of that format is rounding always: in bfloat16, 0.125 for logits from 16 to 32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

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
    """Look at the place before `tokens[at]`: the text at once; its last token alone; the answer behind the prompt."""
    text, cut = [*prompt, *tokens[:at]], max(len(prompt) - 1, 1)
    target.feature_layers = ()
    together = target.start([text], capacity=len(text))
    if together is None:
        raise ValueError("there is no text before the place to look at")
    one, *others = (
        ways.double() for ways in (_after(target, text, -1), _after(target, text, cut), together.logits[0, 0])
    )
    top = one.topk(2)
    first, second = (int(token) for token in top.indices)
    step = float(top.values[0].abs()) * torch.finfo(target.dtype).eps
    noise = max(step, *(float((other - one).abs().max()) for other in others))
    return Parting(at, (first, second), float(top.values[0] - top.values[1]), noise)


def _after(target: "Target", text: Sequence[int], cut: int) -> Float[Tensor, " vocab"]:
    """The last logits, with `text[:cut]` as the prompt and the rest as one chain."""
    target.start([text[:cut]], capacity=len(text))
    rest = text[cut:]
    return target.forward([DraftTree(torch.tensor(rest), torch.arange(-1, len(rest) - 1))]).logits[0, -1]
