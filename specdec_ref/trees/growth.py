"""Growing a tree level by level: a drafter gives the logits after the frontier, a growth says what hangs below it.

    growth = grow(root, budget, sampling, rng, ids)        one a row
    growth.extend(logits after the root)
    while growth.frontier:                                 the nodes whose children are wanted next
        growth.extend(logits after each of growth.frontier)
    tree = growth.tree()                                   what is proposed

The drafter may run all it has been asked for as one tree, `nodes.skeleton()`: the frontier, which comes last, and what
is above it; `nodes.read` says which nodes those are. What is proposed may be fewer (a rerank) or more (leaves are never
asked for); `origin` names each proposed node's number in the growth.

How children are drawn decides which verifier keeps the distribution (`core.DraftTree.drawn`): the likeliest k
("point"), k independent draws ("iid"), or k draws without replacement. A node may be left without children because of
what it is; only in a "point" tree may it be left out itself.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Draw, Randomness
from specdec_ref.sampling import warp

__all__ = ["Grow", "Growth", "Nodes", "StaticGrowth", "children_of", "confidence", "static"]


class Nodes:
    """The nodes of a growing tree, root first. `read`: those the drafter has been asked to read, in that order."""

    def __init__(self, root: int) -> None:
        self.tokens, self.parents, self.depths = [root], [-1], [0]
        self.read, self.frontier = [0], [0]

    def add(self, token: int, parent: int) -> int:
        """Append a child; returns its number."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        return len(self.tokens) - 1

    def ask(self, nodes: Sequence[int]) -> None:
        """These are the next frontier."""
        self.frontier = list(nodes)
        self.read += nodes

    def skeleton(self) -> DraftTree:
        """Everything that has been asked for, as a tree."""
        return self.select(self.read)

    def select(self, nodes: Sequence[int]) -> DraftTree:
        """A "point" tree of these nodes, each after its parent."""
        place = {node: at for at, node in enumerate(nodes)}
        parents = [place.get(self.parents[node], -1) for node in nodes]
        return DraftTree(torch.tensor([self.tokens[node] for node in nodes]), torch.tensor(parents))


@runtime_checkable
class Growth(Protocol):
    """One row's tree under construction."""

    nodes: Nodes
    origin: list[int]

    def extend(self, logits: Float[Tensor, "frontier draft_vocab"]) -> None:
        """The logits after each node of `nodes.frontier`: hang children below, set the next frontier."""
        ...

    def tree(self) -> DraftTree:
        """What is proposed; sets `origin`."""
        ...


Grow = Callable[[int, DraftBudget, SamplingParams, Randomness, Tensor | None], Growth]


def confidence(logits: Float[Tensor, "*rows draft_vocab"], sampling: SamplingParams) -> Tensor:
    """The draft's own distribution: warped as it is drawn from; at T = 0, where that is one-hot, the one at T = 1."""
    return warp(logits, SamplingParams(1.0) if sampling.greedy else sampling)


def children_of(q: Float[Tensor, " draft_vocab"], count: int, how: Draw, rng: Randomness) -> list[int]:
    """Columns of up to `count` children; fewer where q's support ends. "point": the likeliest first."""
    if how == "point":
        top = q.topk(min(count, len(q)))
        return [column for column, share in zip(top.indices.tolist(), top.values.tolist(), strict=True) if share > 0.0]
    left, drawn = q.clone(), []
    for _ in range(count):
        if not bool(left.any()):
            break
        drawn.append(rng.draw(left))
        if how == "without_replacement":
            left[drawn[-1]] = 0.0
    return drawn


class StaticGrowth:
    """A shape that is known beforehand: node i of it gets its children, whatever they turn out to be."""

    def __init__(
        self,
        parents: Sequence[int],
        how: Draw,
        root: int,
        budget: DraftBudget,
        sampling: SamplingParams,
        rng: Randomness,
        ids: Tensor | None = None,
    ) -> None:
        """`parents`: the shape. `drawn`: how children are drawn above T = 0; at T = 0 they are the likeliest."""
        self.nodes, self.origin = Nodes(root), [0]
        self.drawn: Draw = "point" if sampling.greedy else how
        self.budget, self.sampling, self.rng, self.ids = budget, sampling, rng, ids
        self._below: list[list[int]] = [[] for _ in parents]
        for node, parent in enumerate(parents):
            if node:
                self._below[parent].append(node)
        self._stands_for = [0]  # node -> its place in the shape
        self._distributions: dict[int, Tensor] = {}
        if not self._wants_children(0):
            self.nodes.frontier = []

    def _wants_children(self, node: int) -> bool:
        return bool(self._below[self._stands_for[node]]) and self.nodes.depths[node] < self.budget.depth

    def extend(self, logits: Float[Tensor, "frontier draft_vocab"]) -> None:
        """Hang the shape's next level on."""
        asked = []
        for node, q in zip(self.nodes.frontier, confidence(logits, self.sampling), strict=True):
            self._distributions[node] = q
            places = self._below[self._stands_for[node]]
            for place, column in zip(places, children_of(q, len(places), self.drawn, self.rng), strict=False):
                child = self.nodes.add(column if self.ids is None else int(self.ids[column]), node)
                self._stands_for.append(place)
                if self._wants_children(child) and float(q[column]) >= self.budget.min_confidence:
                    asked.append(child)
        self.nodes.ask(asked)

    def tree(self) -> DraftTree:
        """Every node."""
        self.origin = list(range(len(self.nodes.tokens)))
        tree = self.nodes.select(self.origin)
        if self.drawn == "point" or not self._distributions:
            return tree
        none = torch.zeros_like(self._distributions[0])
        q = torch.stack([self._distributions.get(node, none) for node in self.origin])
        return DraftTree(tree.tokens, tree.parents, self.drawn, q, self.ids)


def static(parents: Sequence[int], how: Draw = "without_replacement") -> Grow:
    """Trees of one shape for a drafter; see `static.py` and `sequoia.py` for shapes."""

    def grow(
        root: int, budget: DraftBudget, sampling: SamplingParams, rng: Randomness, ids: Tensor | None = None
    ) -> Growth:
        return StaticGrowth(parents, how, root, budget, sampling, rng, ids)

    return grow
