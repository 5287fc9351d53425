"""Start and stop llama.cpp's server in a process of its own, and report its failures in one line.

    with LlamaServer.start(words) as server:      the words are llama-server's flags
        server.url                                it answers here; the model is loaded
        server.check()                            raises EngineError if the process has ended

Nothing is left behind: leaving the block closes the child's standard input, at which it stops; so does the end of
this process, however it ends. A child that does not stop is killed.
"""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from threading import Timer
from types import MappingProxyType
from typing import IO

__all__ = ["EngineError", "LlamaServer", "missing_wheel"]

WHEEL = "xllamacpp"
LOUD = re.compile(r"GGML_ASSERT|\berror\b|\bfailed\b|unable|invalid|wrong (shape|number)|exceeds|must ", re.IGNORECASE)
QUIET = ("eagle3 requires ctx_other", "Failed to init server", "srv    load_model: failed", "exiting due to")
PATIENCE = 10.0  # seconds between asking the server to stop and killing it
CAUSES: Mapping[str, str] = MappingProxyType({"SIGABRT": "it aborted", "SIGKILL": "it was killed, perhaps for memory"})


class EngineError(RuntimeError):
    """The engine could not be started, or has ended; the message says why and what to do."""


def missing_wheel() -> str | None:
    """What to do if the engine's wheel is not installed, else None."""
    if find_spec(WHEEL) is not None:
        return None
    return f"llama.cpp is not installed: pip install 'specdec-ref[llamacpp]' (the wheel {WHEEL}, about 30 MB)"


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """A running server. `log` holds what it writes on stderr."""

    url: str
    process: "subprocess.Popen[str]"
    log: IO[str]

    @classmethod
    def start(cls, words: Sequence[str], *, timeout: float = 120.0) -> "LlamaServer":
        """Start it and wait until its model is loaded. Raises EngineError: no wheel, full port, wrong file, timeout."""
        if complaint := missing_wheel():
            raise EngineError(complaint)
        _free(words)
        log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (open while it runs)
        process = subprocess.Popen(
            [sys.executable, "-m", "specdec_ref.engines.llamacpp", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=os.name == "posix",
        )
        server = cls("", process, log)
        alarm = Timer(timeout, process.kill)
        alarm.start()
        try:
            line = process.stdout.readline() if process.stdout else ""
            while line and not line.startswith('{"url"'):  # the engine may print as well
                line = process.stdout.readline() if process.stdout else ""
        except BaseException:
            server.stop()
            raise
        finally:
            late = not alarm.is_alive()
            alarm.cancel()
        if not line:
            process.wait()
            why = f"it was not ready within {timeout:g} s" if late else server.cause()
            server.stop()
            raise EngineError(f"llama.cpp did not start: {why}")
        return cls(json.loads(line)["url"], process, log)

    def check(self) -> None:
        """Raises EngineError if the server has ended."""
        if self.process.poll() is not None:
            raise EngineError(f"the server at {self.url} has ended: {self.cause()}")

    def cause(self) -> str:
        """Why it ended: how, and the last line of its log that sounds like a reason."""
        code = self.process.poll() or 0
        name = signal.Signals(-code).name if code < 0 else ""
        how = CAUSES.get(name, f"signal {name}") if name else f"exit code {code}"
        lines = [line.strip() for line in self.text().splitlines()]
        reasons = [line for line in lines if LOUD.search(line) and not any(part in line for part in QUIET)]
        return f"{how}; {_plain(reasons[-1])}" if reasons else how

    def text(self) -> str:
        """Everything it has written on stderr so far."""
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def stop(self) -> None:
        """Stop it, by force if it does not listen. May be called twice."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def __enter__(self) -> "LlamaServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _free(words: Sequence[str]) -> None:
    """Raises EngineError if the port is taken: the engine itself would only say that it cannot listen."""
    given = dict(pairwise(words))
    host, port = given.get("--host", "127.0.0.1"), int(given.get("--port", 0))
    try:
        with socket.create_server((host, port)):
            return
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = f"port {port} is in use" if taken else f"cannot listen on {host}:{port} ({error})"
        raise EngineError(f"{why}: choose another with --port, or 0 for a free one") from error


def _plain(line: str) -> str:
    """A log line without its clock and level."""
    return re.sub(r"^[\d.]+ [A-Z] ", "", line)[:300]
