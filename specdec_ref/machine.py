"""Facts about this machine, for `doctor` and for the caption of every measured table."""

import os
import platform
import subprocess
from pathlib import Path

import torch

__all__ = ["cpu_features", "cpu_name", "machine_line", "memory_gb"]

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
