"""Pass 1 over raw logits: per block of the vocabulary its maximum and its sum of exponentials. Nothing else is written.

    peak_b = max x_v      mass_b = sum exp((x_v - peak_b) / T)      over v in block b, x_v >= floor

A row's normaliser follows from a few numbers (online softmax, Milakov & Gimelshein 2018), so no probabilities are
stored: for a vocabulary of 128 k in bfloat16 that is 32 pairs instead of half a megabyte. Temperature is folded in; a
row that holds NaN or +inf gets the mass NaN. Top-k, top-p and min-p come as `floor` (`floors.py`). The idea is that of
vLLM's rejection sampler (model runner V2); blocks there are 8192 wide.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.launch import VARYING, VOCAB_BLOCK, launch

__all__ = ["block_stats", "row_distribution", "scaled_exp"]


@triton.jit
@no_type_check
def scaled_exp(x, peak, temperature):
    """exp((x - peak) / T): 0 for x = -inf, and never inf - inf."""
    return tl.where(x > -float("inf"), tl.exp((x - tl.where(peak > -float("inf"), peak, 0.0)) / temperature), 0.0)


@triton.jit
@no_type_check
def row_distribution(peak, mass, row, temperature, blocks, BLOCKS: tl.constexpr):
    """(maximum, sum of exponentials) of a whole row from its blocks; the sum is NaN if the row is bad."""
    lane = tl.arange(0, BLOCKS)
    peaks = tl.load(peak + row * blocks + lane, mask=lane < blocks, other=-float("inf"))
    top = tl.max(peaks, 0)
    shares = tl.load(mass + row * blocks + lane, mask=lane < blocks, other=0.0) * scaled_exp(peaks, top, temperature)
    total = tl.sum(shares, 0)
    return top, tl.where(top > -float("inf"), total, float("nan"))


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _block_stats(
    logits,
    batch_stride,
    node_stride,
    picked,
    floors,
    peak,
    mass,
    temperature,
    nodes,
    picks,
    vocab,
    blocks,
    HAS_FLOORS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, pick, block = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    node = tl.load(picked + row * picks + pick)
    if node >= 0:
        token = block * BLOCK + tl.arange(0, BLOCK)
        start = logits + row * batch_stride + node * node_stride
        x = tl.load(start + token, mask=token < vocab, other=-float("inf")).to(tl.float32)
        broken = tl.max(((x != x) | (x == float("inf"))).to(tl.int32), 0)
        if HAS_FLOORS:
            x = tl.where(x >= tl.load(floors + row * nodes + node), x, -float("inf"))
        top = tl.max(x, 0)
        total = tl.where(broken > 0, float("nan"), tl.sum(scaled_exp(x, top, temperature), 0))
        out = (row * nodes + node) * blocks + block
        tl.store(peak + out, tl.where(broken > 0, 0.0, top))
        tl.store(mass + out, total)


def block_stats(
    logits: Float[Tensor, "batch nodes vocab"],
    picked: Int[Tensor, "batch picks"],
    temperature: float,
    floors: Float[Tensor, "batch nodes"] | None,
    into: tuple[Float[Tensor, "batch nodes blocks"], Float[Tensor, "batch nodes blocks"]] | None = None,
) -> tuple[Float[Tensor, "batch nodes blocks"], Float[Tensor, "batch nodes blocks"]]:
    """(peak, mass) of the rows whose nodes stand in `picked` (-1: none). `into`: where to put them; else new ones."""
    batch, nodes, vocab = logits.shape
    blocks = triton.cdiv(vocab, VOCAB_BLOCK)
    peak, mass = into or (logits.new_empty(batch, nodes, blocks, dtype=torch.float32) for _ in range(2))
    launch(
        _block_stats,
        (batch, picked.shape[1], blocks),
        logits,
        logits.stride(0),
        logits.stride(1),
        picked.contiguous(),
        floors,
        peak,
        mass,
        temperature,
        nodes,
        picked.shape[1],
        vocab,
        blocks,
        HAS_FLOORS=floors is not None,
        BLOCK=VOCAB_BLOCK,
    )
    return peak, mass
