"""The box that a submission runs in: `python -I box.py POLICY.json COMMAND ...`, with the standard library alone.

On Linux, as root or where an ordinary user may make namespaces, the command gets a file system of its own, in which
there are Python and its packages to read and one scratch folder to write to; no other processes, and no network. What
root grades runs under a user id that owns nothing. Elsewhere only the limits hold (and `guard` refuses what Python code
asks for). Limits: CPU time, memory, size of a file, number of processes. Time by the clock, disk and output are watched
from outside (`confine`).
"""

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["call", "main", "read"]

NEW = {"mount": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
BIND, RECURSIVE, PRIVATE, DETACH = 0x1000, 0x4000, 0x40000, 2
PR_PARENT_DEATH, PR_DROP_CAPABILITY, PR_NO_NEW_PRIVILEGES, PR_SET_SECCOMP = 1, 24, 38, 22
CAPABILITIES = 0x20080522  # version 3 of their form: two words for each of three sets
MOUNT_SETATTR = 442  # the call's number is the same on all architectures; Linux 5.12
READ_ONLY, NO_SUID, NO_DEVICES, RECURSIVE_ATTRIBUTES = 1, 2, 4, 0x8000
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/sys/devices/system/cpu")
ETC = ("passwd", "group", "hosts", "nsswitch.conf", "ld.so.cache", "localtime", "fonts", "alternatives", "mime.types")
DEVICES = ("null", "zero", "full", "random", "urandom")


def main(policy: dict[str, Any], begin: Callable[[], None]) -> int:
    """Begin in a box as the policy says: `begin` does not return. Returns the exit code."""
    for group in policy["groups"]:
        Path(group).write_text(str(os.getpid()))
    if not policy["namespaces"]:
        _become(policy, begin)
    _unshare()
    watcher = os.getpid()
    if first := os.fork():
        return _outcome(first)
    call("prctl", PR_PARENT_DEATH, signal.SIGKILL)  # with it dies the whole namespace
    if os.getppid() not in (0, watcher):
        return 1
    _enter(Path(policy["scratch"]), policy["sees"], policy["hides"], policy["disk"])
    if policy["uid"] is not None:
        _give(Path(policy["scratch"]), policy["uid"])
    if command_pid := os.fork():
        return _outcome(command_pid)
    os.setsid()  # what it starts belongs to it, and can be stopped with it
    _become(policy, begin)
    return 1


def read(path: str) -> dict[str, Any]:
    """A policy."""
    policy: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return policy


def call(name: str, *args: Any) -> None:
    """A function of the C library. Raises OSError if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    given = [os.fsencode(arg) if isinstance(arg, str | Path) else arg for arg in args]
    if getattr(libc, name)(*given) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}", *(str(arg) for arg in args[:1]))


def _unshare() -> None:
    """New namespaces. An ordinary user gets a user namespace, too, in which the other five are theirs to make."""
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", sum(flag for name, flag in NEW.items() if uid or name != "user"))
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _enter(scratch: Path, sees: list[str], hides: list[str], disk: str) -> None:
    """A new root: the system and `sees` to read but for `hides`, and a copy of the scratch folder to write to.

    That copy is in memory, with a limit on its bytes and on the number of its files (`disk`).
    """
    call("mount", "none", "/", None, RECURSIVE | PRIVATE, None)
    root = scratch / "root"
    root.mkdir()
    call("mount", "tmpfs", root, "tmpfs", 0, b"size=16m,nr_inodes=4k,mode=755")
    for path in [*SYSTEM, *(f"/etc/{name}" for name in ETC), *sorted(sees)]:
        _show(path, root)
    for path in hides:
        if (hidden := root / path.lstrip("/")).is_dir():
            call("mount", "none", hidden, "tmpfs", NO_SUID | READ_ONLY, None)
    inner = root / str(scratch).lstrip("/")
    inner.mkdir(parents=True)
    call("mount", "tmpfs", inner, "tmpfs", NO_SUID | NO_DEVICES, f"{disk},mode=755")
    shutil.copytree(scratch, inner, dirs_exist_ok=True, ignore=lambda at, names: ["root"] if at == str(scratch) else [])
    for device in DEVICES:
        _show(f"/dev/{device}", root, writable=True)
    for name, target in (("dev/fd", "/proc/self/fd"), ("tmp", f"{scratch}/tmp")):
        if not (root / name).exists():
            (root / name).symlink_to(target)
    (root / "dev/shm").mkdir()
    call("mount", "tmpfs", root / "dev/shm", "tmpfs", 0, b"size=64m,nr_inodes=1k,mode=1777")
    (root / "proc").mkdir()
    call("mount", "proc", root / "proc", "proc", 0, None)
    if os.geteuid():
        (root / "proc/sys/user/max_user_namespaces").write_text("0")  # none inside this one
    os.chdir(root)
    call("pivot_root", ".", ".")
    call("umount2", ".", DETACH)
    _fix("/", 0)
    os.chdir("/")


def _show(path: str, root: Path, *, writable: bool = False) -> None:
    place = root / path.lstrip("/")
    if not os.path.lexists(path) or os.path.lexists(place):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.islink(path) and path in SYSTEM:  # /bin is a link to usr/bin on most systems
        place.symlink_to(os.readlink(path))
        return
    if os.path.isdir(path):
        place.mkdir()
    else:
        place.touch()
    call("mount", path, place, None, BIND | (0 if writable else RECURSIVE), None)
    if not writable:
        _fix(place, RECURSIVE_ATTRIBUTES)


def _fix(place: Path | str, recursive: int) -> None:
    """Make it read-only."""
    wanted = (ctypes.c_uint64 * 4)(READ_ONLY | NO_SUID, 0, 0, 0)
    call("syscall", MOUNT_SETATTR, -100, str(place), recursive, ctypes.byref(wanted), ctypes.sizeof(wanted))


def _give(folder: Path, uid: int) -> None:
    os.chown(folder, uid, uid)
    for at, folders, files in os.walk(folder):
        for name in folders + files:
            os.chown(os.path.join(at, name), uid, uid, follow_symlinks=False)


def _become(policy: dict[str, Any], begin: Callable[[], None]) -> None:
    """Limits, no privileges, and then what it is for."""
    for name, value in policy["limits"].items():
        kind = getattr(resource, name, None)
        if kind is not None:
            ceiling = resource.getrlimit(kind)[1]
            hard = value[1] if ceiling == resource.RLIM_INFINITY else min(value[1], ceiling)
            resource.setrlimit(kind, (min(value[0], hard), hard))
    if sys.platform == "linux":
        call("prctl", PR_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if policy["namespaces"]:
        with contextlib.suppress(OSError):  # it ends where the kernel's list of capabilities does
            for capability in range(64):
                call("prctl", PR_DROP_CAPABILITY, capability, 0, 0, 0)
    if policy["uid"] is not None:
        if not policy["namespaces"]:
            _give(Path(policy["scratch"]), policy["uid"])
        os.setgroups([])
        os.setgid(policy["uid"])
        os.setuid(policy["uid"])
    if policy["namespaces"]:
        call("capset", struct.pack("=Ii", CAPABILITIES, 0), bytes(24))
    os.chdir(policy["work"])
    nowhere = os.open(os.devnull, os.O_RDWR)  # what it says, it says as a kernel: the grader's terminal is not its own
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _refuse(bytes.fromhex(policy["filter"]))
    begin()


def _refuse(program: bytes) -> None:
    """The system calls of `seccomp`, where the kernel has such filters."""
    if program:
        steps = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
        with contextlib.suppress(OSError):
            call("prctl", PR_SET_SECCOMP, 2, ctypes.c_char_p(head), 0, 0)


def _outcome(pid: int) -> int:
    """Wait for it. As the namespace's first process we are the parent of every orphan, too."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    given = read(sys.argv[1])
    sys.exit(main(given, lambda: os.execve(sys.argv[2], sys.argv[2:], given["environment"])))
