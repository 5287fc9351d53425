"""What `generate` decodes with: one prompt round by round, or many in batches, speculatively or plain."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from specdec_ref.config import SpecConfig
    from specdec_ref.engine import SpecEngine
    from specdec_ref.request import Generation, Limits
    from specdec_ref.session import Session
    from specdec_ref.trace import Round

__all__ = ["Work", "failing"]

T = TypeVar("T")


def failing(steps: "Iterable[T]") -> "Iterator[T]":
    """The input was checked before: what is wrong from here on, such as NaN logits, is a failure and no usage error."""
    try:
        yield from steps
    except ValueError as error:
        raise RuntimeError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Work:
    """What decoding needs: the session, its set-up, the engine (None for plain), when to end, the first seed.

    `verbose`: show more on stderr than one line of figures.
    """

    session: "Session"
    config: "SpecConfig"
    engine: "SpecEngine | None"
    limits: "Limits"
    seed: int
    verbose: bool = False

    def rounds(self, prompt: Sequence[int]) -> "Generator[Round]":
        """One prompt, round by round."""
        from specdec_ref.trace import plain_rounds, rounds

        if self.engine is not None:
            return rounds(self.engine, prompt, self.seed)
        sampling = self.config.sampling
        return plain_rounds(self.session.target, prompt, limits=self.limits, sampling=sampling, seed=self.seed)

    def batch(self, prompts: Sequence[Sequence[int]], first: int) -> "Iterator[tuple[int, Generation]]":
        """(index, result) of a batch, each as soon as it is finished; `first` is the index of its first prompt."""
        seeds = [self.seed + first + row for row in range(len(prompts))]
        if self.engine is None:
            plain = self.session.plain(prompts, sampling=self.config.sampling, limits=self.limits, seeds=seeds)
            yield from enumerate(plain, first)
            return
        try:
            running = self.engine.start(prompts, seeds)
            while running:
                self.engine.step()
                yield from ((first + request.row, request.result()) for request in running if request.finish_reason)
                running = [request for request in running if not request.finish_reason]
        finally:
            self.engine.close()

    def in_order(self, prompts: Sequence[Sequence[int]], size: int) -> "Iterator[tuple[int, Generation]]":
        """(index, result) of all prompts, in their order. If interrupted, what is finished still comes out."""
        held: dict[int, Generation] = {}
        due = 0
        try:
            for first in range(0, len(prompts), size):
                for index, result in self.batch(prompts[first : first + size], first):
                    held[index] = result
                    while due in held:
                        yield due, held.pop(due)
                        due += 1
        except KeyboardInterrupt:
            yield from sorted(held.items())
            raise
