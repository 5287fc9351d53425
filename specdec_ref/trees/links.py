"""A tree as left-child / right-sibling links: the form in which kernels, and SGLang's, walk it.

    next_token[i]     first child of node i, -1 at a leaf
    next_sibling[i]   the next child of node i's parent, -1 for the last one

Two integers a node are all that a walk needs. Repeated siblings (independent draws repeat) are one outcome, so the
later ones are linked nowhere and their children hang on the first: a walk that adds up sibling masses would count them
twice. Pads are linked nowhere either; hung on the root, token 0 would be a guess that nobody made.
The names are those of SGLang's tensors (`retrieve_*`), node 0 is the root.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from specdec_ref.core import DraftTree

__all__ = ["TreeLinks", "distinct_children", "tree_links"]


@dataclass(frozen=True, slots=True)
class TreeLinks:
    """A batch of trees, padded to the widest. `retrieve_index[b, i] = b * nodes + i`: the row of the flat batch."""

    candidates: Int[Tensor, "batch nodes"]  # tokens; pads hold 0
    retrieve_index: Int[Tensor, "batch nodes"]
    retrieve_next_token: Int[Tensor, "batch nodes"]
    retrieve_next_sibling: Int[Tensor, "batch nodes"]


def distinct_children(tree: DraftTree) -> list[list[int]]:
    """Children of each node, in drawing order and each token once; a repeat's children are counted as the first's.

    A repeated sibling itself gets no children and is nobody's child.
    """
    children: list[list[int]] = [[] for _ in range(len(tree))]
    first: dict[tuple[int, int], int] = {}  # (parent, token) -> the node that stands for it
    stands_for = list(range(len(tree)))
    for node in range(1, len(tree)):
        parent = stands_for[tree.parent_list[node]]
        stands_for[node] = first.setdefault((parent, tree.token_list[node]), node)
        if stands_for[node] == node:
            children[parent].append(node)
    return children


def tree_links(trees: Sequence[DraftTree]) -> TreeLinks:
    """The links of a batch, int64 on the CPU."""
    width = max(map(len, trees))
    tokens = torch.zeros(len(trees), width, dtype=torch.long)
    child, sibling = torch.full_like(tokens, -1), torch.full_like(tokens, -1)
    for row, tree in enumerate(trees):
        tokens[row, : len(tree)] = tree.tokens
        for node, children in enumerate(distinct_children(tree)):
            for here, after in zip([None, *children], [*children, None], strict=True):
                if after is not None:
                    (child[row] if here is None else sibling[row])[node if here is None else here] = after
    return TreeLinks(tokens, torch.arange(tokens.numel()).view_as(tokens), child, sibling)
