"""Attention of a few rows on a CPU in which every row comes out bit for bit as it would alone.

    weights = exp(q keys^T - max)         out = (weights values) / (weights 1)

Plain decoding asks for one row, verification for k of them, a tree's with the nodes of other branches in between. A sum
of rounded numbers depends on its order, so in general the two give slightly different logits, and where two tokens
nearly tie another text. All other operations of the forward (`fast.py`) treat each row alone. Attention does if its two
sums over the keys always run in the order of the text:

  masked keys    have weight 0, and adding 0 changes nothing, wherever they stand
  the normaliser is a product with ones, which stand beside the values, so it is summed in the same order
  blocks         a product over many keys adds up pieces of them, and where it cuts depends on their number; so the keys
                 are taken in blocks of BLOCK here, which no product cuts. A key belongs to the block of its *position*:
                 where a tree's node stands in another slot, the blocks are masked
  few            MKL multiplies fewer than FEWEST rows, or KEYS keys, in another way, so they are padded

Keys, values and all sums are float32 for half-precision weights. The order costs a plain step of SmolLM2-135M 5 to 11 %
of its time beside torch's own attention (docs/LOG.md). `probe.exact_rows` tries it out on a model. Background: He 2025,
"Defeating Nondeterminism in LLM Inference" (products that do not depend on the batch).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ONES", "RowAttention"]

BLOCK = 128  # keys; with the nodes of a tree behind them no more than MKL multiplies in one piece, 192
FEWEST = 4  # rows of one product
KEYS = 16  # of the shortest text
ONES = 16  # columns of ones beside the values: as many as a vector register holds
MANY = 65  # nodes: from here on torch's own attention runs, as for a prompt


class RowAttention:
    """The attention of one forward, the same in every layer: who sees whom, and which keys make a block."""

    def __init__(
        self,
        mask: Bool[Tensor, "batch 1 nodes slots"],
        positions: Int[Tensor, "batch nodes"],
        lengths: Sequence[int],
        heads: int,
        shared: int,
        scale: float,
        dtype: torch.dtype,
    ) -> None:
        """`lengths`: committed slots of each row of the batch. `shared`: key heads; `dtype`: that of the forward."""
        nodes, group = mask.shape[2], heads // shared
        self.heads, self.shared, self.few = heads, shared, nodes < MANY
        self.dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.scale = torch.tensor([scale], dtype=self.dtype)
        self.padding = max(0, FEWEST - group * nodes) if self.few else 0
        self.short = max(0, KEYS - mask.shape[3]) if self.few else 0
        if self.short:
            mask = F.pad(mask, (0, self.short))
        self.added: Tensor | None = None
        if not bool(mask.all()):
            added = torch.zeros(mask.shape, dtype=self.dtype).masked_fill_(~mask, float("-inf")).repeat(1, 1, group, 1)
            self.added = F.pad(added, (0, 0, 0, self.padding)) if self.padding else added
        self.blocks = _blocks(positions, lengths, mask.shape[3], self.dtype) if self.few else []

    def __call__(
        self,
        qk: Float[Tensor, "batch nodes heads head_dim"],
        keys: Float[Tensor, "batch kv_heads slots head_dim"],
        values: Float[Tensor, "batch kv_heads slots columns"],
    ) -> Float[Tensor, "batch nodes width"]:
        """The heads' outputs side by side. `qk`: queries, and new keys, which are not read; `values`: and ones."""
        batch, nodes, _, width = qk.shape
        scaled = qk * self.scale
        if not self.few:
            rows = scaled[:, :, : self.heads].transpose(1, 2).reshape(batch, self.shared, -1, width)
            out = F.scaled_dot_product_attention(rows, keys, values[..., :width], attn_mask=self.added, scale=1.0)
        else:
            if self.short:
                keys, values = F.pad(keys, (0, 0, 0, self.short)), F.pad(values, (0, 0, 0, self.short))
            rows = self._rows(scaled).flatten(0, 1)
            sums = self._sums(rows, keys.flatten(0, 1), values.flatten(0, 1))[:, : len(rows[0]) - self.padding]
            out = torch.empty(*sums.shape[:2], width, dtype=qk.dtype)
            torch.div(sums[..., :width], sums[..., width : width + 1], out=out)
        if nodes > 1:
            out = out.view(batch, self.heads, nodes, width).transpose(1, 2).to(qk.dtype)
        return out.reshape(batch, nodes, -1)

    def _rows(
        self, scaled: Float[Tensor, "batch nodes heads head_dim"]
    ) -> Float[Tensor, "batch kv_heads rows head_dim"]:
        """The query heads that share a key head are rows of one block: no key is copied. At least FEWEST rows."""
        batch, nodes, both, width = scaled.shape
        group = self.heads // self.shared
        if self.padding and nodes == 1 and self.heads - group + FEWEST <= both:  # what stands behind is the padding
            stride = (both * width, group * width, width, 1)
            return scaled.as_strided((batch, self.shared, FEWEST, width), stride)
        rows = scaled[:, :, : self.heads].transpose(1, 2).reshape(batch, self.shared, -1, width)
        return F.pad(rows, (0, 0, 0, self.padding)) if self.padding else rows

    def _sums(
        self,
        rows: Float[Tensor, "kv_rows rows head_dim"],
        keys: Float[Tensor, "kv_rows slots head_dim"],
        values: Float[Tensor, "kv_rows slots columns"],
    ) -> Float[Tensor, "kv_rows rows columns"]:
        """Weighted sums of the values, and of the ones."""
        scores = torch.bmm(rows, keys.transpose(1, 2))
        if self.added is not None:
            scores.unflatten(0, (-1, self.shared)).add_(self.added)
        weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
        sums: Tensor | None = None
        for begin, end, own in self.blocks:
            part, there = weights[:, :, begin:end], values[:, begin:end]
            if own is not None:
                part = part * own.repeat_interleave(self.shared, 0)
            sums = torch.bmm(part, there) if sums is None else torch.baddbmm(sums, part, there)
        return cast("Tensor", sums)


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
    blocks: list[tuple[int, int, Tensor | None]] = []
    for start in starts:
        end = min(start + BLOCK + positions.shape[1], slots)  # a node stands at most so far behind its position
        blocks.append((start, end, (own[:, None, start:end] == start // BLOCK).to(dtype)))
    return blocks
