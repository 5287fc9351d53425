"""EAGLE drafting: a one-layer head continues the target's own features (EAGLE, arXiv 2401.15077, section 3.1; EAGLE-3).

The head reads pairs (feature_i, token_{i+1}) at position i and keeps a KV cache of its own, slot = position = i. Where
the target's features end it goes on with its own output, so after each verification those guesses are thrown away and
the accepted tokens are read again, now with the target's features:

    text     t0 t1 t2 .. tL-2 root      verified pairs (f0,t1) .. (f_{L-2}, root); the last output gives the first q
    draft                     d1 d2     pairs (g, d1), (g', d2) ...: own outputs g, dropped at the next commit
    commit   accepted tokens a and the correction c: new verified pairs (f_root, a1), (f_a1, a2) .. (f_last, c)

A plain one-layer model runs in the same loop: it reads tokens alone, so it has no features and ignores g.
T = 0: argmax, drawn as "point". T > 0: sampled from the warped q over the draft vocabulary, drawn as "iid". Lossless
under a verifier for such drafts, whatever the head has learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.drafters.eagle_fast import FastHead
from specdec_ref.drafters.eagle_head import EagleHead, default_layers
from specdec_ref.drafters.rows import chain_tree
from specdec_ref.kernels.contract import BAD_ROW
from specdec_ref.kernels.reference import predictions
from specdec_ref.models.fast import wants_fast
from specdec_ref.models.kv_cache import SlotCache
from specdec_ref.sampling import warp
from specdec_ref.transfer import upload
from specdec_ref.trees.dynamic import dynamic
from specdec_ref.trees.growth import Grow, Growth
from specdec_ref.trees.masks import ancestor_mask, chains_of, slot_mask

__all__ = ["EagleDrafter", "Pairs", "default_layers"]

PREFILL_CHUNK = 512  # pairs a forward while reading a prompt: bounds the memory of its mask


@dataclass(frozen=True, slots=True)
class Pairs:
    """Verified pairs that the head has not read for good: features, in pieces, and the tokens that came after them."""

    features: list[Float[Tensor, "_ features"]]
    tokens: list[int]


class EagleDrafter:
    """A `Drafter` around an EAGLE head, or a plain one-layer model of its kind."""

    def __init__(
        self, head: EagleHead, feature_layers: Sequence[int], grow: Grow | None = None, *, fast: bool | None = None
    ) -> None:
        """`feature_layers`: those the head was trained on, see `default_layers`. ValueError: a wrong number.

        `grow`: None: as the budget says, a chain for `topk` 1, else EAGLE-2's dynamic tree. `fast`: as in `Target`.
        """
        if len(feature_layers) != head.version:  # EAGLE-1 reads one layer, EAGLE-3 three, a plain model none
            raise ValueError(f"this head reads {head.version} layer(s), got {list(feature_layers)}")
        self.head, self.grow, self.wants_fast = head.eval(), grow, wants_fast(fast)
        self.net: EagleHead | FastHead = head  # what drafts
        self._targets: list[int] | None = None if head.q_vocab is None else head.q_vocab.tolist()
        self.feature_layers = tuple(feature_layers)
        self.cache = SlotCache(1, 0, 0)
        self._rows: list[int] = []  # request ids, in the order of the cache's rows
        self._verified: list[int] = []  # pairs a row that stay in the cache whatever is accepted
        self._unread: list[Pairs | None] = []  # to be read next, a row each; None: a prompt of one token, no feature
        self._last: list[int] = []  # last committed token of each row

    @torch.inference_mode()
    def start(
        self, rows: Sequence[int], prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "_ features"]] | None,
    ) -> None:  # fmt: skip
        """Read the prompts' pairs but for each last one. Raises RuntimeError while an earlier batch is open."""
        if self._rows:
            raise RuntimeError(f"requests {self._rows} are still open: finish them before starting others")
        if self.wants_fast and not (isinstance(self.net, FastHead) and self.net.current()):
            self.net = FastHead(self.head) if self.head.lm_head.weight.device.type == "cpu" else self.head
        self.cache = SlotCache(1, len(rows), max(map(len, prompts)) + 64)
        self._rows, self._last = list(rows), [prompt[-1] for prompt in prompts]
        self._unread, pairs = [None] * len(rows), [len(prompt) - 1 for prompt in prompts]
        if features is None and not self.feature_layers:
            features = [torch.zeros(count, 0) for count in pairs]
        for begin in range(0, max(pairs), PREFILL_CHUNK) if features is not None else ():
            ends = [max(begin, min(begin + PREFILL_CHUNK, count - 1)) for count in pairs]
            chunk = [
                Pairs([row[begin:end]], list(prompt[begin + 1 : end + 1]))
                for row, prompt, end in zip(features or (), prompts, ends, strict=True)
            ]
            self._read(chunk)
        if features is not None:
            self._unread = [
                Pairs([row[count - 1 : count]], [prompt[-1]]) if count else None
                for row, prompt, count in zip(features, prompts, pairs, strict=True)
            ]
        self._verified = list(self.cache.lengths)

    @torch.inference_mode()
    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A chain or a tree a row. A draft below `min_confidence` stays, and nothing comes after it."""
        self._begin(rows)
        if self.grow is not None or budget.topk > 1:
            return self._trees(budget, sampling, rngs)
        chains: list[list[int]] = [[token] for token in self._last]
        dists: list[list[Tensor]] = [[] for _ in rows]
        growing = [i for i, unread in enumerate(self._unread) if unread is not None]
        if not growing or not budget.chain_depth:
            return [chain_tree(chain, [], sampling, None) for chain in chains]
        g = self._read(self._unread)
        if sampling.greedy and budget.min_confidence == 0.0:
            return self._greedy_chains(g, set(growing), budget.chain_depth)
        for depth in range(budget.chain_depth):
            growing = self._grow(g, growing, chains, dists, budget, sampling, rngs)
            if not growing or depth + 1 == budget.chain_depth:
                break
            g = self._step(g, [chain[-1] for chain in chains])
        return [chain_tree(chain, dist, sampling, self.head.q_vocab) for chain, dist in zip(chains, dists, strict=True)]

    def _begin(self, rows: Sequence[int]) -> None:
        """Check the rows, and leave nothing of a draft that was abandoned, perhaps because it gave NaN."""
        if list(rows) != self._rows:
            raise RuntimeError(f"open requests are {self._rows}, asked to draft for {list(rows)}")
        if self.cache.lengths != self._verified:
            self.cache.abandon(self._verified)

    def state(self) -> tuple[bytes, ...]:
        """What the head's cache holds; the features it has not read yet follow from the text."""
        return self.cache.state()

    def unread(self) -> int:
        """Pairs that the head would read before its first guess, more than the one of every round."""
        return max((len(pairs.tokens) - 1 for pairs in self._unread if pairs is not None), default=0)

    def _trees(self, budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]) -> list[DraftTree]:
        """Every level is one forward over the tree so far, below the verified pairs; none of it stays in the cache."""
        ids, grow = self.head.q_vocab, self.grow or dynamic
        growths = [grow(last, budget, sampling, rng, ids) for last, rng in zip(self._last, rngs, strict=True)]
        for growth, unread in zip(growths, self._unread, strict=True):
            if unread is None:  # no feature yet, no guess
                growth.nodes.frontier = []
        if any(growth.nodes.frontier for growth in growths):
            outputs = self._read(self._unread)[:, None]
            self._extend(growths, outputs)
            while any(growth.nodes.frontier for growth in growths):
                outputs = self._level([growth.nodes.skeleton() for growth in growths], outputs)
                self._extend(growths, outputs)
        return [growth.tree() for growth in growths]

    def _extend(self, growths: Sequence[Growth], outputs: Float[Tensor, "batch nodes hidden"]) -> None:
        """Each growth gets the logits after its frontier, the last of the nodes that it asked for."""
        asked = [len(growth.nodes.frontier) for growth in growths]
        ends = [len(growth.nodes.read) for growth in growths]
        rows = [row[end - count : end] for row, count, end in zip(outputs, asked, ends, strict=True)]
        logits = self.net.logits(torch.cat(rows)).split(asked)
        for growth, row in zip(growths, logits, strict=True):
            if len(row):
                growth.extend(row)

    def _level(
        self, trees: Sequence[DraftTree], outputs: Float[Tensor, "batch before hidden"]
    ) -> Float[Tensor, "batch nodes hidden"]:
        """g after every node, root first, from g after those above the frontier: a pair is (parent's g, token)."""
        tokens = torch.zeros(len(trees), max(map(len, trees)) - 1, dtype=torch.long)
        parents = torch.zeros_like(tokens)
        for i, tree in enumerate(trees):
            tokens[i, : len(tree) - 1], parents[i, : len(tree) - 1] = tree.tokens[1:], tree.parents[1:]
        fed = outputs[torch.arange(len(trees))[:, None], parents.to(outputs.device)]
        after = self._forward(fed, tokens, [len(tree) - 1 for tree in trees], trees)
        return torch.cat([outputs[:, :1], after], 1)

    def _greedy_chains(self, g: Float[Tensor, "batch hidden"], growing: set[int], depth: int) -> list[DraftTree]:
        """Chains at T = 0, with the tokens left on the device: they are read with the verdict on them."""
        drafted: list[Tensor] = []
        while True:
            best = predictions(self.net.logits(g)[:, None])[:, 0]
            names = best if self.head.q_vocab is None else self.head.q_vocab[best.clamp_min(0)]
            drafted.append(names.where(best >= 0, BAD_ROW))
            if len(drafted) == depth:
                break
            g = self._forward(g[:, None], drafted[-1].clamp_min(0)[:, None], [1] * len(g))[:, 0]
        return chains_of(self._last, drafted, [depth if i in growing else 0 for i in range(len(g))])

    def _grow(
        self, g: Float[Tensor, "batch hidden"], growing: Sequence[int], chains: list[list[int]],
        dists: list[list[Tensor]], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness],
    ) -> list[int]:  # fmt: skip
        """Append a token to each growing chain; returns the rows that go on."""
        logits = self.net.logits(g if len(growing) == len(g) else g[list(growing)])
        # A greedy draft is certain; the probability that the head gives it at T = 1 decides whether to go on.
        q = warp(logits, SamplingParams(1.0) if sampling.greedy else sampling)
        chosen = q.argmax(-1).tolist() if sampling.greedy else [
            rngs[i].draw(row) for i, row in zip(growing, q, strict=True)
        ]  # fmt: skip
        sure = q[torch.arange(len(growing)), chosen].tolist()
        for i, row in zip(growing, q, strict=True):
            dists[i].append(row)
        for i, column in zip(growing, chosen, strict=True):
            chains[i].append(column if self._targets is None else self._targets[column])
        return [i for i, share in zip(growing, sure, strict=True) if share >= budget.min_confidence]

    def _read(self, pairs: Sequence[Pairs | None]) -> Float[Tensor, "batch hidden"]:
        """Append verified pairs to the cache; g after each row's last one (rubbish for a row without)."""
        counts = [0 if row is None else len(row.tokens) for row in pairs]
        g = self._read_all(pairs, counts)
        last = upload(torch.tensor([max(0, count - 1) for count in counts]), g.device)
        return g[torch.arange(len(pairs), device=g.device), last]

    def _read_all(self, pairs: Sequence[Pairs | None], kept: Sequence[int]) -> Float[Tensor, "batch width hidden"]:
        """g after every pair; the first `kept[b]` of row b stay in the cache."""
        counts = [0 if row is None else len(row.tokens) for row in pairs]
        width, weight = max(1, *counts), self.head.lm_head.weight
        size = next(row.features[0].shape[-1] for row in pairs if row is not None)
        features = torch.zeros(len(pairs), width, size, dtype=weight.dtype, device=weight.device)
        tokens = torch.zeros(len(pairs), width, dtype=torch.long)
        for i, row in enumerate(pairs):
            if row is not None:
                features[i, : counts[i]] = torch.cat(row.features)
                tokens[i, : counts[i]] = torch.tensor(row.tokens)
        return self._forward(self.net.fuse(features), tokens, counts, kept=kept)

    def _step(self, g: Float[Tensor, "batch hidden"], tokens: Sequence[int]) -> Float[Tensor, "batch hidden"]:
        """One draft token deeper: the head's own g is the feature."""
        return self._forward(g[:, None], torch.tensor(tokens)[:, None], [1] * len(tokens))[:, 0]

    def _forward(
        self, g: Float[Tensor, "batch nodes width"], tokens: Int[Tensor, "batch nodes"], counts: Sequence[int],
        trees: Sequence[DraftTree] | None = None, kept: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch nodes hidden"]:  # fmt: skip
        """The head over new nodes, row b's first `counts[b]` real: a chain, which stays in the cache, or `trees`.

        `kept`: how many of a chain's nodes stay, if not all.
        """
        batch, nodes, _ = g.shape
        self.cache.prepare(nodes, g.device)
        depths = torch.arange(nodes).expand(batch, -1).clone()
        for row, tree in enumerate(trees or ()):
            depths[row, : counts[row]] = torch.tensor(tree.depths[1:], dtype=torch.long) - 1
        positions = torch.tensor(self.cache.lengths)[:, None] + depths
        mask = self._mask(batch, nodes, counts) if trees is None else self._tree_mask(trees, nodes, counts)
        tokens, positions = upload(tokens, g.device), upload(positions, g.device)
        after = self.net.step(g, tokens, positions, None if mask is None else upload(mask, g.device), self.cache)
        self.cache.commit([range(count if trees is None else 0) for count in kept or counts])
        return after

    def _tree_mask(
        self, trees: Sequence[DraftTree], nodes: int, counts: Sequence[int]
    ) -> Bool[Tensor, "batch 1 nodes slots"]:
        """Verified pairs, then the node's ancestors but the root, whose pair is one of the verified."""
        block = torch.zeros(len(trees), nodes, nodes, dtype=torch.bool)
        for row, tree in enumerate(trees):
            block[row, : counts[row], : counts[row]] = ancestor_mask(tree.parent_list)[1:, 1:]
        return slot_mask(block, self.cache.lengths, counts)

    def _mask(self, batch: int, nodes: int, counts: Sequence[int]) -> Bool[Tensor, "batch 1 nodes slots"] | None:
        """What new nodes may see; None: everything, as one node of every row does if all rows are equally long."""
        if nodes == 1 and min(counts) == 1 and min(self.cache.lengths) == max(self.cache.lengths):
            return None
        causal = ancestor_mask(range(-1, nodes - 1)).expand(batch, -1, -1)
        return slot_mask(causal, self.cache.lengths, counts)

    @torch.inference_mode()
    def commit(
        self, rows: Sequence[int], trees: Sequence[DraftTree], results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "_ features"]] | None,
    ) -> None:  # fmt: skip
        """Forget what was read with the head's own features; what was accepted is read next, with the target's."""
        if features is None and not self.feature_layers:
            features = [torch.zeros(len(result.path) + 1, 0) for result in results]
        if features is None:
            raise ValueError(f"this drafter needs the target's features of layers {list(self.feature_layers)}")
        for i, (tree, result, new) in enumerate(zip(trees, results, features, strict=True)):
            fresh = Pairs([new], [*(tree.token_list[node] for node in result.path), result.next_token])
            unread = self._unread[i]
            if unread is not None and self.cache.lengths[i] == self._verified[i]:
                fresh = _joined(unread, fresh)  # nothing was drafted, so nothing was read
            elif unread is not None:
                self._verified[i] += len(unread.tokens)
            self._unread[i] = fresh
            self._last[i] = result.next_token
        self.cache.truncate(self._verified)

    @torch.inference_mode()
    def finish(self, rows: Sequence[int]) -> None:
        """Drop these rows from the batch."""
        kept = [i for i, row in enumerate(self._rows) if row not in set(rows)]
        if len(kept) < len(self._rows):
            self.cache.select(kept)
        self._rows, self._last = [self._rows[i] for i in kept], [self._last[i] for i in kept]
        self._verified, self._unread = [self._verified[i] for i in kept], [self._unread[i] for i in kept]


def _joined(old: Pairs, new: Pairs) -> Pairs:
    """Without copying: a head that is not asked for a while would copy what it has not read every round."""
    return Pairs(old.features + new.features, old.tokens + new.tokens)
