"""The identity rule of greedy decoding: the same tokens, but for near-ties that rounding may decide either way.

    error  iff  texts differ at t  and  top-1 logit - top-2 logit of the plain decoder at t  >=  epsilon

On a CPU the short forward gives each row the same bits beside any others (`models/row_attention.py`), and nothing
differs. Elsewhere a row of a matrix product is rounded differently when it is computed beside other rows: plain
decoding multiplies one row, verification k. If no logit moves by more than d, a choice can turn only where the plain
decoder's gap is at most 2 d. On the embedded model in float32, d was at most 9e-5 (k = 2 to 12, 60 positions), so
EPSILON = 1e-3 is five times what can happen; `tests/reference/test_real_identity.py` measures it again. In float64 pass
epsilon=0: nothing is excused. In bfloat16 the rule says little. Behind the first difference two texts have nothing more
to do with one another and are not compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from specdec_ref.core import DraftTree
from specdec_ref.models.target import Target

__all__ = ["EPSILON", "Difference", "IdentityReport", "check_identity", "first_difference", "top2_gap"]

EPSILON = 1e-3  # float32 logits; see above


@dataclass(frozen=True, slots=True)
class Difference:
    """Prompt number `prompt` got another token at index `at` of its new tokens (None: the text had ended there)."""

    prompt: int
    at: int
    plain: int | None
    other: int | None
    gap: float  # the plain decoder's top-2 logit gap there

    def __str__(self) -> str:
        """One line for a report."""
        where = f"prompt {self.prompt}, token {self.at}"
        return f"{where}: plain {self.plain}, other {self.other}, top-2 gap {self.gap:.2e}"


@dataclass(frozen=True, slots=True)
class IdentityReport:
    """How many texts were compared, and where they part."""

    texts: int
    differences: tuple[Difference, ...]
    epsilon: float

    @property
    def errors(self) -> tuple[Difference, ...]:
        """The differences that no near-tie explains."""
        return tuple(difference for difference in self.differences if not difference.gap < self.epsilon)

    @property
    def ok(self) -> bool:
        """True if the rule holds."""
        return not self.errors

    def __str__(self) -> str:
        """A headline, then a line for each difference."""
        head = (
            f"{self.texts - len(self.differences)} of {self.texts} texts identical, "
            f"{len(self.differences) - len(self.errors)} part at a top-2 gap below {self.epsilon:g}, "
            f"{len(self.errors)} wrongly"
        )
        return "\n  ".join([head, *map(str, self.differences)])


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Index of the first token that differs, a missing one included; None if the texts are equal."""
    shared = min(len(one), len(other))
    parted = next((i for i in range(shared) if one[i] != other[i]), shared)
    return None if parted == len(one) == len(other) else parted


@torch.inference_mode()
def top2_gap(target: Target, tokens: Sequence[int]) -> float:
    """Largest minus second largest logit after `tokens`, the last of them in a row alone, as in plain decoding.

    It starts a batch of its own in the target's cache. Raises ValueError for an empty text.
    """
    if not tokens:
        raise ValueError("there is no logit before the first token: give at least one")
    target.start([tokens[:-1]], capacity=len(tokens))
    output = target.forward([DraftTree(torch.tensor(tokens[-1:]), torch.tensor([-1]))])
    best, second = output.logits[0, 0].double().topk(2).values.tolist()
    return float(best - second)


def check_identity(
    target: Target,
    prompts: Sequence[Sequence[int]],
    plain: Sequence[Sequence[int]],
    other: Sequence[Sequence[int]],
    *,
    epsilon: float = EPSILON,
) -> IdentityReport:
    """Compare new tokens prompt by prompt. `plain`: the plain decoder's; `other`: those under test."""
    found = []
    for number, (prompt, one, two) in enumerate(zip(prompts, plain, other, strict=True)):
        at = first_difference(one, two)
        if at is not None:
            gap = top2_gap(target, [*prompt, *one[:at]])
            tokens = [text[at] if at < len(text) else None for text in (one, two)]
            found.append(Difference(number, at, tokens[0], tokens[1], gap))
    return IdentityReport(len(prompts), tuple(found), epsilon)
