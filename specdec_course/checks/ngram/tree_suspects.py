"""The wrong draft trees that people make in exercise 04, each with the sentence that explains it."""

from collections.abc import Callable, Sequence

import torch

from specdec_course.checks.examine import Suspect
from specdec_ref.core import DraftTree

__all__ = ["TREES"]

Branches = Sequence[Sequence[int]]


def _grown(
    root: int, branches: Branches, nodes: int, *, key: Callable[[int, int, int], object] | None = None, spare: int = 0
) -> DraftTree:
    """Node by node; a new one unless `key(branch, parent, token)` was seen before. Without a key: the one asked for."""
    key = key or (lambda number, at, token: (at, token))
    tokens, parents, known = [root], [-1], dict[object, int]()
    for number, branch in enumerate(branches):
        at = 0
        for token in branch:
            mark = key(number, at, token)
            if mark not in known:
                if len(tokens) >= nodes + spare:
                    break
                known[mark] = len(tokens)
                tokens.append(token)
                parents.append(at)
            at = known[mark]
    return DraftTree(torch.tensor(tokens), torch.tensor(parents))


def _padded(root: int, branches: Branches, nodes: int) -> DraftTree:
    tree = _grown(root, branches, nodes)
    pads = [0] * (nodes - len(tree))
    return DraftTree(torch.tensor([*tree.token_list, *pads]), torch.tensor([*tree.parent_list, *pads]))


TREES = (  # (root, branches, nodes) -> DraftTree
    Suspect(
        "A beginning that several guesses share is repeated. Equal siblings must be one node.",
        lambda root, branches, nodes: _grown(root, branches, nodes, key=lambda number, at, token: (number, at, token)),
    ),
    Suspect(
        "Nodes are identified by their word alone. The same word after another beginning is another guess.",
        lambda root, branches, nodes: _grown(root, branches, nodes, key=lambda number, at, token: token),
    ),
    Suspect(
        "The budget counts the root: of n nodes, n - 1 are guesses.",
        lambda root, branches, nodes: _grown(root, branches, nodes, spare=1),
    ),
    Suspect(
        "The tree is filled up with pads. A pad below the root is a guess of token 0, and above temperature 0 it "
        "counts as one.",
        _padded,
    ),
    Suspect(
        "Only the first guess is in the tree. The others must be added beside it.",
        lambda root, branches, nodes: _grown(root, branches[:1], nodes),
    ),
    Suspect(
        "A guess continues where the previous one ended. Each must begin at the root.",
        lambda root, branches, nodes: _grown(root, [[token for branch in branches for token in branch]], nodes),
    ),
    Suspect(
        "The tree is filled level by level. The best guess must be added first, as a whole, then the next.",
        lambda root, branches, nodes: _grown(root, _by_levels(branches), nodes),
    ),
    Suspect(
        "A guess that does not fit as a whole is left out. Its beginning must be added, until the tree is full.",
        lambda root, branches, nodes: _grown(root, _that_fit(branches, nodes), nodes),
    ),
    Suspect(
        "Nodes are identified by their word and the word before it. A node is a whole path, not only its last two.",
        lambda root, branches, nodes: _by_pairs(root, branches, nodes),
    ),
)


def _by_levels(branches: Branches) -> list[Sequence[int]]:
    """Beginnings of the branches, the shortest first: whatever takes them in their order fills level by level."""
    return [branch[:level] for level in range(1, max(map(len, branches), default=0) + 1) for branch in branches]


def _that_fit(branches: Branches, nodes: int) -> list[Sequence[int]]:
    kept: list[Sequence[int]] = []
    for branch in branches:
        if len(_grown(0, kept, nodes)) + len(branch) <= nodes:
            kept.append(branch)
    return kept


def _by_pairs(root: int, branches: Branches, nodes: int) -> DraftTree:
    tokens = [root]  # kept in step with _grown, which asks once a token

    def pair(number: int, at: int, token: int) -> tuple[int, int]:
        before = tokens[at]
        if (before, token) not in seen:
            seen.add((before, token))
            tokens.append(token)
        return before, token

    seen = set[tuple[int, int]]()
    return _grown(root, branches, nodes, key=pair)
