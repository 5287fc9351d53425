"""Messages between the grader and the process of a student's notebook: JSON after four bytes of length.

Both processes use this module and `plain`, and in the student's there is little else of this package.
"""

import builtins
import json
import re
import socket
import struct
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

__all__ = ["Garbled", "Wire", "built", "own_line", "sentence", "without_line"]

LIMIT = 16_000_000  # bytes of a message


class Garbled(Exception):  # noqa: N818  (it is what the other side did)
    """A message that is none."""


class Wire:
    """Messages over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, message: list[Any]) -> None:
        """Raises Garbled for one that is too long, OSError if nobody listens."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > LIMIT:
            raise Garbled(f"{len(data) / 1e6:,.0f} MB of data; {LIMIT // 10**6} MB are the most")
        self.connection.sendall(struct.pack(">I", len(data)) + data)

    def receive(self, seconds: float | int | None = None) -> list[Any]:
        """The next message. Raises Garbled, EOFError at the end, TimeoutError if it does not come in time."""
        ends = None if seconds is None else time.monotonic() + seconds
        (size,) = struct.unpack(">I", self._exactly(4, ends))
        if size > LIMIT:
            raise Garbled(f"it sent {size / 1e6:,.0f} MB at once, and {LIMIT // 10**6} MB are the most")
        try:
            message = json.loads(self._exactly(size, ends))
        except (ValueError, RecursionError) as error:
            raise Garbled("it sent a message that is none") from error
        if type(message) is not list or not message:
            raise Garbled("it sent a message that is none")
        return message

    def _exactly(self, size: int, ends: float | None) -> bytes:
        parts: list[bytes] = []
        while size:
            if ends is not None:
                left = ends - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self.connection.settimeout(left)
            chunk = self.connection.recv(min(size, 1 << 20))
            if not chunk:
                raise EOFError
            parts.append(chunk)
            size -= len(chunk)
        return b"".join(parts)


def built(bases: Iterable[Any], text: str) -> Exception:
    """An error of the first of these builtin types that is one and can be made of a text."""
    for base in bases:
        kind = getattr(builtins, base, None) if isinstance(base, str) else None
        if isinstance(kind, type) and issubclass(kind, Exception):
            with suppress(TypeError):
                return kind(text)
    raise Garbled("it sent an error that is none")


def sentence(error: BaseException) -> str:
    """The error, and the last line of a notebook cell that led to it."""
    return f"it raised {type(error).__name__}{own_line(error)}: {' '.join(str(error).split())}"


def own_line(error: BaseException) -> str:
    """Quote the last line of a notebook cell that led to an error; "" if none did."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.line and (f.filename.startswith("<") or "ipykernel_" in f.filename)]
    return f" in your line `{own[-1].line}`" if own else ""


def without_line(text: str) -> str:
    """A sentence about an error without the line that it quotes."""
    return re.sub(r" in your line `.*?`(?=[:.]|$)", "", text)
