"""The process that a student's notebook runs in: a Python kernel that the operating system holds to limits.

CPU time: at the limit the running cell is interrupted by an error, five seconds later the process is killed. Memory: an
allocation beyond it fails inside the cell. Files: none larger than 100 MB. Wall-clock time is watched from outside
(`submission`). It is no sandbox: the process runs as the user who grades, and can read what that user can read.
"""

import os
import signal
import sys
from types import FrameType

__all__ = ["CPU", "MEMORY", "main"]

CPU, MEMORY = "SPECDEC_GRADE_CPU_SECONDS", "SPECDEC_GRADE_MEMORY_BYTES"
GRACE_SECONDS, FILE_BYTES = 5, 100_000_000


def main() -> None:
    """Set the limits that the environment names, then be an ordinary kernel."""
    _limit(int(os.environ.pop(CPU)), int(os.environ.pop(MEMORY)))
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the watch on wall-clock time remains
        return

    def lower(kind: int, soft: int, hard: int) -> None:
        ceiling = resource.getrlimit(kind)[1]
        hard = hard if ceiling == resource.RLIM_INFINITY else min(hard, ceiling)
        resource.setrlimit(kind, (min(soft, hard), hard))

    signal.signal(signal.SIGXCPU, _out_of_time)
    lower(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + GRACE_SECONDS)
    # On Linux: memory that the process can write. Its address space would also count the libraries of a CUDA build.
    lower(resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS, memory_bytes, memory_bytes)
    lower(resource.RLIMIT_FSIZE, FILE_BYTES, FILE_BYTES)
    lower(resource.RLIMIT_CORE, 0, 0)


def _out_of_time(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError("the notebook has used up its CPU time")


if __name__ == "__main__":
    main()
