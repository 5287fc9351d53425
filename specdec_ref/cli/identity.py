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
    """Two tokens that compete for place `at`.

    `best`: the target's first choice and the token compared with it; `probabilities`: theirs. `gap`: the distance of
    their logits. `noise`: how far rounding moves a logit.
    """

    at: int
    best: tuple[int, int]
    gap: float
    noise: float
    probabilities: tuple[float, float]

    @property
    def explained(self) -> bool:
        """True if rounding is reason enough."""
        return self.gap <= _MARGIN * self.noise


@torch.inference_mode()
def parting(
    target: "Target", prompt: Sequence[int], tokens: Sequence[int], at: int, other: int | None = None
) -> Parting:
    """Look at the place before `tokens[at]`, computed in three ways.

    These are: the whole text at once; its last token alone; the answer as one chain after the prompt. `other` is the
    token that another decoder chose there (default: the target's second choice). The farther of it and `tokens[at]`
    from the first choice is compared, so that a near-tie of two tokens excuses no third one.
    """
    text, cut = [*prompt, *tokens[:at]], max(len(prompt) - 1, 1)
    target.feature_layers = ()
    together = target.start([text], capacity=len(text))
    if together is None:
        raise ValueError("there is no text before the place to look at")
    one, *others = (
        ways.double() for ways in (_after(target, text, -1), _after(target, text, cut), together.logits[0, 0])
    )
    first, second = (int(token) for token in one.topk(2).indices)
    if other is not None:
        second = min((other, tokens[at]), key=lambda token: float(one[token]))
    step = float(one[first].abs()) * torch.finfo(target.dtype).eps
    noise = max(step, *(float((way - one).abs().max()) for way in others))
    shares = one.softmax(-1)
    probabilities = float(shares[first]), float(shares[second])
    return Parting(at, (first, second), float(one[first] - one[second]), noise, probabilities)


def _after(target: "Target", text: Sequence[int], cut: int) -> Float[Tensor, " vocab"]:
    """The last logits, with `text[:cut]` as the prompt and the rest as one chain."""
    target.start([text[:cut]], capacity=len(text))
    rest = text[cut:]
    return target.forward([DraftTree(torch.tensor(rest), torch.arange(-1, len(rest) - 1))]).logits[0, -1]
