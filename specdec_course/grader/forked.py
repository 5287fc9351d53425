"""Boxes that are forked from one process which has imported torch (`warm`), instead of started one by one.

While a class is graded, this saves the start of Python and the imports for each hand-in.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from specdec_course.grader.policy import environment, furnish, namespaces

__all__ = ["NURSERY", "Forked", "Nursery", "warm"]

START_SECONDS = 120  # on a busy machine


class Forked:
    """A box forked by a nursery, with what is used of `subprocess.Popen`."""

    def __init__(self, requests: socket.socket, policy: Path, wire: socket.socket) -> None:
        """Raises OSError if it cannot be had."""
        self.returncode: int | None = None
        self._news, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(requests, [os.fsencode(policy)], [wire.fileno(), theirs.fileno()])
            self.pid = self._next(START_SECONDS)
        except OSError:
            self.close()
            raise

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; minus the signal that killed it. Raises TimeoutExpired."""
        if self.returncode is None:
            try:
                self.returncode = self._next(timeout)
            except TimeoutError:
                raise subprocess.TimeoutExpired("box", timeout or 0.0) from None
            except OSError:
                self.returncode = -signal.SIGKILL
        return self.returncode

    def close(self) -> None:
        """Whatever still runs in it is killed, and its process number may be used again."""
        self._news.close()

    def _next(self, seconds: float | None) -> int:
        self._news.settimeout(seconds)
        data = self._news.recv(4)
        if len(data) != 4:
            raise OSError("the process that forks boxes has ended")
        number: int = struct.unpack("i", data)[0]
        return number


class Nursery:
    """A running `warm`, and the folder of this package that its boxes see."""

    def __init__(self, library: Path) -> None:
        self.library = library
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("warm.py"))],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                env=environment(Path("/nowhere"), PYTHONPATH=str(library)),
            )  # fmt: skip

    def fork(self, policy: Path, wire: socket.socket) -> Forked:
        """A box. Raises OSError if there is none to be had."""
        return Forked(self._requests, policy, wire)

    def close(self) -> None:
        """It ends when nobody can ask it any more."""
        self._requests.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()


NURSERY: ContextVar[Nursery | None] = ContextVar("nursery", default=None)  # also of the processes forked from this one


@contextmanager
def warm(boxed: bool = True) -> Iterator[None]:
    """Inside, boxes of this process and its forks come from one nursery, where the system has namespaces."""
    if not boxed or namespaces() or not hasattr(os, "pidfd_open"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="specdec-lib-") as folder:
        Path(folder).chmod(0o755)
        furnish(Path(folder))
        opened = Nursery(Path(folder))
        before = NURSERY.set(opened)
        try:
            yield
        finally:
            NURSERY.reset(before)
            opened.close()
