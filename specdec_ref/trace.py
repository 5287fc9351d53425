"""What each round of a run proposed, accepted, rejected and added, token by token."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from specdec_ref.baseline import plain_stream
from specdec_ref.config import SamplingParams
from specdec_ref.core import DraftTree, VerifyResult
from specdec_ref.engine import SpecEngine
from specdec_ref.metrics import StepRecord
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

__all__ = ["Round", "plain_rounds", "rounds"]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did, in token ids. A plain step is a round that accepted nothing and added one token."""

    accepted: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()  # drafts the verifier turned down: the children of the last accepted node
    untested: tuple[int, ...] = ()  # drafts it never came to
    added: int | None = None  # the target's own token; None if the round was cut short before it
    kind: Literal["bonus", "correction"] = "bonus"
    seconds: float = 0.0
    record: StepRecord | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """What the round emitted."""
        return self.accepted if self.added is None else (*self.accepted, self.added)


def rounds(engine: SpecEngine, prompt: Sequence[int], seed: int = 0) -> Generator[Round]:
    """Decode one prompt and yield every round. Closing the generator early frees the request."""
    engine.start([prompt], [seed])
    try:
        while engine.requests:
            (record,) = engine.step()
            yield _round(*engine.last_round[0], record)
    finally:
        engine.close()


def plain_rounds(
    target: Target, prompt: Sequence[int], *, limits: Limits, sampling: SamplingParams = SamplingParams(), seed: int = 0
) -> Generator[Round]:
    """The same for plain decoding. The first token comes out of the prefill, so its seconds are 0."""
    stream = plain_stream(target, prompt, limits=limits, sampling=sampling, seed=seed)
    yield Round(added=next(stream))
    started = time.perf_counter()
    for token in stream:
        yield Round(added=token, seconds=time.perf_counter() - started)
        started = time.perf_counter()


def _round(tree: DraftTree, result: VerifyResult, record: StepRecord) -> Round:
    path = result.path[: record.accepted]
    cut = record.emitted == record.accepted  # EOS, a stop string or the budget ended the round inside the path
    children = [] if cut else tree.children(path[-1] if path else 0)
    seen = {0, *result.path, *children}
    return Round(
        accepted=tuple(tree.token_list[node] for node in path),
        rejected=tuple(tree.token_list[node] for node in children),
        untested=tuple(token for node, token in enumerate(tree.token_list) if node not in seen),
        added=None if cut else result.next_token,
        kind="correction" if children else "bonus",
        seconds=record.step_s,
        record=record,
    )
