"""Self-check of exercise 03's drafting loop: every chain that a toy head can draft, with its chance.

The head reads a feature and a token, feeds its output back, and has two words. Its state is one number, so that a
mistake in what is fed in changes the distribution of what comes out:

    g after a pair = mix of (feature or g, token)            distribution = softmax of a table's row for g
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_course.checks.eagle import suspects as wrong
from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, examine
from specdec_course.checks.report import Report
from specdec_course.checks.toys import Draft, compare, text_distribution, tokens_per_round, wanted
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.exact import Distribution, outcomes
from specdec_ref.models.toy import TableLM
from specdec_ref.verifiers import RejectionVerifier

__all__ = ["ToyHead", "draft", "text_features"]

STATES = 97


def text_features(text: Sequence[int]) -> Float[Tensor, "tokens 1"]:
    """The target's feature of every token but the last, each a number that depends on the whole text so far."""
    states, rows = 1, []
    for token in text[:-1]:
        states = (states * 31 + token * 7 + 3) % STATES
        rows.append([float(states)])
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 1)


class ToyHead:
    """`read`, `step` and `logits`, as a head with a cache of its own has them; words 0 and `words` - 1 are its own."""

    def __init__(self, words: int, seed: int) -> None:
        self.q_vocab = torch.tensor([0, words - 1])
        generator = torch.Generator().manual_seed(seed)
        self.table = 1.5 * torch.randn(STATES, len(self.q_vocab), dtype=torch.float64, generator=generator)

    def read(self, features: Float[Tensor, "pairs 1"], tokens: Sequence[int]) -> Float[Tensor, " 1"]:
        """g after these pairs. Raises ValueError if they are no pairs."""
        if len(features) != len(tokens):
            raise ValueError(f"{len(features)} features and {len(tokens)} tokens make no pairs")
        g = torch.zeros(1, dtype=torch.float64)
        for feature, token in zip(features, tokens, strict=True):
            g = self.step(feature + 5 * g, token)
        return g

    def step(self, g: Float[Tensor, " 1"], token: int) -> Float[Tensor, " 1"]:
        """g after one more pair."""
        return (g * 11 + int(token) * 29 + 13) % STATES

    def logits(self, g: Float[Tensor, " 1"]) -> Float[Tensor, " draft_vocab"]:
        """Scores of the two draft words."""
        return self.table[int(g)]


Drafting = Callable[[Any, Tensor, list[int], int, Randomness], DraftTree]


def draft(function: Drafting, seed: int = 1, words: int = 3) -> Report:
    """Of `function(head, features, text, gamma, rng)`: a chain drafted by a toy head, with its distributions.

    The same prefixes are drafted from in every course that chance can take; then the chains go through the engine.
    """
    table, head = TableLM(words, seed), ToyHead(words, seed + 1)

    def chains(depth: int) -> Callable[[Any], Distribution]:
        return lambda code: _chain_distribution(code, head, [0, 1, 2 % words], depth)

    def as_the_head(depth: int) -> Callable[[Distribution], tuple[bool, str]]:
        goal = _chain_distribution(wrong.eagle_chain, head, [0, 1, 2 % words], depth)
        return lambda came: _same_chains(came, goal)

    def drafts(code: Any) -> Draft:
        return lambda text, depth, rng: _well_formed(
            attempt(code, head, text_features(text), list(text), depth, rng), text, depth
        )

    def emitted(code: Any) -> Distribution:
        return text_distribution(table, drafts(code), RejectionVerifier(), depth=2, tokens=2)

    def length(code: Any) -> float:
        return tokens_per_round(table, drafts(code), RejectionVerifier(), depth=2)

    best = length(wrong.eagle_chain)
    trials = [
        Trial("One draft: each word with the probability of the head", chains(1), as_the_head(1)),
        Trial("Three drafts: each chain with the probability of the head", chains(3), as_the_head(3), weight=2.0),
        Trial("The tree is marked as drawn: the text keeps the target's distribution", emitted,
              lambda came: compare(came, wanted(table, 2))),
        Trial("No draft is wasted", length, weight=0.5, judge=lambda mean: (
            mean > best - CLOSE,
            f"a round of 2 drafts yields {mean:.3f} words on average, with the head's own chains {best:.3f}",
        )),
    ]  # fmt: skip
    return examine("Task 2, the drafting loop", function, trials, wrong.DRAFTS)


def _chain_distribution(code: Any, head: ToyHead, text: list[int], depth: int) -> Distribution:
    """Drafted words -> probability, over all courses. They are drafted after a text of at least two words."""

    def one(rng: Randomness) -> tuple[int, ...]:
        tree = _well_formed(attempt(code, head, text_features(text), list(text), depth, rng), text, depth)
        if len(tree) != depth + 1:
            raise Trouble(f"it drafted {len(tree) - 1} words, and {depth} were asked for")
        return tree.token_list[1:]

    dist: dict[tuple[int, ...], float] = {}
    for prob, words in attempt(lambda: list(outcomes(one))):
        dist[words] = dist.get(words, 0.0) + prob
    return dist


def _same_chains(came: Distribution, goal: Distribution) -> tuple[bool, str]:
    worst = max(sorted({*came, *goal}), key=lambda words: abs(came.get(words, 0.0) - goal.get(words, 0.0)))
    ours, theirs = came.get(worst, 0.0), goal.get(worst, 0.0)
    if abs(ours - theirs) < CLOSE:
        return True, f"all {len(goal)} chains have the probability that the head gives them"
    spelled = " ".join("abcd"[word] if word < 4 else str(word) for word in worst)
    return False, f"“{spelled}” is drafted with probability {ours:.3f}, expected {theirs:.3f}, the head's own"


def _well_formed(tree: Any, text: Sequence[int], depth: int) -> DraftTree:
    if not isinstance(tree, DraftTree):
        raise Trouble(f"it returned {type(tree).__name__}, and a DraftTree was expected")
    if tree.token_list[0] != text[-1] or not tree.is_chain or len(tree) > depth + 1:
        raise Trouble(
            f"it returned the tokens {tree.token_list} for the text {list(text)}: a chain begins with the text's last "
            f"word, and up to {depth} drafts follow"
        )
    if tree.q is not None and len(tree.q) != len(tree):
        raise Trouble(f"q has {len(tree.q)} rows for {len(tree)} nodes: the last one, of zeros, is for the leaf")
    return tree
