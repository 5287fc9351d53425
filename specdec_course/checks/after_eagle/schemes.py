"""Ways to draft two words and to test them: task 1 of exercise 10. Three of them change the output."""

from collections.abc import Callable, Sequence
from itertools import product

__all__ = ["SCHEMES", "Pair", "Proposal", "proposals"]

Pair = tuple[int, ...]
Row = Sequence[float]
Proposal = tuple[float, Pair, tuple[Row, Row]]  # how likely, the two words, the rows that they are tested with

M1, M2 = (0.4, 0.4, 0.2), (0.4, 0.3, 0.3)  # how each word is distributed on its own
JOINT = ((0.3, 0.1, 0.0), (0.0, 0.2, 0.2), (0.1, 0.0, 0.1))  # both words drawn together, with those very shares

Chances = dict[Pair, float]
Tested = Callable[[Pair], tuple[Row, Row]]

APART: Chances = {(a, b): M1[a] * M2[b] for a, b in product(range(3), repeat=2)}
TOGETHER: Chances = {(a, b): JOINT[a][b] for a, b in product(range(3), repeat=2)}
LIKELIEST: Chances = {(0, 0): 1.0}


def _better_of_two() -> Chances:
    """Two independent draws; the one that its own rows find likelier is kept."""
    kept = dict.fromkeys(APART, 0.0)
    for first, second in product(APART, APART):
        kept[max(first, second, key=lambda pair: (APART[pair], pair))] += APART[first] * APART[second]
    return kept


def _marginals(_: Pair) -> tuple[Row, Row]:
    return M1, M2


def _conditional(pair: Pair) -> tuple[Row, Row]:
    row = JOINT[pair[0]]
    return M1, tuple(share / sum(row) for share in row)


def _one_hot(pair: Pair) -> tuple[Row, Row]:
    first, second = (tuple(float(word == other) for other in range(3)) for word in pair)
    return first, second


OWN = "Drawn by the target itself, tested with its rows (p = q)"
SCHEMES: dict[str, tuple[Chances, Tested]] = {
    "Drawn apart, tested with their own rows": (APART, _marginals),
    "Drawn together, tested with conditional rows": (TOGETHER, _conditional),
    "Drawn together, tested with the rows of each word alone": (TOGETHER, _marginals),
    "Drawn together, tested as point drafts": (TOGETHER, _one_hot),
    OWN: ({}, _marginals),  # filled in by `proposals`
    "The likeliest words, tested with softmax rows": (LIKELIEST, _marginals),
    "The better of two draws, tested with the rows of one draw": (_better_of_two(), _marginals),
    "The better of two draws, tested as point drafts": (_better_of_two(), _one_hot),
}


def proposals(name: str, p1: Row, p2: Sequence[Row]) -> list[Proposal]:
    """The drafts that can occur, each with the rows that it is tested with; p1 and p2 are the target's rows."""
    if name == OWN:
        return [(p1[a] * p2[a][b], (a, b), (p1, p2[a])) for a, b in product(range(3), repeat=2)]
    chances, tested = SCHEMES[name]
    return [(chance, pair, tested(pair)) for pair, chance in chances.items() if chance]
