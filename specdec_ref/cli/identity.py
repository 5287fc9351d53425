"""Where two greedy texts part, and whether rounding explains it.

Where the short forward does not run (on a GPU, say), a row of a matrix product is rounded differently beside others:
plain decoding multiplies one row, checking a draft several. When the target's two best logits nearly tie, this can flip
the choice, and from there on the texts differ. So the place is computed in several ways. A gap of at most a few times
the spread between them is rounding (the caches before it were rounded differently as well); a larger gap would be a
fault. Logits are stored in the model's own format, so one step of that format always counts as rounding: in bfloat16,
0.125 for logits from 16 to 32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree
from specdec_ref.identity import first_difference

if TYPE_CHECKING:
    from specdec_ref.models.target import Target

__all__ = ["Parting", "difference", "parting"]

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


def difference(
    target: "Target",
    decode: Callable[[Sequence[int]], str],
    plain: Sequence[int],
    other: Sequence[int],
    look: Parting | None,
) -> str:
    """Say where `other` parts from plain decoding's tokens, and whether rounding explains it.

    `look`: what `parting` found at that place; None if one text is the beginning of the other.
    """
    dtype = str(target.dtype).removeprefix("torch.")
    at = first_difference(plain, other)
    if at is None or look is None:
        lengths = f"{len(other)} tokens, plain decoding's {len(plain)}"
        return (
            f"the text differs from plain decoding: it has {lengths}. Rounding does not explain this; please report it"
        )
    ours, theirs = (decode(tokens[at : at + 1]) for tokens in (other, plain))
    one, two = look.probabilities
    place = (
        f"the text differs from plain decoding from token {at + 1} on: {ours!r} instead of {theirs!r}. There the "
        f"target gives its first choice {one:.2%} and this alternative {two:.2%}, a gap of {one - two:.2g}"
    )
    if look.explained:
        return f"{place}: a near-tie, which rounding in {dtype} can decide either way. --dtype float64 rounds less"
    return f"{place}. Rounding in {dtype} does not explain this; please report it"


def _after(target: "Target", text: Sequence[int], cut: int) -> Float[Tensor, " vocab"]:
    """The last logits, with `text[:cut]` as the prompt and the rest as one chain."""
    target.start([text[:cut]], capacity=len(text))
    rest = text[cut:]
    return target.forward([DraftTree(torch.tensor(rest), torch.arange(-1, len(rest) - 1))]).logits[0, -1]
