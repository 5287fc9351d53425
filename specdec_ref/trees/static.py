"""Shapes that are fixed beforehand, as lists of parents: a chain, a k-ary tree, a Medusa-style list of choices.

    chain(3)          0 - 1 - 2 - 3                          3 drafts, one after the other
    k_ary(2, 2)       two guesses, and two below each        k + k^2 + .. nodes below the root
    choices([(0,), (0, 0), (1,)])                            the best child, its best child, the second-best child

A choice is a path of ranks: (0, 2) is the third child of the first. `trees.growth.static` draws such trees.
Sources: SpecInfer (Miao et al. 2024) for k-ary trees; Medusa (Cai et al. 2024, section 2.1.2) for lists of choices.
"""

from collections.abc import Iterable, Sequence
from itertools import product

from specdec_ref.config import DraftBudget

__all__ = ["budget_of", "chain", "choices", "k_ary", "probe"]


def chain(depth: int) -> list[int]:
    """`depth` nodes below the root, each the child of the one before."""
    return list(range(-1, depth))


def k_ary(k: int, depth: int) -> list[int]:
    """Every node but those at `depth` has k children; level by level."""
    parents, level = [-1], [0]
    for _ in range(depth):
        first = len(parents)
        parents += [node for node in level for _ in range(k)]
        level = list(range(first, len(parents)))
    return parents


def choices(paths: Iterable[Sequence[int]]) -> list[int]:
    """The shape that holds exactly these paths of ranks, given in any order.

    Raises ValueError if a path's parent, or a sibling of lower rank, is missing: that place could never be filled.
    """
    wanted = sorted({tuple(path) for path in paths if len(path)}, key=lambda path: (len(path), path))
    place: dict[tuple[int, ...], int] = {(): 0}
    parents = [-1]
    for path in wanted:
        before = (*path[:-1], path[-1] - 1)
        if path[:-1] not in place or (path[-1] > 0 and before not in place) or path[-1] < 0:
            raise ValueError(f"choice {path} needs its parent {path[:-1]} and every sibling of lower rank")
        place[path] = len(parents)
        parents.append(place[path[:-1]])
    return parents


def budget_of(parents: Sequence[int], min_confidence: float = 0.0) -> DraftBudget:
    """The budget that just holds this shape: its depth, widest fan-out and number of nodes, root included."""
    depths = [0]
    for parent in parents[1:]:
        depths.append(depths[parent] + 1)
    fan_out = max((parents.count(node) for node in range(len(parents))), default=1)
    return DraftBudget(max(depths), max(1, fan_out), len(parents), min_confidence)


def probe(depth: int = 4, ranks: int = 6, spread: int = 2) -> list[int]:
    """A tree to count on: `ranks` children of the root, and every path whose ranks add up to at most `spread`."""
    deep = (path for level in range(1, depth + 1) for path in product(range(spread + 1), repeat=level))
    return choices([*((rank,) for rank in range(ranks)), *(path for path in deep if sum(path) <= spread)])
