"""The wrong answers to exercise 05 that people give, each with the sentence that explains it. They serve `examine`.

Those to its verifier are in `tree_rounds.py`.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

from specdec_course.checks.examine import Suspect
from specdec_ref.trees.sequoia import expected_tokens, optimal_tree

__all__ = ["LINKS", "RERANKS", "TAUS", "VIEWS", "way"]


def way(parents: Sequence[int], node: int) -> list[int]:
    """The node and what it hangs on, up to the root."""
    found = [node]
    while parents[found[-1]] >= 0:
        found.append(parents[found[-1]])
    return found


def _view(
    sees: Callable[[list[int], int, int], bool] = lambda parents, i, j: j in way(parents, i),
    stands: Callable[[list[int], int], int] = lambda parents, i: len(way(parents, i)) - 1,
) -> Callable[[list[int], int], tuple[list[list[bool]], list[int]]]:
    def view(parents: list[int], length: int) -> tuple[list[list[bool]], list[int]]:
        every = range(len(parents))
        return [[sees(parents, i, j) for j in every] for i in every], [length + stands(parents, i) for i in every]

    return view


VIEWS = (  # (parents, length) -> (mask, positions)
    Suspect(
        "Every node sees all nodes before it in the list. That is the mask of a chain; in a tree the ones before "
        "it may belong to another branch.",
        _view(sees=lambda parents, i, j: j <= i),
    ),
    Suspect(
        "The mask is the wrong way round: a row lists what a node SEES, and a node sees what comes before it.",
        _view(sees=lambda parents, i, j: i in way(parents, j)),
    ),
    Suspect(
        "A node sees its parent and itself, but not the ancestors above these.",
        _view(sees=lambda parents, i, j: j in way(parents, i)[:2]),
    ),
    Suspect(
        "A node does not see itself. Attention of a token goes to its own key as well.",
        _view(sees=lambda parents, i, j: j in way(parents, i)[1:]),
    ),
    Suspect(
        "A node also sees its siblings. They are other words for the same place, another future.",
        _view(sees=lambda parents, i, j: j in way(parents, i) or (j > 0 and parents[j] == parents[i])),
    ),
    Suspect(
        "Node 0 is left out. The root is the last token of the text: every guess follows it.",
        _view(sees=lambda parents, i, j: j in way(parents, i) and (j > 0 or i == 0)),
    ),
    Suspect(
        "Positions count along the list. Siblings are guesses for the same place, so they share a position.",
        _view(stands=lambda parents, i: i),
    ),
    Suspect(
        "Positions count how many nodes each one sees, itself included: one too many. The root's own is `length`.",
        _view(stands=lambda parents, i: len(way(parents, i))),
    ),
    Suspect(
        "Positions are one too small: the cached tokens fill the positions 0 to length - 1, so `length` is still free.",
        _view(stands=lambda parents, i: len(way(parents, i)) - 2),
    ),
)

Choose = Callable[[list[float], list[int], int], list[int]]


def _best(
    value: Callable[[list[float], list[int], int], float], *, later: bool = False, more: int = -1, ordered: bool = True
) -> Choose:
    """The most valuable candidates; `later`: of equal ones the later."""

    def choose(confidence: list[float], parents: list[int], nodes: int) -> list[int]:
        values = [value(confidence, parents, i) for i in range(len(parents))]
        best = sorted(range(len(values)), key=lambda i: (-values[i], -i if later else i))[: nodes + more]
        return sorted(best) if ordered else best

    return choose


def _path(confidence: list[float], parents: list[int], i: int) -> float:
    return prod(confidence[j] for j in way(parents, i))


RERANKS = (  # (confidence, parents, nodes) -> kept
    Suspect(
        "The candidates are ranked by their own confidence. A guess counts only if everything before it is accepted, "
        "too: its value is the product along its path.",
        _best(lambda confidence, parents, i: confidence[i]),
    ),
    Suspect(
        "The confidences along the path are added, so a longer path is always worth more. Chances of things that must "
        "all happen multiply.",
        _best(lambda confidence, parents, i: sum(confidence[j] for j in way(parents, i))),
    ),
    Suspect(
        "Of equally valuable candidates the later one is kept. A child of confidence 1 is worth as much as its parent, "
        "so this leaves orphans; the earlier one must go first. EAGLE's own code takes a top-k that promises no order.",
        _best(_path, later=True),
    ),
    Suspect(
        "One candidate too many is kept: `nodes` counts the root, as in SGLang's num-draft-tokens.",
        _best(_path, more=0),
    ),
    Suspect(
        "The right ones are kept, the most valuable first. Mask and links need every parent before its child: "
        "ascending numbers give that.",
        _best(_path, ordered=False),
    ),
    Suspect(
        "The first candidates are kept, level by level: that shape does not depend on the confidences.",
        lambda confidence, parents, nodes: list(range(min(nodes - 1, len(parents)))),
    ),
    Suspect(
        "Only the confidence of a candidate and its parent is multiplied. The path goes on up to the root.",
        _best(lambda confidence, parents, i: prod(confidence[j] for j in way(parents, i)[:2])),
    ),
)


def _tau(shape: Callable[[list[float], int], Sequence[int]], root: float = 1.0) -> Callable[[list[float], int], float]:
    """tau of a rule that gives a list of parents."""

    def tau(row: list[float], nodes: int) -> float:
        return expected_tokens(list(shape(row, nodes)), [row]) - 1.0 + root

    return tau


def _optimal(row: list[float], nodes: int) -> Sequence[int]:
    return optimal_tree([row], nodes, nodes)[0]


def _chain(row: list[float], nodes: int) -> Sequence[int]:
    return range(-1, nodes - 1)


def _fan(row: list[float], nodes: int) -> Sequence[int]:
    return [-1] + [0] * min(nodes - 1, len(row))


def _greedy(row: list[float], nodes: int) -> float:
    """Take the most valuable place that is open."""
    tau, places = 0.0, [(1.0, 0, 0.0)]  # value, rank, value of the parent
    for _ in range(nodes):
        value, rank, above = places.pop(places.index(max(places)))
        tau += value
        places.append((value * row[0], 0, value))
        if above and rank + 1 < len(row):
            places.append((above * row[rank + 1], rank + 1, above))
    return tau


def _recursive(row: list[float], nodes: int, below: Callable[[int], int], beside: Callable[[int], int]) -> float:
    """1 + F(nodes - 1, 0) by the chapter's recursion, with the ranks at which the two rests begin."""

    @cache
    def best(m: int, r: int) -> float:
        if m == 0 or r == len(row):
            return 0.0
        return max(row[r] * (1 + best(s - 1, below(r))) + best(m - s, beside(r)) for s in range(1, m + 1))

    return 1.0 + best(nodes - 1, 0)


TAUS: tuple[Suspect, ...] = (  # (acceptance, nodes) -> tau
    Suspect("The target's own token is not counted: the root is worth 1.", _tau(_optimal, root=0.0)),
    Suspect(
        "There is one guess too many: `nodes` counts the root, so the guesses are nodes - 1.",
        lambda row, nodes: _tau(_optimal)(row, nodes + 1),
    ),
    Suspect("This is the best chain: no node has a second child.", _tau(_chain)),
    Suspect("This is a fan: all guesses hang on the root, none has a child.", _tau(_fan)),
    Suspect(
        "This takes the most valuable open place each time. Where a later child is accepted more often than an earlier "
        "one, the way to a good place leads through a poor one.",
        _greedy,
    ),
    Suspect(
        "A child is given the place of another rank: the second child is the second that was drawn, so it cannot be "
        "there without the first.",
        lambda row, nodes: _tau(_optimal)(sorted(row, reverse=True), nodes),
    ),
    Suspect(
        "The rank never advances: what is left over goes to the next child, whose rank is one more.",
        lambda row, nodes: _recursive(row, nodes, below=lambda r: 0, beside=lambda r: r),
    ),
    Suspect(
        "A child's own children begin at the rank that it has itself. Ranks are counted anew below every node.",
        lambda row, nodes: _recursive(row, nodes, below=lambda r: r, beside=lambda r: r + 1),
    ),
    Suspect(
        "The nodes below a child are not multiplied by that child's own probability.",
        lambda row, nodes: 1.0 + (nodes - 1) * max(row),
    ),
)


def _linked(
    parents: Callable[[list[int], int], list[int]],
    links: Callable[[list[int], int, int], bool] = lambda tokens, guesses, i: True,
    pad: int = 0,
) -> Callable[[list[int], list[int], int], Any]:
    """The library's links with other parents for the pads, or with some nodes skipped: `links(tokens, guesses, i)`."""

    def function(tokens: list[int], above: list[int], size: int) -> tuple[list[int], list[int], list[int]]:
        padded, up = tokens + [pad] * (size - len(tokens)), parents(above, size)
        child, sibling = [-1] * size, [-1] * size
        last: dict[int, int] = {}
        for node in range(1, size):
            if not links(padded, len(tokens), node):
                continue
            if up[node] in last:
                sibling[last[up[node]]] = node
            else:
                child[up[node]] = node
            last[up[node]] = node
        return padded, child, sibling

    return function


def _on_the_root(parents: list[int], size: int) -> list[int]:
    return parents + [0] * (size - len(parents))


LINKS = (  # (tokens, parents, size) -> (tokens, children, siblings)
    Suspect(
        "This links as the server did. Look at what hangs on the root beside the guesses, and at what a walk makes of "
        "a token that it meets several times.",
        _linked(_on_the_root),
    ),
    Suspect(
        "The pads have another token now, and are linked as before: the walk still meets them.",
        _linked(_on_the_root, pad=-1),
    ),
    Suspect(
        "Every token 0 is left out. It is a word like any other, and somebody may have guessed it.",
        _linked(_on_the_root, lambda tokens, guesses, i: tokens[i] != 0),
    ),
    Suspect(
        "The pads now hang on the last guess. They are still guesses that nobody made.",
        _linked(lambda parents, size: parents + [len(parents) - 1] * (size - len(parents))),
    ),
    Suspect(
        "The pads now form a chain below the last guess. They are still guesses that nobody made.",
        _linked(lambda parents, size: parents + list(range(len(parents) - 1, size - 1))),
    ),
    Suspect(
        "The last guess is linked nowhere either: the first pad is node len(tokens).",
        _linked(_on_the_root, lambda tokens, guesses, i: i < guesses - 1),
    ),
    Suspect(
        "One pad is left on the root: it is met once, which is a guess that nobody made.",
        _linked(_on_the_root, lambda tokens, guesses, i: i <= guesses),
    ),
)
