"""How much memory a command takes: the largest resident set of its process, beside that of Python with torch alone.

    python -m benchmarks.memory > specdec_ref/bench/rows/memory.jsonl

Each command runs in a process of its own. Its children are not counted. Linux and macOS. A JSON object a line.
"""

import os
import shlex
import subprocess
import sys
from typing import IO, cast

import torch

from benchmarks.command import print_row
from specdec_ref.machine import machine_line

__all__ = ["COMMANDS", "main", "peak_mb"]

SHORT = "'Name three colours.' --max-new-tokens 16"
COMMANDS = {
    "Python, torch and transformers imported": "-c 'import torch, transformers.models.llama.modeling_llama'",
    "generate, float32": f"-m specdec_ref generate {SHORT} --dtype float32",
    "generate, bfloat16": f"-m specdec_ref generate {SHORT} --dtype bfloat16",
    "generate --check, bfloat16": f"-m specdec_ref generate {SHORT} --dtype bfloat16 --check",
    "demo, float32": "-m specdec_ref demo --dtype float32 --max-new-tokens 16",
    "bench --quick, float32": "-m specdec_ref bench --quick --dtype float32 --tokens 16",
    "doctor": "-m specdec_ref doctor",
    "train eagle, tiny preset": "-m specdec_ref train eagle --preset tiny",
}


def peak_mb(command: str) -> float:
    """MB of the command's largest resident set. Raises RuntimeError with the end of its stderr if it fails."""
    words = [sys.executable, *shlex.split(command)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = cast("IO[str]", process.stderr).read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"python {command}: {said[-500:]}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> int:
    """The command of the module docstring."""
    print_row(
        {
            "command": "python -m benchmarks.memory",
            "machine": machine_line(torch.device("cpu")),
            "torch": torch.__version__,
        }
    )
    for name, command in COMMANDS.items():
        print_row({"what": name, "peak_mb": peak_mb(command)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
