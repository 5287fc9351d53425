"""A batch of trees as tensors, and the attention mask of a tree: a node sees its ancestors and itself.

    mask[i, j] = 1  iff  j = i or mask[parent(i), j] = 1     (SpecInfer, Miao et al. 2024, §4.2: topology-aware mask)

A chain gives the lower triangle, i.e. ordinary causal attention.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from specdec_ref.core import BAD_LOGITS, DraftTree
from specdec_ref.transfer import at_hand, upload

__all__ = ["ancestor_mask", "chains_of", "padded_trees", "slot_mask"]


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


def padded_trees(
    trees: Sequence[DraftTree], device: torch.device | str = "cpu"
) -> tuple[Int[Tensor, "batch nodes"], Int[Tensor, "batch nodes"]]:
    """Tokens and parents of a batch on `device`: pads hold token 0 and parent -1.

    Tokens that are on the device already are not read. One that is negative marks a draft that gave NaN.
    """
    width = max(map(len, trees))
    parents = [[*tree.parent_list] + [-1] * (width - len(tree)) for tree in trees]
    if all(at_hand(tree.tokens) for tree in trees):
        tokens = [[*tree.token_list] + [0] * (width - len(tree)) for tree in trees]
        both = upload(torch.tensor([tokens, parents]), device)
        return both[0], both[1]
    rows = [upload(tree.tokens, device) for tree in trees]
    return pad_sequence(rows, batch_first=True), upload(torch.tensor(parents), device)


def chains_of(roots: Sequence[int], drafted: Sequence[Int[Tensor, " batch"]], depths: Sequence[int]) -> list[DraftTree]:
    """Row b's chain: its root, then the first `depths[b]` of its drafted tokens, which stay on their device.

    `drafted`: one tensor per level; a negative token marks logits of NaN. Raises ValueError for one that can be read
    without waiting for a device; otherwise whoever reads the tree raises it.
    """
    tokens = torch.stack([upload(torch.tensor(roots), drafted[0].device), *drafted], 1)
    parents = torch.arange(-1, tokens.shape[1] - 1)
    rows = [row[: depth + 1] for row, depth in zip(tokens, depths, strict=True)]
    if at_hand(tokens) and any(int(row.min()) < 0 for row in rows):
        raise ValueError(BAD_LOGITS)
    return [DraftTree(row, parents[: len(row)]) for row in rows]
