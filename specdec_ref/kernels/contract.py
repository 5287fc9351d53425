"""What the kernels and their twins pass around: SGLang's tensor contract for verifying trees.

A batch of trees is padded to the widest. Node 0 is the root; the parent of the root is -1 and so is that of a pad.

    next_token[b, i]     first child of node i, -1 at a leaf
    next_sibling[b, i]   next child of node i's parent, -1 at the last
    accept_index[b, k]   the k-th node of the accepted path, root first, filled up with -1
    coins                one uniform number a node, batch x nodes, and one a row for the last draw
    rule                 strict: a child passes if p > 0 and coin < sum of p over it and its elder siblings

SGLang's `accept_index` counts rows of the flat batch: ours plus b * nodes. Its `retrieve_*` tensors are our links.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["BAD_ROW", "DraftProbs", "Links", "Walk", "pack_bits", "per_node", "unpack_bits"]

BAD_ROW = -1  # as `next_token`: the target's logits held NaN, +inf or nothing but -inf where the walk read them


@dataclass(frozen=True, slots=True)
class Links:
    """What a walk and an attention mask need of a tree. `bits`: ancestors and the node itself, 64 nodes a word."""

    next_token: Int[Tensor, "batch nodes"]
    next_sibling: Int[Tensor, "batch nodes"]
    positions: Int[Tensor, "batch nodes"]
    bits: Int[Tensor, "batch nodes words"]


@dataclass(frozen=True, slots=True)
class Walk:
    """The accepted nodes of each row, and the token that the target adds after the last of them."""

    accept_index: Int[Tensor, "batch nodes"]
    next_token: Int[Tensor, " batch"]


@dataclass(frozen=True, slots=True)
class DraftProbs:
    """q of a batch of chains, where it lies: row i of `rows[b]` is the distribution that node i's child was drawn from.

    None: nothing was drawn in that row, q is one-hot. `column[v]` is token v's column, -1 if q cannot say it; None if
    the columns are the vocabulary itself.
    """

    rows: Sequence[Float[Tensor, "_ draft_vocab"] | None]
    column: Int[Tensor, " vocab"] | None = None


def per_node(coins: Float[Tensor, "batch ..."], nodes: int) -> Float[Tensor, "batch nodes"]:
    """One coin a row, as SGLang gives the last one, serves at whatever node the walk ends; one a node stays."""
    return coins if coins.dim() == 2 else coins[:, None].expand(-1, nodes)


def pack_bits(mask: Tensor) -> Int[Tensor, "batch nodes words"]:
    """Bool batch x nodes x nodes to 64 columns a word, lowest bit first."""
    batch, nodes, columns = mask.shape
    words = -(-columns // 64)
    padded = mask.new_zeros(batch, nodes, words * 64, dtype=torch.long)
    padded[..., :columns] = mask
    place = torch.arange(64, device=mask.device)
    return (padded.view(batch, nodes, words, 64) << place).sum(-1)  # bit 63 is the sign: the sum wraps as it should


def unpack_bits(bits: Int[Tensor, "batch nodes words"]) -> Tensor:
    """The inverse: bool, batch x nodes x nodes."""
    batch, nodes, words = bits.shape
    place = torch.arange(64, device=bits.device)
    return ((bits[..., None] >> place) & 1).bool().view(batch, nodes, words * 64)[..., :nodes]
