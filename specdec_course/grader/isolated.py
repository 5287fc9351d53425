"""Work on one hand-in in a process of its own, with limits: whatever kills that process costs one hand-in.

The process returns plain data as JSON. If it dies, hangs or returns nonsense, the outcome says so in a sentence. Limits
are soft ones, of that process alone: the box, in which the student's code runs, sets its own.
"""

import json
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

__all__ = ["Bounds", "Job", "Outcome", "isolated", "run_all"]

LONGEST_ANSWER = 20_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the process may use: seconds by the clock, CPU seconds, bytes of memory, bytes of a file."""

    seconds: int = 120
    cpu_seconds: int = 120
    memory_bytes: int = 3_000_000_000
    file_bytes: int = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """`function(*args)`, under a key. What it returns must be plain data."""

    key: Any
    function: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`value`, unless `error` says why there is none. `raised`: the function itself raised; else it never came back."""

    value: Any = None
    error: str = ""
    raised: bool = False


@dataclass(slots=True)
class _Running:
    job: Job
    process: Any
    channel: Connection
    until: float


def isolated(function: Callable[..., Any], *args: Any, bounds: Bounds = Bounds()) -> Outcome:
    """One call."""
    return next(iter(run_all([Job(None, function, args)], 1, bounds)))[1]


def run_all(jobs: Iterable[Job], at_once: int, bounds: Bounds) -> Iterator[tuple[Job, Outcome]]:
    """Each job with its outcome, as they end. This process stays single-threaded, so that it may fork."""
    waiting, running = iter(jobs), list[_Running]()
    with tempfile.TemporaryDirectory(prefix="s-") as scratch:
        Path(scratch).chmod(0o711)  # a user id that owns nothing has its folder below
        try:
            while True:
                while len(running) < max(1, at_once) and (job := next(waiting, None)) is not None:
                    running.append(_start(job, bounds, scratch))
                if not running:
                    return
                wait([each.channel for each in running], min(each.until for each in running) - monotonic())
                for each in [*running]:
                    if each.channel.poll() or monotonic() > each.until:
                        running.remove(each)
                        yield each.job, _end(each, bounds)
        finally:
            for each in running:
                _kill(each.process)


def _start(job: Job, bounds: Bounds, scratch: str) -> _Running:
    context: Any = get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_inside, args=(theirs, job.function, job.args, bounds, scratch))
    process.start()
    theirs.close()
    return _Running(job, process, ours, monotonic() + bounds.seconds)


def _inside(
    channel: Connection, function: Callable[..., Any], args: tuple[Any, ...], bounds: Bounds, scratch: str
) -> None:
    tempfile.tempdir = scratch
    for kind, value in (
        ("RLIMIT_CPU", bounds.cpu_seconds), ("RLIMIT_CORE", 0),
        ("RLIMIT_DATA" if sys.platform == "linux" else "RLIMIT_AS", bounds.memory_bytes),
        ("RLIMIT_FSIZE", bounds.file_bytes),
    ):  # fmt: skip
        with suppress(ValueError, OSError):
            limit = getattr(resource, kind)
            hard = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that grows too large is an OSError then
    try:
        text = json.dumps({"value": function(*args)})
    except BaseException as error:  # noqa: BLE001  (all of it belongs to this hand-in)
        said = f"{type(error).__name__}: {error}"
        text = json.dumps({"error": said if len(said) <= 4000 else f"{said[:1000]} [...] {said[-3000:]}"})
    channel.send_bytes(text.encode())


def _end(each: _Running, bounds: Bounds) -> Outcome:
    answered = each.channel.poll()
    try:
        said = json.loads(each.channel.recv_bytes(LONGEST_ANSWER)) if answered else None
    except (EOFError, OSError, ValueError, RecursionError):
        said = None
    each.channel.close()
    if answered:
        each.process.join(5)
    _kill(each.process)
    if isinstance(said, dict) and "error" in said:
        return Outcome(error=str(said["error"]), raised=True)
    if isinstance(said, dict) and "value" in said:
        return Outcome(said["value"])
    return Outcome(error=_why(each.process.exitcode) if answered else f"it took longer than {bounds.seconds} seconds")


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            return "it used up its CPU time" if name == "SIGXCPU" else f"its process was ended by {name}"
    return f"its process ended without an answer (code {code})"


def _kill(process: Any) -> None:
    """It, and all that it started."""
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []:
            with suppress(psutil.Error):
                child.kill()
    if process.is_alive():
        process.kill()
    process.join()
