"""SGLang's controller of the draft length: a smoothed mean of accepted drafts against tiers of lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from specdec_ref.metrics import StepRecord

__all__ = ["SGLANG_TIERS", "BatchTiers", "EmaTiers"]


@dataclass(slots=True)
class EmaTiers:
    """SGLang's: the batch's mean of accepted drafts, smoothed, against tiers of lengths; decided every fifth round.

    Down to tier t once the mean is at most t - 1/2 + down (1/2 + down for t = 0), up from t once it is above
    t - 1/2 + up. At zero nothing is learnt, so the next decision tries the smallest draft again.
    These are tiers for all batch sizes, as a configuration file can give them; its own follow from the batch size
    (`BatchTiers`). Source: sglang 0.5.23, `adaptive_spec_params.py`, `AdaptiveStepSlot`.
    """

    tiers: tuple[int, ...] = (0, 1, 3, 5, 7)
    smoothing: float = 0.2
    warmup: int = 10
    every: int = 5
    up: float = 0.0
    down: float = -0.25
    tier: int = 2  # index of the current one
    mean: float = 2.0
    rounds: int = 0

    def start(self, rows: Sequence[int]) -> None:
        """It goes on from request to request: what it learns belongs to the server."""

    def depths(self, rows: Sequence[int], most: int) -> list[int]:
        """The tier, the same for all rows."""
        return [min(self.tiers[self.tier], most)] * len(rows)

    def observe(self, records: Sequence[StepRecord]) -> None:
        """Smooth, and decide if it is time to. Rows without a draft say nothing of the drafter."""
        accepted = [record.accepted for record in records if record.depth]
        if accepted:
            self.mean += self.smoothing * (sum(accepted) / len(accepted) - self.mean)
        self.rounds += 1
        if self.rounds > self.warmup and (self.rounds - self.warmup) % self.every == 0:
            self.tier = self._decide()

    def _decide(self) -> int:
        tier, last = self.tier, len(self.tiers) - 1
        if not self.tiers[tier]:
            tier = min(tier + 1, last)
            if self.tiers[tier] and self.mean < 0:  # it began without drafts
                self.mean = self.tiers[tier] - 1.0
            return tier
        while tier and self.mean <= max(1, self.tiers[tier - 1]) - 0.5 + self.down:
            tier -= 1
        rises = tier == self.tier < last and self.mean > self.tiers[tier] - 0.5 + self.up
        return tier + rises


SGLANG_TIERS: Mapping[int, tuple[int, ...]] = MappingProxyType(  # from this batch size on
    {1: (1, 3, 5, 7), 8: (0, 1, 3), 32: (0, 1), 64: (0,)}
)


def _slot(batch: int, steps: int) -> EmaTiers:
    """One batch size's tiers, where the engine begins: at `steps` if this is one of them, else in the middle."""
    tiers = SGLANG_TIERS[batch]
    tier = tiers.index(steps) if steps in tiers else len(tiers) // 2
    return EmaTiers(tiers, down=-0.25 if batch == 1 else 0.0, tier=tier, mean=tiers[tier] - 1.0)


@dataclass(slots=True)
class BatchTiers:
    """SGLang's default: a set of tiers for each range of batch sizes, with a mean of its own.

    Source: sglang 0.5.23, `adaptive_spec_params.py`, `DEFAULT_ADAPTIVE_CONFIG` and `AdaptiveSpeculativeParams`.
    """

    steps: int = 3  # where it begins
    slots: dict[int, EmaTiers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots = self.slots or {batch: _slot(batch, self.steps) for batch in SGLANG_TIERS}

    def start(self, rows: Sequence[int]) -> None:
        """It goes on from request to request."""

    def depths(self, rows: Sequence[int], most: int) -> list[int]:
        """The tier of this batch size."""
        return self._of(len(rows)).depths(rows, most)

    def observe(self, records: Sequence[StepRecord]) -> None:
        """Tell the tiers of this batch size."""
        self._of(len(records)).observe(records)

    def _of(self, batch: int) -> EmaTiers:
        return self.slots[max((size for size in self.slots if size <= batch), default=min(self.slots))]
