"""The kernels' specification: each op in plain torch, row by row, with the same arguments and the same answer.

Read these first; `kernels/<op>.py` says how the same is done in parallel. Where a kernel reads a row that holds NaN,
+inf or nothing but -inf, both answer BAD_ROW. Probabilities are float32 here as there; running sums are float64 here,
so a coin within rounding of a break point may fall to the other side in the kernel.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from specdec_ref.config import SamplingParams
from specdec_ref.kernels.contract import BAD_ROW, DraftProbs, Links, Walk, pack_bits, per_node, unpack_bits
from specdec_ref.sampling import warp
from specdec_ref.trees.masks import ancestor_mask

__all__ = [
    "chain_reject", "greedy_walk", "logit_floors", "move_slots", "predictions", "tree_attention", "tree_links",
    "tree_sample",
]  # fmt: skip


def tree_links(
    tokens: Int[Tensor, "batch nodes"], parents: Int[Tensor, "batch nodes"], lengths: Int[Tensor, " batch"]
) -> Links:
    """(a) Links without repeats, positions, ancestor bits. Pads are linked nowhere and see themselves."""
    child, sibling, positions = (torch.full_like(parents, -1) for _ in range(3))
    mask = torch.zeros(*parents.shape, parents.shape[1], dtype=torch.bool)
    for row, (names, above) in enumerate(zip(tokens.tolist(), parents.tolist(), strict=True)):
        mask[row] = ancestor_mask(above)
        positions[row] = lengths[row] + mask[row].sum(-1).to(parents.device) - 1
        stands, youngest = list(range(len(above))), dict[int, int]()
        elders = dict[tuple[int, int], int]()
        for node, parent in enumerate(above):
            if parent < 0:
                continue
            home = stands[parent]
            stands[node] = elders.setdefault((home, names[node]), node)
            if stands[node] == node:
                (sibling[row] if home in youngest else child[row])[youngest.get(home, home)] = node
                youngest[home] = node
    return Links(child, sibling, positions, pack_bits(mask).to(parents.device))


def predictions(logits: Float[Tensor, "batch nodes vocab"]) -> Int[Tensor, "batch nodes"]:
    """The argmax after each node; BAD_ROW where there is no finite maximum."""
    best = logits.float().max(-1)
    return best.indices.where(best.values.isfinite(), BAD_ROW)


def greedy_walk(tokens: Int[Tensor, "batch nodes"], links: Links, predict: Int[Tensor, "batch nodes"]) -> Walk:
    """(b) Follow the child whose token is the argmax."""
    paths, extra = [], []
    for row in range(len(tokens)):
        path = [0]
        while True:
            best = int(predict[row, path[-1]])
            match = [child for child in _children(links, row, path[-1]) if int(tokens[row, child]) == best]
            if not match:
                break
            path.append(match[0])
        paths.append(path)
        extra.append(best)
    return _walk(paths, extra, tokens)


def tree_sample(
    logits: Float[Tensor, "batch nodes vocab"],
    tokens: Int[Tensor, "batch nodes"],
    links: Links,
    coins: Float[Tensor, "batch nodes"],
    last_coins: Float[Tensor, "batch ..."],
    temperature: float,
    floors: Float[Tensor, "batch nodes"] | None = None,
) -> Walk:
    """(c) One coin a node against the running sum of its children's p; then p without the children's tokens."""
    last_coins = per_node(last_coins, tokens.shape[1])
    paths, extra = [], []
    for row in range(len(tokens)):
        path = [0]
        while True:
            node = path[-1]
            p = _distribution(logits, row, node, temperature, floors)
            children = _children(links, row, node)
            guesses = tokens[row, children]
            below = p[guesses].cumsum(0)
            passed = ((p[guesses] > 0) & (coins[row, node] < below)).nonzero()
            if not len(passed):
                break
            path.append(children[int(passed[0])])
        paths.append(path)
        extra.append(_draw(p.index_fill(0, guesses, 0.0), p, last_coins[row, node]))
    return _walk(paths, extra, tokens)


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
    """(d) Accept with probability min(1, p/q), then one draw: by coin (inverse CDF), or by `keys` (a race)."""
    last_coins = per_node(last_coins, tokens.shape[1])
    paths, extra = [], []
    for row in range(len(tokens)):
        drawn = q is not None and q.rows[row] is not None
        path = [0]
        while True:
            node = path[-1]
            p = rest = _distribution(logits, row, node, temperature, floors)
            child = int(links.next_token[row, node])
            if child < 0:
                break
            guess = int(tokens[row, child])
            dist = _draft_row(q, row, node, p) if drawn else torch.zeros_like(p).index_fill(0, tokens[row, child], 1.0)
            if not coins[row, node].log() + dist[guess].log() < p[guess].log():
                rest = (p - dist).clamp_min(0.0)
                break
            path.append(child)
        paths.append(path)
        extra.append(_draw(rest, p, last_coins[row, node]) if keys is None else _race(rest, p, keys[row]))
    return _walk(paths, extra, tokens)


def logit_floors(
    logits: Float[Tensor, "batch nodes vocab"], picked: Int[Tensor, "batch nodes"], sampling: SamplingParams
) -> Float[Tensor, "batch nodes"] | None:
    """The least logit that `sampling.warp` keeps, a row each; -inf in rows that are not picked."""
    if not (0 < sampling.top_k < logits.shape[-1] or sampling.top_p < 1.0 or sampling.min_p > 0.0):
        return None
    rows = logits.float().nan_to_num(-float("inf"), posinf=-float("inf"))
    rows = rows.where(rows.amax(-1, keepdim=True) > -float("inf"), 0.0)
    least = rows.where(warp(rows, sampling) > 0, float("inf")).amin(-1)
    return least.where(picked >= 0, -float("inf"))


def tree_attention(
    query: Float[Tensor, "batch heads nodes head_dim"],
    keys: Float[Tensor, "batch kv_heads slots head_dim"],
    values: Float[Tensor, "batch kv_heads slots head_dim"],
    lengths: Int[Tensor, " batch"],
    bits: Int[Tensor, "batch nodes words"],
    scale: float,
) -> Float[Tensor, "batch nodes heads head_dim"]:
    """(e) Attention under the mask: prefix slots, ancestors, itself."""
    nodes, slots = query.shape[2], keys.shape[2]
    slot = torch.arange(slots, device=query.device)
    other = slot - lengths[:, None]  # which node of the tree stands in the slot
    inside = (other >= 0) & (other < nodes)
    tree = unpack_bits(bits).gather(2, other.clamp(0, nodes - 1)[:, None].expand(-1, nodes, -1))
    seen = (slot < lengths[:, None])[:, None] | (tree & inside[:, None])
    keys, values = (x.masked_fill(~(other < nodes)[:, None, :, None], 0.0) for x in (keys, values))
    out = scaled_dot_product_attention(query, keys, values, seen[:, None], scale=scale, enable_gqa=True)
    return out.transpose(1, 2).contiguous()


def move_slots(buffers: Sequence[Tensor], start: Int[Tensor, " batch"], kept: Int[Tensor, "batch moved"]) -> None:
    """(f) Copy slot start + kept[i] onto start + i, everything read before anything is written; -1 copies nothing."""
    goal = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    source = goal.where(kept < 0, kept)
    rows = torch.arange(len(kept), device=kept.device)[:, None]
    for buffer in buffers:
        buffer[rows, :, start[:, None] + goal] = buffer[rows, :, start[:, None] + source]


def _children(links: Links, row: int, node: int) -> list[int]:
    children, child = [], int(links.next_token[row, node])
    while child >= 0:
        children.append(child)
        child = int(links.next_sibling[row, child])
    return children


def _walk(paths: list[list[int]], extra: list[int], like: Tensor) -> Walk:
    padded = [path + [-1] * (like.shape[1] - len(path)) for path in paths]
    return Walk(like.new_tensor(padded).view_as(like), like.new_tensor(extra))


def _distribution(
    logits: Tensor, row: int, node: int, temperature: float, floors: Tensor | None
) -> Float[Tensor, " vocab"]:
    """p after a node; all NaN if the row is bad, so that no child passes."""
    x = logits[row, node].float()
    top = x.max()  # NaN if there is one
    if floors is not None:
        x = x.where(x >= floors[row, node], -float("inf"))
    p = torch.softmax((x - top) / temperature, -1)
    return p.where(top.isfinite(), float("nan"))


def _draft_row(q: DraftProbs | None, row: int, node: int, p: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    rows = q.rows[row] if q else None
    assert q is not None and rows is not None  # for the type checker
    dist = rows[node].float()
    return dist if q.column is None else dist[q.column.clamp_min(0)].where(q.column >= 0, 0.0)


def _draw(rest: Float[Tensor, " vocab"], p: Float[Tensor, " vocab"], coin: Tensor) -> int:
    """Inverse CDF of `rest`; of p where nothing is left."""
    if bool(p.isnan().any()):
        return BAD_ROW
    weights = rest if bool(rest.sum() > 0) else p
    below = weights.double().cumsum(0)
    passed = ((below > coin * below[-1]) & (weights > 0)).nonzero()
    return int(passed[0] if len(passed) else weights.nonzero()[-1])


def _race(rest: Float[Tensor, " vocab"], p: Float[Tensor, " vocab"], key: Tensor) -> int:
    """argmax of log w - log E; E from splitmix64 of the key and the token's number (`randomness.py`), in int64."""
    if bool(p.isnan().any()):
        return BAD_ROW
    z = key + (torch.arange(len(p), device=p.device) + 1) * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    z = z ^ ((z >> 31) & ((1 << 33) - 1))
    u = ((((z >> 32) & 0xFFFFFFFF).double() + 0.5) * 2.0**-32).clamp_max(1 - 2.0**-24)
    weights = rest if bool((rest > 0).any()) else p  # q >= p everywhere, by rounding: nothing is left, so a draw from p
    return int((weights.double().log() - (-torch.log1p(-u)).log()).argmax())
