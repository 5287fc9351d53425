"""A batch of trees as tensors, and the attention mask of a tree: a node sees its ancestors and itself.

    mask[i, j] = 1  iff  j = i or mask[parent(i), j] = 1     (SpecInfer, Miao et al. 2024, §4.2: topology-aware mask)

A chain gives the lower triangle, i.e. ordinary causal attention.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from specdec_ref.core import DraftTree

__all__ = ["ancestor_mask", "padded_trees", "slot_mask"]


def ancestor_mask(parents: Sequence[int]) -> Bool[Tensor, "nodes nodes"]:
    """Row i marks what node i may attend to inside the tree. `parents[0] = -1`, `parents[i] < i`."""
    n = len(parents)
    if all(parent == node - 1 for node, parent in enumerate(parents)):
        return torch.ones(n, n, dtype=torch.bool).tril_()
    mask = torch.eye(n, dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask


def slot_mask(
    block: Bool[Tensor, "batch nodes nodes"], lengths: Sequence[int], counts: Sequence[int]
) -> Bool[Tensor, "batch 1 nodes slots"]:
    """What new nodes may see of a slot cache: the row's `lengths[b]` committed slots, then its tree, `block[b]`.

    Of row b only the first `counts[b]` nodes are real. A padding node sees itself, since a row of nothing would be NaN.
    Slots are as many as the longest row needs.
    """
    batch, nodes, _ = block.shape
    mask = torch.zeros(batch, 1, nodes, max(lengths) + nodes, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, 0, :, :length] = True
        mask[row, 0, :, length : length + nodes] = block[row]
        if counts[row] < nodes:
            pads = torch.arange(counts[row], nodes)
            mask[row, 0, pads] = False
            mask[row, 0, pads, length + pads] = True
    return mask


def padded_trees(trees: Sequence[DraftTree]) -> Int[Tensor, "2 batch nodes"]:
    """Tokens and parents of a batch, on the host: pads hold token 0 and parent -1."""
    width = max(map(len, trees))
    tokens = [[*tree.token_list] + [0] * (width - len(tree)) for tree in trees]
    return torch.tensor([tokens, [[*tree.parent_list] + [-1] * (width - len(tree)) for tree in trees]])
