"""Self-checks of exercise 02: acceptance, residual, a whole verifier, expected tokens, and a drafter with a bug."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, examine, numbers, unaided
from specdec_course.checks.report import Report
from specdec_course.checks.toys import (
    Draft,
    as_long,
    certain,
    compare,
    keeps_some,
    lossless,
    sampled,
    text_and_length,
    wanted,
)
from specdec_course.checks.verification import suspects as wrong
from specdec_course.checks.verification.drafting import draft
from specdec_course.checks.verification.rounds import VERIFIERS
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.exact import outcomes
from specdec_ref.models.toy import TableLM
from specdec_ref.sampling import residual
from specdec_ref.verifiers import RejectionVerifier

__all__ = ["acceptance", "correction", "draft", "tau", "verifier"]

Row = Float[Tensor, " vocab"]
Distributions = Float[Tensor, "nodes vocab"]
Drawn = Float[Tensor, "drafts vocab"]
Pair = tuple[Sequence[float], Sequence[float]]  # p and q of one place

PAIRS: tuple[Pair, ...] = (
    ((0.6, 0.3, 0.1), (0.3, 0.6, 0.1)),
    ((0.5, 0.25, 0.25), (0.2, 0.3, 0.5)),
    ((0.2, 0.5, 0.3), (0.45, 0.15, 0.4)),
    ((0.45, 0.4, 0.15), (0.1, 0.3, 0.6)),  # two words were drafted too rarely
)


def row(values: Sequence[float]) -> Row:
    return torch.tensor(values, dtype=torch.float64)


def emitted(p: Row, q: Row, keep: Sequence[float], rest: Row) -> dict[tuple[int, ...], float]:
    """The exact distribution of one word: x is drafted with q(x) and kept with keep[x], else corrected."""
    rejected = sum(float(q[x]) * (1 - keep[x]) for x in range(len(q)))
    return {(x,): float(q[x]) * keep[x] + rejected * float(rest[x] / rest.sum()) for x in range(len(q))}


def as_distribution(p: Row) -> dict[tuple[int, ...], float]:
    return {(x,): prob for x, prob in enumerate(p.tolist())}


def told(pair: Pair) -> str:
    p, q = ("(" + ", ".join(f"{value:g}" for value in dist) + ")" for dist in pair)
    return f"p = {p}, q = {q}"


def _keeps_enough(pairs: Sequence[Pair], keeps: list[list[float]]) -> tuple[bool, str]:
    for pair, keep in zip(pairs, keeps, strict=True):
        p, q = map(row, pair)
        rate = sum(float(q[x]) * min(max(value, 0.0), 1.0) for x, value in enumerate(keep))
        overlap = float(torch.minimum(p, q).sum())
        if not abs(rate - overlap) <= CLOSE:  # NaN is no rate
            word = "fewer" if rate < overlap else "more"
            return (
                False,
                f"{told(pair)}: it keeps {rate:.0%} of the drafts, {word} than the two distributions have in common",
            )
    return True, "it keeps as many drafts as p and q have in common"


def acceptance(function: Callable[[Row, Row, int], float], pairs: Sequence[Pair] = PAIRS) -> Report:
    """Of `function(p, q, x)`, the probability that a word x drawn from q is kept."""

    def outcome(code: Any) -> list[list[float]]:
        keeps = []
        for pair in pairs:
            p, q = map(row, pair)
            keeps.append([numbers(attempt(code, p, q, x), 1)[0] for x in range(len(p))])
        return keeps

    def is_probability(keeps: list[list[float]]) -> tuple[bool, str]:
        for pair, keep in zip(pairs, keeps, strict=True):
            for x, value in enumerate(keep):
                if not -CLOSE <= value <= 1 + CLOSE:
                    return False, f"{told(pair)}: for “{'abc'[x]}” it gave {value:.3f}, which is not a probability"
        return True, f"between 0 and 1 for all words of {len(pairs)} pairs of distributions"

    def is_lossless(keeps: list[list[float]]) -> tuple[bool, str]:
        for pair, keep in zip(pairs, keeps, strict=True):
            p, q = map(row, pair)
            coin = [min(max(value, 0.0), 1.0) for value in keep]  # what a coin makes of it
            right, says = compare(emitted(p, q, coin, residual(p, q)), as_distribution(p))
            if not right:
                return False, f"{told(pair)}, and the right correction after a rejection: {says}"
        return True, f"the right correction after a rejection makes it p for {len(pairs)} pairs (p, q)"

    trials = [
        Trial("It is a probability", outcome, is_probability, side=True),
        Trial("The emitted distribution is p", outcome, is_lossless),
        Trial("No draft is wasted", outcome, lambda keeps: _keeps_enough(pairs, keeps)),
    ]
    return examine("Task 1, acceptance", function, trials, wrong.ACCEPTANCE)


def _with_equal_distributions(code: Any) -> list[float]:
    dist = row(PAIRS[0][0])
    return numbers(attempt(code, dist, dist.clone()), len(dist))


def _is_usable(rest: list[float]) -> tuple[bool, str]:
    good = min(rest) >= 0 and abs(sum(rest) - 1) < CLOSE
    return good, f"p = q: it gave {[round(r, 3) for r in rest]}, which is {'a' if good else 'not a'} distribution"


def _leftovers(code: Any) -> float:
    p, q = map(row, PAIRS[0])
    rest = numbers(attempt(code, p, q), len(p))
    if not sum(rest) > 0:
        raise Trouble(f"nothing can be drawn from the weights {[round(r, 3) for r in rest]}")
    return float((p - row(PAIRS[0][0])).abs().sum() + (q - row(PAIRS[0][1])).abs().sum())


def correction(function: Callable[[Row, Row], Row], pairs: Sequence[Pair] = PAIRS) -> Report:
    """Of `function(p, q)`, the distribution that a correction is drawn from."""

    def outcome(code: Any) -> list[list[float]]:
        return [numbers(attempt(code, row(p), row(q)), len(p)) for p, q in pairs]

    def is_distribution(rests: list[list[float]]) -> tuple[bool, str]:
        for pair, rest in zip(pairs, rests, strict=True):
            if min(rest) < -CLOSE:
                return False, f"{told(pair)}: it gave “{'abc'[rest.index(min(rest))]}” the weight {min(rest):.3f}"
            if not abs(sum(rest) - 1) <= CLOSE:  # nor do NaNs make a distribution
                return False, f"{told(pair)}: its weights sum to {sum(rest):.3f}, and a distribution's sum to 1"
        return True, f"no weight is negative and they sum to 1, for {len(pairs)} pairs of distributions"

    def is_lossless(rests: list[list[float]]) -> tuple[bool, str]:
        for pair, rest in zip(pairs, rests, strict=True):
            p, q = map(row, pair)
            if min(rest) < -CLOSE or not sum(rest) > 0:
                return False, f"{told(pair)}: nothing can be drawn from the weights {[round(r, 3) for r in rest]}"
            keep = torch.minimum(p / q, torch.ones_like(p)).tolist()
            right, says = compare(emitted(p, q, keep, row(rest)), as_distribution(p))
            if not right:
                return False, f"{told(pair)}, and each draft kept as in task 1: {says}"
        return True, f"with drafts kept as in task 1, the emitted distribution is p for {len(pairs)} pairs (p, q)"

    trials = [
        Trial("It is a distribution", outcome, is_distribution, side=True),
        Trial("The emitted distribution is p", outcome, is_lossless, weight=2.0),
        Trial("It survives p = q", _with_equal_distributions, _is_usable, weight=0.5, side=True),
        Trial(
            "It does not change p and q", _leftovers, weight=0.5, side=True,
            judge=lambda moved: (moved == 0.0, "both are as before" if moved == 0.0 else "p or q was changed in place"),
        ),
    ]  # fmt: skip
    return examine("Task 2, correction", unaided(function, residual), trials, wrong.CORRECTION)


def verifier(make: Callable[[], Any], target: int = 1, other: int = 5, words: int = 2) -> Report:
    """Of a verifier class, plugged into `SpecEngine` and enumerated.

    `target`, `other`: seeds of the two tables; `words`: how many words they know where two drafts are tested.
    """

    def how(vocab: int, depth: int, tokens: int, draft: Callable[[TableLM], Draft]) -> Callable[[Any], Any]:
        table, guesser, needed = TableLM(vocab, target), TableLM(vocab, other), "iid" if draft is sampled else "point"
        return lambda code: keeps_some(text_and_length(table, draft(guesser), _made(code, needed), depth, tokens))

    def judged(vocab: int, tokens: int) -> Callable[[Any], tuple[bool, str]]:
        return lambda came: lossless(came, wanted(TableLM(vocab, target), tokens))

    def length(draft: Draft) -> Callable[[Any], Any]:
        return lambda code: text_and_length(TableLM(3, target), draft, _made(code, "iid"), 2, 2)

    def same_length(draft: Draft) -> Callable[[Any], tuple[bool, str]]:
        best, goal = length(draft)(RejectionVerifier)[1], wanted(TableLM(3, target), 2)
        return lambda came: as_long(came, goal, best, "a round of 2 drafts")

    twin, guesser = sampled(TableLM(3, target)), sampled(TableLM(3, other))
    trials = [
        Trial("One sampled draft: the distribution is the target's", how(3, 1, 2, sampled), judged(3, 2)),
        Trial("Two sampled drafts: the distribution is the target's", how(words, 2, 3, sampled), judged(words, 3)),
        Trial("Two point drafts: the distribution is the target's", how(words, 2, 3, certain), judged(words, 3)),
        Trial(
            "If the draft is the target itself, all pass and a bonus follows", length(twin), same_length(twin),
            side=True,  # keeping everything is right there
        ),
        Trial("No draft is wasted", length(guesser), same_length(guesser)),
    ]  # fmt: skip
    return examine("Task 3, verifier", make, trials, VERIFIERS)


def _made(code: Any, how: str) -> Any:
    """The verifier of a class, or the verifier itself."""
    made = attempt(code) if isinstance(code, type) else code
    ways = getattr(made, "lossless_for", None)
    if not isinstance(ways, frozenset | set) or how not in ways:
        raise Trouble(f"its `lossless_for` must be a set of the kinds of drafts that it verifies, {how!r} among them")
    return made


ROUNDS: tuple[tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]], ...] = (
    (((0.6, 0.3, 0.1), (0.2, 0.2, 0.6)), ((0.3, 0.6, 0.1),)),
    (((0.5, 0.25, 0.25), (0.2, 0.5, 0.3), (0.1, 0.1, 0.8)), ((0.2, 0.3, 0.5), (0.45, 0.15, 0.4))),
)


def tau(function: Callable[[Distributions, Drawn], float], rounds: Sequence[Any] = ROUNDS) -> Report:
    """Of `function(p, q)`, the mean tokens of a round; p has one row more than q."""

    def trial(p: Sequence[Sequence[float]], q: Sequence[Sequence[float]]) -> Trial:
        dists = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
        mean, count = _by_enumeration(*dists)

        def judge(value: float) -> tuple[bool, str]:
            word = "agrees with" if abs(value - mean) < CLOSE else "is below" if value < mean else "is above"
            return abs(value - mean) < CLOSE, (
                f"it gave {value:.4f}, which {word} the mean over all {count} outcomes of such a round, {mean:.4f}"
            )

        drafts = "1 draft" if len(q) == 1 else f"{len(q)} drafts"
        return Trial(f"A round of {drafts}", lambda code: numbers(attempt(code, *dists), 1)[0], judge)

    return examine("Task 4, tokens per round", function, [trial(p, q) for p, q in rounds], wrong.TAU)


def _by_enumeration(p: Distributions, q: Drawn) -> tuple[float, int]:
    """Mean tokens of a round by running all its courses, and how many there are."""

    def one_round(rng: Randomness) -> int:
        chain = [0, *(rng.draw(dist) for dist in q)]
        tree = DraftTree(
            torch.tensor(chain), torch.arange(-1, len(q)), "iid", torch.cat([q, q.new_zeros(1, len(q[0]))])
        )
        return len(RejectionVerifier()(tree, p, rng).path) + 1

    found = list(outcomes(one_round))
    return sum(prob * tokens for prob, tokens in found), len(found)
