"""Facts about this machine, for `doctor` and for the caption of every measured table."""

import os
import platform
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

__all__ = ["cpu_features", "cpu_name", "crowded", "machine_line", "memory_gb", "thread_advice"]

_FEATURES = (  # what decides how fast a matrix product is: torch's name of it, the name people know
    ("avx2", "AVX2"), ("avx512_f", "AVX512"), ("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX-BF16"),
    ("neon", "NEON"), ("bf16", "Arm BF16"), ("sve", "SVE"),
)  # fmt: skip


def cpu_name() -> str:
    """The processor's marketing name, as far as the system tells."""
    try:
        if platform.system() == "Darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].replace("(R)", "").replace("(TM)", "").split())
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Which of the features that matter PyTorch sees; its own summary where it lists none."""
    listed: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # absent from older releases
    found = [name for key, name in _FEATURES if listed.get(key)]
    return found or [torch.backends.cpu.get_cpu_capability()]


def memory_gb() -> float | None:
    """Physical memory in GB; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, ValueError, OSError):
        return None


def machine_line(device: torch.device) -> str:
    """Processor, cores and threads in one line."""
    cores = ", ".join(
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((os.cpu_count() or 1, "core"), (torch.get_num_threads(), "thread"))
    )
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {cpu_name()}, {cores}"
    return f"{cpu_name()}, {cores}"


def _product_seconds(threads: int, passes: int = 8) -> float:
    """Seconds of a few matrix products of a small model's size on so many threads."""
    before = torch.get_num_threads()
    weight, rows = torch.ones(1536, 576, dtype=torch.bfloat16), torch.ones(4, 576, dtype=torch.bfloat16)
    try:
        torch.set_num_threads(threads)
        started = perf_counter()
        for _ in range(passes):
            torch.nn.functional.linear(rows, weight)
        return perf_counter() - started
    finally:
        torch.set_num_threads(before)


def crowded(seconds: Callable[[int], float] = _product_seconds, *, trials: int = 5) -> bool:
    """Whether torch's threads take twice as long together as one alone, because other programs have the cores.

    All threads of a product wait for the last one. Where another program keeps that one from its core, the others wait
    as well: a product of 0.1 ms then takes 1 to 30 ms. On an idle machine the answer takes about 10 ms.
    """
    threads = torch.get_num_threads()
    pairs = [(seconds(threads), seconds(1)) for _ in range(trials)]
    return threads > 1 and median(many for many, _ in pairs) > 2 * median(one for _, one in pairs)


@cache
def thread_advice() -> str | None:
    """A sentence for somebody whose machine is busy, measured once per process; None if there is nothing to advise.

    Nothing is advised if OMP_NUM_THREADS is set, since the number of threads was then chosen.
    """
    threads = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or threads == 1 or not crowded():
        return None
    return f"other programs use this machine: one thread would be faster than {threads}"
