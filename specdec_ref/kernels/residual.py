"""After a rejection against q: the residual distribution max(p - q, 0), of the one row that was rejected.

A first read of p's and q's rows gives the residual mass of each block; the draw then reads one block of both again.
Where rounding leaves no mass at all, p itself is drawn from, as in `sampling.residual`.
"""

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.draw import invert_cdf
from specdec_ref.kernels.launch import VARYING, VOCAB_BLOCK, launch, padded
from specdec_ref.kernels.stats import row_distribution, scaled_exp

__all__ = ["draft_prob", "draw_residual", "residual_block"]


@triton.jit
@no_type_check
def draft_prob(table, row, node, width, column, token, there, Q_TYPE: tl.constexpr, HAS_COLUMN: tl.constexpr):
    """q(token | node) from the row's own buffer; 0 for a token that the draft vocabulary lacks."""
    q = tl.load(table + row).to(tl.pointer_type(Q_TYPE))
    place = token
    if HAS_COLUMN:
        place = tl.load(column + token, mask=there, other=-1)
    return tl.load(q + node * width + place, mask=there & (place >= 0), other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def residual_block(
    logits,
    batch_stride,
    node_stride,
    floors,
    table,
    width,
    column,
    row,
    node,
    block,
    top,
    total,
    part,
    temperature,
    nodes,
    vocab,
    HAS_FLOORS: tl.constexpr,
    Q_TYPE: tl.constexpr,
    HAS_COLUMN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """max(p - part q, 0) over one block: `part` is 1, or 0 where p itself is wanted."""
    token = block * BLOCK + tl.arange(0, BLOCK)
    there = token < vocab
    x = tl.load(logits + row * batch_stride + node * node_stride + token, mask=there, other=-float("inf"))
    x = x.to(tl.float32)
    if HAS_FLOORS:
        x = tl.where(x >= tl.load(floors + row * nodes + node), x, -float("inf"))
    p = scaled_exp(x, top, temperature) / total
    q = draft_prob(table, row, node, width, column, token, there, Q_TYPE, HAS_COLUMN)
    return tl.maximum(p - part * q, 0.0)


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _residual_mass(
    logits,
    batch_stride,
    node_stride,
    floors,
    table,
    width,
    column,
    refused,
    peak,
    mass,
    rest,
    temperature,
    nodes,
    vocab,
    blocks,
    HAS_FLOORS: tl.constexpr,
    Q_TYPE: tl.constexpr,
    HAS_COLUMN: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    node = tl.load(refused + row)
    if node >= 0:
        top, total = row_distribution(peak, mass, row * nodes + node, temperature, blocks, BLOCKS)
        weights = residual_block(
            logits,
            batch_stride,
            node_stride,
            floors,
            table,
            width,
            column,
            row,
            node,
            block,
            top,
            total,
            1.0,
            temperature,
            nodes,
            vocab,
            HAS_FLOORS,
            Q_TYPE,
            HAS_COLUMN,
            BLOCK,
        )
        tl.store(rest + row * blocks + block, tl.sum(weights, 0))


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _draw_residual(
    logits,
    batch_stride,
    node_stride,
    floors,
    table,
    width,
    column,
    refused,
    peak,
    mass,
    rest,
    coins,
    coin_batch,
    coin_node,
    extra,
    temperature,
    nodes,
    vocab,
    blocks,
    HAS_FLOORS: tl.constexpr,
    Q_TYPE: tl.constexpr,
    HAS_COLUMN: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    node = tl.load(refused + row)
    if node >= 0:
        lane, out = tl.arange(0, BLOCKS), row * nodes + node
        top, total = row_distribution(peak, mass, out, temperature, blocks, BLOCKS)
        peaks = tl.load(peak + out * blocks + lane, mask=lane < blocks, other=-float("inf"))
        whole = tl.load(mass + out * blocks + lane, mask=lane < blocks, other=0.0)
        whole = whole * scaled_exp(peaks, top, temperature) / total
        weights = tl.load(rest + row * blocks + lane, mask=lane < blocks, other=0.0)
        part = tl.where(tl.sum(weights, 0) > 0.0, 1.0, 0.0)
        weights = tl.where(part > 0.0, weights, whole)
        mark = (tl.load(coins + row * coin_batch + node * coin_node) * tl.sum(weights, 0)).to(tl.float32)
        block, before = invert_cdf(weights, mark, BLOCKS)
        inside = residual_block(
            logits,
            batch_stride,
            node_stride,
            floors,
            table,
            width,
            column,
            row,
            node,
            block,
            top,
            total,
            part,
            temperature,
            nodes,
            vocab,
            HAS_FLOORS,
            Q_TYPE,
            HAS_COLUMN,
            BLOCK,
        )
        token, _ = invert_cdf(inside, mark - before, BLOCK)
        tl.store(extra + row, tl.where(total == total, block * BLOCK + token, -1))


def draw_residual(
    logits: Float[Tensor, "batch nodes vocab"],
    q: tuple[object, ...],
    refused: Int[Tensor, " batch"],
    coins: Float[Tensor, "batch nodes"],
    stats: tuple[Float[Tensor, "batch nodes blocks"], Float[Tensor, "batch nodes blocks"]],
    temperature: float,
    floors: Float[Tensor, "batch nodes"] | None,
    extra: Int[Tensor, " batch"],
    flags: dict[str, object],
) -> None:
    """Draw from the residual after node `refused[b]`, into `extra[b]`; rows with -1 are left.

    `q`: (table of addresses, width, column) and `flags` as `chain.py` makes them.
    """
    batch, nodes, vocab = logits.shape
    blocks = stats[0].shape[-1]
    rest = stats[0].new_empty(batch, blocks)
    shared = (logits, logits.stride(0), logits.stride(1), floors, *q, refused, *stats, rest)
    sizes = (temperature, nodes, vocab, blocks)
    flags = {**flags, "HAS_FLOORS": floors is not None, "BLOCK": VOCAB_BLOCK, "BLOCKS": padded(blocks)}
    launch(_residual_mass, (batch, blocks), *shared, *sizes, **flags)
    launch(_draw_residual, (batch,), *shared, coins, *coins.stride(), extra, *sizes, **flags, num_warps=8)
