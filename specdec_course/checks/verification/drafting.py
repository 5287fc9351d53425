"""Self-check of exercise 02's drafter with a bug: its drafts go through an engine, and its words are looked at.

A text keeps the target's distribution whatever is drafted, if the tree says rightly how. So it is also asked that the
drafts are those of the distribution that was given: its favourite, or drawn so that this is the likeliest.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, examine
from specdec_course.checks.report import Report
from specdec_course.checks.toys import (
    Draft,
    compare,
    distribution_after,
    text_distribution,
    tokens_per_round,
    wanted,
)
from specdec_course.checks.verification import suspects as wrong
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.exact import Distribution
from specdec_ref.models.toy import TableLM
from specdec_ref.verifiers import RejectionVerifier

__all__ = ["draft"]

Row = Float[Tensor, " vocab"]

Drafting = Callable[[Callable[[list[int]], Row], list[int], int, Randomness], DraftTree]


def draft(function: Drafting, target: int = 1, other: int = 5, tokens: int = 2) -> Report:
    """Of `function(distribution, text, gamma, rng)`, which drafts a chain; RejectionVerifier judges it.

    `tokens`: of how many words the distribution is compared.
    """
    table, guesser = TableLM(3, target), TableLM(3, other)

    def dist(depth: int) -> Callable[[Any], tuple[Distribution, str]]:
        return lambda code: _emitted(code, table, guesser, depth, tokens)

    def right(came: tuple[Distribution, str]) -> tuple[bool, str]:
        holds, says = compare(came[0], wanted(table, tokens))
        return (False, came[1]) if holds and came[1] else (holds, says)

    def length(code: Any) -> list[float]:
        sizes: list[float] = []

        def noted(text: list[int], depth: int, rng: Randomness) -> DraftTree:
            sizes.append(len(tree := _drafts(code, guesser)(text, depth, rng)) - 1)
            return tree

        return [tokens_per_round(table, noted, RejectionVerifier(), depth=2), min(sizes)]

    trials = [
        Trial("One draft: the distribution is the target's", dist(1), right),
        Trial("Two drafts: the distribution is the target's", dist(2), right),
        Trial(
            "It still drafts", length, weight=0.5, side=True,
            judge=lambda came: (
                came[0] > 1 + CLOSE and came[1] == 2,
                f"asked for 2 drafts it gave at least {came[1]:g}; a round yields {came[0]:.3f} words on average",
            ),
        ),
    ]  # fmt: skip
    return examine("Task 5, the bug", function, trials, wrong.DRAFTS)


def _emitted(code: Any, table: TableLM, guesser: TableLM, depth: int, tokens: int) -> tuple[Distribution, str]:
    """The distribution of the first words, and what is strange about the drafts."""
    odd: list[str] = []

    def noted(text: list[int], depth: int, rng: Randomness) -> DraftTree:
        tree = _drafts(code, guesser)(text, depth, rng)
        odd.append(_strange(tree, text, depth, guesser))
        return tree

    came = text_distribution(table, noted, RejectionVerifier(), depth, tokens)
    return came, next(filter(None, odd), "")


def _drafts(code: Any, guesser: TableLM) -> Draft:
    return lambda text, depth, rng: _well_formed(
        attempt(code, lambda words: distribution_after(guesser, words), list(text), depth, rng), text, depth
    )


def _well_formed(tree: Any, text: Sequence[int], depth: int) -> DraftTree:
    if not isinstance(tree, DraftTree):
        raise Trouble(f"it returned {type(tree).__name__}, and a DraftTree was expected")
    if tree.token_list[0] != text[-1] or not tree.is_chain or len(tree) > depth + 1:
        raise Trouble(f"it returned the tokens {tree.token_list}: a chain of up to {depth} drafts after the last token")
    if tree.drawn == "without_replacement":
        raise Trouble("a chain has one child per node: nothing is drawn without replacement")
    return tree


def _strange(tree: DraftTree, text: Sequence[int], depth: int, guesser: TableLM) -> str:
    """What tells a drafted chain from one of this distribution; nothing if none does."""
    if len(tree) <= depth:
        return f"the text is the target's, but of {depth} drafts it gave {len(tree) - 1}"
    words = [*text, *tree.token_list[1:]]
    for node in range(depth):
        dist = distribution_after(guesser, words[: len(text) + node])
        favourite = int(dist.argmax())
        likeliest = words[len(text) + node] if tree.q is None else int(tree.q[node].argmax())
        if likeliest != favourite and float(dist[likeliest]) < float(dist[favourite]) - CLOSE:
            return (
                f"the text is the target's, but “{'abc'[likeliest]}” is the likeliest draft {node + 1}, and “"
                f"{'abc'[favourite]}” is the word that the distribution of this text favours"
            )
    return ""
