"""A box for one notebook: its scratch folder, what it may see and use, and a watch on what the system does not limit.

Time by the clock, disk, memory and processes of all that the notebook started are looked at twice a second.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import psutil

from specdec_course.checks.wire import Wire
from specdec_course.grader.cgroup import grouped
from specdec_course.grader.forked import NURSERY, Forked, Nursery
from specdec_course.grader.policy import (
    DISK_BYTES,
    FILES,
    PACKAGES,
    POLICY,
    TASKS,
    Limits,
    boxed,
    furnish,
    namespaces,
    outermost,
    scratch_folder,
    seen,
)

__all__ = ["Allowance", "Confined", "confined"]

LIBRARIES = 1_000_000_000  # bytes of memory that hold programs, which the limit on one process does not count
FILE_BYTES, PROCESSES = 100_000_000, 32
START_SECONDS = 120  # to start, by the clock and of CPU time


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one submission may use, from its first cell on. Cells and the whole notebook have clocks of their own."""

    cell_seconds: int = 60
    cpu_seconds: int = 180
    wall_seconds: int = 300
    memory_bytes: int = 4_000_000_000
    boxed: bool = True  # in namespaces, where the system has them


@dataclass(slots=True)
class Confined:
    """A running box. `stopped_because` says why it was ended from here."""

    scratch: Path
    process: subprocess.Popen[bytes] | Forked
    wire: Wire
    allowance: Allowance
    stopped_because: str = ""
    began: float = 0.0
    over: Event = field(default_factory=Event)

    def begin(self) -> None:
        """From now on its time counts: Python takes seconds to start, or many on a busy machine."""
        self.began = monotonic()

    def watch(self) -> None:
        """Until the box is closed: stop it when it has used up what nobody else counts, or cannot be watched."""
        while not self.over.wait(0.5):
            try:
                why = self._too_much()
            except Exception as error:  # noqa: BLE001  (whatever it does to be looked away from)
                why = f"it could not be watched ({type(error).__name__})"
            if why:
                self.stop(why)

    def why_dead(self) -> str:
        """Of a worker that gives no answer any more."""
        if not self.stopped_because:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            code = self.process.returncode or 0
            if (code - 256 if code > 256 - signal.NSIG else code) == -signal.SIGXCPU:
                return "it used up its CPU time"
        return self.stopped_because or "its process died: it was ended from inside, or ran out of memory"

    def _too_much(self) -> str:
        processes, most = self._processes(), self.allowance.memory_bytes + LIBRARIES
        if len(processes) > PROCESSES:
            return f"it started more than {PROCESSES} processes"
        if self.began and monotonic() - self.began > self.allowance.wall_seconds:
            return f"it ran longer than {self.allowance.wall_seconds} seconds"
        if _memory(processes) > most and _memory(processes, shared_once=True) > most:
            return f"it used more than {self.allowance.memory_bytes / 1e9:g} GB of memory"
        size, count = _size(self.scratch)
        if size > DISK_BYTES:
            return f"it wrote more than {DISK_BYTES // 10**6} MB of files"
        return f"it made more than {FILES:,} files" if count > FILES else ""

    def stop(self, why: str) -> None:
        """Kill all of it."""
        self.stopped_because = self.stopped_because or why
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []


@contextmanager
def confined(allowance: Allowance, files: Sequence[Path] = ()) -> Iterator[Confined]:
    """A box with a worker in it that is ready. `files`: what the exercise brings beside its notebook."""
    namespaced = allowance.boxed and not namespaces()
    memory = allowance.memory_bytes + LIBRARIES
    with scratch_folder() as scratch, grouped(scratch.name, memory, TASKS + 8) as groups:
        for path in files:
            shutil.copy(path, scratch / "work")
        forks = NURSERY.get() if namespaced else None
        library = forks.library if forks else scratch / "lib"
        if not forks:
            furnish(library)
        ours, theirs = socket.socketpair()
        limits = Limits(START_SECONDS + allowance.cpu_seconds, allowance.memory_bytes, FILE_BYTES)
        command = boxed(
            scratch,
            [sys.executable, "-P", "-m", "specdec_course.grader.worker", str(theirs.fileno())],
            limits,
            namespaced=namespaced,
            sees=outermost([*seen(), *([str(library)] if forks else [])]),
            hides=list(map(str, PACKAGES)),
            groups=groups,
            PYTHONPATH=str(library),
        )
        with theirs:
            process = _begun(forks, scratch / POLICY, theirs, command)
        opened = Confined(scratch, process, Wire(ours), allowance)
        watch = Thread(target=opened.watch, daemon=True)
        watch.start()
        try:
            yield opened
        finally:
            opened.over.set()
            watch.join()
            opened.stop("")
            process.wait()
            if isinstance(process, Forked):
                process.close()
            ours.close()


def _begun(
    forks: Nursery | None, policy: Path, wire: socket.socket, command: list[str]
) -> subprocess.Popen[bytes] | Forked:
    """A fork that does by the policy what the command does, or the command."""
    if forks:
        with suppress(OSError):
            return forks.fork(policy, wire)
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, pass_fds=(wire.fileno(),), stdin=quiet, stdout=quiet, stderr=quiet)


def _memory(processes: Sequence[psutil.Process], *, shared_once: bool = False) -> int:
    """Bytes in use. Forked processes share pages; to count those once takes long, and only Linux can."""
    found = 0
    for process in processes:
        with suppress(psutil.Error):
            once = shared_once and sys.platform == "linux"
            found += process.memory_full_info().pss if once else process.memory_info().rss
    return found


def _size(folder: Path) -> tuple[int, int]:
    """(bytes that its files take on the disk, holes not counted; how many there are, up to a few more than allowed)."""
    size = count = 0
    waiting = [folder]
    while waiting and count <= FILES:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                with suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
    return size, count
