"""The last draw of a round, from one row: inverse CDF over the blocks of pass 1, then inside one block.

    weights w_v = exp((x_v - max) / T), 0 for the children's tokens         mark = coin * sum w
    the block in which the running sum of the blocks' sums passes the mark, then the token in that block

The sums of pass 1 say in which block the token lies, so one block is read instead of a row; a block that holds a
child's token is read once more, for the child's share cannot be subtracted: what is left may be far below rounding. The
coin is used as in the readable verifiers (`Randomness.draw`), so both give the same token.
"""

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.contract import Links
from specdec_ref.kernels.launch import VARYING, VOCAB_BLOCK, launch, padded
from specdec_ref.kernels.stats import row_distribution, scaled_exp

__all__ = ["draw_rest", "invert_cdf"]


@triton.jit
@no_type_check
def invert_cdf(weights, mark, SIZE: tl.constexpr):
    """(first index whose running sum passes the mark, sum before it). A weight of zero is never chosen."""
    lane = tl.arange(0, SIZE)
    first = tl.min(tl.where((tl.cumsum(weights, 0) > mark) & (weights > 0), lane, SIZE), 0)
    last = tl.max(tl.where(weights > 0, lane, 0), 0)
    index = tl.where(first < SIZE, first, last)
    return index, tl.sum(tl.where(lane < index, weights, 0.0), 0)


@triton.jit
@no_type_check
def _rest_of_block(start, block, top, floor, tokens, next_sibling, child, temperature, vocab, BLOCK: tl.constexpr):
    """Weights of one block without the tokens of `child` and its younger siblings."""
    token = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(start + token, mask=token < vocab, other=-float("inf")).to(tl.float32)
    weights = scaled_exp(tl.where(x >= floor, x, -float("inf")), top, temperature)
    while child >= 0:
        weights = tl.where(token == tl.load(tokens + child), 0.0, weights)
        child = tl.load(next_sibling + child)
    return weights


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _draw_rest(
    logits,
    batch_stride,
    node_stride,
    tokens,
    next_token,
    next_sibling,
    stop,
    coins,
    coin_batch,
    coin_node,
    peak,
    mass,
    floors,
    extra,
    temperature,
    nodes,
    vocab,
    blocks,
    HAS_FLOORS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    node = tl.load(stop + row)
    if node >= 0:
        base, lane = row * nodes, tl.arange(0, BLOCKS)
        start = logits + row * batch_stride + node * node_stride
        top, total = row_distribution(peak, mass, base + node, temperature, blocks, BLOCKS)
        there = (base + node) * blocks + lane
        peaks = tl.load(peak + there, mask=lane < blocks, other=-float("inf"))
        whole = tl.load(mass + there, mask=lane < blocks, other=0.0) * scaled_exp(peaks, top, temperature)
        floor = -float("inf")
        if HAS_FLOORS:
            floor = tl.load(floors + base + node)
        eldest = tl.load(next_token + base + node)
        rest, child = whole, eldest
        while child >= 0:
            block = tl.load(tokens + base + child) // BLOCK
            kept = _rest_of_block(
                start, block, top, floor, tokens + base, next_sibling + base, eldest, temperature, vocab, BLOCK
            )
            rest = tl.where(lane == block, tl.sum(kept, 0), rest)
            child = tl.load(next_sibling + base + child)
        nothing = tl.sum(rest, 0) <= 0.0  # the children hold all of p and yet rounding refused them: p itself
        eldest = tl.where(nothing, -1, eldest)
        rest = tl.where(nothing, whole, rest)
        mark = (tl.load(coins + row * coin_batch + node * coin_node) * tl.sum(rest, 0)).to(tl.float32)
        block, before = invert_cdf(rest, mark, BLOCKS)
        kept = _rest_of_block(
            start, block, top, floor, tokens + base, next_sibling + base, eldest, temperature, vocab, BLOCK
        )
        token, _ = invert_cdf(kept, mark - before, BLOCK)
        tl.store(extra + row, tl.where(total == total, block * BLOCK + token, -1))


def draw_rest(
    logits: Float[Tensor, "batch nodes vocab"],
    tokens: Int[Tensor, "batch nodes"],
    links: Links,
    stop: Int[Tensor, " batch"],
    coins: Float[Tensor, "batch nodes"],
    stats: tuple[Float[Tensor, "batch nodes blocks"], Float[Tensor, "batch nodes blocks"]],
    temperature: float,
    floors: Float[Tensor, "batch nodes"] | None,
    extra: Int[Tensor, " batch"],
) -> None:
    """Draw after node `stop[b]` from p without its children's tokens, into `extra[b]`; rows with stop -1 are left."""
    batch, nodes, vocab = logits.shape
    blocks = stats[0].shape[-1]
    launch(
        _draw_rest,
        (batch,),
        logits,
        logits.stride(0),
        logits.stride(1),
        tokens,
        links.next_token,
        links.next_sibling,
        stop,
        coins,
        coins.stride(0),
        coins.stride(1),
        *stats,
        floors,
        extra,
        temperature,
        nodes,
        vocab,
        blocks,
        HAS_FLOORS=floors is not None,
        BLOCK=VOCAB_BLOCK,
        BLOCKS=padded(blocks),
        num_warps=8,
    )
