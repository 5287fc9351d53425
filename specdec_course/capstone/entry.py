"""A capstone entry in a process of its own. To whoever measures it, it is a `Decoder` like any other.

The target, the clock and the coins stay here; the entry asks for them through a socket (`entry_worker.py`). Between two
calls its whole process group is stopped, so it cannot work before it is asked, nor slow down what runs beside it.
Where there are namespaces it runs in a box (`box.py`): no network, no file but Python's and those of a scratch folder.
"""

import contextlib
import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from specdec_course.capstone.adapter import MAX_NODES, TargetView
from specdec_course.checks.examine import Trouble
from specdec_course.grader.policy import PACKAGES, Limits, boxed, namespaces, outermost, scratch_folder, seen
from specdec_ref.core import Randomness

__all__ = ["Entry", "EntryError", "EntryLimits"]

_BUFFER_BYTES = MAX_NODES * 300_000 * 8  # rows of p in float64; only pages that are written to exist
_LINE_BYTES = 16_000_000
_FILE_BYTES = 10_000_000
_START_SECONDS, _SLICE = 120.0, 1.0


class EntryError(Trouble):
    """The entry did not do what an entry does; the message says what it did, after "it"."""


@dataclass(frozen=True, slots=True)
class EntryLimits:
    """What one entry may use: seconds for one answer by the wall clock, CPU seconds and bytes of memory altogether."""

    call_seconds: float = 120.0
    cpu_seconds: int = 900
    memory_bytes: int = 4_000_000_000


class Entry:
    """`with Entry(source=...) as entry: entry.generate(...)`. `ours`: module:class of this package instead."""

    def __init__(self, source: str = "", *, ours: str = "", limits: EntryLimits = EntryLimits()) -> None:
        self._job = {"ours": ours} if ours else {"source": source}
        self._limits = limits

    def __enter__(self) -> "Entry":
        """Start it. Raises EntryError if its code cannot even be loaded."""
        self._left_behind = contextlib.ExitStack()
        self._scratch = self._left_behind.enter_context(scratch_folder())
        self._control, theirs = socket.socketpair()
        buffer = _buffer(self._scratch)
        self._rows = mmap.mmap(buffer, _BUFFER_BYTES)
        self._pending, self._left, self._boxed = b"", 0.0, not namespaces()
        self._process = subprocess.Popen(
            self._command(theirs.fileno(), buffer),
            pass_fds=(theirs.fileno(), buffer),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._leader = self._process.pid
        theirs.close()
        os.close(buffer)
        try:
            self._expect("hello")
            (self._leader,) = self.processes()
            self._send(self._job)
            self._expect("ready")
        except BaseException:
            self.__exit__()
            raise
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and whatever it started: a box ends with its first process."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._control.close()
        self._rows.close()
        self._left_behind.close()

    def _command(self, control: int, buffer: int) -> list[str]:
        """A copy of the worker, since our decoders lie where it came from."""
        worker = self._scratch / "worker.py"
        shutil.copy(Path(__file__).with_name("entry_worker.py"), worker)
        limits = Limits(self._limits.cpu_seconds, self._limits.memory_bytes, _FILE_BYTES)
        command = [sys.executable, "-P", str(worker), str(control), str(buffer)]
        own: dict[str, str] = (
            {"PYTHONPATH": os.pathsep.join({str(package.parent): None for package in PACKAGES})}
            if "ours" in self._job
            else {}
        )
        return boxed(
            self._scratch,
            command,
            limits,
            namespaced=self._boxed,
            hides=[] if own else list(map(str, PACKAGES)),
            sees=outermost([*seen(), *(map(str, PACKAGES) if own else [])]),
            HF_HUB_OFFLINE="1",
            **own,
        )

    def generate(
        self, model: TargetView, prompt: Sequence[int], max_new_tokens: int, eos: frozenset[int], rng: Randomness
    ) -> list[int]:
        """See `Decoder`. Raises EntryError if no answer comes."""
        self._signal(signal.SIGCONT)
        try:
            self._send(
                {
                    "prompt": list(prompt),
                    "max_new_tokens": max_new_tokens,
                    "eos": sorted(eos),
                    "length": model.length,
                    "vocab_size": model.vocab_size,
                    "temperature": model.temperature,
                }
            )
            self._left = self._limits.call_seconds
            while (message := self._receive()).get("call") != "done":
                self._send(self._answer(message, model, rng))
            return _tokens(message.get("tokens"))
        finally:
            self._signal(signal.SIGSTOP)

    def cpu_seconds(self) -> float | None:
        """Processor time of the entry's processes, all threads; None where the system does not tell."""
        if sys.platform != "linux":
            return None
        clocks = [(~pid << 3) | 2 for pid in self.processes()]  # the kernel's number for a process's clock
        with contextlib.suppress(OSError):
            return sum(map(time.clock_gettime, clocks))
        return None

    def processes(self) -> list[int]:
        """The entry's, as far as the system tells: in a box all of them; else those in its session, or not orphaned."""
        first = self._process.pid
        family = _family(first)
        return [pid for pid, parent in family if not self._boxed or first not in (pid, parent)] or [first]

    def _answer(self, message: dict[str, Any], model: TargetView, rng: Randomness) -> dict[str, Any]:
        """What one question of the entry gets."""
        try:
            match message:
                case {"call": "score", "tokens": tokens, "parents": parents}:
                    p = model.score(tokens, parents)
                    count = p.numel()
                    torch.frombuffer(self._rows, dtype=p.dtype, count=count).copy_(p.reshape(-1))
                    return {"rows": len(p), "dtype": str(p.dtype).removeprefix("torch.")}
                case {"call": "keep", "nodes": nodes}:
                    model.keep(nodes)
                    return {"length": model.length}
                case {"call": "accept", "prob": float(prob)}:
                    return {"coin": rng.accept(prob)}
                case {"call": "draw", "weights": []}:
                    return {"refused": "draw() takes at least one weight"}
                case {"call": "draw", "weights": list(weights)}:
                    return {"index": rng.draw(torch.tensor(weights, dtype=torch.float64))}
                case {"call": "failed", "why": str(why)}:
                    raise EntryError(why)
        except (ValueError, TypeError, OverflowError) as error:  # the last: infinity, or a number that no tensor holds
            return {"refused": str(error)}
        raise EntryError("it sent a message that is none of the adapter's")

    def _expect(self, call: str) -> None:
        self._left = _START_SECONDS
        message = self._receive()
        if message.get("call") != call:
            raise EntryError(str(message.get("why", "it spoke out of turn")))

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._control.settimeout(self._limits.call_seconds)
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise EntryError(self._death()) from error

    def _receive(self) -> dict[str, Any]:
        """The next message: data, never code. Time is counted in slices, so that a machine that slept does no harm."""
        while b"\n" not in self._pending:
            started = time.monotonic()
            try:
                self._control.settimeout(_SLICE)
                chunk = self._control.recv(65536)
            except TimeoutError:
                chunk = None
            except OSError as error:
                raise EntryError(self._death()) from error
            self._left -= min(time.monotonic() - started, _SLICE)
            if self._left <= 0:
                raise EntryError("it gave no answer in time")
            if chunk is None:
                continue
            if not chunk or len(self._pending) > _LINE_BYTES:
                raise EntryError(self._death())
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deeply, too large
            raise EntryError("it sent a message that is none of the adapter's") from error
        if not isinstance(message, dict):
            raise EntryError("it sent a message that is none of the adapter's")
        return message

    def _death(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(2.0)
            code = code - 256 if code > 256 - signal.NSIG else code  # from a box
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"it left with exit code {code}"
            return f"its process ended: {why}; a limit on time or memory, or an exit of its own"
        return "it closed its connection"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, number)


def _tokens(tokens: Any) -> list[int]:
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise EntryError("it returned something that is no list of token ids")
    return tokens


def _family(first: int) -> list[tuple[int, int]]:
    """(process, parent) of this one, its descendants, and all in their sessions; only Linux tells."""
    table: dict[int, tuple[int, int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            parent, _, session = stat.read_text().rpartition(")")[2].split()[1:4]
            table[int(stat.parent.name)] = int(parent), int(session)
    found = [first]
    for one in found:
        found += [pid for pid, above in table.items() if one in above and pid not in found]
    return [(pid, table[pid][0]) for pid in found if pid in table]


def _buffer(scratch: Path) -> int:
    """A file in memory where there is such a thing, in the scratch folder otherwise."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("rows")
    else:
        descriptor = os.open(scratch / "rows", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(descriptor, _BUFFER_BYTES)
    return descriptor
