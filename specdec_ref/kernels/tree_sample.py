"""Target-only tree sampling from raw logits: kernel (c). One coin a node decides which child is taken, if any.

    child c passes  iff  p(c) > 0 and coin[node] < p(c) + sum of p over its elder siblings
    none, or a leaf: draw from p without the children's tokens by the last coin (`draw.py`)

Three steps: block sums of every node that has children (`stats.py`); the walk, one program a row, which reads one logit
a visited child; the last draw, for which a leaf's own row is summed up first. SGLang's kernel wants the
softmax of all rows and a second buffer of that size; here nothing of vocabulary size is written. Lossless.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.contract import Links, Walk, per_node
from specdec_ref.kernels.draw import draw_rest
from specdec_ref.kernels.launch import VARYING, launch, padded
from specdec_ref.kernels.stats import block_stats, row_distribution, scaled_exp

__all__ = ["tree_sample"]


@triton.jit(do_not_specialize=(*VARYING, "batch_stride", "node_stride"))
@no_type_check
def _tree_walk(
    logits,
    batch_stride,
    node_stride,
    tokens,
    next_token,
    next_sibling,
    coins,
    peak,
    mass,
    floors,
    accept_index,
    stop,
    leaf,
    temperature,
    nodes,
    blocks,
    HAS_FLOORS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    base, node, steps, taken = row * nodes, row * 0, row * 0, row * 0
    child = taken
    while taken >= 0:  # one round a level: `taken` is the child that passed, the root at first
        node = taken
        tl.store(accept_index + base + steps, node)
        steps += 1
        child = tl.load(next_token + base + node)
        taken = row * 0 - 1
        if child >= 0:
            top, total = row_distribution(peak, mass, base + node, temperature, blocks, BLOCKS)
            coin, sum_p = tl.load(coins + base + node), total * 0.0
            sibling = child
            while sibling >= 0:
                token = tl.load(tokens + base + sibling)
                x = tl.load(logits + row * batch_stride + node * node_stride + token).to(tl.float32)
                if HAS_FLOORS:
                    x = tl.where(x >= tl.load(floors + base + node), x, -float("inf"))
                p = scaled_exp(x, top, temperature) / total
                sum_p += p
                passed = (p > 0) & (coin < sum_p)
                taken = tl.where(passed, sibling, taken)
                sibling = tl.where(passed, -1, tl.load(next_sibling + base + sibling))
    tl.store(stop + row, node)
    tl.store(leaf + row, tl.where(child < 0, node, -1))


def tree_sample(
    logits: Float[Tensor, "batch nodes vocab"],
    tokens: Int[Tensor, "batch nodes"],
    links: Links,
    coins: Float[Tensor, "batch nodes"],
    last_coins: Float[Tensor, "batch ..."],
    temperature: float,
    floors: Float[Tensor, "batch nodes"] | None = None,
) -> Walk:
    """`last_coins`: the coin of the last draw, one a row as in SGLang, or one for each node where the walk may end."""
    (batch, nodes), tokens, coins = tokens.shape, tokens.contiguous(), coins.contiguous()
    inner = torch.where(links.next_token >= 0, torch.arange(nodes, device=tokens.device), -1)
    stats = block_stats(logits, inner, temperature, floors)
    accept_index, (stop, leaf, extra) = torch.full_like(tokens, -1), (tokens.new_empty(batch) for _ in range(3))
    launch(
        _tree_walk,
        (batch,),
        logits,
        logits.stride(0),
        logits.stride(1),
        tokens,
        links.next_token,
        links.next_sibling,
        coins,
        *stats,
        floors,
        accept_index,
        stop,
        leaf,
        temperature,
        nodes,
        stats[0].shape[-1],
        HAS_FLOORS=floors is not None,
        BLOCKS=padded(stats[0].shape[-1]),
        num_warps=1,
    )
    block_stats(logits, leaf[:, None], temperature, floors, into=stats)
    draw_rest(logits, tokens, links, stop, per_node(last_coins, nodes), stats, temperature, floors, extra)
    return Walk(accept_index, extra)
