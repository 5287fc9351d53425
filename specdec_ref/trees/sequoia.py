"""Sequoia's optimal tree: the shape that accepts most, for so many nodes, from how often a child of each rank does.

    a node's value   V = product over its path of  acceptance[depth][rank]        the chance that it is accepted
    expected tau     sum of V over all nodes, the root's 1 being the target's own token
    best(n, d)       the best tree of n nodes whose root stands at depth d:  1 + forest(n - 1, d, 0)
    forest(n, d, r)  max over m <= n of  acceptance[d][r] * best(m, d + 1) + forest(n - m, d, r + 1),  or 0 for n = 0

`acceptance[d][r]`: how often the child of rank r below an accepted node at depth d is the one that is accepted; ranks
count from the first child drawn, and the last row stands for all depths below. It is a property of target, draft, task
and temperature: measure it (`bench/trees.py`), then ask for the tree. Depth is capped: a level is a run of the draft.
Source: Sequoia (Chen et al. 2024, arXiv 2402.12374, section 3.1, Alg. 1). Exact: nothing is sampled or rounded.
"""

from collections.abc import Sequence
from functools import cache

__all__ = ["expected_tokens", "optimal_tree"]


def _checked(acceptance: Sequence[Sequence[float]], depth: int) -> list[tuple[float, ...]]:
    """A row for every depth; the last one given stands for those below. Raises ValueError for no probabilities."""
    rows = [tuple(float(share) for share in row) for row in acceptance]
    if not rows or any(not 0.0 <= share <= 1.0 for row in rows for share in row):
        raise ValueError("acceptance needs a row of probabilities, first child first, for at least one depth")
    return [rows[min(level, len(rows) - 1)] for level in range(depth)]


def optimal_tree(acceptance: Sequence[Sequence[float]], nodes: int, depth: int) -> tuple[list[int], float]:
    """(parents, expected tau) of the best tree of at most `nodes` nodes, root included, and at most `depth` levels.

    Parents stand in level order, so that the shape can be grown as it is. Raises ValueError for a bad vector or budget.
    """
    if nodes < 1 or depth < 0:
        raise ValueError(f"a tree has at least its root and a depth >= 0, got nodes {nodes} and depth {depth}")
    rows = _checked(acceptance, depth)

    @cache
    def forest(count: int, level: int, rank: int) -> tuple[float, tuple[int, ...]]:
        """Best value of `count` nodes in the subtrees of children `rank`, `rank` + 1, ..; sizes of those subtrees."""
        if count == 0 or level == depth or rank == len(rows[level]):
            return 0.0, ()
        options = []
        for size in range(1, count + 1):
            below, after = forest(size - 1, level + 1, 0), forest(count - size, level, rank + 1)
            options.append((rows[level][rank] * (1.0 + below[0]) + after[0], (size, *after[1])))
        return max(options, key=lambda option: option[0])

    value, _ = forest(nodes - 1, 0, 0)
    parents, level_nodes = [-1], [(0, nodes - 1, 0)]
    while level_nodes:
        following = []
        for node, below, level in level_nodes:
            for size in forest(below, level, 0)[1]:
                following.append((len(parents), size - 1, level + 1))
                parents.append(node)
        level_nodes = following
    return parents, 1.0 + value


def expected_tokens(parents: Sequence[int], acceptance: Sequence[Sequence[float]]) -> float:
    """tau that this acceptance vector predicts for a shape: the sum of its nodes' values. A missing rank counts 0."""
    rows = _checked(acceptance, max(1, len(parents)))
    values, depths, ranks = [1.0], [0], [0] * len(parents)
    for parent in parents[1:]:
        row, rank = rows[depths[parent]], ranks[parent]
        values.append(values[parent] * (row[rank] if rank < len(row) else 0.0))
        depths.append(depths[parent] + 1)
        ranks[parent] += 1
    return sum(values)
