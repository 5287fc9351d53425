"""Chain rejection from raw logits: kernel (d). No probabilities are stored, and one row is drawn from, once.

    pass 1   block sums of the rows that have a draft to test                               (stats.py)
    walk     accept draft x while   log u + log q(x) < log p(x)                             one program a row
    pass 2   rejected against q: the residual max(p - q, 0) of that row                     (residual.py)
             rejected a guess made without chance: p without x, or a bonus: p               (draw.py)

q is read at the drafts, and one row of it after a rejection, where the drafter left it. `keys` instead of `last_coins`
makes pass 2 a race (gumbel.py). Lossless; Leviathan et al. 2023, Alg. 1. The two passes are vLLM's (model runner V2).
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.contract import DraftProbs, Links, Walk, per_node
from specdec_ref.kernels.draw import draw_rest
from specdec_ref.kernels.gumbel import race
from specdec_ref.kernels.launch import VARYING, addresses, launch, padded
from specdec_ref.kernels.residual import draft_prob, draw_residual
from specdec_ref.kernels.stats import block_stats, row_distribution

__all__ = ["chain_reject"]


@triton.jit(do_not_specialize=(*VARYING, "batch_stride", "node_stride", "width"))
@no_type_check
def _chain_walk(
    logits,
    batch_stride,
    node_stride,
    tokens,
    next_token,
    coins,
    peak,
    mass,
    floors,
    table,
    width,
    column,
    accept_index,
    stop,
    leaf,
    refused,
    temperature,
    nodes,
    blocks,
    HAS_FLOORS: tl.constexpr,
    HAS_Q: tl.constexpr,
    Q_TYPE: tl.constexpr,
    HAS_COLUMN: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    base, node, steps, drawn = row * nodes, row * 0, row * 0, row < 0
    if HAS_Q:
        drawn = tl.load(table + row) != 0
    tl.store(accept_index + base, node)
    child = tl.load(next_token + base)
    testing = child >= 0
    while testing:
        top, total = row_distribution(peak, mass, base + node, temperature, blocks, BLOCKS)
        token = tl.load(tokens + base + child)
        x = tl.load(logits + row * batch_stride + node * node_stride + token).to(tl.float32)
        if HAS_FLOORS:
            x = tl.where(x >= tl.load(floors + base + node), x, -float("inf"))
        log_p = tl.where(x > -float("inf"), (x - top) / temperature - tl.log(total), -float("inf"))
        log_q = total * 0.0
        if HAS_Q:
            q = draft_prob(table, row, node, width, column, token, drawn, Q_TYPE, HAS_COLUMN)
            log_q = tl.where(drawn, tl.log(q), 0.0)
        testing = tl.log(tl.load(coins + base + node)) + log_q < log_p
        if testing:
            steps += 1
            node = child
            tl.store(accept_index + base + steps, node)
            child = tl.load(next_token + base + node)
            testing = child >= 0
    from_q = drawn & (child >= 0)
    tl.store(stop + row, tl.where(from_q, -1, node))
    tl.store(leaf + row, tl.where(child < 0, node, -1))
    tl.store(refused + row, tl.where(from_q, node, -1))


def chain_reject(
    logits: Float[Tensor, "batch nodes vocab"],
    tokens: Int[Tensor, "batch nodes"],
    links: Links,
    coins: Float[Tensor, "batch nodes"],
    last_coins: Float[Tensor, "batch ..."],
    temperature: float,
    floors: Float[Tensor, "batch nodes"] | None = None,
    q: DraftProbs | None = None,
    keys: Int[Tensor, " batch"] | None = None,
) -> Walk:
    """`coins[b, i]` tests the child of node i; `last_coins`: the last draw's, one a row or one a node to end at."""
    (batch, nodes), tokens, coins = tokens.shape, tokens.contiguous(), coins.contiguous()
    inner = torch.where(links.next_token >= 0, torch.arange(nodes, device=tokens.device), -1)
    stats = block_stats(logits, inner, temperature, floors)
    accept_index = torch.full_like(tokens, -1)
    stop, leaf, refused, extra = (tokens.new_empty(batch) for _ in range(4))
    dists, flags = _lay_out(q, logits)
    launch(
        _chain_walk,
        (batch,),
        logits,
        logits.stride(0),
        logits.stride(1),
        tokens,
        links.next_token,
        coins,
        *stats,
        floors,
        *dists,
        accept_index,
        stop,
        leaf,
        refused,
        temperature,
        nodes,
        stats[0].shape[-1],
        HAS_FLOORS=floors is not None,
        BLOCKS=padded(stats[0].shape[-1]),
        num_warps=1,
        **flags,
    )
    if keys is not None:
        return Walk(
            accept_index, race(logits, tokens, links, stop, refused, keys, stats, temperature, floors, dists, flags)
        )
    block_stats(logits, leaf[:, None], temperature, floors, into=stats)
    draw_rest(logits, tokens, links, stop, per_node(last_coins, nodes), stats, temperature, floors, extra)
    if flags.pop("HAS_Q"):
        draw_residual(logits, dists, refused, per_node(last_coins, nodes), stats, temperature, floors, extra, flags)
    return Walk(accept_index, extra)


def _lay_out(q: DraftProbs | None, logits: Tensor) -> tuple[tuple[object, ...], dict[str, object]]:
    """((addresses of q's rows, 0 where none was drawn; their width; token -> column), what kernels are built for)."""
    drawn = [rows for rows in q.rows if rows is not None] if q else []
    if q is None or not drawn:
        return (None, 0, None), {"HAS_Q": False, "Q_TYPE": tl.float32, "HAS_COLUMN": False}
    none = drawn[0].new_empty(0)  # an empty tensor lies at address 0
    table = addresses([none if rows is None else rows for rows in q.rows], logits)
    kind = tl.float64 if drawn[0].dtype == torch.float64 else tl.float32
    return (table, drawn[0].shape[-1], q.column), {"HAS_Q": True, "Q_TYPE": kind, "HAS_COLUMN": q.column is not None}
