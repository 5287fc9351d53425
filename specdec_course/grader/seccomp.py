"""The system calls that code in a box is refused, as a filter in the kernel (Linux, x86-64 and 64-bit ARM).

Those that make namespaces or mounts, since inside those the limits of the box would not hold; memory that no limit
counts (`memfd_create`, System V segments, which outlive their process); and large parts of the kernel that no notebook
needs and that have often been the way out of a sandbox. They fail with EPERM.
"""

import platform
import struct
import sys

__all__ = ["program"]

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OLD = {  # call -> its number on x86-64 and on 64-bit ARM
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "perf_event_open": (298, 241), "bpf": (321, 280), "userfaultfd": (323, 282),
    "memfd_create": (319, 279), "open_by_handle_at": (304, 265), "personality": (135, 92), "acct": (163, 89),
    "swapon": (167, 224), "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104),
}  # fmt: skip
# io_uring (three), pidfd_getfd, open_tree to fspick, mount_setattr, memfd_secret: numbers are the same everywhere
NEW = (425, 426, 427, 438, 428, 429, 430, 431, 432, 433, 442, 447)
CLONE, CLONE3 = (56, 220), 435
NAMESPACES = 0x7E020080  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET and TIME
LOAD, EQUAL, AT_LEAST, ANY, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


def program() -> str:
    """The filter as `box` installs it, in hexadecimal; "" for a machine whose numbers are not here."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        return ""
    return b"".join(struct.pack("=HBBI", *step) for step in _steps(machine)).hex()


def _steps(machine: str) -> list[tuple[int, int, int, int]]:
    """(what to do, steps to skip if so, if not, with what): see `man 2 seccomp`."""
    which = list(ARCHITECTURES).index(machine)
    refused = [numbers[which] for numbers in OLD.values()] + list(NEW)
    steps = [
        (LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCHITECTURES[machine]), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0), (AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL),  # x86-64's second set of numbers
        (EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ENOSYS),  # its flags lie in memory; the C library then takes `clone`
    ]  # fmt: skip
    for number in refused:
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, EPERM)]
    steps += [(EQUAL, 0, 3, CLONE[which]), (LOAD, 0, 0, 16), (ANY, 0, 1, NAMESPACES), (RETURN, 0, 0, EPERM)]
    return [*steps, (RETURN, 0, 0, ALLOW)]
