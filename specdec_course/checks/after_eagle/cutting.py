"""Self-check of exercise 10, task 4: how many drafts of a block are verified, decided without looking ahead."""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

from specdec_course.checks.examine import CLOSE, Suspect, Trial, Trouble, attempt, described, examine, numbers
from specdec_course.checks.report import Report
from specdec_ref.exact import chain_output, total_variation

__all__ = ["CUTS", "length"]

Words = tuple[int, ...]
# what it is; p, the same at each position; q of each position; confidence by the words before; v(2), v(3), ...
Cut = tuple[str, Sequence[float], Sequence[Sequence[float]], dict[Words, float], Sequence[float]]

CUTS: tuple[Cut, ...] = (
    (
        "One draft (the paper's example)", (0.7, 0.3), ((0.5, 0.5),),
        {(): 0.6, (0,): 1.0, (1,): 0.0}, (1.2,),
    ),
    (
        "Two drafts, the second is sure after word 0", (0.6, 0.4), ((0.5, 0.5), (0.3, 0.7)),
        {(): 0.5, (0,): 0.9, (1,): 0.1, (0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.9, (1, 1): 0.1}, (1.6, 1.65),
    ),
    (
        "Two drafts, cheap to verify", (0.6, 0.4), ((0.5, 0.5), (0.3, 0.7)),
        {(): 0.7, (0,): 0.8, (1,): 0.1, (0, 0): 0.2, (0, 1): 0.6, (1, 0): 0.9, (1, 1): 0.05}, (1.3, 1.5),
    ),
    (
        "Three drafts", (0.8, 0.2), ((0.5, 0.5), (0.4, 0.6), (0.6, 0.4)),
        {(): 0.8, (0,): 0.7, (1,): 0.3, (0, 0): 0.9, (0, 1): 0.15, (1, 0): 0.9, (1, 1): 0.2,
         **{words: 0.9 * words[2] + 0.05 for words in product((0, 1), repeat=3)}}, (1.2, 1.4, 1.6),
    ),
    (
        "An expensive second draft", (0.6, 0.4), ((0.5, 0.5), (0.4, 0.6)),
        {(): 0.6, (0,): 0.95, (1,): 0.2, (0, 0): 0.3, (0, 1): 0.8, (1, 0): 0.7, (1, 1): 0.1}, (1.4, 2.1),
    ),
    (
        "Two unsure drafts that are cheap together", (0.7, 0.3), ((0.4, 0.6), (0.5, 0.5)),
        {(): 0.3, (0,): 0.95, (1,): 0.4, **dict.fromkeys(product((0, 1), repeat=2), 0.5)}, (1.5, 1.5),
    ),
    (
        "Three drafts, cheap to verify", (0.7, 0.3), ((0.5, 0.5), (0.6, 0.4), (0.5, 0.5)),
        {(): 0.6, (0,): 0.4, (1,): 0.5, (0, 0): 0.1, (0, 1): 0.5, (1, 0): 0.9, (1, 1): 0.5,
         **{words: 0.9 - 0.8 * words[1] for words in product((0, 1), repeat=3)}}, (1.25, 1.45, 1.65),
    ),
    (  # after word 0, both ratios are 1.2 exactly
        "A second draft that leaves the ratio as it is", (0.6, 0.4), ((0.5, 0.5), (0.4, 0.6)),
        {(): 0.5, (0,): 0.75, (1,): 0.9, **dict.fromkeys(product((0, 1), repeat=2), 0.5)}, (1.25, 1.5625),
    ),
)  # fmt: skip


def _mistaken(
    before: Callable[[list[int], int], list[int]] = lambda words, k: words[:k],
    price: Callable[[Any, int], float] = lambda v, n: float(v(n + 1)),
    chance: Callable[[float, float], float] = lambda alive, sure: alive * sure,
    rises: Callable[[float, float], bool] = lambda gain, best: gain > best,
    *,
    stop: bool = True,
    past: int = 0,
    bonus: float = 1.0,
    update: bool = True,
    least: float = 1.0,
) -> Callable[..., Any]:
    """The rule, right but for what is given. `past`: positions verified beyond the stop."""

    def run(words: list[int], confidence: Any, v: Any) -> int:
        best, size, alive, tau = least * bonus / price(v, 0), 0, 1.0, bonus
        for k in range(len(words)):
            alive = chance(alive, confidence(before(words, k)))
            tau += alive
            gain = tau / price(v, k + 1)
            if rises(gain, best):
                best, size = gain if update else best, k + 1
            elif stop:
                return min(len(words), size + past)
        return size

    return run


def _marginal(words: list[int], confidence: Any, v: Any) -> int:
    """Stops where a draft's own chance is below its own cost."""
    alive = 1.0
    for k in range(len(words)):
        alive *= confidence(words[:k])
        if alive <= v(k + 2) - v(k + 1):
            return k
    return len(words)


LENGTHS = (
    Suspect("The confidence still uses the word that it decides about: for position k it must see the words before it "
            "only, words[:k] counted from 0.", _mistaken(before=lambda words, k: words[: k + 1])),
    Suspect("The best of all lengths is taken. Whether position k is verified then depends on confidences of later "
            "positions, and those depend on word k itself. Stop at the first position that does not raise the ratio.",
            _mistaken(stop=False)),
    Suspect("This is the scheduler as it was: the confidence sees the word it decides about, and the best of "
            "all lengths "
            "is taken.", _mistaken(before=lambda words, k: words[: k + 1], stop=False)),
    Suspect("The position that lowers the ratio is verified as well. Stop before it.", _mistaken(past=1)),
    Suspect("The price is one token too low. The last token of the text is checked too: n drafts cost v(n + 1).",
            _mistaken(price=lambda v, n: float(v(max(1, n))))),
    Suspect("Confidences are not multiplied. A position counts only if all drafts before it were accepted.",
            _mistaken(chance=lambda alive, sure: sure)),
    Suspect("The target's own token is left out of the expected tokens.", _mistaken(bonus=0.0)),
    Suspect("A position is verified at equality, too. It must raise the ratio: stop where the ratio stays as it is.",
            _mistaken(rises=lambda gain, best: gain >= best)),
    Suspect("Each ratio is compared with 1, the ratio of a plain step. Compare it with the ratio of one draft fewer: "
            "update `best`.", _mistaken(update=False)),
    Suspect("The first position is verified even where that does not pay. Begin with 1, the ratio of a plain step.",
            _mistaken(least=0.0)),
    Suspect("The added chance is compared with the added cost, v(k + 1) - v(k). The rule compares the ratios "
            "(1 + expected drafts) / v.", _marginal),
    Suspect("Each position gets confidence(()), which is that of the first one. Pass the drafted words before it.",
            _mistaken(before=lambda words, k: [])),
    Suspect("The confidence gets one word too few. With k counted from 0, the words before position k are words[:k].",
            _mistaken(before=lambda words, k: words[: k - 1])),
    Suspect("The confidence gets one word too few. With k counted from 0, the words before position k are words[:k].",
            _mistaken(before=lambda words, k: words[: max(k - 1, 0)])),
    Suspect("Nothing is ever verified. That keeps the distribution and never gains anything.",
            lambda words, sure, v: 0),
    Suspect("Every block is verified whole. That keeps the distribution, and ignores what a position costs.",
            lambda words, sure, v: len(words)),
    Suspect("The cost is ignored: a position is verified as long as its confidence is 0.5 or more.",
            lambda words, sure, v: next((k for k in range(len(words)) if sure(words[:k]) < 0.5), len(words))),
)  # fmt: skip


def length(function: Callable[..., Any], cuts: Sequence[Cut] = CUTS) -> Report:
    """Of `function(words, confidence, v)`: how many drafts of a block are verified."""
    trials = [
        trial
        for cut in cuts
        for trial in (
            Trial(f"{cut[0]}: as many as the rule verifies", _lengths(cut), _as_the_rule(cut), side=_constant(cut)),
            Trial(f"{cut[0]}: the output is the target's", _lengths(cut), _keeps(cut), side=True),
        )
    ]
    return examine("Task 4, the cut-off", function, trials, LENGTHS)


def _lengths(cut: Cut) -> Callable[[Any], dict[Words, float]]:
    _, _, q, sure, prices = cut

    def confidence(before: Sequence[int]) -> float:
        key = tuple(int(word) for word in before)
        if key not in sure:
            raise ValueError(f"confidence was asked for after {list(key)}, and the block is {len(q)} words long")
        return sure[key]

    def v(tokens: int) -> float:
        if not 1 <= tokens <= len(prices) + 1:
            raise ValueError(f"v was asked for {tokens} tokens, and a block of {len(q)} drafts needs 1 to {len(q) + 1}")
        return (1.0, *prices)[int(tokens) - 1]

    def run(code: Any) -> dict[Words, float]:
        found = {}
        for words in product((0, 1), repeat=len(q)):
            came = attempt(code, list(words), confidence, v)
            count = numbers(came, 1)[0]
            if isinstance(came, bool) or not count.is_integer() or not 0 <= count <= len(q):
                raise Trouble(f"it returned {described(came)}, and a whole number from 0 to {len(q)} was expected")
            found[words] = count
        return found

    return run


def _right(cut: Cut, words: Words) -> int:
    """The longest beginning in which each position raises the expected tokens per cost."""
    _, _, q, sure, prices = cut
    alive = [prod(sure[words[:j]] for j in range(k + 1)) for k in range(len(q))]
    gains = [(1 + sum(alive[:n])) / (1.0, *prices)[n] for n in range(len(q) + 1)]
    rises = [gains[n + 1] > gains[n] for n in range(len(q))]
    return rises.index(False) if False in rises else len(q)


def _constant(cut: Cut) -> bool:
    return len({_right(cut, words) for words in product((0, 1), repeat=len(cut[2]))}) == 1


def _as_the_rule(cut: Cut) -> Callable[[dict[Words, float]], tuple[bool, str]]:
    def judge(came: dict[Words, float]) -> tuple[bool, str]:
        for words, count in came.items():
            if count != _right(cut, words):
                return False, (
                    f"of the block {list(words)} it verifies {count:g}, and the rule gives {_right(cut, words)}. "
                    f"{_numbers(cut, words)}"
                )
        return True, f"right for each of the {len(came)} blocks that can be drafted"

    return judge


def _numbers(cut: Cut, words: Words) -> str:
    """What the rule computes with in this block."""
    _, _, q, sure, prices = cut
    sures = ", ".join(f"{sure[words[:k]]:g}" for k in range(len(q)))
    costs = ", ".join(f"v({n}) = {price:g}" for n, price in enumerate(prices, 2))
    return f"Confidences along the block: {sures}; {costs}"


def _keeps(cut: Cut) -> Callable[[dict[Words, float]], tuple[bool, str]]:
    """By enumeration: each block with its probability, verified as far as the length says."""
    _, p, q, _, _ = cut

    def judge(came: dict[Words, float]) -> tuple[bool, str]:
        drafts = {words: prod(row[word] for row, word in zip(q, words, strict=True)) for words in came}
        dist, accepted = chain_output(drafts, lambda words: q[: int(came[words])], lambda _: p, len(q))
        goal = {words: prod(p[word] for word in words) for words in came}
        off = total_variation(dist, goal)
        if off < CLOSE:
            return True, f"it is, with {accepted:.3f} drafts accepted in the mean"
        first = [sum(share for words, share in each.items() if words[0] == 0) for each in (dist, goal)]
        told = f"; word 0 comes first with probability {first[0]:.3f} instead of {first[1]:.3f}"
        return (
            False,
            f"over all blocks the output is off by {off:.3f} (TV){told if abs(first[0] - first[1]) > CLOSE else ''}",
        )

    return judge
