"""Best-first trees: always add the most valuable candidate of all (DDTree, arXiv 2604.12989).

    value of a node = product of the draft's confidence along its path
    repeat          add the candidate of the largest value; its `topk` likeliest children become candidates

A child's value never exceeds its parent's, so the nodes found first are the most valuable ones that a tree can have.
EAGLE-2's tree (`dynamic.py`) approximates this level by level, because each level costs it a pass; a drafter that has
all its rows already asks for one node at a time. Nothing is drawn: "point" trees, at any temperature.
"""

from heapq import heappop, heappush
from itertools import count

from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.trees.growth import Growth, Nodes, confidence

__all__ = ["BestFirstGrowth", "best_first"]


class BestFirstGrowth:
    """A `Growth` whose frontier is one node: the one that was added last."""

    def __init__(self, root: int, budget: DraftBudget, sampling: SamplingParams, ids: Tensor | None = None) -> None:
        self.nodes, self.origin = Nodes(root), [0]
        self.budget, self.sampling, self.ids = budget, sampling, ids
        self._waiting: list[tuple[float, int, int, int, float]] = []  # -value, arrival, parent, token, its own share
        self._arrivals, self._value = count(), 1.0
        if budget.depth == 0 or budget.max_nodes == 1:
            self.nodes.frontier = []

    def extend(self, logits: Float[Tensor, "1 draft_vocab"]) -> None:
        """Children of the frontier become candidates; the best of all candidates is added, until one needs a row."""
        (parent,), value = self.nodes.frontier, self._value
        top = confidence(logits[0], self.sampling).topk(min(self.budget.topk, logits.shape[-1]))
        columns = top.indices if self.ids is None else self.ids[top.indices]
        for share, token in zip(top.values.tolist(), columns.tolist(), strict=True):
            if share > 0.0:
                heappush(self._waiting, (-value * share, next(self._arrivals), parent, token, share))
        self.nodes.frontier = []
        while self._waiting and len(self.nodes.tokens) < self.budget.max_nodes and not self.nodes.frontier:
            minus, _, parent, token, share = heappop(self._waiting)
            node = self.nodes.add(token, parent)
            if self.nodes.depths[node] < self.budget.depth and share >= self.budget.min_confidence:
                self._value = -minus
                self.nodes.ask([node])

    def tree(self) -> DraftTree:
        """Every node that was added."""
        self.origin = list(range(len(self.nodes.tokens)))
        return self.nodes.select(self.origin)


def best_first(
    root: int, budget: DraftBudget, sampling: SamplingParams, rng: Randomness, ids: Tensor | None = None
) -> Growth:
    """A `Grow`: the shape comes from `budget.depth`, `topk` and `nodes`; nothing is drawn, so `rng` is not used."""
    return BestFirstGrowth(root, budget, sampling, ids)
