"""What a box is told (`box`): the limits of one process, what it sees of the disk, and the environment that it gets."""

import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import specdec_ref
from specdec_course.grader.seccomp import program

__all__ = [
    "DISK_BYTES", "FILES", "PACKAGES", "POLICY", "TASKS", "Limits", "boxed", "environment", "furnish", "namespaces",
    "scratch_folder", "seen",
]  # fmt: skip

PACKAGES = (Path(specdec_ref.__file__).parent, Path(__file__).parent.parent)  # the reference, and the course
POLICY = "policy.json"  # its name in the scratch folder
TASKS = 64  # processes and threads
DISK_BYTES, FILES, OPEN_FILES = 500_000_000, 20_000, 256  # of the scratch folder; of one process
GRACE_SECONDS = 5  # of CPU time, between the signal and the end
INSIDE = (  # all that a box has of this package
    "specdec_ref/core.py", "specdec_ref/config.py", "specdec_ref/transfer.py", "specdec_course/checks/wire.py",
    "specdec_course/checks/plain.py", "specdec_course/checks/standalone.py",
    *(f"specdec_course/grader/{name}.py" for name in ("worker", "shell", "launch", "handles", "answered")),
)  # fmt: skip
FIRST_UID = 61_184  # systemd's range for users that exist for a moment only: they own nothing


@dataclass(frozen=True, slots=True)
class Limits:
    """What the system counts: CPU seconds and bytes of memory of a process, bytes of a file that it writes."""

    cpu_seconds: int
    memory_bytes: int
    file_bytes: int


@cache
def namespaces() -> str:
    """Why code cannot be boxed here, in a few words; empty if it can."""
    if sys.platform != "linux":
        return "this system has no namespaces"
    with scratch_folder() as scratch:
        command = boxed(scratch, [sys.executable, "-c", "pass"], Limits(60, 10**9, 0), namespaced=True, sees=seen())
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2] or "it was refused"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that a box may write to, for as long as it is needed."""
    folder = Path(tempfile.mkdtemp(prefix="specdec-grade-"))
    folder.chmod(0o711)
    for name in ("work", "home", "tmp", "talk"):
        (folder / name).mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seen() -> list[str]:
    """Python and its packages."""
    places = {sys.prefix, sys.base_prefix}
    for name in ("torch", "psutil"):  # they may lie elsewhere than Python does
        if (found := importlib.util.find_spec(name)) is not None and found.origin is not None:
            places.add(str(Path(found.origin).parent.parent))
    return outermost(places)


def outermost(places: Iterable[str]) -> list[str]:
    """Of these folders, those that lie in none of the others."""
    return sorted({p for p in places if not any(p.startswith(other + os.sep) for other in places)})


def boxed(
    scratch: Path,
    command: list[str],
    limits: Limits,
    *,
    namespaced: bool,
    sees: list[str],
    hides: Sequence[str] = (),
    groups: Sequence[str] = (),
    **more: str,
) -> list[str]:
    """The command that runs this one in a box. `sees`: folders to read; `hides`: those in them that are empty there."""
    uid = FIRST_UID + os.getpid() % 4000 if os.geteuid() == 0 and (namespaced or _reachable(FIRST_UID)) else None
    tasks = TASKS + (0 if uid is not None else _tasks_of(os.getuid()))
    seconds, memory, size = limits.cpu_seconds, limits.memory_bytes, limits.file_bytes
    # On Linux: memory that the process can write. Its address space would also count the libraries of a CUDA build.
    kind = "RLIMIT_DATA" if sys.platform == "linux" else "RLIMIT_AS"
    policy = {
        "namespaces": namespaced,
        "scratch": str(scratch),
        "work": str(scratch / "work"),
        "sees": sees,
        "hides": list(hides),
        "uid": uid,
        "groups": list(groups),
        "disk": f"size={DISK_BYTES},nr_inodes={FILES}",
        "filter": program(),
        "limits": {
            "RLIMIT_CPU": [seconds, seconds + GRACE_SECONDS], kind: [memory, memory], "RLIMIT_CORE": [0, 0],
            "RLIMIT_FSIZE": [size, size], "RLIMIT_NPROC": [tasks, tasks],
            "RLIMIT_NOFILE": [OPEN_FILES, OPEN_FILES], "RLIMIT_MSGQUEUE": [0, 0],
        },
        "environment": environment(scratch, **more),
    }  # fmt: skip
    place = scratch / POLICY
    place.write_text(json.dumps(policy), encoding="utf-8")
    return [sys.executable, "-I", str(PACKAGES[1] / "grader" / "box.py"), str(place), *command]


def environment(scratch: Path, **more: str) -> dict[str, str]:
    """All that a command in a box has of one."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]), "LANG": "C.UTF-8",
        "HOME": str(scratch / "home"), "TMPDIR": str(scratch / "tmp"), "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUSERBASE": site.getuserbase(), **more,
    }  # fmt: skip


def furnish(library: Path) -> None:
    """So much of this package as a worker needs."""
    for name in INSIDE:
        place = library / name
        for folder in (place.parent, place.parent.parent):
            folder.mkdir(parents=True, exist_ok=True)
            if folder != library:
                (folder / "__init__.py").touch()
        shutil.copy(PACKAGES[0].parent / name if name.startswith("specdec_ref") else PACKAGES[1].parent / name, place)


@cache
def _reachable(uid: int) -> bool:
    """Whether a user who owns nothing can run this Python and read this package: both may be in root's closed home."""
    probe = [sys.executable, "-c", f"open({str(PACKAGES[1] / '__init__.py')!r})"]
    try:
        subprocess.run(probe, user=uid, group=uid, extra_groups=[], cwd="/", check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _tasks_of(uid: int) -> int:
    """What an ordinary user runs already: the system counts it, too."""
    if sys.platform != "linux":
        told = subprocess.run(["ps", "-U", str(uid), "-o", "pid="], capture_output=True, text=True, check=True)
        return len(told.stdout.split())
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found += len(os.listdir(folder / "task")) if folder.stat().st_uid == uid else 0
    return found
