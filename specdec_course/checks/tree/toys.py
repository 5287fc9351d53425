"""Rounds on trees small enough to follow in every course, around what a learner wrote.

Target and draft are tables over the words a, b, c. One round from a fresh prompt is drafted, judged and written down;
what it leaves open the target writes itself. `toys.py` does the same with the whole engine, for chains.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.examine import Trouble, attempt
from specdec_course.checks.toys import PROMPT, SAMPLING, Watched, distribution_after
from specdec_ref.core import DraftTree, Draw, Randomness
from specdec_ref.exact import Distribution, outcomes, table_distribution
from specdec_ref.models.toy import TableLM
from specdec_ref.trees.growth import static
from specdec_ref.trees.static import budget_of

__all__ = ["ROW", "WORDS", "drawn_tree", "emitted_by_walk", "tree_rounds", "walked"]

WORDS = 3  # a, b, c
ROW = (0.1, 0.3, 0.6)  # the distribution of the next word where links are walked


def drawn_tree(table: TableLM, shape: Sequence[int], how: Draw, rng: Randomness) -> DraftTree:
    """A tree of this shape, each node's children drawn from the table."""
    growth = static(shape, how)(PROMPT[-1], budget_of(shape), SAMPLING, rng, None)
    while growth.nodes.frontier:
        so_far = growth.nodes.select(range(len(growth.nodes.tokens)))
        growth.extend(torch.stack([table.logits(_text(so_far, node)) for node in growth.nodes.frontier]))
    return growth.tree()


def _text(tree: DraftTree, node: int) -> tuple[int, ...]:
    return (*PROMPT, *(tree.token_list[step] for step in tree.path(node)))


@lru_cache(maxsize=64)
def _trees(target: int, guesser: int, shape: tuple[int, ...], how: Draw) -> list[tuple[float, DraftTree, Tensor]]:
    """Every tree that can be drawn, its probability, and p after each node. Tables go by their seeds."""
    table, other = TableLM(WORDS, target), TableLM(WORDS, guesser)
    drawn = list(outcomes(lambda rng: drawn_tree(other, shape, how, rng)))
    return [
        (prob, tree, torch.stack([distribution_after(table, _text(tree, node)) for node in range(len(tree))]))
        for prob, tree in drawn
    ]


def _rounds(target: int, guesser: int, shape: Sequence[int], how: Draw, code: Any) -> list[tuple[float, Any]]:
    """Every course of a round: its probability, and its words. Raises Trouble if the learner's part fails."""
    made = attempt(code) if isinstance(code, type) else code
    ways = getattr(made, "lossless_for", None)
    if not isinstance(ways, frozenset | set) or how not in ways:
        raise Trouble(f"its `lossless_for` must be a set of the ways of drawing that it can verify, {how!r} among them")
    watched, found = Watched(made, WORDS), []
    for chance, tree, p in _trees(target, guesser, tuple(shape), how):

        def judged(rng: Randomness, tree: DraftTree = tree, p: Tensor = p) -> tuple[int, ...]:
            own = DraftTree(tree.tokens, tree.parents, tree.drawn, None if tree.q is None else tree.q.clone())
            result = watched(own, p, rng)
            return (*(tree.token_list[node] for node in result.path), result.next_token)

        found += [(chance * prob, words) for prob, words in attempt(lambda run=judged: list(outcomes(run)))]
    return found


def tree_rounds(
    target: int, guesser: int, shape: Sequence[int], how: Draw, tokens: int, code: Any
) -> tuple[Distribution, float]:
    """The exact distribution of the first words, and the mean number that a round emits, from one enumeration.

    One round, then the target alone. `target`, `guesser`: seeds of the tables.
    """
    emitted: Distribution = defaultdict(float)
    mean = 0.0
    for prob, words in _rounds(target, guesser, shape, how, code):
        emitted[words[:tokens]] += prob
        mean += prob * len(words)
    whole: Distribution = defaultdict(float)
    for begun, prob in emitted.items():
        for rest, share in table_distribution(
            TableLM(WORDS, target), (*PROMPT, *begun), tokens - len(begun), SAMPLING
        ).items():
            whole[*begun, *rest] += prob * share
    return dict(whole), mean


def walked(child: Sequence[int], sibling: Sequence[int]) -> dict[int, list[int]]:
    """Children of every node that the links lead to from the root. Raises Trouble if they lead in a circle."""
    met: dict[int, list[int]] = {}
    todo, seen = [0], {0}
    while todo:
        node = todo.pop()
        met[node], at = [], child[node]
        while at != -1:
            if at in seen:
                raise Trouble(f"the links lead to node {at} twice: a walk along them would not end, or count it twice")
            seen.add(at)
            met[node].append(at)
            todo.append(at)
            at = sibling[at]
    return met


def emitted_by_walk(tokens: Sequence[int], child: Sequence[int], sibling: Sequence[int]) -> Distribution:
    """The exact first-word distribution: a coin against the running sum of p over the children that are met.

    If it lies beyond them all, a second coin draws from p without their tokens.
    """
    children = walked(child, sibling)[0]
    if any(not 0 <= tokens[node] < len(ROW) for node in children):
        raise Trouble("the walk meets a token that is no word: p has no entry for it")
    dist: Distribution = defaultdict(float)
    met = 0.0
    for node in children:
        share = min(ROW[tokens[node]], 1.0 - met)
        dist[tokens[node],] += share
        met += share
    others = [0.0 if word in {tokens[node] for node in children} else share for word, share in enumerate(ROW)]
    for word, share in enumerate(others):
        if share:
            dist[word,] += (1.0 - met) * share / sum(others)
    return dict(dist)
