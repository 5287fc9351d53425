"""Standard streams that can always be written to: characters outside their encoding, closed descriptors."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["writable_streams"]

_RAISING = ("strict", "surrogateescape")  # error handlers under which a character may fail to encode


@contextmanager
def writable_streams() -> Iterator[None]:
    """Make the standard streams usable inside the block, and restore them afterwards.

    A character that the encoding lacks is replaced, so a text is never cut in the middle. Python sets a stream that
    was closed before it started to None: stdin then reads as empty and stderr is discarded. Raises OSError if stdout
    is closed, because no result could be written.
    """
    before = sys.stdin, sys.stderr
    handlers: list[tuple[Any, str | None]] = [
        (stream, _set_errors(stream, errors))
        for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace"))
    ]
    opened: list[Any] = []
    if sys.stdin is None:
        sys.stdin = _opened(opened, os.open(os.devnull, os.O_RDONLY), "r")
    if sys.stderr is None:
        sys.stderr = _opened(opened, os.open(os.devnull, os.O_WRONLY), "w")
    try:
        if sys.stdout is None:
            raise OSError("standard output is closed, so there is nowhere to write the result to")
        yield
    finally:
        sys.stdin, sys.stderr = before
        for stream in opened:
            stream.close()
        for stream, errors in handlers:
            if errors is not None and not stream.closed:
                stream.reconfigure(errors=errors)


def _opened(opened: list[Any], descriptor: int, mode: str) -> Any:
    opened.append(os.fdopen(descriptor, mode, encoding="utf-8"))
    return opened[-1]


def _set_errors(stream: Any, errors: str) -> str | None:
    """Set the error handler of a stream that would raise; the handler to restore, or None if nothing was changed."""
    previous: str | None = getattr(stream, "errors", None)
    if previous not in _RAISING or not hasattr(stream, "reconfigure") or stream.closed:
        return None
    stream.reconfigure(errors=errors)
    return previous
