"""The wrong answers to exercise 06 that people give, each with the sentence that explains it. They serve `examine`."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import mul
from statistics import fmean
from typing import Any

from specdec_course.checks.examine import Suspect
from specdec_ref.metrics import StepRecord

__all__ = ["CONTROLS", "COUNTS", "HEURISTICS", "LENGTHS", "TAUS", "asked_for"]

Records = Sequence[StepRecord]


def _over(count: float, whole: float) -> float:
    return count / whole if whole else 0.0


def _sum(records: Records, name: str) -> int:
    return sum(getattr(record, name) for record in records)


def _shares(records: Records, at: Callable[[StepRecord, int], bool] = lambda r, i: r.accepted > i) -> list[float]:
    deepest = max((record.drafted for record in records), default=0)
    return [sum(at(record, i) for record in records) / len(records) for i in range(deepest)]


def _length(records: Records) -> float:
    """vLLM's: rounds without a draft are not among its `num_drafts`."""
    drafting = sum(record.drafted > 0 for record in records)
    return _over(_sum(records, "accepted") + drafting, drafting)


def _counts(**other: Callable[[Records, int], Any]) -> Callable[[Records, int], Mapping[str, Any]]:
    """A count that is right but for what is given."""

    def count(records: Records, nodes: int) -> Mapping[str, Any]:
        rounds, accepted, drafted = len(records), _sum(records, "accepted"), _sum(records, "drafted")
        right = {
            "tau": _over(_sum(records, "emitted"), rounds), "alpha": _over(accepted, _sum(records, "tested")),
            "sglang_rate": _over(accepted, rounds * (nodes - 1)), "vllm_length": _length(records),
            "vllm_rate": _over(accepted, drafted), "shares": _shares(records),
        }  # fmt: skip
        return right | {key: make(records, nodes) for key, make in other.items()}

    return count


def _rate(top: str, bottom: str) -> Callable[[Records, int], float]:
    return lambda records, _: _over(_sum(records, top), _sum(records, bottom))


def _conditional(records: Records, nodes: int) -> list[float]:
    shares = _shares(records)
    return [_over(now, before) for now, before in zip(shares, [1.0, *shares], strict=False)]


COUNTS = (  # (records, nodes) -> dict
    Suspect("The target's own token is forgotten in tau: it counts all tokens that were emitted.",
            _counts(tau=lambda r, n: _over(_sum(r, "accepted"), len(r)))),
    Suspect("tau gives every round a token of the target's own. Where a text ends inside a draft there is none: count "
            "what was emitted.", _counts(tau=lambda r, n: _over(_sum(r, "accepted") + len(r), len(r)))),
    Suspect("alpha is over all that was drafted. Guesses after a rejected one were never tested.",
            _counts(alpha=_rate("accepted", "drafted"))),
    Suspect("alpha counts the target's own token as an accepted draft.", _counts(alpha=_rate("emitted", "tested"))),
    Suspect("alpha counts the target's own token as an accepted draft.",
            _counts(alpha=lambda r, _: _sum(r, "emitted") / max(_sum(r, "tested"), 1))),
    Suspect("alpha is a mean of the rounds' rates, so a round of one guess counts as much as a round of three. Add up "
            "first, then divide.",
            _counts(alpha=lambda r, n: fmean([x.accepted / x.tested for x in r if x.tested] or [0.0]))),
    Suspect("SGLang's rate is over what was drafted. It divides by a full tree in every round, drafted or not.",
            _counts(sglang_rate=_rate("accepted", "drafted"))),
    Suspect("SGLang's rate counts the root as a draft: of n nodes n - 1 are guesses.",
            _counts(sglang_rate=lambda r, n: _over(_sum(r, "accepted"), len(r) * n))),
    Suspect("SGLang's rate counts the target's own tokens, and can then be above 1.",
            _counts(sglang_rate=lambda r, n: _over(_sum(r, "emitted"), len(r) * (n - 1)))),
    Suspect("vLLM's length is computed like our tau. It ignores where a text ended: it adds one token of the "
            "target per round, always.", _counts(vllm_length=lambda r, n: _over(_sum(r, "emitted"), len(r)))),
    Suspect("vLLM's length leaves out the target's own token. Since May 2025 it includes it.",
            _counts(vllm_length=lambda r, n: _over(_sum(r, "accepted"), sum(x.drafted > 0 for x in r)))),
    Suspect("vLLM's rate is over full drafts. It divides by the tokens that were really drafted.",
            _counts(vllm_rate=lambda r, n: _over(_sum(r, "accepted"), len(r) * (n - 1)))),
    Suspect("vLLM's rate is over rounds. num_drafts counts rounds, and it is not what the rate divides by.",
            _counts(vllm_rate=lambda r, n: _over(_sum(r, "accepted"), len(r)))),
    Suspect("A share is taken over the rounds that got so far: that is the acceptance of a guess once it is tested. "
            "The task asks for the share of all rounds.", _counts(shares=_conditional)),
    Suspect("shares counts the rounds that accepted exactly 1, 2, ... guesses. Guess 1 was accepted in all rounds that "
            "accepted one or more.", _counts(shares=lambda r, n: _shares(r, lambda x, i: x.accepted == i + 1))),
    Suspect("shares is over the rounds that drafted so far. A round without a draft is a round.",
            _counts(shares=lambda r, n: [_over(sum(x.accepted > i for x in r), sum(x.drafted > i for x in r))
                                         for i in range(max((x.drafted for x in r), default=0))])),
    Suspect("A share is over the rounds in which that guess was tested. The task asks for the share of all rounds.",
            _counts(shares=lambda r, n: [_over(sum(x.accepted > i for x in r), sum(x.tested > i for x in r))
                                         for i in range(max((x.drafted for x in r), default=0))])),
    Suspect("vLLM's length is over all rounds. Its scheduler skips the rounds without a draft: num_drafts counts the "
            "others.", _counts(vllm_length=lambda r, n: _over(_sum(r, "accepted") + len(r), len(r)))),
    Suspect("SGLang's rate is over what was tested, as alpha is. It divides by a full tree in every round.",
            _counts(sglang_rate=_rate("accepted", "tested"))),
    Suspect("SGLang's rate takes one off every round's emitted tokens. Where a text ends inside a draft, that one is "
            "a guess.", _counts(sglang_rate=lambda r, n: _over(_sum(r, "emitted") - len(r), len(r) * (n - 1)))),
)  # fmt: skip


def _geometric(alpha: float, gamma: int) -> float:
    return sum(alpha**i for i in range(gamma + 1))


TAUS = (  # chances -> tau
    Suspect("Chances are added as if each guess were tested in every round. A guess is tested only if "
            "the ones before it held: multiply along the draft.", lambda chances: 1 + sum(chances)),
    Suspect("The target's own token is forgotten: a round that accepts nothing also yields one.",
            lambda chances: sum(accumulate(chances, mul))),
    Suspect("One mean chance stands for all positions. The first guess is tested in every round and the last hardly "
            "ever, so their order counts.", lambda c: _geometric(fmean(c), len(c)) if c else 1.0),
    Suspect("Only drafts that hold to the end are counted.",
            lambda chances: 1 + len(chances) * list(accumulate(chances, mul, initial=1.0))[-1]),
    Suspect("The longest product is missing: a range ends before its end.",
            lambda chances: sum(accumulate(chances[:-1], mul, initial=1.0))),
    Suspect("The target's own token is counted twice: the empty product is that 1 already.",
            lambda chances: 1 + sum(accumulate(chances, mul, initial=1.0))),
    Suspect("The first chance stands for all positions.", lambda c: _geometric(c[0], len(c)) if c else 1.0),
)  # fmt: skip

Forward = Callable[[int], float]


def _picks(
    tau: Callable[[Sequence[float]], float] = lambda c: sum(accumulate(c, mul, initial=1.0)),
    cost: Callable[[int, float, Forward, int], float] = lambda g, d, f, b: (g * d + f(b * (g + 1))) / f(b),
    least: int = 0,
    spare: int = 0,
    key: Callable[[float, float], float] = lambda tokens, steps: tokens / steps,
) -> Callable[[Sequence[float], float, Forward, int], tuple[int, float]]:
    """A chooser that is right but for what is given."""

    def pick(chances: Sequence[float], draft: float, forward: Forward, rows: int) -> tuple[int, float]:
        def both(g: int) -> tuple[float, float]:
            return tau(chances[:g]), cost(g, draft, forward, rows)

        best = max(range(least, len(chances) + 1 - spare), key=lambda g: key(*both(g)))
        tokens, steps = both(best)
        return best, tokens / steps

    return pick


LENGTHS = (  # (chances, draft, forward, rows) -> length, speed-up
    Suspect("The check is that of one row. All rows are checked in one forward: it has rows times as many tokens.",
            _picks(cost=lambda g, d, f, b: (g * d + f(g + 1)) / f(1))),
    Suspect("A plain step of the batch is taken to cost what one row costs: it is a forward over as many tokens as "
            "there are rows.", _picks(cost=lambda g, d, f, b: (g * d + f(b * (g + 1))) / f(1))),
    Suspect("Plain decoding of one row is what the batch is compared with: a plain step is a forward over all rows.",
            _picks(cost=lambda g, d, f, b: (g * d + f(b * (g + 1))) / f(1) if g else 1.0)),
    Suspect("A forward is taken for each row by itself. All rows go through it together: forward(rows * ...).",
            _picks(cost=lambda g, d, f, b: (g * d + b * f(g + 1)) / f(b) if g else 1.0)),
    Suspect("A round is counted in milliseconds, and not divided by a plain step of the batch.",
            _picks(cost=lambda g, d, f, b: g * d + f(b * (g + 1)) if g else 1.0)),
    Suspect("This is tokens per millisecond. The speed-up is that over what plain decoding of the same batch makes.",
            _picks(cost=lambda g, d, f, b: g * d + f(b * (g + 1)))),
    Suspect("Only one row's drafts are checked: rows + length tokens. Each row has drafts of its own.",
            _picks(cost=lambda g, d, f, b: (g * d + f(b + g)) / f(b))),
    Suspect("A round pays for one draft. A draft of some length takes `draft` for each of its tokens.",
            _picks(cost=lambda g, d, f, b: (d + f(b * (g + 1))) / f(b) if g else 1.0)),
    Suspect("The longest length is never tried: a range ends before its end.", _picks(spare=1)),
    Suspect("The check has one token per row too few: the last token of the text is processed as well, "
            "gamma + 1 per row.", _picks(cost=lambda g, d, f, b: (g * d + f(max(b, b * g))) / f(b))),
    Suspect("The draft is charged once for each row. `draft` is the time of one draft token for the whole batch.",
            _picks(cost=lambda g, d, f, b: (g * d * b + f(b * (g + 1))) / f(b))),
    Suspect("Drafting is free here. Each guess takes `draft`.", _picks(cost=lambda g, d, f, b: f(b * (g + 1)) / f(b))),
    Suspect("Checking is free here: a forward over more tokens is taken to cost a plain step.",
            _picks(cost=lambda g, d, f, b: (g * d + f(b)) / f(b))),
    Suspect("It always drafts. 0 is a length, and where no other gains it is the best: speed-up 1.", _picks(least=1)),
    Suspect("It takes the length with most tokens per round, whatever the round costs.",
            _picks(key=lambda tokens, steps: tokens)),
    Suspect("Costs are subtracted from tokens. What counts is tokens per second: divide.",
            _picks(key=lambda tokens, steps: tokens - steps)),
    Suspect("The target's own token is forgotten in the tokens of a round.",
            _picks(tau=lambda c: sum(accumulate(c, mul)) if c else 1.0)),
    Suspect("Chances are added as if each guess were tested in every round. Multiply along the draft.",
            _picks(tau=lambda c: 1 + sum(c))),
)  # fmt: skip

Draft = Callable[[int], int | None]


def _steers(
    *, up: float = 0.25, down: float = 0.25, decides: Callable[[int], bool] = lambda n: n % 5 == 0,
    smoothing: float = 0.5, bonus: int = 0,
    idle_counts: bool = False, wakes: bool = True, stops: bool = True, single: bool = False,
    resets: bool = False, begins: float | None = None, below: int = 1, both: bool = False,
) -> Callable[[Draft, int, Sequence[int]], list[int]]:  # fmt: skip
    """A controller that is right but for what is given."""

    def fall(tiers: Sequence[int], at: int, mean: float) -> int:
        lowest = 0 if stops else 1
        while at > lowest and mean <= max(1, tiers[at - below]) - 0.5 - down:
            at -= 1
            if single:
                break
        return at

    def steer(draft: Draft, rounds: int, tiers: Sequence[int]) -> list[int]:
        at, mean, made = 2, float(tiers[2] if begins is None else begins), []
        for number in range(1, rounds + 1):
            made.append(tiers[at])
            held = draft(tiers[at])
            if (tiers[at] and held is not None) or idle_counts:
                seen = (held or 0) + bonus
                mean += smoothing * (seen - mean)
            if not decides(number):
                continue
            before = at
            if not tiers[at]:
                at += wakes
            else:
                at = fall(tiers, at, mean)
                at += (at == before or both) and at + 1 < len(tiers) and mean > tiers[at] - 0.5 + up
            mean = float(tiers[at]) if resets and at != before else mean
        return made

    return steer


CONTROLS = (  # (draft, rounds, tiers) -> lengths
    Suspect("It never stops. Zero is one of the tiers, and the only one that costs nothing.", _steers(stops=False)),
    Suspect("Once it has stopped it never drafts again. At zero nothing is learnt, so it has to try.",
            _steers(wakes=False)),
    Suspect("The target's own token is counted: the mean is of accepted drafts.", _steers(bonus=1)),
    Suspect("There is no hysteresis: up and down have the same threshold, and when the mean is near it, the length "
            "flaps.", _steers(up=0.0, down=0.0)),
    Suspect("The margin pulls the wrong way: it lowers the threshold for falling, so that it takes more to fall.",
            _steers(down=-0.25)),
    Suspect("It decides after every round. The task asks for every fifth: a switch costs time.",
            _steers(decides=lambda n: True)),
    Suspect("It goes down one tier at a time. Down it may skip several; only up it moves by one.",
            _steers(single=True)),
    Suspect("A round in which no draft was found counts as one that accepted nothing. It must leave the mean as it is.",
            _steers(idle_counts=True)),
    Suspect("The last round decides alone: there is no smoothing.", _steers(smoothing=1.0)),
    Suspect("The mean is forgotten with every change of length.", _steers(resets=True)),
    Suspect("It decides a round too late: after the sixth, the eleventh, and so on.",
            _steers(decides=lambda n: n > 1 and n % 5 == 1)),
    Suspect("It decides after the first round, the sixth, and so on. The fifth round is the first to decide.",
            _steers(decides=lambda n: n % 5 == 1)),
    Suspect("The mean begins at 0. It begins at the length itself, as if all had been accepted so far.",
            _steers(begins=0)),
    Suspect("Going down is decided by the current tier. The rule uses the tier below.",
            _steers(below=0)),
    Suspect("It goes up again in the round in which it went down. Only one of the two may happen.", _steers(both=True)),
)  # fmt: skip

Rounds = Sequence[tuple[int, int]]


def asked_for(
    rounds: Rounds, first: int,
    whole: Callable[[int, int, int], bool] = lambda asked, drafted, accepted: accepted == drafted,
    silent: Callable[[int], int] = lambda asked: asked, base: Callable[[int, int], int] = lambda asked, drafted: asked,
    least: int = 1,
) -> list[int]:  # fmt: skip
    """The heuristic that is asked for, and, with other parts, those that are not."""
    asked, made = first, []
    for drafted, accepted in rounds:
        made.append(asked)
        if not drafted:
            asked = silent(asked)
        elif whole(asked, drafted, accepted):
            asked = base(asked, drafted) + 2
        else:
            asked = max(least, base(asked, drafted) - 1)
    return made


def _short(asked: int, drafted: int, accepted: int) -> bool:
    return accepted == asked


HEURISTICS = (  # (rounds, first) -> lengths
    Suspect("This is still what shipped: accepted guesses are compared with what was asked for, so a draft that came "
            "shorter never counts as completely accepted.",
            lambda rounds, first: asked_for(rounds, first, _short, lambda asked: max(1, asked - 1))),
    Suspect("Accepted guesses are still compared with what was asked for; only rounds without a draft are left alone.",
            lambda rounds, first: asked_for(rounds, first, _short)),
    Suspect("It returns the length after each round. The task asks for the length with which the round began.",
            lambda rounds, first: asked_for([*rounds, (0, 0)], first)[1:]),
    Suspect("A round without a draft counts as completely accepted: 0 of 0. It must leave the length as it is.",
            lambda rounds, first: asked_for(rounds, first, silent=lambda asked: asked + 2)),
    Suspect("A round without a draft makes the length shorter. It must leave the length as it is.",
            lambda rounds, first: asked_for(rounds, first, silent=lambda asked: max(1, asked - 1))),
    Suspect("It goes on from the length that was drafted. The heuristic changes the length that was asked for.",
            lambda rounds, first: asked_for(rounds, first, base=lambda asked, drafted: drafted)),
    Suspect("The length can fall to 0, and then it never drafts again. It stays at 1 at least.",
            lambda rounds, first: asked_for(rounds, first, least=0)),
    Suspect("Any accepted guess makes the draft longer. Only a draft that was accepted completely may do this.",
            lambda rounds, first: asked_for(rounds, first, lambda asked, drafted, accepted: accepted > 0)),
)  # fmt: skip
