"""Inputs for every kernel, made from a seed: what equality, bytes, compilation and timing are all measured on.

A case knows how to run itself on either side (twin or kernel), and the fewest bytes that its answer can be had with:

    chain     rows with a draft to test, read once; one row more, of p, and of q where that rejected; q at the drafts
    tree      rows of nodes with children, read once; one row more
    floors    every row once                attention   every visible key and value once, queries, output
    gather    every moved slot, read and written           links, greedy   the integers that the answer depends on
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor

from specdec_ref.config import SamplingParams
from specdec_ref.kernels import reference
from specdec_ref.kernels.contract import DraftProbs, Links, Walk

__all__ = ["OPS", "Case", "Shape", "make_case"]

OPS = ("links", "greedy", "floors", "tree", "chain", "chain q", "chain q race", "attention", "gather")
TEMPERATURE, CUTS = 0.8, SamplingParams(0.8, top_k=50, top_p=0.9, min_p=0.02)


@dataclass(frozen=True)
class Shape:
    """How large: `length` committed tokens a row at most, `group` query heads a key head."""

    batch: int = 2
    nodes: int = 6
    vocab: int = 97
    length: int = 40
    heads: int = 2
    group: int = 3
    head_dim: int = 16

    def __str__(self) -> str:
        return f"batch {self.batch}, nodes {self.nodes}, vocab {self.vocab}, length {self.length}, dim {self.head_dim}"


@dataclass(frozen=True)
class Case:
    """`run(ops)` gives the answer as tensors; `least_bytes` is the closed form above, for the dtype at hand."""

    op: str
    shape: Shape
    run: Callable[[ModuleType], list[Tensor]]
    least_bytes: int


class _Maker:
    """Random tensors of one seed, on one device. `nudge`, `hard`: see `make_case`."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: str, seed: int, nudge: float, hard: bool) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self.nudge, self.hard = nudge, hard
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.generator)

    def uniform(self, *size: int) -> Tensor:
        coins = torch.rand(*size, generator=self.generator, dtype=torch.float64) * (1.0 + self.nudge)
        if self.hard and coins.numel():
            coins.view(-1)[0] = 0.0
        return coins.to(self.device)

    def integers(self, low: int, high: int, *size: int) -> Tensor:
        return torch.randint(low, high, size, generator=self.generator)

    def counts(self) -> list[int]:
        """Nodes a row: the first is full, the others ragged."""
        ragged = self.integers(1, self.shape.nodes + 1, self.shape.batch).tolist()
        return [self.shape.nodes, *ragged[1:]][: self.shape.batch]

    def logits(self, tokens: Tensor) -> Tensor:
        """Guesses are likely: about as often accepted as a fair draft's."""
        x = 2 * self.normal(self.shape.batch, self.shape.nodes, self.shape.vocab)
        lift = x.amax(-1, keepdim=True) - 1.0
        guesses = tokens.cpu()[:, None].expand(-1, self.shape.nodes, -1)
        x.scatter_(2, guesses, lift.expand_as(guesses))
        return self.poisoned(x, guesses) if self.hard else x.to(self.dtype).to(self.device)

    def poisoned(self, x: Tensor, guesses: Tensor) -> Tensor:
        """Impossible tokens, a guess among them; a NaN in the last row; and a tail behind each row that outbids all."""
        x = x.masked_fill(x < -3.0, -float("inf"))
        x[:1, :1].scatter_(2, guesses[:1, :1, 1:2], -float("inf"))
        x[1:][-1:, :1, self.shape.vocab // 2] = float("nan")
        wide = torch.full((*x.shape[:2], -(-self.shape.vocab // 16) * 16 + 4096), 60.0, dtype=self.dtype)
        wide[..., : self.shape.vocab] = x
        return wide.to(self.device)[..., : self.shape.vocab]

    def floors(self, logits: Tensor) -> Tensor | None:
        """In hard cases a threshold per row, as top-k gives it: the largest quarter of the logits is kept."""
        if not self.hard:
            return None
        return logits.float().nan_to_num(-float("inf")).topk(max(1, self.shape.vocab // 4)).values[..., -1].contiguous()

    def trees(self, chain: bool) -> tuple[Tensor, Tensor]:
        """(tokens, parents). Few different tokens, so that siblings repeat."""
        shape = self.shape
        parents = torch.full((shape.batch, shape.nodes), -1)
        for row, count in enumerate(self.counts()):
            for node in range(1, count):
                low = node - 1 if chain else max(0, node - 4)
                parents[row, node] = int(self.integers(low, node, 1))
        few = min(shape.vocab, 2 * shape.nodes)
        tokens = self.integers(0, few, shape.batch, shape.nodes) + self.hard * (shape.vocab - few)
        return tokens.to(self.device), parents.to(self.device)

    def lengths(self) -> Tensor:
        return self.integers(0, self.shape.length + 1, self.shape.batch).to(self.device)


def make_case(
    op: str,
    shape: Shape = Shape(),
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
    *,
    nudge: float = 0.0,
    hard: bool = False,
) -> Case:
    """A case of one of OPS. Raises KeyError for another name.

    `nudge`: coins, top-p and min-p are larger by this share, to find inputs on which rounding cannot change the answer.
    `hard`: some logits are -inf or NaN, one coin is 0, the logits are a slice of a wider buffer, tokens below a floor
    are dropped, the drafted tokens are the vocabulary's last, and unused cache slots hold NaN.
    """
    makers: dict[str, Callable[[str, _Maker], Case]] = {
        "links": _links, "greedy": _greedy, "floors": _floors, "tree": _tree, "attention": _attention,
        "gather": _gather, **dict.fromkeys(("chain", "chain q", "chain q race"), _chain),
    }  # fmt: skip
    return makers[op](op, _Maker(shape, dtype, device, seed, nudge, hard))


def _links(op: str, make: _Maker) -> Case:
    (tokens, parents), lengths = make.trees(False), make.lengths()

    def run(ops: ModuleType) -> list[Tensor]:
        links: Links = ops.tree_links(tokens, parents, lengths)
        return [links.next_token, links.next_sibling, links.positions, links.bits]

    words = -(-tokens.shape[1] // 64)
    return Case(op, make.shape, run, 8 * (tokens.numel() * (2 + 3 + words) + len(lengths)))


def _greedy(op: str, make: _Maker) -> Case:
    tokens, parents = make.trees(False)
    links = reference.tree_links(tokens, parents, tokens.new_zeros(len(tokens)))
    predict = reference.predictions(make.logits(tokens))
    child = links.next_token.clamp_min(0)
    hit = (make.uniform(*tokens.shape) < 0.7) & (links.next_token >= 0)  # else a walk would end at the root
    predict = tokens.gather(1, child).where(hit, predict)
    walk = reference.greedy_walk(tokens, links, predict)
    levels = int((walk.accept_index >= 0).sum())
    tested = sum(len(_tested(links, row, path, tokens, predict)) for row, path in enumerate(walk.accept_index.tolist()))
    least = 8 * (2 * levels + 2 * tested + levels + 2 * len(tokens))
    return Case(op, make.shape, lambda ops: _answer(ops.greedy_walk(tokens, links, predict)), least)


def _tested(links: Links, row: int, path: Sequence[int], tokens: Tensor, predict: Tensor) -> list[int]:
    """The children that a greedy walk looks at."""
    seen = []
    for node in (node for node in path if node >= 0):
        child = int(links.next_token[row, node])
        while child >= 0:
            seen.append(child)
            hit = int(tokens[row, child]) == int(predict[row, node])
            child = -1 if hit else int(links.next_sibling[row, child])
    return seen


def _floors(op: str, make: _Maker) -> Case:
    tokens, _ = make.trees(False)
    logits = make.logits(tokens)
    cuts = replace(CUTS, top_p=CUTS.top_p * (1.0 + make.nudge), min_p=CUTS.min_p * (1.0 + make.nudge))
    node = torch.arange(tokens.shape[1], device=tokens.device)
    picked = node.where(node < 3, -1).expand_as(tokens).contiguous()  # three rows of each are enough

    def run(ops: ModuleType) -> list[Tensor]:
        floors = ops.logit_floors(logits, picked, cuts)
        return [logits >= floors[..., None]]

    return Case(op, make.shape, run, int((picked >= 0).sum()) * logits.shape[-1] * logits.element_size())


def _tree(op: str, make: _Maker) -> Case:
    tokens, parents = make.trees(False)
    links = reference.tree_links(tokens, parents, tokens.new_zeros(len(tokens)))
    logits, coins, last = make.logits(tokens), make.uniform(*tokens.shape), make.uniform(*tokens.shape)
    floors = make.floors(logits)
    rows = int((links.next_token >= 0).sum()) + len(tokens)
    return Case(
        op,
        make.shape,
        lambda ops: _answer(ops.tree_sample(logits, tokens, links, coins, last, TEMPERATURE, floors)),
        rows * logits.shape[-1] * logits.element_size(),
    )


def _chain(op: str, make: _Maker) -> Case:
    tokens, parents = make.trees(True)
    links = reference.tree_links(tokens, parents, tokens.new_zeros(len(tokens)))
    logits, coins, last = make.logits(tokens), make.uniform(*tokens.shape), make.uniform(*tokens.shape)
    q, keys = None, None
    if "q" in op:
        shift = make.normal(*logits.shape).to(logits.device)
        q = DraftProbs(list(torch.softmax((logits.float() + shift) / TEMPERATURE, -1)))
    if "race" in op:
        keys = make.integers(-(2**62), 2**62, len(tokens)).to(tokens.device)
    given = (logits, tokens, links, coins, last, TEMPERATURE, make.floors(logits), q, keys)
    walk = reference.chain_reject(*given)
    drafts = int((links.next_token >= 0).sum())
    ends = (walk.accept_index >= 0).sum(1, keepdim=True) - 1
    refused = int((links.next_token.gather(1, ends) >= 0).sum()) if q else 0
    least = (drafts + len(tokens)) * logits.shape[-1] * logits.element_size()
    least += 4 * (drafts + refused * logits.shape[-1]) if q else 0
    return Case(op, make.shape, lambda ops: _answer(ops.chain_reject(*given)), least)


def _attention(op: str, make: _Maker) -> Case:
    s, (tokens, parents), lengths = make.shape, make.trees(False), make.lengths()
    bits = reference.tree_links(tokens, parents, lengths).bits
    slots = s.length + s.nodes + 3  # some that must not be looked at
    query, keys, values = (
        make.normal(s.batch, heads, count, s.head_dim).to(make.dtype).to(make.device)
        for heads, count in ((s.heads * s.group, s.nodes), (s.heads, slots), (s.heads, slots))
    )
    if make.hard:  # behind the last node of each row: must not be looked at
        unused = torch.arange(slots, device=keys.device) >= (lengths + s.nodes)[:, None]
        keys, values = (x.masked_fill(unused[:, None, :, None], float("nan")) for x in (keys, values))
    visible = int((lengths + s.nodes).sum())
    least = 2 * (visible * s.heads + query.numel() // s.head_dim) * s.head_dim * query.element_size()
    return Case(
        op,
        s,
        lambda ops: [ops.tree_attention(query, keys, values, lengths, bits, s.head_dim**-0.5)],
        least + 8 * (bits.numel() + len(lengths)),
    )


def _gather(op: str, make: _Maker) -> Case:
    s, lengths = make.shape, make.lengths()
    paths = [sorted(torch.randperm(n, generator=make.generator)[: n // 2 + 1].tolist()) for n in make.counts()]
    width = max(map(len, paths), default=0)
    kept = torch.tensor([path + [-1] * (width - len(path)) for path in paths], dtype=torch.long)
    kept = kept.view(s.batch, width).to(make.device)
    size = (s.batch, s.heads, s.length + s.nodes, s.head_dim)
    buffers = [make.normal(*size).to(make.dtype).to(make.device) for _ in range(2)]

    def run(ops: ModuleType) -> list[Tensor]:
        copies = [buffer.clone() for buffer in buffers]
        ops.move_slots(copies, lengths, kept)
        return copies

    moved = sum(node != i for path in paths for i, node in enumerate(path))
    least = 2 * len(buffers) * moved * s.heads * s.head_dim * buffers[0].element_size()
    return Case(op, s, run, least + 8 * (kept.numel() + len(lengths)))


def _answer(walk: Walk) -> list[Tensor]:
    return [walk.accept_index, walk.next_token]
