"""Tree attention over the slot cache: kernel (e). A node sees the committed slots, its ancestors and itself.

    o_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j       j < length,  or  j = length + t with bit t of bits[i] set

Online softmax over blocks of slots (FlashAttention: Dao et al. 2022), scores in float32. The query heads that share a
key head (GQA) are rows of one block, so a slot is read once for all of them. The prefix needs no mask; the tree's part
takes one bit a pair of nodes instead of a byte a pair of node and slot. Slots at and behind length + nodes are never
looked at.

A prefix longer than `CHUNK` slots is split, so that one long row keeps more of a GPU busy (Flash-Decoding: Dao et al.
2023): each program takes one chunk, the first one the tree as well, and stores its running softmax; a second kernel
combines them in order. How a row is split depends on its own length alone, so its output does not depend on the batch.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.launch import INTERPRETED, VARYING, few_registers, launch, padded

__all__ = ["tree_attention"]

CHUNK = 512  # slots of the prefix per program; a multiple of every block of slots
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
def _ancestors(bits, batch, node, other, real, nodes, words):
    """(which of the nodes `other` exist, which of them each row sees)."""
    present = other < nodes
    both = real[:, None] & present[None, :]
    word = tl.load(bits + (batch * nodes + node[:, None]) * words + other[None, :] // 64, mask=both, other=0)
    return present, both & (((word >> (other[None, :] % 64)) & 1) != 0)


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _tree_attention(
    query, q_batch, q_head, q_node, keys, k_batch, k_head, k_slot, values, v_batch, v_head, v_slot, lengths, bits, out,
    partial, marks, scale, nodes, words, heads, group, head_dim, splits,
    ROWS: tl.constexpr, SLOTS: tl.constexpr, DIM: tl.constexpr, CHUNK: tl.constexpr, SPLIT: tl.constexpr,
    TYPE: tl.constexpr,
):  # fmt: skip
    batch, kv_head, split = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64), tl.program_id(0) % splits
    place = tl.program_id(0) // splits * ROWS + tl.arange(0, ROWS)  # a row is a query head of the group and a node
    node, head, real = place % nodes, kv_head * group + place // nodes, place < nodes * group
    dim, length = tl.arange(0, DIM), tl.load(lengths + batch)
    inside = real[:, None] & (dim < head_dim)[None, :]
    first, stop, tree = split * 0, length, nodes
    if SPLIT:
        first, stop = split * CHUNK, tl.minimum(length, (split + 1) * CHUNK)
        tree = tl.where(split == 0, nodes, 0)  # the tree is seen once, by the first program
    if (split == 0) | (first < length):
        rows = query + batch * q_batch + head[:, None] * q_head + node[:, None].to(tl.int64) * q_node
        q = tl.load(rows + dim[None, :], mask=inside, other=0.0).to(TYPE)
        keys, values = keys + batch * k_batch + kv_head * k_head, values + batch * v_batch + kv_head * v_head
        peak, total = tl.full([ROWS], -float("inf"), tl.float32), tl.zeros([ROWS], tl.float32)
        acc = tl.zeros([ROWS, DIM], tl.float32)
        for begin in range(first, stop, SLOTS):
            slot = begin + tl.arange(0, SLOTS)
            present, seen = slot < stop, real[:, None] & (slot < stop)[None, :]
            peak, total, acc = _attend(q, keys, values, k_slot, v_slot, slot, seen, present, head_dim, scale, peak,
                                       total, acc, DIM, TYPE)  # fmt: skip
        for begin in range(0, tree, SLOTS):
            other = begin + tl.arange(0, SLOTS)
            present, seen = _ancestors(bits, batch, node, other, real, nodes, words)
            peak, total, acc = _attend(q, keys, values, k_slot, v_slot, length + other, seen, present, head_dim, scale,
                                       peak, total, acc, DIM, TYPE)  # fmt: skip
        goal = (batch * nodes + node) * heads + head
        if SPLIT:
            goal = goal * splits + split
            tl.store(partial + goal[:, None] * head_dim + dim[None, :], acc, mask=inside)
            tl.store(marks + goal * 2, peak, mask=real)
            tl.store(marks + goal * 2 + 1, total, mask=real)
        else:
            mean = acc / tl.where(total > 0.0, total, 1.0)[:, None]
            tl.store(out + goal[:, None] * head_dim + dim[None, :], mean, mask=inside)


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _combine(partial, marks, lengths, out, rows, head_dim, splits, DIM: tl.constexpr, CHUNK: tl.constexpr):
    """One row of one head: rescale the chunks' sums to their common maximum, and divide."""
    batch, row = tl.program_id(1).to(tl.int64), tl.program_id(0)
    dim = tl.arange(0, DIM)
    goal = batch * rows + row
    peak, total = tl.full([], -float("inf"), tl.float32), tl.zeros([], tl.float32)
    acc = tl.zeros([DIM], tl.float32)
    chunks = tl.maximum(1, (tl.load(lengths + batch) + CHUNK - 1) // CHUNK)
    for split in range(chunks):
        place = goal * splits + split
        mark = tl.load(marks + place * 2)
        higher = tl.maximum(peak, mark)
        shift = tl.where(higher > -float("inf"), higher, 0.0)
        decay, share = tl.exp(peak - shift), tl.exp(mark - shift)
        part = tl.load(partial + place * head_dim + dim, mask=dim < head_dim, other=0.0)
        acc, total = acc * decay + part * share, total * decay + tl.load(marks + place * 2 + 1) * share
        peak = higher
    tl.store(out + goal * head_dim + dim, acc / tl.where(total > 0.0, total, 1.0), mask=dim < head_dim)


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
    few = few_registers(query.device)  # there a block takes half as much in half precision, and more threads in float32
    tile = TILE_BYTES // 2 if half and few else TILE_BYTES
    slots = min(64, max(16, tile // (dim * (2 if half else 4))))
    rows = min(slots, padded(nodes * group, 16))
    splits = triton.cdiv(keys.shape[2] - nodes, CHUNK)  # of the longest row; the host knows no other length
    split, partial, marks = splits > 1, None, None
    if split:
        partial = query.new_empty(batch, nodes, heads, splits, head_dim, dtype=torch.float32)
        marks = query.new_empty(batch, nodes, heads, splits, 2, dtype=torch.float32)
    lengths, blocks = lengths.contiguous(), triton.cdiv(nodes * group, rows)
    launch(
        _tree_attention, (blocks * max(splits, 1), batch, kv_heads), query, *query.stride()[:3], keys,
        *keys.stride()[:3], values, *values.stride()[:3], lengths, bits.contiguous(), out, partial, marks, scale, nodes,
        bits.shape[-1], heads, group, head_dim, max(splits, 1), ROWS=rows, SLOTS=slots, DIM=dim, CHUNK=CHUNK,
        SPLIT=split, TYPE=kind, num_stages=2, num_warps=8 if few and not half else 4,
    )  # fmt: skip
    if split:
        launch(_combine, (nodes * heads, batch), partial, marks, lengths, out, nodes * heads, head_dim, splits,
               DIM=dim, CHUNK=CHUNK, num_warps=1)  # fmt: skip
    return out
