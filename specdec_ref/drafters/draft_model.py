"""A small language model that writes the draft: the classic of Leviathan et al. 2023 (§2) and Chen et al. 2023 (§2).

It shares the target's vocabulary and keeps a KV cache of its own. Each round it reads what it has not seen yet (the
tokens committed last), then writes `depth` tokens one by one. At T = 0 it writes its argmax, drawn as "point". Above,
it samples from q, its own distribution warped exactly as the target's, drawn as "iid"; the tree carries q.

    cache after a round = committed text up to the root + accepted drafts that it had read   (it never reads the last)

With a budget of `topk` > 1, or a `grow` of its own, it writes trees: each level is one forward over the tree so far.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.drafters.rows import chain_tree
from specdec_ref.kernels.reference import predictions
from specdec_ref.models.target import Target, last_logits
from specdec_ref.trees.dynamic import dynamic
from specdec_ref.trees.growth import Grow, Growth, confidence
from specdec_ref.trees.masks import chains_of

__all__ = ["DraftModelDrafter"]


class DraftModelDrafter:
    """A `Drafter` around any causal LM with the target's vocabulary."""

    feature_layers: tuple[int, ...] = ()

    def __init__(self, lm: Target, target_vocab: int, grow: Grow | None = None) -> None:
        """`lm`: the draft model, wrapped like a target. `grow`: how trees grow; None: as the budget says.

        Raises ValueError if its vocabulary has another size.
        """
        if lm.vocab_size != target_vocab:
            raise ValueError(
                f"the draft model has a vocabulary of {lm.vocab_size} tokens, the target of {target_vocab}: its token "
                "ids would mean something else. Use a draft model of the same family and tokenizer."
            )
        self.lm, self.grow = lm, grow
        self._growths: list[Growth] = []  # of the last round, if it proposed trees
        self._rows: list[int] = []  # request ids, in the order of the cache's rows
        self._agreed: list[int] | None = None  # cached tokens that are committed text, in the same order; None: unread
        self._text: dict[int, list[int]] = {}  # what is committed; its unread part is text[cached tokens:]

    def start(
        self,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:
        """Take the prompts, to be read before the first guess. Raises RuntimeError while an earlier batch is open."""
        if self._rows:
            raise RuntimeError(f"requests {self._rows} are still open: finish them before starting others")
        self._rows, self._agreed = list(rows), None
        self._text = {row: list(prompt) for row, prompt in zip(rows, prompts, strict=True)}

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A chain or a tree a row. A draft below `min_confidence` stays, and nothing comes after it."""
        if list(rows) != self._rows:
            raise RuntimeError(f"open requests are {self._rows}, asked to draft for {list(rows)}")
        self._growths = []
        if budget.chain_depth == 0:  # a controller may never ask for a guess: then nothing is read
            return [chain_tree(self._text[row][-1:]) for row in rows]
        if self._agreed is None:
            texts = [self._text[row][:-1] for row in rows]
            self.lm.start(texts, capacity=max(map(len, texts)) + 65)
            self._agreed = list(self.lm.lengths)
        if self.lm.lengths != self._agreed:  # an earlier draft was abandoned, perhaps since it gave NaN
            self.lm.cache.abandon(self._agreed)
        if self.grow is None and budget.topk == 1:
            return self._chains(rows, budget, sampling, rngs)
        grow = self.grow or dynamic
        growths = [grow(self._text[row][-1], budget, sampling, rng, None) for row, rng in zip(rows, rngs, strict=True)]
        if any(growth.nodes.frontier for growth in growths):
            self._growths = growths
            self._grow_trees([self._text[row] for row in rows])
        return [growth.tree() for growth in growths]

    def state(self) -> tuple[bytes, ...]:
        """What its cache holds."""
        return self.lm.cache.state()

    def unread(self) -> int:
        """Tokens that the draft model would read before its first guess, of the row that has most."""
        read = self._agreed or [0] * len(self._rows)
        return max((len(self._text[row]) - 1 - n for row, n in zip(self._rows, read, strict=True)), default=0)

    def _grow_trees(self, texts: Sequence[Sequence[int]]) -> None:
        """Read the text up to the root, which is node 0 of every later forward; those are kept in `commit` alone."""
        trees = [chain_tree(text[cached:]) for text, cached in zip(texts, self.lm.lengths, strict=True)]
        logits = self.lm.forward(trees).logits
        kept: list[range] = [range(len(tree) - 1) for tree in trees]
        while True:
            for growth, tree, row in zip(self._growths, trees, logits, strict=True):
                asked = len(growth.nodes.frontier)
                if asked:
                    growth.extend(row[len(tree) - asked : len(tree)])
            self.lm.commit(kept)
            self._agreed = list(self.lm.lengths)
            if not any(growth.nodes.frontier for growth in self._growths):
                return
            trees = [growth.nodes.skeleton() for growth in self._growths]
            logits, kept = self.lm.forward(trees).logits, [range(0) for _ in trees]

    def _chains(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A chain a row; each token is read alone, and stays in the cache unless it is rejected."""
        if sampling.greedy and budget.min_confidence == 0.0:
            return self._greedy_chains(rows, budget.chain_depth)
        chains = [[self._text[row][-1]] for row in rows]
        dists: list[list[Tensor]] = [[] for _ in rows]
        growing = list(range(len(rows)))
        unread = [self._text[row][cached:] for row, cached in zip(rows, self.lm.lengths, strict=True)]
        for _ in range(budget.chain_depth):
            q = self._read(unread, sampling)
            for i in growing:
                chains[i].append(int(q[i].argmax()) if sampling.greedy else rngs[i].draw(q[i]))
                dists[i].append(q[i])
            growing = [i for i in growing if float(q[i, chains[i][-1]]) >= budget.min_confidence]
            if not growing:
                break
            unread = [chain[-1:] for chain in chains]
        return [chain_tree(chain, dist, sampling) for chain, dist in zip(chains, dists, strict=True)]

    def _greedy_chains(self, rows: Sequence[int], depth: int) -> list[DraftTree]:
        """The same at T = 0, with the tokens left on the device: they are read with the verdict on them."""
        trees = [chain_tree(self._text[row][cached:]) for row, cached in zip(rows, self.lm.lengths, strict=True)]
        logits = last_logits(self.lm.forward(trees), trees)
        self.lm.commit([range(len(tree)) for tree in trees])
        drafted = [predictions(logits[:, None])[:, 0]]
        while len(drafted) < depth:
            drafted.append(predictions(self.lm.extend(drafted[-1].clamp_min(0))[:, None])[:, 0])
        return chains_of([self._text[row][-1] for row in rows], drafted, [depth] * len(rows))

    def _read(self, tokens: Sequence[Sequence[int]], sampling: SamplingParams) -> Float[Tensor, "batch vocab"]:
        """Append these tokens to the cache, a list a row, unless they give NaN; q after each list's last one.

        At T = 0, where q is one-hot, it is what the draft model thinks at T = 1: its argmax, and how sure it is.
        """
        trees = [chain_tree(row) for row in tokens]
        q = confidence(last_logits(self.lm.forward(trees), trees), sampling)
        self.lm.commit([range(len(tree)) for tree in trees])
        return q

    def commit(
        self,
        rows: Sequence[int],
        trees: Sequence[DraftTree],
        results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:
        """Keep the text and the accepted drafts that were read, and roll back the others: leaves never are."""
        if self._growths:
            self.lm.commit(
                [
                    _slots(growth, tree, result)
                    for growth, tree, result in zip(self._growths, trees, results, strict=True)
                ]
            )
            self._agreed, self._growths = list(self.lm.lengths), []
        elif self._agreed is not None:
            lengths = zip(rows, trees, results, self.lm.lengths, strict=True)
            self._agreed = [
                min(cached, len(self._text[row]) + max(0, min(len(result.path), len(tree) - 2)))
                for row, tree, result, cached in lengths
            ]
        for row, tree, result in zip(rows, trees, results, strict=True):
            self._text[row] += [*(tree.token_list[node] for node in result.path), result.next_token]
        if self._agreed is not None:
            self.lm.cache.truncate(self._agreed)

    def finish(self, rows: Sequence[int]) -> None:
        """Drop these rows from the batch."""
        kept = [i for i, row in enumerate(self._rows) if row not in set(rows)]
        if self._agreed is not None and len(kept) < len(self._rows):
            self.lm.cache.select(kept)
            self._agreed = [self._agreed[i] for i in kept]
        self._rows = [self._rows[i] for i in kept]
        self._text = {row: self._text[row] for row in self._rows}


def _slots(growth: Growth, tree: DraftTree, result: VerifyResult) -> list[int]:
    """Where the root and the accepted nodes stand in the last forward, as far as they were read.

    The engine may have cut the proposed tree to fewer levels: what was cut lies below all that is left.
    """
    depth = max(tree.depths)
    proposed = [node for node in growth.origin if growth.nodes.depths[node] <= depth]
    place = {node: at for at, node in enumerate(growth.nodes.read)}
    return [place[proposed[node]] for node in (0, *result.path) if proposed[node] in place]
