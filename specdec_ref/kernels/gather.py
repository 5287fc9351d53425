"""KV gather of the accepted path: kernel (f). Moves a few slots of every layer's keys and values in one launch.

    slot start[b] + i  <-  slot start[b] + kept[b, i]        for i = 0, 1, ..; kept[b] ascends, so kept[b, i] >= i

In place and in order: what is read in step i lies at or behind slot i, and only slots before it were written. Nodes
that already stand in place are not touched. The buffers are reached through a table of addresses, so nothing is
stacked; those of different shapes go in different launches.
"""

from collections.abc import Sequence
from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from specdec_ref.kernels.launch import VARYING, addresses, launch, padded

__all__ = ["move_slots"]


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _move_slots(
    table,
    start,
    kept,
    moved,
    heads,
    head_dim,
    batch_stride,
    head_stride,
    slot_stride,
    TYPE: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    head, dim = tl.arange(0, HEADS)[:, None], tl.arange(0, HEAD_DIM)[None, :]
    there = (head < heads) & (dim < head_dim)
    first = tl.load(start + row)
    corner = tl.load(table + tl.program_id(0)).to(tl.pointer_type(TYPE)) + row * batch_stride + first * slot_stride
    tile = corner + head.to(tl.int64) * head_stride + dim
    for i in range(moved):
        source = tl.load(kept + row * moved + i)
        if source > i:
            tl.store(tile + i * slot_stride, tl.load(tile + source * slot_stride, mask=there), mask=there)


def move_slots(buffers: Sequence[Tensor], start: Int[Tensor, " batch"], kept: Int[Tensor, "batch moved"]) -> None:
    """`buffers`: batch x heads x slots x head_dim each, last axis dense. `kept`: ascending, then -1."""
    alike: dict[object, list[Tensor]] = {}
    for buffer in buffers:
        alike.setdefault((buffer.shape, buffer.stride(), buffer.dtype), []).append(buffer)
    for group in alike.values():
        one = group[0]
        batch, heads, _, head_dim = one.shape
        kind = getattr(tl, f"int{8 * one.element_size()}")  # a copy looks at no values: any type of that width will do
        launch(
            _move_slots,
            (len(group), batch),
            addresses(group, one),
            start.contiguous(),
            kept.contiguous(),
            kept.shape[1],
            heads,
            head_dim,
            *one.stride()[:3],
            TYPE=kind,
            HEADS=padded(heads),
            HEAD_DIM=padded(head_dim),
        )
