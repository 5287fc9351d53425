"""The wrong tree verifiers that people write in exercise 05, each with the sentence that explains it.

They differ from `MultiRoundVerifier` in one place: what is owed after a refusal, what q is then, or who is asked.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from specdec_course.checks.examine import Suspect
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.sampling import residual
from specdec_ref.trees.links import distinct_children

__all__ = ["VERIFIERS"]

Row = Float[Tensor, " vocab"]
Rows = Float[Tensor, "nodes vocab"]


def _scaled(weights: Row) -> Row:
    return weights / weights.sum() if bool(weights.any()) else weights


def _without(row: Row, x: int) -> Row:
    kept = row.clone()
    kept[x] = 0.0
    return kept


@dataclass(frozen=True, slots=True)
class _Rounds:
    """Multi-round verification in which one thing may be another.

    `owes(r, q, x)`: r after x was refused; `next_q(q, x, distribution)`: what the next child was drawn from, as it
    believes. `against(r, p)` is compared with q, `before(r, p)` is what a refusal takes `off(q, first q, next q)` from.
    """

    owes: Callable[[Row, Row, int], Row] = lambda r, q, x: _scaled(residual(r, q))
    next_q: Callable[[Row, int, str], Row] = lambda q, x, how: q if how == "iid" else _scaled(_without(q, x))
    ratio: Callable[[Row, Row, int], float] = lambda r, q, x: float(r[x] / q[x])
    against: Callable[[Row, Row], Row] = lambda r, p: r
    before: Callable[[Row, Row], Row] = lambda r, p: r
    off: Callable[[Row, Row, Row], Row] = lambda q, first, later: q
    last: Callable[[Row, Row], Row] = lambda r, p: r
    children: Callable[[DraftTree, int], list[int]] = lambda tree, node: tree.children(node)
    row: Callable[[int, int], int] = lambda node, child: node
    q_row: Callable[[int, int], int] = lambda node, child: node
    deeper: bool = True
    lossless_for: frozenset[str] = frozenset({"iid", "without_replacement"})

    def __call__(self, tree: DraftTree, p: Rows, rng: Randomness) -> VerifyResult:
        assert tree.q is not None  # tells the type checker: drawn trees have it
        node = 0
        while True:
            r, q, taken = p[node], tree.q[node], None
            for child in self.children(tree, node):
                x = tree.token_list[child]
                r = p[self.row(node, child)] if self.row(node, child) != node else r
                q = tree.q[self.q_row(node, child)] if self.q_row(node, child) != node else q
                if rng.accept(self.ratio(self.against(r, p[node]), q, x)):
                    taken = child
                    break
                later = self.next_q(q, x, tree.drawn)
                r, q = self.owes(self.before(r, p[node]), self.off(q, tree.q[node], later), x), later
            if taken is None:
                return VerifyResult(tree.path(node), rng.draw(self.last(r, p[node])))
            if not self.deeper:
                return VerifyResult(tree.path(taken), rng.draw(p[taken]))
            node = taken


def _unchanged(r: Row, q: Row, x: int) -> Row:
    return r


def _from_p(r: Row, p: Row) -> Row:
    return p


VERIFIERS = (
    Suspect(
        "The second child is tested against p as it was. What the first refusal took off p is gone: go on with what is "
        "still owed.",
        _Rounds(against=_from_p, before=_from_p),
    ),
    Suspect(
        "The second child is tested against p as it was, though what is owed is kept. Compare q with what is owed.",
        _Rounds(against=_from_p),
    ),
    Suspect(
        "What is owed is always computed with the first child's q. Take off the q that the refused child came from.",
        _Rounds(off=lambda q, first, later: first),
    ),
    Suspect(
        "q is changed too early: what is owed after a refusal needs the q that the refused child was drawn from.",
        _Rounds(off=lambda q, first, later: later),
    ),
    Suspect(
        "After the last refusal you draw from p itself. The words that were drawn too often then get a second chance.",
        _Rounds(last=lambda r, p: p),
    ),
    Suspect(
        "Children drawn without replacement are tested against the q that the first one came from. The second was "
        "drawn from q without the first, scaled to one again; to leave out the scaling comes to the same.",
        _Rounds(next_q=lambda q, x, how: q),
    ),
    Suspect(
        "q loses the refused word for independent children as well. Those were all drawn from the same q; the same "
        "word may come twice.",
        _Rounds(next_q=lambda q, x, how: _scaled(_without(q, x))),
    ),
    Suspect(
        "The residual is not normalised. It must be normalised before it is compared with q, or too little is kept.",
        _Rounds(owes=lambda r, q, x: residual(r, q)),
    ),
    Suspect(
        "A refusal only rules out the refused word. That is right for a guess made without chance; a drawn one may "
        "propose several words too often.",
        _Rounds(owes=lambda r, q, x: _scaled(_without(r, x))),
    ),
    Suspect(
        "A refusal changes nothing at all: each child is tested against p, and the last word is drawn from p.",
        _Rounds(owes=_unchanged),
    ),
    Suspect(
        "The ratio leaves q out. p(x) alone is the rule for point drafts (target-only): the result is exact "
        "if the rest fits, and guesses are wasted.",
        _Rounds(ratio=lambda r, q, x: float(r[x]), owes=lambda r, q, x: _scaled(_without(r, x))),
    ),
    Suspect(
        "Only the first child of a node is ever tested. Its siblings get their turn when it is refused.",
        _Rounds(children=lambda tree, node: tree.children(node)[:1]),
    ),
    Suspect(
        "The walk ends at the first accepted child. That one may have children of its own: go on from there.",
        _Rounds(deeper=False),
    ),
    Suspect(
        "Repeated siblings are left out. A second draw of the same word is a test of its own.",
        _Rounds(children=lambda tree, node: distinct_children(tree)[node]),
    ),
    Suspect(
        "A child is tested with its own row of p. Row i is the distribution after node i, so the children of node i "
        "are tested with row i.",
        _Rounds(row=lambda node, child: child),
    ),
    Suspect(
        "A child is tested with its own row of q. Row i of q is what the children of node i were drawn from.",
        _Rounds(q_row=lambda node, child: child),
    ),
    Suspect(
        "All children are tested with the root's row of q. Row i of q is what the children of node i were drawn from.",
        _Rounds(q_row=lambda node, child: 0),
    ),
    Suspect(
        "After each refusal q is taken off p again: the refusals before it are forgotten. Take it off what was owed.",
        _Rounds(before=_from_p),
    ),
)
