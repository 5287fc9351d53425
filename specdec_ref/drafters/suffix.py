"""Suffix decoding's drafter: the better draft of two suffix trees (`suffix_tree.py`).

A local tree per request counts the substrings of its prompt and its answer so far; a global one those of the answers
of finished requests. On a tie of their scores the local tree drafts.

Source: Oliaro et al. 2024, SuffixDecoding, arXiv 2411.04975.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams, SuffixOptions
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.drafters.suffix_tree import SuffixDraft, SuffixTree

__all__ = ["SuffixDrafter"]


class SuffixDrafter:
    """A `Drafter`: a local tree per request, and one global tree of the answers of finished requests."""

    feature_layers: tuple[int, ...] = ()

    def __init__(self, options: SuffixOptions = SuffixOptions()) -> None:
        self.options = options
        self._local: dict[int, SuffixTree] = {}
        self._texts: dict[int, list[int]] = {}  # prompt and answer so far
        self._prompts: dict[int, int] = {}  # length of the prompt
        self.everyone = SuffixTree(options.max_depth, options.capacity)

    def forget(self) -> None:
        """Empty the global tree, so that a measurement does not find its own answer."""
        self.everyone = SuffixTree(self.options.max_depth, self.options.capacity)

    def start(
        self, rows: Sequence[int], prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:  # fmt: skip
        """Count the substrings of the prompts."""
        for row, prompt in zip(rows, prompts, strict=True):
            self._local[row], self._texts[row] = SuffixTree(self.options.max_depth), []
            self._prompts[row] = len(prompt)
            self.extend(row, prompt)

    def extend(self, row: int, tokens: Sequence[int]) -> None:
        """Append committed tokens to a row's text."""
        self._texts[row] += tokens
        for token in tokens:
            self._local[row].append(token)

    def draft(self, row: int, budget: DraftBudget) -> SuffixDraft:
        """The better draft of the local and the global tree."""
        text, local = self._texts[row][-self.options.max_depth :], self._local[row]
        own = local.draft(text, budget, self.options, local.ending())
        return max(own, self.everyone.draft(text, budget, self.options), key=lambda each: each.score)

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A "point" tree per row, a chain if `topk` is 1."""
        drafts = [self.draft(row, budget).nodes for row in rows]
        return [nodes.select(range(len(nodes.tokens))) for nodes in drafts]

    def commit(
        self, rows: Sequence[int], trees: Sequence[DraftTree], results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:  # fmt: skip
        """Count what was emitted."""
        for row, tree, result in zip(rows, trees, results, strict=True):
            self.extend(row, [*(tree.token_list[node] for node in result.path), result.next_token])

    def finish(self, rows: Sequence[int]) -> None:
        """Move the answers of these requests to the global tree; their local trees go."""
        for row in rows:
            if self._local.pop(row, None) is None:
                continue
            answer = self._texts.pop(row)[self._prompts.pop(row) :]
            for token in answer[-self.options.capacity :]:
                self.everyone.append(token)
            self.everyone.close()
