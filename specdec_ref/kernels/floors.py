"""Top-k, top-p and min-p as one number a row: the least logit that is kept. The other kernels drop what is below.

    top-k   the largest t with  #{x >= t} >= k                    top-p   the largest t with  mass{x >= t} >= p * mass
    min-p   max x + T log(min_p)                                  floor = the largest of the three, in that order

All three keep the tokens at or above a threshold (ties stay together), so no row is sorted and no mask is written. The
threshold is found digit by digit in the ordered bit pattern of float32: 4 bits a pass, all 15 candidates at once. Extra
passes over a row: 1 for its maximum and mass; 8 each for top-k and top-p, of which 4 suffice for bfloat16 and 5 for
float16, whose low bits are zero; min-p adds none. A pass is a read of the row that the passes before left in cache.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.config import SamplingParams
from specdec_ref.kernels.launch import VARYING, launch
from specdec_ref.kernels.stats import scaled_exp

__all__ = ["logit_floors"]

BLOCK, DIGITS = 1024, {torch.bfloat16: 4, torch.float16: 5, torch.float32: 8}


@triton.jit
@no_type_check
def _key(x):
    """float32 to an integer from 0 to 2^32 - 1 in the same order; -0 counts as 0."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483648


@triton.jit
@no_type_check
def _value(key):
    """The float32 that `_key` made this of."""
    bits = (key - 2147483648).to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def _threshold(
    start, vocab, least, top, temperature, goal, COUNTING: tl.constexpr, DIGITS: tl.constexpr, BLOCK: tl.constexpr
):
    """The largest t for which the tokens with x >= t, among those >= `least`, count or weigh `goal` at least."""
    digit = tl.arange(0, 16)
    found = tl.zeros([], tl.int64)
    for step in range(DIGITS):  # not unrolled: the unrolled loop took 15 s to compile and spilled registers
        unit = tl.full([], 1 << 28, tl.int64) >> (4 * step)
        measure = tl.zeros([16], tl.float32)
        for begin in range(0, vocab, BLOCK):
            token = begin + tl.arange(0, BLOCK)
            x = tl.load(start + token, mask=token < vocab, other=-float("inf")).to(tl.float32)
            if COUNTING:
                weight = tl.where(token < vocab, 1.0, 0.0)
            else:
                weight = tl.where(x >= least, scaled_exp(x, top, temperature), 0.0)
            above = _key(x)[:, None] >= (found + digit * unit)[None, :]
            measure += tl.sum(tl.where(above, weight[:, None], 0.0), 0)
        found += tl.max(tl.where((measure >= goal) | (digit == 0), digit, 0), 0).to(tl.int64) * unit
    return _value(found)


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _logit_floors(
    logits,
    batch_stride,
    node_stride,
    picked,
    floors,
    temperature,
    top_k,
    top_p,
    log_min_p,
    nodes,
    vocab,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    MIN_P: tl.constexpr,
    DIGITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, place = tl.program_id(0).to(tl.int64), tl.program_id(1)
    node = tl.load(picked + row * nodes + place)
    if node >= 0:
        start = logits + row * batch_stride + node * node_stride
        floor, top, mass = -float("inf"), tl.full([], -float("inf"), tl.float32), tl.zeros([], tl.float32)
        if TOP_K:
            floor = _threshold(start, vocab, floor, top, temperature, top_k, True, DIGITS, BLOCK)
        for begin in range(0, vocab, BLOCK):  # online: what is kept so far, and its mass
            token = begin + tl.arange(0, BLOCK)
            x = tl.load(start + token, mask=token < vocab, other=-float("inf")).to(tl.float32)
            x = tl.where(x >= floor, x, -float("inf"))
            higher = tl.maximum(top, tl.max(x, 0))
            mass = mass * scaled_exp(top, higher, temperature) + tl.sum(scaled_exp(x, higher, temperature), 0)
            top = higher
        if TOP_P:
            nucleus = _threshold(start, vocab, floor, top, temperature, top_p * mass, False, DIGITS, BLOCK)
            floor = tl.maximum(floor, nucleus)
        if MIN_P:
            floor = tl.maximum(floor, top + temperature * log_min_p)
        tl.store(floors + row * nodes + node, floor)


def logit_floors(
    logits: Float[Tensor, "batch nodes vocab"], picked: Int[Tensor, "batch nodes"], sampling: SamplingParams
) -> Float[Tensor, "batch nodes"] | None:
    """The floors of the rows whose nodes stand in `picked` (-1: none); None if the settings drop nothing."""
    batch, nodes, vocab = logits.shape
    use_k, use_p, use_min = 0 < sampling.top_k < vocab, sampling.top_p < 1.0, sampling.min_p > 0.0
    if not (use_k or use_p or use_min):
        return None
    floors = logits.new_full((batch, nodes), -float("inf"), dtype=torch.float32)
    log_min_p = float(torch.tensor(sampling.min_p).log()) if use_min else 0.0
    launch(
        _logit_floors,
        (batch, nodes),
        logits,
        logits.stride(0),
        logits.stride(1),
        picked.contiguous(),
        floors,
        sampling.temperature,
        float(sampling.top_k),
        sampling.top_p,
        log_min_p,
        nodes,
        vocab,
        TOP_K=use_k,
        TOP_P=use_p,
        MIN_P=use_min,
        DIGITS=DIGITS[logits.dtype],
        BLOCK=BLOCK,
        num_warps=8,
    )
    return floors
