"""Another way to make the last draw: a race (Gumbel-max), in one read of the row and with no sums at all.

    token = argmax over v of  log w_v - log E_v,    E_v = -log(1 - u_v) ~ Exp(1),    u_v in (0, 1) from (key, v)

P(v wins) = w_v / sum w (Gumbel 1954; Yellott 1977), so unnormalised weights will do, and blocks race independently. The
noise is splitmix64 of a key made of (seed, position) and of the token's number: no state, no global seed, and a batch's
layout changes nothing. u is never 0 or 1: 32 random bits and a half. Against `draw.py` it reads a row where that reads
a block, needs no normaliser for a bonus row, and gives other tokens than `Randomness.draw`: same distribution, other
coins.
"""

from dataclasses import replace
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.contract import Links
from specdec_ref.kernels.launch import VARYING, VOCAB_BLOCK, launch, padded
from specdec_ref.kernels.residual import residual_block
from specdec_ref.kernels.stats import row_distribution

__all__ = ["race"]


@triton.jit
@no_type_check
def _exponential(key, token):
    """Exp(1) noise of (key, token): splitmix64, then -log(1 - u), by its series where u is small."""
    z = key.to(tl.uint64) + (token + 1).to(tl.uint64) * tl.full([], 0x9E3779B97F4A7C15, tl.uint64)
    z = (z ^ (z >> 30)) * tl.full([], 0xBF58476D1CE4E5B9, tl.uint64)
    z = (z ^ (z >> 27)) * tl.full([], 0x94D049BB133111EB, tl.uint64)
    z = z ^ (z >> 31)
    u = tl.minimum(((z >> 32).to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.99999994)
    return tl.where(u < 0.01, u * (1.0 + u * (0.5 + u * (0.33333334 + u * 0.25))), -tl.log(1.0 - u))


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _race(
    logits, batch_stride, node_stride, tokens, next_token, next_sibling, floors, table, width, column, stop, refused,
    peak, mass, keys, score, winner, temperature, nodes, vocab, blocks, HAS_FLOORS: tl.constexpr,
    HAS_Q: tl.constexpr, Q_TYPE: tl.constexpr, HAS_COLUMN: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    base, node = row * nodes, tl.load(stop + row)
    token = block * BLOCK + tl.arange(0, BLOCK)
    noise = tl.log(_exponential(tl.load(keys + row), token))
    broken = 0
    value = noise
    if node >= 0:  # p without the children's tokens: x - T log E, the normaliser being the same for all
        x = tl.load(
            logits + row * batch_stride + node * node_stride + token, mask=token < vocab, other=-float("inf")
        ).to(tl.float32)
        broken = tl.max(((x != x) | (x == float("inf"))).to(tl.int32), 0)
        if HAS_FLOORS:
            x = tl.where(x >= tl.load(floors + base + node), x, -float("inf"))
        child = tl.load(next_token + base + node)
        while child >= 0:
            x = tl.where(token == tl.load(tokens + base + child), -float("inf"), x)
            child = tl.load(next_sibling + base + child)
        value = x - temperature * noise
    elif HAS_Q:
        refused_node = tl.load(refused + row)
        top, total = row_distribution(peak, mass, base + refused_node, temperature, blocks, BLOCKS)
        broken = (total != total).to(tl.int32)
        left = residual_block(
            logits, batch_stride, node_stride, floors, table, width, column, row, refused_node, block, top, total, 1.0,
            temperature, nodes, vocab, HAS_FLOORS, Q_TYPE, HAS_COLUMN, BLOCK,
        )  # fmt: skip
        value = tl.where(left > 0.0, tl.log(left) - noise, -float("inf"))
    best = tl.max(value, 0)
    first = tl.min(tl.where(value == best, token, block * BLOCK + BLOCK), 0)
    tl.store(score + row * blocks + block, tl.where(broken > 0, float("nan"), best))
    tl.store(winner + row * blocks + block, tl.where((broken > 0) | (best == -float("inf")), -1, first).to(tl.int64))


def race(
    logits: Float[Tensor, "batch nodes vocab"], tokens: Int[Tensor, "batch nodes"], links: Links,
    stop: Int[Tensor, " batch"], refused: Int[Tensor, " batch"], keys: Int[Tensor, " batch"],
    stats: tuple[Float[Tensor, "batch nodes blocks"], Float[Tensor, "batch nodes blocks"]], temperature: float,
    floors: Float[Tensor, "batch nodes"] | None, q: tuple[object, ...], flags: dict[str, object],
) -> Int[Tensor, " batch"]:  # fmt: skip
    """One draw a row: after `stop[b]` from p without its children's tokens, after `refused[b]` from max(p - q, 0).

    From p where that is 0 everywhere.
    """
    batch, nodes, vocab = logits.shape
    blocks = stats[0].shape[-1]
    score, winner = stats[0].new_empty(batch, blocks), keys.new_empty(batch, blocks)

    def run(links: Links, node: Tensor, q: tuple[object, ...], flags: dict[str, object]) -> Tensor:
        launch(
            _race, (batch, blocks), logits, logits.stride(0), logits.stride(1), tokens, links.next_token,
            links.next_sibling, floors, *q, node, refused, *stats, keys, score, winner, temperature, nodes, vocab,
            blocks,
            HAS_FLOORS=floors is not None, BLOCK=VOCAB_BLOCK, BLOCKS=padded(blocks), num_warps=8, **flags,
        )  # fmt: skip
        return winner.gather(1, score.argmax(1, keepdim=True)).squeeze(1)  # argmax ranks NaN first: a bad row stays bad

    drawn = run(links, stop, q, flags)
    if not flags["HAS_Q"]:
        return drawn
    empty = score.amax(1) == -float("inf")  # q >= p everywhere, by rounding: nothing is left, so a draw from p
    leaves = replace(links, next_token=torch.full_like(links.next_token, -1))  # all of p, no child's token left out
    no_q = {"HAS_Q": False, "Q_TYPE": tl.float32, "HAS_COLUMN": False}
    again = run(leaves, torch.where(empty, refused, -1), (None, 0, None), no_q)
    return torch.where(empty, again, drawn)
