"""Engines small enough to enumerate, around what a learner wrote, through `SpecEngine.step()` itself.

Target and draft are tables over the words a, b, c; so the wanted distribution is known, and a wrong outcome has a name.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_course.checks.examine import CLOSE, Trouble, attempt
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, Randomness, Verifier, VerifyResult
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import Distribution, engine_distribution, outcomes, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.sampling import warp

__all__ = [
    "SOME", "TextDrafter", "Watched", "as_long", "certain", "compare", "keeps_some", "lossless", "sampled",
    "text_and_length", "text_distribution", "tokens_per_round", "wanted",
]  # fmt: skip

SAMPLING = SamplingParams(temperature=1.0)
PROMPT = (0,)
SOME = 1e-6  # words of a round beyond one: fewer, and no draft is ever kept

Draft = Callable[[list[int], int, Randomness], DraftTree]


class TextDrafter:
    """A `Drafter` whose tree is a function of the committed text: `draft(text, depth, rng)`."""

    feature_layers: tuple[int, ...] = ()

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.text: dict[int, list[int]] = {}

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]], features: Any) -> None:
        """Remember the prompts."""
        self.text = {row: list(prompt) for row, prompt in zip(rows, prompts, strict=True)}

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A tree a row."""
        return [self.draft(self.text[row], budget.depth, rng) for row, rng in zip(rows, rngs, strict=True)]

    def commit(
        self, rows: Sequence[int], trees: Sequence[DraftTree], results: Sequence[VerifyResult], features: Any
    ) -> None:
        """Append what was accepted and the target's own token."""
        for row, tree, result in zip(rows, trees, results, strict=True):
            self.text[row] += [*(tree.token_list[node] for node in result.path), result.next_token]

    def finish(self, rows: Sequence[int]) -> None:
        """Forget these rows."""
        for row in rows:
            self.text.pop(row, None)


def distribution_after(table: TableLM, text: Sequence[int]) -> Float[Tensor, " vocab"]:
    """The table's distribution of the next word."""
    return warp(table.logits(tuple(text)), SAMPLING)


def sampled(table: TableLM) -> Draft:
    """Draws each word from the table's distribution q: "iid"."""

    def draft(text: list[int], depth: int, rng: Randomness) -> DraftTree:
        chain, dists = [text[-1]], []
        for _ in range(depth):
            dists.append(distribution_after(table, [*text, *chain[1:]]))
            chain.append(rng.draw(dists[-1]))
        q = torch.stack([*dists, torch.zeros(table.vocab, dtype=torch.float64)])  # nothing was drawn after the last
        return DraftTree(torch.tensor(chain), torch.arange(-1, depth), "iid", q)

    return draft


def certain(table: TableLM) -> Draft:
    """Takes the table's favourite each time: a "point" draft, no q."""

    def draft(text: list[int], depth: int, rng: Randomness) -> DraftTree:
        chain = [text[-1]]
        for _ in range(depth):
            chain.append(int(distribution_after(table, [*text, *chain[1:]]).argmax()))
        return DraftTree(torch.tensor(chain), torch.arange(-1, depth))

    return draft


class Tally:
    """Drafts that the first rounds keep, weighted by their chance. All copies of an engine share it."""

    def __init__(self) -> None:
        self.first, self.kept = False, 0.0

    def __deepcopy__(self, memo: Any) -> "Tally":
        return self


class Watched:
    """A learner's verifier, with each of its answers checked for form before the engine takes it."""

    def __init__(self, inner: Any, vocab: int, tally: Tally | None = None) -> None:
        self.inner, self.vocab, self.tally = inner, vocab, tally or Tally()
        self.lossless_for = frozenset(inner.lossless_for)

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """Raises Trouble for an answer that is none, or for one that spoils the drafter's distributions on the way."""
        before = None if tree.q is None else tree.q.clone()
        try:
            result = attempt(self.inner, tree, p.clone(), rng)
        except Trouble as trouble:
            if tree.q is None and "NoneType" in str(trouble):
                raise Trouble(f"{trouble}. A certain draft (tree.drawn is 'point') has no q: tree.q is None") from None
            raise
        if before is not None and tree.q is not None and not torch.equal(before, tree.q):
            raise Trouble("it changed tree.q, which belongs to the drafter: work on a copy of a row, tree.q[i].clone()")
        if not isinstance(result, VerifyResult):
            raise Trouble(f"it returned {type(result).__name__} {result!r}, and the engine expects a VerifyResult")
        if not isinstance(result.path, tuple | list) or not all(isinstance(node, int) for node in result.path):
            raise Trouble(
                f"its path is {result.path!r}. A path is a tuple of the indices of the accepted nodes, (1, 2) for the "
                "first two of a chain, () for none"
            )
        if not _is_path(tree, tuple(result.path)):
            kind = "chain" if tree.is_chain else "tree"
            raise Trouble(
                f"it returned the path {tuple(result.path)} for a {kind} with nodes 1 to {len(tree) - 1}. A path lists "
                "the indices of the accepted nodes, each the child of the one before it, not their tokens; the root, "
                "node 0, is left out"
            )
        if not isinstance(result.next_token, int) or not 0 <= result.next_token < self.vocab:
            raise Trouble(f"next_token is {result.next_token!r}, and should be a token id: an int below {self.vocab}")
        if self.tally.first:
            self.tally.kept += cast("Any", rng).probability * len(result.path)  # of the engine's enumeration
        return result


def _is_path(tree: DraftTree, path: tuple[int, ...]) -> bool:
    return not path or (path[-1] in range(1, len(tree)) and tree.path(path[-1]) == path)


def engine(target: TableLM, drafter: Drafter, verifier: Verifier, depth: int) -> SpecEngine:
    """A whole engine on tables."""
    budget = DraftBudget(depth=depth)
    return SpecEngine(Target(target, check=False), drafter, budget=budget, sampling=SAMPLING, verifier=verifier)


def text_distribution(target: TableLM, draft: Draft, verifier: Any, depth: int, tokens: int) -> Distribution:
    """The exact distribution of the first words that the engine emits. Raises Trouble if the learner's part fails."""
    return text_and_length(target, draft, verifier, depth, tokens)[0]


def text_and_length(
    target: TableLM, draft: Draft, verifier: Any, depth: int, tokens: int
) -> tuple[Distribution, float]:
    """The same, and the mean number of words of the first round, both from one enumeration.

    So a verifier cannot be lossless where it is asked for a distribution and long where it is asked for a length.
    """
    tally = Tally()

    def noted(text: list[int], depth: int, rng: Randomness) -> DraftTree:
        tally.first = len(text) == len(PROMPT)
        return draft(text, depth, rng)

    whole = engine(target, TextDrafter(noted), Watched(verifier, target.vocab, tally), depth)
    return dict(attempt(engine_distribution, whole, PROMPT, tokens, tokens)), 1.0 + tally.kept


def wanted(target: TableLM, tokens: int) -> Distribution:
    """The target's own distribution of as many words."""
    return table_distribution(target, PROMPT, tokens, SAMPLING)


def tokens_per_round(target: TableLM, draft: Draft, verifier: Any, depth: int) -> float:
    """Mean number of words that the first round emits, over all its outcomes."""
    whole = engine(target, TextDrafter(draft), Watched(verifier, target.vocab), depth)

    def one_round(rng: Randomness) -> int:
        whole.randomness = lambda seed, position, purpose: rng
        whole.start([PROMPT])
        return whole.step()[0].emitted

    return float(attempt(lambda: sum(prob * emitted for prob, emitted in outcomes(one_round))))


def spell(text: Sequence[int]) -> str:
    """Token ids as words."""
    return " ".join("abc"[token] for token in text)


def compare(dist: Distribution, goal: Distribution) -> tuple[bool, str]:
    """Whether two distributions are the same and, if not, the outcome that is furthest off."""
    texts = sorted({*dist, *goal})
    worst = max(texts, key=lambda text: abs(dist.get(text, 0.0) - goal.get(text, 0.0)))
    ours, theirs = dist.get(worst, 0.0), goal.get(worst, 0.0)
    word = "often" if ours > theirs else "seldom"
    if abs(ours - theirs) < CLOSE:
        return True, f"all {len(goal)} outcomes have the target's probability, to the last digit"
    return False, (
        f"“{spell(worst)}” comes out with probability {ours:.3f}, the target writes it with {theirs:.3f}: too {word}."
        f" Over all outcomes the distance (TV) is {total_variation(dist, goal):.3f}"
    )


def keeps_some(came: tuple[Distribution, float]) -> tuple[Distribution, bool]:
    """The distribution, and whether a round yields more than the target's own word."""
    return came[0], came[1] > 1 + SOME


def lossless(came: tuple[Distribution, bool], goal: Distribution) -> tuple[bool, str]:
    """The same as `compare`, of a verifier that keeps some draft at all."""
    right, says = compare(came[0], goal)
    if right and not came[1]:
        return False, "it has the target's distribution, but no draft is ever kept: this is plain decoding"
    return right, says


def as_long(came: tuple[Distribution, float], goal: Distribution, best: float, whose: str) -> tuple[bool, str]:
    """Whether a round yields `best` words or more, with the target's distribution."""
    says = f"{whose} yields {came[1]:.3f} words on average, the rule of this task {best:.3f}"
    if not came[1] > best - CLOSE:
        return False, says
    right, why = compare(came[0], goal)
    return right, says if right else f"{says}; that counts for a lossless verifier only, and here {why}"
