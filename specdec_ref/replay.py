"""A per-token trace of a run on disk, and back: what each round proposed, accepted, rejected and added, with its text.

    line 1      what was run: target, drafter, prompt
    line 2 ...  a round: tokens as [id, text] under accepted, rejected, untested, added; kind, seconds, record

Texts are written as they appeared, so a trace is replayed without a model or a tokenizer, on a terminal or by
`widgets.trace_stepper`. A character that several tokens share stands with the one that completes it.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from specdec_ref.metrics import StepRecord
from specdec_ref.text import TextStream
from specdec_ref.trace import Round

__all__ = ["Trace", "read_trace", "trace_lines"]

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace that was read. Token ids of its rounds are places in `texts`; `ids` has the ones of the tokenizer."""

    about: dict[str, Any]
    rounds: tuple[Round, ...]
    texts: tuple[str, ...]
    ids: tuple[int, ...]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these places."""
        return "".join(self.texts[token] for token in tokens)


def trace_lines(
    rounds: Iterable[Round], decode: Decode, *, byte_tokens: Collection[int] = (), **about: Any
) -> Iterator[str]:
    """The trace, a line at a time, as the rounds come."""
    yield json.dumps({"specdec_trace": 1, **about}) + "\n"
    stream = TextStream(decode, byte_tokens=byte_tokens)
    for step in rounds:
        row = {
            "accepted": [[token, stream.feed(token)] for token in step.accepted],
            "rejected": [[token, decode([token])] for token in step.rejected],
            "untested": [[token, decode([token])] for token in step.untested],
            "added": None if step.added is None else [step.added, stream.feed(step.added)],
            "kind": step.kind,
            "seconds": round(step.seconds, 6),
            "record": None if step.record is None else asdict(step.record),
        }
        yield json.dumps(row) + "\n"
    if rest := stream.flush():  # a text that ended in half a character
        yield json.dumps({"tail": rest}) + "\n"


def read_trace(text: str) -> Trace:
    """The inverse of `trace_lines`. Raises ValueError that names the bad line."""
    lines = text.splitlines()
    rounds: list[Round] = []
    tokens: list[tuple[int, str]] = []
    about: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if number == 1:
                about = _about(row)
            elif "tail" in row:
                tokens[-1] = (tokens[-1][0], tokens[-1][1] + row["tail"])
            else:
                rounds.append(_round(row, tokens))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} is not of a trace: {error!r}") from error
    if not about and not lines:
        raise ValueError("line 1 is not of a trace: the file is empty")
    return Trace(about, tuple(rounds), tuple(text for _, text in tokens), tuple(token for token, _ in tokens))


def _about(row: dict[str, Any]) -> dict[str, Any]:
    if row.pop("specdec_trace") != 1:
        raise ValueError("of another version")
    return row


def _round(row: dict[str, Any], tokens: list[tuple[int, str]]) -> Round:
    """A round whose ids are places in `tokens`, to which its own are appended."""

    def places(pairs: Sequence[Sequence[Any]]) -> tuple[int, ...]:
        first = len(tokens)
        tokens.extend((int(token), str(text)) for token, text in pairs)
        return tuple(range(first, len(tokens)))

    step = Round(places(row["accepted"]), places(row["rejected"]), places(row["untested"]), kind=row["kind"])
    added = None if row["added"] is None else places([row["added"]])[0]
    record = None if row["record"] is None else StepRecord(**row["record"])
    return replace(step, added=added, seconds=float(row["seconds"]), record=record)
