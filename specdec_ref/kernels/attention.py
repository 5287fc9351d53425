"""Tree attention over the slot cache: kernel (e). A node sees the committed slots, its ancestors and itself.

    o_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j       j < length,  or  j = length + t with bit t of bits[i] set

Online softmax over blocks of slots (FlashAttention: Dao et al. 2022), scores in float32. The query heads that share a
key head (GQA) are rows of one block, so a slot is read once for all of them. The prefix needs no mask; the tree's part
takes one bit a pair of nodes instead of a byte a pair of node and slot. Slots at and behind length + nodes are never
looked at.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.launch import INTERPRETED, launch, padded

__all__ = ["tree_attention"]

TILE_BYTES = 8192  # of one block of keys: with more, heads of 128 and 256 run out of registers or shared memory


@triton.jit
@no_type_check
def _attend(query, keys, values, slot_stride, value_stride, slot, seen, present, head_dim, scale, peak, total, out,
            DIM: tl.constexpr, TYPE: tl.constexpr):  # fmt: skip
    """Take one block of slots into the running softmax (peak, total, out)."""
    dim = tl.arange(0, DIM)
    slot = slot.to(tl.int64)
    inside = present[:, None] & (dim < head_dim)[None, :]
    key = tl.load(keys + slot[:, None] * slot_stride + dim[None, :], mask=inside, other=0.0).to(TYPE)
    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
    scores = tl.where(seen, scores, -float("inf"))
    higher = tl.maximum(peak, tl.max(scores, 1))
    shift = tl.where(higher > -float("inf"), higher, 0.0)
    share, decay = tl.exp(scores - shift[:, None]), tl.exp(peak - shift)
    value = tl.load(values + slot[:, None] * value_stride + dim[None, :], mask=inside, other=0.0).to(TYPE)
    out = out * decay[:, None] + tl.dot(share.to(TYPE), value, input_precision="ieee")
    return higher, total * decay + tl.sum(share, 1), out


@triton.jit
@no_type_check
def _tree_attention(
    query, q_batch, q_head, q_node, keys, k_batch, k_head, k_slot, values, v_batch, v_head, v_slot, lengths, bits, out,
    scale, nodes, words, heads, group, head_dim,
    ROWS: tl.constexpr, SLOTS: tl.constexpr, DIM: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    batch, kv_head = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # a row is a pair: query head of the group, node
    node, head = place % nodes, kv_head * group + place // nodes
    real = place < nodes * group
    dim = tl.arange(0, DIM)
    inside = real[:, None] & (dim < head_dim)[None, :]
    rows = query + batch * q_batch + head[:, None] * q_head + node[:, None].to(tl.int64) * q_node
    q = tl.load(rows + dim[None, :], mask=inside, other=0.0).to(TYPE)
    keys, values = keys + batch * k_batch + kv_head * k_head, values + batch * v_batch + kv_head * v_head
    peak, total = tl.full([ROWS], -float("inf"), tl.float32), tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    length = tl.load(lengths + batch)
    for begin in range(0, length, SLOTS):
        slot = begin + tl.arange(0, SLOTS)
        present = slot < length
        seen = real[:, None] & present[None, :]
        peak, total, acc = _attend(q, keys, values, k_slot, v_slot, slot, seen, present, head_dim, scale, peak, total,
                                   acc, DIM, TYPE)  # fmt: skip
    for begin in range(0, nodes, SLOTS):
        other = begin + tl.arange(0, SLOTS)
        present = other < nodes
        both = real[:, None] & present[None, :]
        word = tl.load(bits + (batch * nodes + node[:, None]) * words + other[None, :] // 64, mask=both, other=0)
        seen = both & (((word >> (other[None, :] % 64)) & 1) != 0)
        peak, total, acc = _attend(q, keys, values, k_slot, v_slot, length + other, seen, present, head_dim, scale,
                                   peak, total, acc, DIM, TYPE)  # fmt: skip
    acc = acc / tl.where(total > 0.0, total, 1.0)[:, None]
    goal = out + ((batch * nodes + node[:, None]) * heads + head[:, None]) * head_dim + dim[None, :]
    tl.store(goal, acc, mask=inside)


def tree_attention(
    query: Float[Tensor, "batch heads nodes head_dim"], keys: Float[Tensor, "batch kv_heads slots head_dim"],
    values: Float[Tensor, "batch kv_heads slots head_dim"], lengths: Int[Tensor, " batch"],
    bits: Int[Tensor, "batch nodes words"], scale: float,
) -> Float[Tensor, "batch nodes heads head_dim"]:  # fmt: skip
    """Row b's nodes stand in the slots lengths[b] .. lengths[b] + nodes - 1. Half precision uses tensor cores."""
    batch, heads, nodes, head_dim = query.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    out = query.new_empty(batch, nodes, heads, head_dim)
    half = (
        query.dtype in (torch.float16, torch.bfloat16) and not INTERPRETED
    )  # the interpreter has no bfloat16 products
    kind = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}[query.dtype] if half else tl.float32
    dim = padded(head_dim, 16)
    slots = min(64, max(16, TILE_BYTES // (dim * (2 if half else 4))))
    rows = min(slots, padded(nodes * group, 16))
    launch(
        _tree_attention, (triton.cdiv(nodes * group, rows), batch, kv_heads), query, *query.stride()[:3], keys,
        *keys.stride()[:3], values, *values.stride()[:3], lengths.contiguous(), bits.contiguous(), out, scale, nodes,
        bits.shape[-1], heads, group, head_dim, ROWS=rows, SLOTS=slots, DIM=dim, TYPE=kind, num_stages=2,
    )  # fmt: skip
    return out
