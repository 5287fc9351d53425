"""One request: its text so far, when it ends, and what came out. Knows nothing of models or drafters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from specdec_ref.metrics import RunStats, StepRecord

__all__ = ["FinishReason", "Generation", "Limits", "Request", "check_prompts"]

FinishReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a request ends: after `max_new_tokens`, at a token of `eos` (emitted), or once a `stop` string is complete.

    Stop strings are looked for in text, so they need `decode`, which turns token ids into text.
    """

    max_new_tokens: int = 128
    eos: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()
    decode: Callable[[list[int]], str] | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be >= 1, got {self.max_new_tokens}")
        if self.stop and (self.decode is None or not all(self.stop)):
            raise ValueError("stop strings must not be empty, and need `decode` to turn token ids into text")


@dataclass(slots=True, eq=False)  # an entity: two requests with the same text are two requests
class Request:
    """A row of the batch. `tokens` starts as the prompt and grows; it is the only copy of the committed text."""

    row: int
    tokens: list[int]
    seed: int
    limits: Limits
    records: list[StepRecord] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    prefill_seconds: float = 0.0
    seconds: float = 0.0
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)

    @property
    def new_tokens(self) -> list[int]:
        """What was generated so far."""
        return self.tokens[self.prompt_length :]

    @property
    def remaining(self) -> int:
        """How many more tokens it may emit."""
        return self.limits.max_new_tokens - (len(self.tokens) - self.prompt_length)

    def emit(self, tokens: Sequence[int]) -> int:
        """Append a round's tokens up to the first that ends the request; returns how many were appended."""
        for count, token in enumerate(tokens, 1):
            self.tokens.append(token)
            if token in self.limits.eos:
                self.finish_reason = "eos"
            elif self._stopped():
                self.finish_reason = "stop"
            elif self.remaining == 0:
                self.finish_reason = "length"
            if self.finish_reason:
                return count
        return len(tokens)

    def _stopped(self) -> bool:
        """True if a stop string is complete. Only a tail is decoded, longer where tokens without text are in it."""
        if not self.limits.stop or self.limits.decode is None:
            return False
        new, needed = self.new_tokens, max(len(stop.encode()) for stop in self.limits.stop) + 4
        tail = needed
        text = self.limits.decode(new[-tail:])
        while tail < len(new) and len(text.encode(errors="replace")) < needed:
            tail *= 2
            text = self.limits.decode(new[-tail:])
        return any(stop in text for stop in self.limits.stop)

    def result(self) -> "Generation":
        """What came out so far."""
        return Generation(
            self.new_tokens, self.finish_reason or "length", tuple(self.records), self.prefill_seconds, self.seconds
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished request: ids of the new tokens (EOS included), its rounds, and seconds of prefill and of decoding."""

    tokens: list[int]
    finish_reason: FinishReason
    records: tuple[StepRecord, ...] = ()
    prefill_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def stats(self) -> RunStats:
        """tau, alpha and the rest."""
        return RunStats.from_records(self.records)


@runtime_checkable
class _Sized(Protocol):
    @property
    def vocab_size(self) -> int: ...
    @property
    def max_positions(self) -> int | None: ...


def check_prompts(prompts: Sequence[Sequence[int]], model: _Sized, limits: Limits) -> None:
    """Raises ValueError, naming the prompt, if one is empty, holds a foreign token or leaves the model no room."""
    if not prompts:
        raise ValueError("no prompts given")
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {i} is empty: give at least one token, e.g. the tokenizer's BOS")
        if min(prompt) < 0 or max(prompt) >= model.vocab_size:
            raise ValueError(f"prompt {i} holds token ids outside 0..{model.vocab_size - 1}: wrong tokenizer?")
        room = model.max_positions
        if room is not None and len(prompt) + limits.max_new_tokens > room:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens; with max_new_tokens {limits.max_new_tokens} that passes the "
                f"model's {room} positions. Shorten the prompt or ask for fewer tokens."
                f"{getattr(model, 'position_note', '')}"
            )
