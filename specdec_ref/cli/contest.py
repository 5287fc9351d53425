"""What `demo` compares: decoders on one session, each run recorded round by round and timed without prefill."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specdec_ref.cli.work import failing

if TYPE_CHECKING:
    from specdec_ref.adaptive import LengthControl
    from specdec_ref.config import DraftBudget
    from specdec_ref.core import Drafter
    from specdec_ref.metrics import RunStats
    from specdec_ref.request import Limits
    from specdec_ref.session import Session
    from specdec_ref.trace import Round

__all__ = ["PLAIN", "Contest", "Run", "Task"]

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt of the demo, and how long its answer may become."""

    kind: str
    prompt: str
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """One answer, round by round. Its seconds are those of decoding, without prefill."""

    steps: "tuple[Round, ...]"

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of the answer."""
        return tuple(token for step in self.steps for token in step.tokens)

    @property
    def seconds(self) -> float:
        """Decoding time."""
        return sum(step.seconds for step in self.steps)

    @property
    def stats(self) -> "RunStats | None":
        """What the rounds did; None for plain decoding."""
        from specdec_ref.metrics import RunStats

        records = [step.record for step in self.steps if step.record]
        return RunStats.from_records(records) if records else None

    @property
    def speed(self) -> float:
        """Tokens per second, with one digit after the point: the figure that is shown, and that ratios are made of."""
        return round(len(self.tokens) / max(self.seconds, 1e-9), 1)


@dataclass(frozen=True, slots=True)
class Contest:
    """The session, and the decoders to compare on it: name -> drafter and budget, None for plain."""

    session: "Session"
    decoders: Mapping[str, "tuple[Drafter, DraftBudget] | None"]
    controls: Mapping[str, "LengthControl | None"] = field(default_factory=dict)  # of those that adapt their length

    @property
    def drafters(self) -> list[str]:
        """The decoders that speculate, in order."""
        return [name for name in self.decoders if name != PLAIN]

    def rounds(self, name: str, prompt: Sequence[int], limits: "Limits") -> "Generator[Round]":
        """Decode `prompt` with that decoder, round by round, greedily."""
        from specdec_ref.drafters import forget
        from specdec_ref.trace import plain_rounds, rounds

        chosen = self.decoders[name]
        if chosen is None:
            return plain_rounds(self.session.target, prompt, limits=limits)
        drafter, budget = chosen
        forget(drafter)  # a second pass must not find the answers of the first
        engine = self.session.engine(drafter, budget=budget, limits=limits, control=self.controls.get(name))
        return rounds(engine, prompt)

    def run(self, name: str, prompt: Sequence[int], limits: "Limits") -> Run:
        """Decode to the end."""
        with closing(self.rounds(name, prompt, limits)) as steps:
            return Run(tuple(failing(steps)))
