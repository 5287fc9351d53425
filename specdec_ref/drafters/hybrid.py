"""Hybrid: what the text did before and what an EAGLE head thinks, in one tree under one budget of nodes.

Copying is nearly always right while a text repeats itself and nearly always wrong elsewhere; a head is right half the
time anywhere. So every guess of either gets a value, an estimate of the chance that it is accepted, and the best stay:

    value of a node   = product along its path of the chance of each guess
    a head's guess    its own confidence (EAGLE-2)
    a copied guess    share of this continuation among what followed * r(m), r(m) = how often copies held lately after a
                      match of m tokens, in this request: r += rate * (held - r) at each that was tested
    the same guess from both   one node, worth the better value

Where a copy is worth at least `sure` at the depth that the head would draft to, the head is not asked, and costs
nothing. Such trees are drawn as "point", lossless at any temperature under a verifier for point drafts.

Chains above T = 0 are not merged: a row copies where the copy is worth `sure`, as "point", and else takes the head's
own sampled chain, as "iid", of which more is accepted. Which of the two is decided before anything is drawn.
Sources: EAGLE-2 (Li et al. 2024, section 4) for the values; SGLang's NGRAM for the copies. Their union is ours.
"""

import math
from collections import Counter
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.drafters.eagle import EagleDrafter
from specdec_ref.drafters.trie import Node, TrieDrafter
from specdec_ref.trees.dynamic import DynamicGrowth
from specdec_ref.trees.growth import Growth, Nodes

__all__ = ["HybridDrafter", "Trust", "merged"]

Guesses = tuple[Nodes, Sequence[float]]  # nodes, root first, and the logarithm of each one's value


def merged(sources: Sequence[Guesses], budget: DraftBudget) -> DraftTree:
    """The most valuable nodes of all sources, as one tree; a path that several propose is one path.

    A child is worth no more than its parent, in each source and so in the union: parents are chosen first.
    """
    union, values = Nodes(sources[0][0].tokens[0]), [0.0]
    known: dict[tuple[int, int], int] = {}
    for nodes, worth in sources:
        at = [0]
        for token, parent, value in zip(nodes.tokens[1:], nodes.parents[1:], worth[1:], strict=True):
            key = (at[parent], token)
            if key not in known:
                known[key] = union.add(token, at[parent])
                values.append(value)
            at.append(known[key])
            values[at[-1]] = max(values[at[-1]], value)
    kept, width = [0], Counter[int]()
    for node in sorted(range(1, len(values)), key=lambda i: (-values[i], i)):
        parent = union.parents[node]
        if len(kept) < budget.max_nodes and parent in kept and width[parent] < budget.topk:
            kept.append(node)
            width[parent] += 1
    return union.select(kept)


class Trust:
    """r(m): how often a copy held after a match of m tokens, in one request, the latest counting most."""

    PRIOR = (0.2, 0.35, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)  # r(1), r(2) ... before any test; the last for all longer ones

    def __init__(self, rate: float = 0.2) -> None:
        self.rate, self.held = rate, list(self.PRIOR)

    def __call__(self, source: Node) -> float:
        """The chance that this guess holds where its parent does."""
        parent = source.parent
        assert parent is not None  # tells the type checker: only the root has none
        share = source.count / sum(child.count for child in parent.best)
        return max(share * self.held[min(parent.depth, len(self.held)) - 1], 1e-6)

    def learn(self, matched: int, held: bool) -> None:
        """Whether the text went on as a copy said after a match of so many tokens."""
        place = min(matched, len(self.held)) - 1
        self.held[place] += self.rate * (held - self.held[place])


class _Certain:
    """In place of a row's `Randomness` where its draw is thrown away: the row's own coins stay untouched."""

    def draw(self, weights: Tensor) -> int:
        """The likeliest."""
        return int(weights.argmax())

    def accept(self, prob: float) -> bool:
        """The likelier of the two."""
        return prob >= 0.5


class HybridDrafter:
    """A `Drafter` around an EAGLE head and a shared trie."""

    def __init__(self, eagle: EagleDrafter, copier: TrieDrafter, *, head_depth: int = 4, sure: float = 0.5) -> None:
        """`head_depth`: how deep the head drafts; copies go as deep as the budget. `sure`: above; 2: always ask it."""
        self.eagle = EagleDrafter(eagle.head, eagle.feature_layers, fast=eagle.wants_fast)
        self.copier = copier
        self.feature_layers = eagle.feature_layers
        self.head_depth, self.sure = head_depth, sure
        self._trust: dict[int, Trust] = {}
        self._copied: dict[int, dict[tuple[int, ...], int]] = {}  # path that was copied -> tokens its last one matched
        self._growths: list[DynamicGrowth] = []
        self._silent: list[bool] = []  # rows for which the head is not asked

    def warm(self, tokens: Sequence[int]) -> None:
        """See `TrieDrafter`."""
        self.copier.warm(tokens)

    def forget(self) -> None:
        """See `TrieDrafter`."""
        self.copier.forget()

    def start(
        self,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "_ features"]] | None,
    ) -> None:
        """Both read the prompts."""
        self.eagle.start(rows, prompts, features)
        self.copier.start(rows, prompts, None)
        self._trust = {row: Trust() for row in rows}

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """The better guesses of both, a tree a row; a chain if `topk` is 1."""
        levels = min(self.head_depth, budget.depth)
        copies = [self._copies(row, budget) for row in rows]
        self._silent = [_worth_at(copy, levels) >= self.sure for copy in copies]
        self._growths = []
        own = DraftBudget(levels, budget.topk, budget.max_nodes, budget.min_confidence)
        if budget.topk == 1 and not sampling.greedy:
            return self._chains(rows, copies, budget, own, sampling, rngs)
        self.eagle.grow = self._grow
        self.eagle.propose(rows, own, sampling, rngs)
        pairs = zip(copies, self._growths, strict=True)
        return [merged([copy, (growth.nodes, growth.values)], budget) for copy, growth in pairs]

    def _chains(
        self, rows: Sequence[int], copies: Sequence[Guesses], budget: DraftBudget, own: DraftBudget,
        sampling: SamplingParams, rngs: Sequence[Randomness],
    ) -> list[DraftTree]:  # fmt: skip
        """Above T = 0: a row's copy, or the head's sampled chain."""
        copied = [merged([copy], budget) for copy in copies]
        if all(self._silent):
            return copied
        self.eagle.grow = None
        coins = [_Certain() if silent else rng for silent, rng in zip(self._silent, rngs, strict=True)]
        sampled = self.eagle.propose(rows, own, sampling, coins)
        pairs = zip(copied, sampled, self._silent, strict=True)
        return [copy if silent else chain for copy, chain, silent in pairs]

    def _grow(
        self, root: int, budget: DraftBudget, sampling: SamplingParams, rng: Randomness, ids: Tensor | None = None
    ) -> Growth:
        """EAGLE-2's growth, remembered: all its candidates and their values are wanted. Asked for row by row."""
        growth = DynamicGrowth(root, budget, sampling, ids)
        if self._silent[len(self._growths)]:
            growth.nodes.frontier = []
        self._growths.append(growth)
        return growth

    def _copies(self, row: int, budget: DraftBudget) -> Guesses:
        draft, trust = self.copier.draft(row, budget), self._trust[row]
        values, paths, matched = [0.0], list[tuple[int, ...]]([()]), dict[tuple[int, ...], int]()
        for token, parent, source in zip(
            draft.nodes.tokens[1:], draft.nodes.parents[1:], draft.source[1:], strict=True
        ):
            assert source is not None  # tells the type checker: only the root has none
            values.append(values[parent] + math.log(trust(source)))
            paths.append((*paths[parent], token))
            matched[paths[-1]] = source.depth - 1
        self._copied[row] = matched
        return draft.nodes, values

    def commit(
        self,
        rows: Sequence[int],
        trees: Sequence[DraftTree],
        results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "_ features"]] | None,
    ) -> None:
        """Both read on; where the text followed a copy, its next token says how far copies can be trusted."""
        for row, tree, result in zip(rows, trees, results, strict=True):
            emitted = (*(tree.token_list[node] for node in result.path), result.next_token)
            for path, matched in self._copied[row].items():
                *before, guess = path
                if len(path) <= len(emitted) and tuple(before) == emitted[: len(before)]:
                    self._trust[row].learn(matched, guess == emitted[len(before)])
        self.eagle.commit(rows, trees, results, features)
        self.copier.commit(rows, trees, results, None)

    def state(self) -> tuple[object, ...]:
        """The head's, and how far copies are trusted in each request."""
        return self.eagle.state(), tuple((row, *trust.held) for row, trust in self._trust.items())

    def unread(self) -> int:
        """See `EagleDrafter`."""
        return self.eagle.unread()

    def finish(self, rows: Sequence[int]) -> None:
        """Drop these rows."""
        self.eagle.finish(rows)
        self.copier.finish(rows)
        for row in rows:
            self._trust.pop(row, None)
            self._copied.pop(row, None)


def _worth_at(guesses: Guesses, depth: int) -> float:
    """The value of the best guess at that depth; 0 if there is none."""
    nodes, values = guesses
    deep = (value for value, at in zip(values, nodes.depths, strict=True) if at == depth > 0)
    return math.exp(max(deep, default=-math.inf))
