"""What a round did, and what a run of rounds amounts to.

    tau    mean tokens emitted per target forward, the bonus or correction token included   (1 <= tau <= gamma + 1)
    alpha  accepted / tested drafts: the acceptance rate of one draft token            (Leviathan et al. 2023, §3.1)

A verifier stops at the first rejection, so drafts after it were proposed but never tested. vLLM's draft acceptance rate
divides by all proposed drafts instead: that is `acceptance_rate` here, and it is lower. SGLang's accept len is tau.
vLLM's mean acceptance length leaves out rounds without a draft: that is `drafted_length` here, and it is higher.
`accepted_per_position[i]` counts rounds whose draft i+1 was accepted.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["RunStats", "StepRecord", "per_position", "read_jsonl", "write_jsonl"]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One round of one request. Seconds are those of the whole batch's round, which its rows share."""

    request: int
    drafted: int  # nodes proposed, root not counted
    tested: int  # nodes on which the verifier decided: the accepted ones and the one rejected, if any
    accepted: int  # drafts emitted
    emitted: int  # tokens emitted: accepted + 1, or fewer where EOS, a stop string or the budget cut the round short
    depth: int  # length of the longest branch proposed
    distortion: float = 0.0  # of a lossy verifier: total variation from p, summed over the tokens; 0 when lossless
    context: int = 0  # tokens of the request before the round
    propose_s: float = 0.0
    forward_s: float = 0.0
    verify_s: float = 0.0
    step_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunStats:
    """Totals over records, and the rates that follow from them. An empty run has rates of 0."""

    rounds: int = 0
    tokens: int = 0
    drafted: int = 0
    tested: int = 0
    accepted: int = 0
    accepted_per_position: tuple[int, ...] = ()
    histogram: dict[int, int] = field(default_factory=dict)  # accepted drafts in a round -> rounds
    drafting: int = 0  # rounds that had a draft
    distortion: float = 0.0  # summed; an upper bound on how far the distribution of the whole text is from the target's

    @classmethod
    def from_records(cls, records: Iterable[StepRecord]) -> "RunStats":
        """Sum up."""
        rows = list(records)
        return cls(
            rounds=len(rows),
            tokens=sum(r.emitted for r in rows),
            drafted=sum(r.drafted for r in rows),
            tested=sum(r.tested for r in rows),
            accepted=sum(r.accepted for r in rows),
            accepted_per_position=per_position(rows),
            histogram=dict(sorted(Counter(r.accepted for r in rows).items())),
            drafting=sum(r.drafted > 0 for r in rows),
            distortion=sum((r.distortion for r in rows), start=0.0),
        )

    @property
    def tau(self) -> float:
        """Mean tokens per target forward, bonus included."""
        return self.tokens / self.rounds if self.rounds else 0.0

    @property
    def alpha(self) -> float:
        """Acceptance rate of one tested draft token."""
        return self.accepted / self.tested if self.tested else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Accepted over proposed drafts: vLLM's average draft acceptance rate."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def drafted_length(self) -> float:
        """1 + accepted per round that had a draft: vLLM's mean acceptance length. Without drafts it is 1."""
        return 1 + self.accepted / self.drafting if self.drafting else 1.0

    def log_line(self) -> str:
        """One line for a log, in our terms with the engines' in brackets."""
        positions = " ".join(f"{count / self.rounds:.2f}" for count in self.accepted_per_position)
        return (
            f"rounds {self.rounds}, tokens {self.tokens}, "
            f"tau {self.tau:.2f} [SGLang accept len], in the {self.drafting} rounds with a draft "
            f"{self.drafted_length:.2f} [vLLM mean acceptance length], alpha {self.alpha:.2f}, "
            f"accepted/drafted {self.accepted}/{self.drafted} = {self.acceptance_rate:.2f} "
            f"[vLLM draft acceptance rate], per position [{positions}]"
            + (f", LOSSY: {self.distortion / self.tokens:.3f} total variation a token" if self.distortion else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Totals and rates, ready for JSON."""
        rates = {"tau": self.tau, "alpha": self.alpha, "acceptance_rate": self.acceptance_rate}
        return asdict(self) | rates


def per_position(records: Iterable[StepRecord]) -> tuple[int, ...]:
    """Entry i: rounds in which at least i+1 drafts were accepted. As long as the longest draft."""
    rows = list(records)
    return tuple(sum(r.accepted > i for r in rows) for i in range(max((r.depth for r in rows), default=0)))


def write_jsonl(records: Iterable[StepRecord]) -> str:
    """A JSON object a line, one per record."""
    return "".join(json.dumps(asdict(record)) + "\n" for record in records)


def read_jsonl(text: str) -> list[StepRecord]:
    """The inverse of `write_jsonl`. Raises ValueError that names the bad line."""
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            records.append(StepRecord(**json.loads(line)))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"line {number} is not a step record: {error}") from error
    return records
