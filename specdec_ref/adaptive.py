"""How long the next draft should be, decided before it is drawn; "do not speculate" is one of the answers.

    constant     always gamma
    plus-minus   transformers' heuristic: two more after a draft that was accepted whole, else one fewer
    window       the mean acceptance of the last ten drafts: above 0.8 one more, below 0.5 one fewer
    ema          SGLang's tiers: a running mean of accepted drafts, hysteresis, and a tier of zero
    optimal      argmax over gamma of  tau(gamma) / cost(gamma)      the running acceptance, this machine's costs
    confidence   no controller: the draft itself stops after a guess it is unsure of (`DraftBudget.min_confidence`)

Lossless, every one of them: a controller sees rounds that are over and never the guesses it decides about, so each
round keeps the distribution of its own. Cutting a sampled draft for what it says would not (`core.DraftTree.cut`).
At T > 0 another length uses other coins: the distribution is the same, the text of a seed may be another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul
from typing import Protocol, runtime_checkable

from specdec_ref.config import DraftBudget
from specdec_ref.cost_model import RoundCosts
from specdec_ref.metrics import StepRecord
from specdec_ref.tiers import SGLANG_TIERS, BatchTiers, EmaTiers

__all__ = [
    "CONTROLS", "SGLANG_TIERS", "BatchTiers", "Constant", "EmaTiers", "LengthControl", "Optimal", "PlusMinus", "Window",
    "adapt",
]  # fmt: skip


@runtime_checkable
class LengthControl(Protocol):
    """Decides how many levels each row may draft. Equal controllers (==) must decide alike, see `exact.py`."""

    def start(self, rows: Sequence[int]) -> None:
        """A batch begins. What was learnt of the drafter may stay; what belongs to a row is dropped."""
        ...

    def depths(self, rows: Sequence[int], most: int) -> list[int]:
        """The deepest that each of these rows may draft this round, from 0 to `most`. Changes nothing."""
        ...

    def observe(self, records: Sequence[StepRecord]) -> None:
        """What the round did, a record a row."""
        ...


@dataclass(slots=True)
class Constant:
    """Always the same: the control group."""

    depth: int

    def start(self, rows: Sequence[int]) -> None:
        """Nothing to forget."""

    def depths(self, rows: Sequence[int], most: int) -> list[int]:
        """`depth`, as far as the budget allows."""
        return [min(self.depth, most)] * len(rows)

    def observe(self, records: Sequence[StepRecord]) -> None:
        """Nothing to learn."""


@dataclass(slots=True)
class PlusMinus:
    """transformers' "heuristic_transient" schedule, a row each: it never gets below 1, so it cannot stop."""

    first: int = 5
    lengths: dict[int, int] = field(default_factory=dict)

    def start(self, rows: Sequence[int]) -> None:
        """Every row begins at `first`."""
        self.lengths = dict.fromkeys(rows, self.first)

    def depths(self, rows: Sequence[int], most: int) -> list[int]:
        """Where the last rounds left it."""
        return [min(self.lengths[row], most) for row in rows]

    def observe(self, records: Sequence[StepRecord]) -> None:
        """A round without a draft (no match, no room) says nothing; transformers makes none of those."""
        for record in records:
            if record.depth:
                change = 2 if record.accepted == record.depth else -1
                self.lengths[record.request] = max(1, min(record.depth, self.lengths[record.request]) + change)


@dataclass(slots=True)
class Window:
    """Acceptance of the last `size` drafts, a row each. It asks whether guesses are right, not whether they pay."""

    low: float = 0.5
    high: float = 0.8
    least: int = 2
    first: int = 4
    size: int = 10
    lengths: dict[int, int] = field(default_factory=dict)
    rates: dict[int, list[float]] = field(default_factory=dict)

    def start(self, rows: Sequence[int]) -> None:
        """Every row begins at `first`, with an empty window."""
        self.lengths, self.rates = dict.fromkeys(rows, self.first), {row: [] for row in rows}

    def depths(self, rows: Sequence[int], most: int) -> list[int]:
        """Where the last rounds left it."""
        return [min(self.lengths[row], most) for row in rows]

    def observe(self, records: Sequence[StepRecord]) -> None:
        """The mean is over the samples there are, be they fewer than `size`."""
        for record in records:
            if record.depth:
                rates = self.rates[record.request] = [*self.rates[record.request], record.accepted / record.depth]
                del rates[: -self.size]
                mean = sum(rates) / len(rates)
                length = min(record.depth, self.lengths[record.request])
                self.lengths[record.request] = max(self.least, length + (mean > self.high) - (mean < self.low))


@dataclass(slots=True)
class Optimal:
    """The length that emits the most tokens a second, as far as running acceptance and measured costs can tell.

        a_j = (accepted_j + w a_{j-1}) / (tested_j + w)      acceptance of the draft at position j, once it is tested
        tau(gamma) = 1 + a_1 + a_1 a_2 + ...                 cost(gamma): `RoundCosts`, in plain steps

    Counts fade by `memory` a draft; where they are few, a position is believed to be like the one before it. While
    nothing is drafted nothing is learnt, so a draft of one token is tried now and then: whenever what it costs is at
    most `probing` of the time since the last one. If the guess is wrong, all is as it was; if it is right, the text
    has changed, and what was counted before is forgotten; so it is when a copier that found no match for a while is
    right again. If not even acceptance of 1 could pay, nothing is tried.
    `unread`: how many tokens the drafter would read before its first guess; a probe has to pay for them as well.
    Rows share a round, so they share the decision: one more level costs all of them the time, those without a guess
    as well, which count as rejected.
    """

    costs: RoundCosts
    budget: DraftBudget
    prior: float = 0.5
    weight: float = 3.0  # drafts that `prior` counts for: few misses at the start of a text are no verdict
    memory: float = 0.97
    probing: float = 0.003
    unread: Callable[[], int] | None = field(default=None, repr=False, compare=False)
    tested: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    idle: int = 200  # rounds since the last draft; whoever knows nothing yet may try soon
    contexts: dict[int, int] = field(default_factory=dict)  # cached tokens of each row, as the last round had them
    # of (most, batch, hundreds of cached tokens), looked up once
    prices: dict[tuple[int, int, int], list[float]] = field(default_factory=dict, repr=False, compare=False)

    def start(self, rows: Sequence[int]) -> None:
        """What was learnt goes on from request to request."""
        self.contexts = {}

    def acceptance(self, depth: int) -> list[float]:
        """a_1 .. a_depth."""
        shares, share = [], self.prior
        for position in range(depth):
            if position < len(self.tested):
                evidence = self.tested[position] + self.weight
                share = (self.accepted[position] + self.weight * share) / evidence
            shares.append(share)
        return shares

    def depths(self, rows: Sequence[int], most: int) -> list[int]:
        """The best length, the same for all rows; or a probe."""
        cost = self._prices(most, len(rows), sum(self.contexts.get(row, 0) for row in rows) // (100 * len(rows)))
        reached = accumulate(self.acceptance(most), mul)
        tau = list(accumulate(reached, initial=1.0))
        best = max(range(most + 1), key=lambda depth: tau[depth] / cost[depth])
        if best == 0 and most and self._worth_a_try(cost):
            best = 1
        return [best] * len(rows)

    def _prices(self, most: int, batch: int, hundreds: int) -> list[float]:
        key = most, batch, hundreds
        if key not in self.prices:
            self.prices[key] = [
                self.costs.round(depth, self._nodes(depth), batch, 100 * hundreds) for depth in range(most + 1)
            ]
        return self.prices[key]

    def _worth_a_try(self, cost: Sequence[float]) -> bool:
        could_pay = any((depth + 1) / price > 1 / cost[0] for depth, price in enumerate(cost) if depth)
        reading = self.costs.reading(self.unread()) if self.unread else 0.0
        return could_pay and cost[1] - cost[0] + reading <= self.probing * self.idle * cost[0]

    def _nodes(self, depth: int) -> int:
        """How many nodes a draft of so many levels has, the root included."""
        k = self.budget.topk
        grown = 1 + (k + (depth - 1) * k * k if depth else 0)
        return min(grown, replace(self.budget, depth=depth).max_nodes)

    def observe(self, records: Sequence[StepRecord]) -> None:
        """Count, position by position; what is old counts less. A row without a guess fails where others have one."""
        drafting = any(record.depth for record in records)
        self.contexts |= {record.request: record.context for record in records}
        if self.idle and any(record.accepted for record in records):  # a probe was right: the text is another by now
            self.tested, self.accepted = [], []
        self.idle = 0 if drafting else self.idle + 1
        for record in records if drafting else ():
            more = [0.0] * (max(1, record.depth) - len(self.tested))
            self.tested = [count * self.memory for count in self.tested] + more
            self.accepted = [count * self.memory for count in self.accepted] + more
            for position in range(record.tested if record.depth else 1):
                self.tested[position] += 1.0
                self.accepted[position] += position < record.accepted


def _optimal(budget: DraftBudget, costs: RoundCosts | None) -> LengthControl:
    if costs is None:
        raise ValueError("the 'optimal' controller needs this machine's costs: see specdec_ref.calibrate")
    return Optimal(costs, budget)


CONTROLS: Mapping[str, Callable[[DraftBudget, RoundCosts | None], LengthControl | None]] = {
    "constant": lambda budget, costs: Constant(budget.depth),
    "plus-minus": lambda budget, costs: PlusMinus(),
    "window": lambda budget, costs: Window(),
    "ema": lambda budget, costs: BatchTiers(),
    "optimal": _optimal,
    "confidence": lambda budget, costs: None,
}
UNSURE = 0.4  # transformers' default for the confidence below which its assistant stops


def adapt(name: str, budget: DraftBudget, costs: RoundCosts | None = None) -> tuple[LengthControl | None, DraftBudget]:
    """The controller of that name, and the budget to use with it, whose depth is the cap.

    Raises ValueError for an unknown name, or for "optimal" without costs.
    """
    if name not in CONTROLS:
        raise ValueError(f"unknown controller {name!r}; choose from {', '.join(CONTROLS)}")
    if name == "confidence":
        budget = replace(budget, min_confidence=budget.min_confidence or UNSURE)
    return CONTROLS[name](budget, costs), budget
