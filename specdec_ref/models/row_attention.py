"""Attention of a few rows on a CPU in which every row comes out bit for bit as it would alone.

    weights = exp(q keys^T - max)         out = (weights values) / (weights 1)

Plain decoding asks for one row, verification for k of them, a tree's with the nodes of other branches in between. A sum
of rounded numbers depends on its order, so in general the two give slightly different logits, and where two tokens
nearly tie another text. All other operations of the forward (`fast.py`) treat each row alone. Attention does if its two
sums over the keys always run in the order of the text:

  masked keys    have weight 0, and adding 0 changes nothing, wherever they stand
  the normaliser is a product with ones, so it is summed in the same order as the values are
  blocks         a product over many keys adds up pieces of them, and where it cuts depends on their number; so the keys
                 are taken in blocks of BLOCK here, which no product cuts. A key belongs to the block of its *position*:
                 where a tree's node stands in another slot, the blocks are masked
  few rows       MKL multiplies fewer than FEWEST rows in another way, so they are padded

Keys, values and all sums are float32 for half-precision weights. Checked on every load (`fits.py`); background: He 2025,
"Defeating Nondeterminism in LLM Inference".
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["RowAttention", "wide"]

BLOCK = 160  # keys
FEWEST = 4  # rows of one product
MANY = 32  # nodes: from here on torch's own attention runs, as for a prompt


def wide(dtype: torch.dtype) -> torch.dtype:
    """What a forward in `dtype` attends in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class RowAttention:
    """The attention of one forward, the same in every layer: who sees whom, and which keys make a block."""

    def __init__(
        self,
        mask: Bool[Tensor, "batch 1 nodes slots"],
        positions: Int[Tensor, "batch nodes"],
        lengths: Sequence[int],
        group: int,
        dtype: torch.dtype,
    ) -> None:
        """`lengths`: committed slots of each row of the batch. `group`: query heads that share a key head."""
        nodes, slots = mask.shape[2:]
        self.dtype, self.few = dtype, nodes < MANY
        self.padding = max(0, FEWEST - group * nodes) if self.few else 0
        self.added: Tensor | None = None
        if not bool(mask.all()):
            added = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, float("-inf")).repeat(1, 1, group, 1)
            self.added = F.pad(added, (0, 0, 0, self.padding)) if self.padding else added
        if self.few:
            self.blocks = _blocks(positions, lengths, slots, dtype)
            self.ones = torch.ones(1, slots, 16, dtype=dtype)  # a product of one column would be summed otherwise

    def __call__(
        self,
        q: Float[Tensor, "batch kv_heads rows head_dim"],
        keys: Float[Tensor, "batch kv_heads slots head_dim"],
        values: Float[Tensor, "batch kv_heads slots head_dim"],
    ) -> Float[Tensor, "batch kv_heads rows head_dim"]:
        """`q` is scaled already; the query heads of a group are rows of their key head."""
        if not self.few:
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=self.added, scale=1.0)
        rows = F.pad(q, (0, 0, 0, self.padding)) if self.padding else q
        scores = torch.bmm(rows.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).view(*rows.shape[:3], -1)
        if self.added is not None:
            scores += self.added
        weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
        out, total = _zeros(rows), _zeros(rows[..., :16])
        for begin, end, own in self.blocks:
            part = weights[..., begin:end]
            part = (part if own is None else part * own).flatten(0, 1)
            out = torch.baddbmm(out, part, values[:, :, begin:end].flatten(0, 1))
            total = torch.baddbmm(total, part, self.ones[:, begin:end].expand(len(part), -1, -1))
        return (out / total[..., :1]).view(rows.shape)[:, :, : q.shape[2]]


def _zeros(like: Float[Tensor, "batch kv_heads rows width"]) -> Float[Tensor, "kv_rows rows width"]:
    return like.new_zeros(len(like) * like.shape[1], *like.shape[2:])


def _blocks(
    positions: Int[Tensor, "batch nodes"], lengths: Sequence[int], slots: int, dtype: torch.dtype
) -> list[tuple[int, int, Tensor | None]]:
    """(first slot, one past the last, which of them belong to the block; None: all) of each block."""
    there = torch.arange(slots) // BLOCK
    own = there.repeat(len(lengths), 1)
    new = torch.tensor(lengths)[:, None] + torch.arange(positions.shape[1])
    own.scatter_(1, new, (positions // BLOCK).clamp(max=int(there[-1])))
    starts = range(0, slots, BLOCK)
    if torch.equal(own, there.expand_as(own)):
        return [(start, min(start + BLOCK, slots), None) for start in starts]
    blocks = []
    for start in starts:
        end = min(start + BLOCK + positions.shape[1], slots)  # a node stands at most so far behind its position
        blocks.append((start, end, (own[:, None, None, start:end] == start // BLOCK).to(dtype)))
    return blocks
