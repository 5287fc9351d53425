"""What a server answers, read with care: parts of another shape than they should have are left out or named."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from specdec_ref.exposition import parse

__all__ = ["ServerError", "account", "event", "models", "reason", "samples", "texts", "whole", "written"]


class ServerError(RuntimeError):
    """A server that is not there, is no such server, or failed; the message says which, and what to look at."""


def models(answer: Any) -> dict[str, str]:
    """Name -> whose engine it is, from /v1/models. Raises ValueError if this is no list of models."""
    cards = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(cards, list) or not all(isinstance(c, dict) and isinstance(c.get("id"), str) for c in cards):
        raise ValueError("/v1/models is no list of models: not an OpenAI-compatible API")
    return {card["id"]: str(card.get("owned_by") or "unknown") for card in cards}


def event(payload: bytes, url: str) -> dict[str, Any]:
    """One event of a stream. Raises ServerError if it is no JSON object, or says that the server failed."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{url} streams something else than JSON: {payload[:80]!r}") from error
    if not isinstance(found, dict):
        raise ServerError(f"{url} streams {payload[:80]!r} where an event should be")
    if found.get("error"):
        raise ServerError(f"{url} failed half way: {reason(found)}")
    return found


def texts(found: Mapping[str, Any]) -> Iterator[str]:
    """What an event adds: the answer, or a reasoning model's way to it. `null` and other shapes add nothing."""
    for choice in _list(found.get("choices")):
        delta = _object(_object(choice).get("delta"))
        given = (delta.get(key) for key in ("reasoning_content", "reasoning", "content"))
        yield next((text for text in given if isinstance(text, str) and text), "")


def written(found: Mapping[str, Any], before: int) -> int:
    """Tokens written according to an event's usage; `before` if it has none."""
    number = whole(_object(found.get("usage")).get("completion_tokens"))
    return before if number is None else number


def account(found: Mapping[str, Any]) -> dict[str, Any]:
    """SGLang's or llama.cpp's account of a request: its whole numbers, and its lists of them; {} if there is none."""
    told = _object(_object(found.get("sglext")).get("spec_tokens_details")) or _object(found.get("timings"))
    counted = {
        key: [whole(n) for n in value] if isinstance(value, list) else whole(value) for key, value in told.items()
    }
    return {key: value for key, value in counted.items() if value is not None and None not in _list(value)}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def whole(value: Any) -> int | None:
    """A count; None for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return int(value) if usable else None


def samples(page: str) -> dict[str, float]:
    """The finite samples of a page of metrics: other metrics may be NaN or +Inf. Raises ValueError if it is none."""
    return {name: value for name, value in parse(page).items() if math.isfinite(value)}


def reason(answer: Any) -> str:
    """vLLM puts its error into "error", SGLang beside it."""
    if not isinstance(answer, dict):
        return str(answer)[:300]
    error = answer.get("error")
    return str((error.get("message") if isinstance(error, dict) else error) or answer.get("message") or answer)[:300]
