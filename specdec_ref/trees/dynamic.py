"""EAGLE-2's dynamic tree: expand the most promising nodes, then keep the most promising of all candidates.

    value of a node = product of the draft's confidence along its path, a guess of the chance that it is accepted
    expand   per level the best `topk` candidates are asked for; each gives its `topk` likeliest children
    rerank   of all candidates the best `nodes - 1` stay

A child's value never exceeds its parent's, so the best ones hang together, except where they tie: a child of confidence
1 is worth as much as its parent, and a sort that picks it first leaves an orphan. Ties go to the node that was there
first. Children are chosen by value, not drawn: "point" trees, at any temperature.
Source: EAGLE-2 (Li et al. 2024, arXiv 2406.16858, section 4).
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.trees.growth import Growth, Nodes, confidence

__all__ = ["DynamicGrowth", "best", "dynamic"]


def best(values: Sequence[float], count: int) -> list[int]:
    """Indices of the `count` largest values, ascending; of equal ones the earliest, so that a parent goes first."""
    return sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:count])


class DynamicGrowth:
    """A `Growth` whose shape follows the draft's confidence."""

    def __init__(self, root: int, budget: DraftBudget, sampling: SamplingParams, ids: Tensor | None = None) -> None:
        self.nodes, self.origin, self.values = Nodes(root), [0], [0.0]
        self.budget, self.sampling, self.ids = budget, sampling, ids
        if budget.depth == 0 or budget.max_nodes == 1:
            self.nodes.frontier = []

    def extend(self, logits: Float[Tensor, "frontier draft_vocab"]) -> None:
        """Candidates below the frontier; the best of them are the next one."""
        top = confidence(logits, self.sampling).topk(min(self.budget.topk, logits.shape[-1]), -1)
        asked, logs = [], top.values.clamp(max=1.0).log().tolist()
        for node, columns, shares, scores in zip(
            self.nodes.frontier, top.indices.tolist(), top.values.tolist(), logs, strict=True
        ):
            for column, share, score in zip(columns, shares, scores, strict=True):
                if share > 0.0:
                    child = self.nodes.add(column if self.ids is None else int(self.ids[column]), node)
                    self.values.append(self.values[node] + score)
                    if share >= self.budget.min_confidence and self.nodes.depths[child] < self.budget.depth:
                        asked.append(child)
        kept = best([self.values[child] for child in asked], self.budget.topk)
        self.nodes.ask([asked[i] for i in kept])

    def tree(self) -> DraftTree:
        """The best candidates, the root first."""
        self.origin = [0, *(node + 1 for node in best(self.values[1:], self.budget.max_nodes - 1))]
        return self.nodes.select(self.origin)


def dynamic(
    root: int, budget: DraftBudget, sampling: SamplingParams, rng: Randomness, ids: Tensor | None = None
) -> Growth:
    """A `Grow`: the shape comes from `budget.depth`, `topk` and `nodes`; nothing is drawn, so `rng` is not used."""
    return DynamicGrowth(root, budget, sampling, ids)
