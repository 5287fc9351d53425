"""A box for one notebook: its scratch folder, what it may see and use, and a watch on what the system does not limit.

time by the clock, disk, memory and processes of all that the notebook started are looked at twice a second.
"""

import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from specdec_ref.grading.guard import POLICY

__all__ = ["Allowance", "Confined", "confined", "namespaces"]

LIBRARIES = 1_000_000_000  # bytes of memory that hold programs, which the limit on one process does not count
GRACE_SECONDS, FILE_BYTES, DISK_BYTES, PROCESSES = 5, 100_000_000, 500_000_000, 64
PACKAGE = Path(__file__).parent.parent
FIRST_UID = 61_184  # systemd's range for users that exist for a moment only: they own nothing


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one submission may use. Cells and the whole notebook have clocks of their own."""

    cell_seconds: int = 60
    cpu_seconds: int = 180
    wall_seconds: int = 300
    memory_bytes: int = 4_000_000_000
    boxed: bool = True  # in namespaces, where the system has them
    hidden: tuple[str, ...] = ()  # folders out of reach where it has none


@cache
def namespaces() -> str:
    """Why submissions cannot be boxed here, in a few words; empty if they can."""
    if sys.platform != "linux":
        return "this system has no namespaces"
    with _scratch() as scratch:
        command = _command(scratch, Allowance(), True, [sys.executable, "-c", "pass"])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2] or "it was refused"


@dataclass(slots=True)
class Confined:
    """A running box. `stopped_because` says why it was ended from here."""

    scratch: Path
    command: list[str]
    allowance: Allowance
    stopped_because: str = ""
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

    def watch(self) -> None:
        """Until the box is closed: stop it when it has used up what nobody else counts."""
        began = monotonic()
        while not self.over.wait(0.5):
            memory = 0
            for process in self._processes():
                with suppress(psutil.Error):
                    memory += process.memory_info().rss
            disk = _size(self.scratch)
            if monotonic() - began > self.allowance.wall_seconds:
                self.stop(f"it ran longer than {self.allowance.wall_seconds} seconds")
            elif memory > self.allowance.memory_bytes + LIBRARIES:
                self.stop(f"it used more than {self.allowance.memory_bytes / 1e9:g} GB of memory")
            elif disk > DISK_BYTES:
                self.stop(f"it wrote more than {DISK_BYTES // 10**6} MB of files")

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
    boxed = allowance.boxed and not namespaces()
    with _scratch() as scratch:
        inside = {
            "modules": modules, "names": names, "refuse": not boxed, "scratch": str(scratch), "sees": _sees(),
            "hidden": [str(Path.home()), *allowance.hidden],
        }  # fmt: skip
        kernel = [sys.executable, "-P", "-m", "specdec_ref.grading.kernel", "-f", "{connection_file}", "--log-level=50"]
        command = _command(scratch, allowance, boxed, kernel, **{POLICY: json.dumps(inside)})
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


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="specdec-grade-"))
    folder.chmod(0o711)
    for name in ("work", "home", "tmp", "talk"):
        (folder / name).mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(scratch: Path, allowance: Allowance, boxed: bool, command: list[str], **environment: str) -> list[str]:
    uid = FIRST_UID + os.getpid() % 4000 if os.geteuid() == 0 and (boxed or _reachable(FIRST_UID)) else None
    others = 0 if uid is not None else _threads_of(os.getuid())
    seconds, memory = allowance.cpu_seconds, allowance.memory_bytes
    # On Linux: memory that the process can write. Its address space would also count the libraries of a CUDA build.
    kind = "RLIMIT_DATA" if sys.platform == "linux" else "RLIMIT_AS"
    policy = {
        "namespaces": boxed,
        "scratch": str(scratch),
        "work": str(scratch / "work"),
        "sees": _sees(),
        "uid": uid,
        "limits": {
            "RLIMIT_CPU": [seconds, seconds + GRACE_SECONDS], kind: [memory, memory], "RLIMIT_CORE": [0, 0],
            "RLIMIT_FSIZE": [FILE_BYTES, FILE_BYTES], "RLIMIT_NPROC": [PROCESSES + others, PROCESSES + others],
        },
        "environment": {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]), "LANG": "C.UTF-8",
            "HOME": str(scratch / "home"), "TMPDIR": str(scratch / "tmp"), "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1", "NBGRADER_EXECUTION": "autograde",
            "PYTHONUSERBASE": site.getuserbase(),
            **environment,
        },
    }  # fmt: skip
    place = scratch / "policy.json"
    place.write_text(json.dumps(policy), encoding="utf-8")
    return [sys.executable, "-I", str(PACKAGE / "grading" / "box.py"), str(place), *command]


def _sees() -> list[str]:
    """Python, its packages and this one."""
    places = {sys.prefix, sys.base_prefix, str(PACKAGE), str(Path(psutil.__file__).parent.parent)}
    return sorted(place for place in places if not any(place.startswith(other + os.sep) for other in places))


@cache
def _reachable(uid: int) -> bool:
    """Whether a user who owns nothing can run this Python: root's own is often in root's closed home."""
    try:
        subprocess.run([sys.executable, "-c", "pass"], user=uid, group=uid, extra_groups=[], cwd="/", check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _threads_of(uid: int) -> int:
    """What an ordinary user runs already: the system counts it, too."""
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += process.num_threads() if process.uids().real == uid else 0
    return found


def _size(folder: Path) -> int:
    found = 0
    for at, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                found += os.lstat(os.path.join(at, name)).st_size
    return found
