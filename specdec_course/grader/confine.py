"""A box for one notebook: its scratch folder, what it may see and use, and a watch on what the system does not limit.

Time by the clock, disk, memory and processes of all that the notebook started are looked at twice a second.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from specdec_course.grader.guard import POLICY
from specdec_course.grader.policy import PACKAGES, Limits, boxed, namespaces, outermost, scratch_folder, seen

__all__ = ["Allowance", "Confined", "confined"]

LIBRARIES = 1_000_000_000  # bytes of memory that hold programs, which the limit on one process does not count
FILE_BYTES, DISK_BYTES, PROCESSES = 100_000_000, 500_000_000, 32
START_SECONDS = 120  # of CPU time, before the first cell


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one submission may use, from its first cell on. Cells and the whole notebook have clocks of their own."""

    cell_seconds: int = 60
    cpu_seconds: int = 180
    wall_seconds: int = 300
    memory_bytes: int = 4_000_000_000
    boxed: bool = True  # in namespaces, where the system has them
    hidden: tuple[str, ...] = ()  # folders out of reach where it has none


@dataclass(slots=True)
class Confined:
    """A running box. `stopped_because` says why it was ended from here."""

    scratch: Path
    command: list[str]
    allowance: Allowance
    stopped_because: str = ""
    began: float | None = None
    over: Event = field(default_factory=Event)
    manager: Any = None

    @property
    def work(self) -> Path:
        """The notebook's own folder."""
        return self.scratch / "work"

    def prepare(self, manager: Any) -> None:
        """Have a kernel manager start our kernel, and talk to it by files: inside there is no network."""
        manager.transport, manager.ip = "ipc", str(self.scratch / "talk" / "k")
        manager.connection_file = str(self.scratch / "talk" / "kernel.json")
        manager.kernel_spec_manager = _StudentKernels()
        manager.kernel_spec_manager.argv = self.command
        self.manager = manager

    def begin(self) -> None:
        """From now on its time counts: a kernel takes seconds to start, or many on a busy machine."""
        self.began = self.began or monotonic()

    def watch(self) -> None:
        """Until the box is closed: stop it when it has used up what nobody else counts."""
        while not self.over.wait(0.5):
            if why := self._too_much():
                self.stop(why)

    def _too_much(self) -> str:
        processes, most = self._processes(), self.allowance.memory_bytes + LIBRARIES
        if len(processes) > PROCESSES:
            return f"it started more than {PROCESSES} processes"
        if self.began is not None and monotonic() - self.began > self.allowance.wall_seconds:
            return f"it ran longer than {self.allowance.wall_seconds} seconds"
        if _memory(processes) > most and _memory(processes, shared_once=True) > most:
            return f"it used more than {self.allowance.memory_bytes / 1e9:g} GB of memory"
        if _size(self.scratch) > DISK_BYTES:
            return f"it wrote more than {DISK_BYTES // 10**6} MB of files"
        return ""

    def stop(self, why: str) -> None:
        """Kill all of it."""
        self.stopped_because = self.stopped_because or why
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()

    def _processes(self) -> list[psutil.Process]:
        kernel = getattr(getattr(self.manager, "provisioner", None), "process", None)
        if kernel is None:
            return []
        with suppress(psutil.Error):
            first = psutil.Process(kernel.pid)
            return [first, *first.children(recursive=True)]
        return []


@contextmanager
def confined(allowance: Allowance, modules: Sequence[str], names: Mapping[str, tuple[str, str]]) -> Iterator[Confined]:
    """A box, not yet started. `modules`: what cells may import of this package. `names`: see `guard.Guard`."""
    namespaced, sees = allowance.boxed and not namespaces(), outermost([*seen(), *map(str, PACKAGES)])
    with scratch_folder() as scratch:
        inside = {
            "modules": modules, "names": names, "refuse": not namespaced, "scratch": str(scratch), "sees": sees,
            "hidden": [str(Path.home()), *allowance.hidden], "cpu_seconds": allowance.cpu_seconds,
        }  # fmt: skip
        kernel = [
            sys.executable,
            "-P",
            "-m",
            "specdec_course.grader.kernel",
            "-f",
            "{connection_file}",
            "--log-level=50",
        ]
        limits = Limits(START_SECONDS + allowance.cpu_seconds, allowance.memory_bytes, FILE_BYTES)
        told = {POLICY: json.dumps(inside), "NBGRADER_EXECUTION": "autograde"}
        command = boxed(scratch, kernel, limits, namespaced=namespaced, sees=sees, **told)
        opened = Confined(scratch, command, allowance)
        watch = Thread(target=opened.watch, daemon=True)
        watch.start()
        try:
            yield opened
        finally:
            opened.over.set()
            watch.join()
            opened.stop("")


class _StudentKernels(KernelSpecManager):
    """Knows one kernel, ours, whatever name the notebook asks for."""

    argv: list[str]

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Interrupted by message: a signal would reach the box, not the kernel in it."""
        return KernelSpec(argv=self.argv, display_name="student", language="python", interrupt_mode="message")


def _memory(processes: Sequence[psutil.Process], *, shared_once: bool = False) -> int:
    """Bytes in use. Forked processes share pages; to count those once takes long, and only Linux can."""
    found = 0
    for process in processes:
        with suppress(psutil.Error):
            once = shared_once and sys.platform == "linux"
            found += process.memory_full_info().pss if once else process.memory_info().rss
    return found


def _size(folder: Path) -> int:
    """Bytes that its files take on the disk, holes not counted."""
    found = 0
    for at, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                found += os.lstat(os.path.join(at, name)).st_blocks * 512
    return found
