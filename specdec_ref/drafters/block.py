"""Block drafting: one pass of a small head drafts several tokens (DFlash, DSpark), or a tree of them (DDTree).

The head reads the target's features of all verified tokens as keys and values; then a block, the root and masks, runs
through it once. `block_head.py` describes the network. What is done with its rows decides how they were drawn:

    T = 0                argmax of each row, left to right                             "point"
    T > 0, rank 0        each row drawn by itself: no draft changes another's row      "iid", q = the rows (marginals)
    T > 0, rank r        row k is completed with x_{k-1} before x_k is drawn from it   "iid", q = the conditional rows
    `topk` above 1       best-first tree: the likeliest tokens of the rows             "point"

The first two are one rule: what x_k is tested against is the distribution it was drawn from, given the drafts before
it. A draft may end early: `min_confidence` is compared with an estimate for x_k that was made from x_1 .. x_{k-1},
before x_k is drawn. To drop x_k for what it turned out to be would change the output.

The cache holds verified tokens alone, since only they have features: after a round, those of the root and the accepted
drafts are added. The block's own keys and values are written behind them and never kept, so there is nothing to roll
back. A block is always run whole, as it was trained; a smaller budget uses its first rows.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.drafters.block_head import BlockHead
from specdec_ref.drafters.rows import chain_tree
from specdec_ref.kernels.contract import BAD_ROW
from specdec_ref.kernels.reference import predictions
from specdec_ref.models.kv_cache import SlotCache
from specdec_ref.sampling import warp
from specdec_ref.transfer import upload
from specdec_ref.trees.best_first import best_first
from specdec_ref.trees.growth import Grow, Growth
from specdec_ref.trees.masks import chains_of, slot_mask

__all__ = ["BlockDrafter"]


class BlockDrafter:
    """A `Drafter` around a block head."""

    def __init__(self, head: BlockHead, feature_layers: Sequence[int], grow: Grow | None = None) -> None:
        """`feature_layers`: those the head was trained on. `grow`: None: a chain for `topk` 1, else a best-first tree.

        Raises ValueError for another number of layers than three.
        """
        if len(feature_layers) != 3:
            raise ValueError(f"a block head reads 3 layers, got {list(feature_layers)}")
        self.head, self.grow, self.feature_layers = head.eval(), grow, tuple(feature_layers)
        self.cache = SlotCache(len(head.layers), 0, 0)
        self._rows: list[int] = []  # request ids, in the order of the cache's rows
        self._last: list[int] = []  # last committed token of each row
        self._unread: list[Tensor] = []  # features of verified tokens that are not in the cache yet

    @torch.inference_mode()
    def start(
        self, rows: Sequence[int], prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "_ features"]] | None,
    ) -> None:  # fmt: skip
        """Read the prompts' features. Raises RuntimeError while an earlier batch is open."""
        if self._rows:
            raise RuntimeError(f"requests {self._rows} are still open: finish them before starting others")
        self.cache = SlotCache(len(self.head.layers), len(rows), max(map(len, prompts)) + 64)
        self._rows, self._last = list(rows), [prompt[-1] for prompt in prompts]
        self._unread = self._checked(features)
        self._read()

    @torch.inference_mode()
    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A chain or a tree per row, no deeper than the block."""
        if list(rows) != self._rows:
            raise RuntimeError(f"open requests are {self._rows}, asked to draft for {list(rows)}")
        branching = self.grow is not None or budget.topk > 1
        depth = min(budget.depth if branching else budget.chain_depth, self.head.block)
        if not depth:
            return [DraftTree(torch.tensor([root]), torch.tensor([-1])) for root in self._last]
        self._read()
        h = self._block()
        if branching:
            limited = DraftBudget(depth, budget.topk, budget.max_nodes, budget.min_confidence)
            return self._trees(h, limited, sampling, rngs)
        if sampling.greedy and budget.min_confidence == 0.0:
            return self._greedy_chains(h[:, :depth])
        return self._chains(h[:, :depth], budget.min_confidence, sampling, rngs)

    def _chains(
        self, h: Float[Tensor, "batch depth hidden"], least: float, sampling: SamplingParams,
        rngs: Sequence[Randomness],
    ) -> list[DraftTree]:  # fmt: skip
        """Token by token: the row of x_k is completed with x_{k-1}, its confidence is compared, then x_k is chosen."""
        chains, dists = [[root] for root in self._last], list[list[Tensor]]([] for _ in self._last)
        growing = list(range(len(chains)))
        for k in range(h.shape[1]):
            g = self.head.joined(h[growing, k], torch.tensor([chains[i][-1] for i in growing], device=h.device))
            sure = self.head.sure(g).tolist() if least else [1.0] * len(growing)
            going = [at for at, estimate in enumerate(sure) if estimate >= least]
            growing = [growing[at] for at in going]
            if not growing:
                break
            for i, q in zip(growing, warp(self.head.logits(g[going]), sampling), strict=True):
                column = int(q.argmax()) if sampling.greedy else rngs[i].draw(q)
                chains[i].append(column if self.head.q_vocab is None else int(self.head.q_vocab[column]))
                dists[i].append(q)
        return [chain_tree(*both, sampling, self.head.q_vocab) for both in zip(chains, dists, strict=True)]

    def _greedy_chains(self, h: Float[Tensor, "batch depth hidden"]) -> list[DraftTree]:
        """Chains at T = 0, with the tokens left on the device: they are read with the verdict on them."""
        drafted, ids = [upload(torch.tensor(self._last), h.device)], self.head.q_vocab
        for k in range(h.shape[1]):
            best = predictions(self.head.logits(self.head.joined(h[:, k], drafted[-1].clamp_min(0)))[:, None])[:, 0]
            drafted.append(best if ids is None else ids[best.clamp_min(0)].where(best >= 0, BAD_ROW))
        return chains_of(self._last, drafted[1:], [h.shape[1]] * len(h))

    def _trees(
        self, h: Float[Tensor, "batch block hidden"], budget: DraftBudget, sampling: SamplingParams,
        rngs: Sequence[Randomness],
    ) -> list[DraftTree]:  # fmt: skip
        """The children of a node come from the row of their depth, completed with the node's token."""
        grow, ids = self.grow or best_first, self.head.q_vocab
        growths: list[Growth] = [
            grow(root, budget, sampling, rng, ids) for root, rng in zip(self._last, rngs, strict=True)
        ]
        for growth, row in zip(growths, h, strict=True):
            nodes = growth.nodes
            while nodes.frontier:
                tokens = torch.tensor([nodes.tokens[node] for node in nodes.frontier], device=h.device)
                growth.extend(
                    self.head.logits(self.head.joined(row[[nodes.depths[n] for n in nodes.frontier]], tokens))
                )
        return [growth.tree() for growth in growths]

    def _read(self) -> None:
        """Add the keys and values of the unread features to the cache."""
        counts = [len(row) for row in self._unread]
        if not any(counts):
            return
        weight = self.head.fc.weight
        features = torch.zeros(len(counts), max(counts), weight.shape[1], dtype=weight.dtype, device=weight.device)
        for padded, row in zip(features, self._unread, strict=True):
            padded[: len(row)] = row
        positions = torch.tensor(self.cache.lengths)[:, None] + torch.arange(max(counts))
        self.cache.prepare(max(counts), weight.device)
        for i, (keys, values) in enumerate(self.head.keys(features, upload(positions, weight.device))):
            self.cache.update(keys, values, i)
        self.cache.commit([range(count) for count in counts])
        self._unread = [row[:0] for row in self._unread]

    def _block(self) -> Float[Tensor, "batch block hidden"]:
        """One pass over a block per row, which sees its row's cache and itself; nothing of it is kept."""
        block, device, lengths = self.head.block, self.head.fc.weight.device, self.cache.lengths
        positions = torch.tensor(lengths)[:, None] + torch.arange(block)
        whole = torch.ones(len(lengths), block, block, dtype=torch.bool)
        mask = upload(slot_mask(whole, lengths, [block] * len(lengths)), device)
        self.cache.prepare(block, device)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.cache.update(k, v, layer)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)

        h = self.head.rows(upload(torch.tensor(self._last), device), upload(positions, device), attend)
        self.cache.commit([()] * len(lengths))
        return h

    @torch.inference_mode()
    def commit(
        self, rows: Sequence[int], trees: Sequence[DraftTree], results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "_ features"]] | None,
    ) -> None:  # fmt: skip
        """Keep the features of the root and the accepted drafts; they are read before the next draft."""
        new = self._checked(features)
        self._unread = [torch.cat(pair) if len(pair[0]) else pair[1] for pair in zip(self._unread, new, strict=True)]
        self._last = [result.next_token for result in results]

    def _checked(self, features: Sequence[Tensor] | None) -> list[Tensor]:
        if features is None:
            raise ValueError(f"this drafter needs the target's features of layers {list(self.feature_layers)}")
        return list(features)

    def state(self) -> tuple[bytes, ...]:
        """What the cache holds; the features that are not in it yet follow from the text."""
        return self.cache.state()

    def unread(self) -> int:
        """Tokens whose features would be read before the next draft, more than the one of every round."""
        return max([len(row) - 1 for row in self._unread], default=0)

    @torch.inference_mode()
    def finish(self, rows: Sequence[int]) -> None:
        """Drop these rows from the batch."""
        kept = [i for i, row in enumerate(self._rows) if row not in set(rows)]
        if len(kept) < len(self._rows):
            self.cache.select(kept)
        self._rows, self._last = [self._rows[i] for i in kept], [self._last[i] for i in kept]
        self._unread = [self._unread[i] for i in kept]
