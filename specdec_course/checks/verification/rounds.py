"""The wrong verifiers that people write in exercise 02, each with the sentence that explains it.

They differ from `RejectionVerifier` in one place: the ratio, the correction, the bonus, or where a round ends.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_course.checks.examine import Suspect
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.sampling import residual

__all__ = ["VERIFIERS"]

Row = Float[Tensor, " vocab"]
Rows = Float[Tensor, "nodes vocab"]


@dataclass(frozen=True, slots=True)
class _Variant:
    """`ratio(p, q, i, x)` and `rest(p, q, i, x)` see all rows, and the drafted word x after row i."""

    ratio: Callable[[Rows, Rows, int, int], float] = lambda p, q, i, x: float(p[i, x] / q[i, x])
    rest: Callable[[Rows, Rows, int, int], Row] = lambda p, q, i, x: residual(p[i], q[i])
    bonus_row: int = -1
    shared_coin: bool = False
    lossless_for: frozenset[str] = frozenset({"point", "iid"})

    def __call__(self, tree: DraftTree, p: Rows, rng: Randomness) -> VerifyResult:
        drafts = tree.token_list[1:]
        q = torch.nn.functional.one_hot(tree.tokens[1:], p.shape[-1]).to(p) if tree.q is None else tree.q
        below = 1.0  # one coin a round: what is known of it so far
        for i, x in enumerate(drafts):
            ratio = self.ratio(p, q, i, x)
            bar = min(ratio, below) if self.shared_coin else ratio
            if not rng.accept(bar / below):
                return VerifyResult(tuple(range(1, i + 1)), rng.draw(self.rest(p, q, i, x)))
            below = bar if self.shared_coin else 1.0
        return VerifyResult(tuple(range(1, len(tree))), rng.draw(p[self.bonus_row % len(tree)]))


class _NoBonus:
    """Gives the last accepted draft as if it were the target's own word."""

    lossless_for = frozenset({"point", "iid"})

    def __call__(self, tree: DraftTree, p: Rows, rng: Randomness) -> VerifyResult:
        result = _Variant()(tree, p, rng)
        if len(result.path) == len(tree) - 1 > 0:
            return VerifyResult(result.path[:-1], tree.token_list[-1])
        return result


class _NoStop:
    """Tests the drafts after a rejected one as well."""

    lossless_for = frozenset({"point", "iid"})

    def __call__(self, tree: DraftTree, p: Rows, rng: Randomness) -> VerifyResult:
        q = torch.nn.functional.one_hot(tree.tokens[1:], p.shape[-1]).to(p) if tree.q is None else tree.q
        path, own = [], None
        for i, x in enumerate(tree.token_list[1:]):
            if rng.accept(float(p[i, x] / q[i, x])):
                path.append(i + 1)
            else:
                own = rng.draw(residual(p[i], q[i]))
        return VerifyResult(tuple(path), rng.draw(p[-1]) if own is None else own)


def _without(row: Row, x: int) -> Row:
    kept = row.clone()
    kept[x] = 0.0
    return kept


VERIFIERS = (
    Suspect(
        "After a rejection you draw from p itself. Words that were drafted too often then get a second chance; the "
        "correction must be one of the words that were drafted too rarely.",
        _Variant(rest=lambda p, q, i, x: p[i]),
    ),
    Suspect(
        "After a rejection you only rule out the rejected word. That is right for a deterministic draft. A sampled "
        "draft may propose several words too often, and none of them may be drawn here.",
        _Variant(rest=lambda p, q, i, x: _without(p[i], x)),
    ),
    Suspect(
        "The correction has p and q the wrong way round: it draws words that the draft proposed too often already.",
        _Variant(rest=lambda p, q, i, x: residual(q[i], p[i])),
    ),
    Suspect(
        "The correction takes the absolute difference of p and q. Words drafted too often must have weight 0.",
        _Variant(rest=lambda p, q, i, x: (p[i] - q[i]).abs()),
    ),
    Suspect(
        "The correction comes from the row after the one that the word was tested with. That row is the distribution "
        "after this word, as if it had been kept.",
        _Variant(rest=lambda p, q, i, x: residual(p[i + 1], q[i])),
    ),
    Suspect(
        "The ratio is upside down: q/p favours the words that the draft proposes too often.",
        _Variant(ratio=lambda p, q, i, x: float(q[i, x] / p[i, x])),
    ),
    Suspect(
        "The ratio leaves q out. p(x) alone is the rule for a deterministic draft. A sampled draft is then rejected "
        "too often, and the residual no longer matches.",
        _Variant(ratio=lambda p, q, i, x: float(p[i, x])),
    ),
    Suspect(
        "The word is tested with the row after its own. Row i of p is the distribution after node i, so the child of "
        "node i is tested with row i.",
        _Variant(ratio=lambda p, q, i, x: float(p[i + 1, x] / q[i, x])),
    ),
    Suspect(
        "This is a threshold instead of a coin: a word is always kept if p(x) is at least q(x), else never.",
        _Variant(ratio=lambda p, q, i, x: float(p[i, x] >= q[i, x])),
    ),
    Suspect(
        "This is the rule of temperature 0: a word is kept if it is the target's favourite.",
        _Variant(ratio=lambda p, q, i, x: float(x == int(p[i].argmax()))),
    ),
    Suspect("Every draft is kept, so the text has the draft's distribution.", _Variant(ratio=lambda p, q, i, x: 1.0)),
    Suspect(
        "One random number is used for all drafts of a round. If it was small enough for the first, it is more "
        "likely to be small enough for the second. Each test needs a number of its own.",
        _Variant(shared_coin=True),
    ),
    Suspect(
        "The bonus is drawn from the row before the last draft. It must be drawn from the last row of p.",
        _Variant(bonus_row=-2),
    ),
    Suspect(
        "When all drafts pass, no token is added: the bonus is forgotten. The matrix p has one row more than there "
        "are drafts.",
        _NoBonus(),
    ),
    Suspect(
        "The drafts after a rejected one are tested as well. They were drafted for a text that is not this one: a "
        "round ends with the first rejection.",
        _NoStop(),
    ),
    Suspect(
        "No draft is ever kept. The distribution is right, but plain decoding would be faster.",
        _Variant(ratio=lambda p, q, i, x: 0.0, rest=lambda p, q, i, x: p[i]),
    ),
)
