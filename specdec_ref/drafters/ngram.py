"""Prompt lookup: guess that the text goes on as it did the last time the same words stood there.

Find the longest suffix of the text (between `min_n` and `max_n` tokens) that occurred before, and propose the tokens
that followed it. No model: q is one-hot, the tree is a "point" draft, so any T is lossless with the one-hot
rule. Where several occurrences match, which one to copy is a policy: the latest (default; what was just said is the
best guess) or the first (transformers, vLLM). A longer match is trusted further: n tokens copy at most 2n + 3, a match
of `max_n` as many as the budget has. No match gives no draft, and the round is a plain step.

An index (n-gram -> where it ended) replaces the scan: a committed token costs max_n dictionary writes, a look-up at
most max_n reads. Source: Saxena 2023, prompt lookup decoding; Yang et al. 2023 (LLMA), §3.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult

__all__ = ["NgramDrafter", "NgramIndex"]


class NgramIndex:
    """One text and where each of its n-grams ended: the latest time, or the first."""

    def __init__(self, min_n: int = 1, max_n: int = 4, policy: str = "latest") -> None:
        """Raises ValueError unless 1 <= min_n <= max_n and the policy is "latest" or "first"."""
        if not 1 <= min_n <= max_n:
            raise ValueError(f"n-gram lengths must satisfy 1 <= min_n <= max_n, got {min_n} and {max_n}")
        if policy not in ("latest", "first"):
            raise ValueError(f"policy must be 'latest' or 'first', got {policy!r}")
        self.min_n, self.max_n, self.policy = min_n, max_n, policy
        self.tokens: list[int] = []
        self._followed: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token that followed it

    def extend(self, tokens: Sequence[int]) -> None:
        """Append committed tokens. An n-gram enters the index once a token follows it: a suffix never finds itself."""
        for token in tokens:
            end = len(self.tokens)
            for n in range(self.min_n, min(self.max_n, end) + 1):
                gram = tuple(self.tokens[end - n :])
                if self.policy == "latest":
                    self._followed[gram] = end
                else:
                    self._followed.setdefault(gram, end)
            self.tokens.append(token)

    def match(self) -> tuple[int, int] | None:
        """(n, index of the token after the match) for the longest suffix seen before; None if there is none."""
        for n in range(min(self.max_n, len(self.tokens)), self.min_n - 1, -1):
            start = self._followed.get(tuple(self.tokens[-n:]))
            if start is not None:
                return n, start
        return None

    def continuation(self, length: int) -> list[int]:
        """Up to `length` guesses: what followed the longest match."""
        found = self.match()
        return self.copy(found[1], length) if found else []

    def copy(self, start: int, length: int) -> list[int]:
        """So many tokens from there. A copy that reaches the end of the text goes on through itself, as in LZ77."""
        copied: list[int] = []
        for index in range(start, start + length):
            copied.append(self.tokens[index] if index < len(self.tokens) else copied[index - len(self.tokens)])
        return copied


class NgramDrafter:
    """A `Drafter`: one `NgramIndex` a request."""

    feature_layers: tuple[int, ...] = ()

    def __init__(self, min_n: int = 1, max_n: int = 4, policy: str = "latest") -> None:
        """See `NgramIndex`."""
        NgramIndex(min_n, max_n, policy)  # refuse bad settings now, not at the first request
        self.min_n, self.max_n, self.policy = min_n, max_n, policy
        self._index: dict[int, NgramIndex] = {}

    def start(
        self,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:
        """Index the prompts."""
        for row, prompt in zip(rows, prompts, strict=True):
            self._index[row] = NgramIndex(self.min_n, self.max_n, self.policy)
            self._index[row].extend(prompt)

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A chain a row; just the root where nothing matches."""
        trees = []
        for row in rows:
            index, length = self._index[row], budget.chain_depth
            chain = index.tokens[-1:]
            if found := index.match():
                n, start = found
                chain += index.copy(start, length if n == self.max_n else min(length, 2 * n + 3))
            trees.append(DraftTree(torch.tensor(chain), torch.arange(-1, len(chain) - 1)))
        return trees

    def commit(
        self,
        rows: Sequence[int],
        trees: Sequence[DraftTree],
        results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:
        """Index what was emitted."""
        for row, tree, result in zip(rows, trees, results, strict=True):
            self._index[row].extend([tree.token_list[node] for node in result.path] + [result.next_token])

    def finish(self, rows: Sequence[int]) -> None:
        """Forget these texts."""
        for row in rows:
            self._index.pop(row, None)
