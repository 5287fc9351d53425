"""Step 1: do the kernels give their twins' answers on this device? The self-test, then the tests marked `gpu`."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.gpu.journal import Facts
from specdec_ref.kernels.verdicts import in_child

__all__ = ["units"]

ROOT = Path(__file__).parents[2]
TESTS = "tests/benchmarks/test_gpu.py"


def units(device: str) -> dict[str, Callable[[], Facts]]:
    """A unit per number format, and the tests. A CPU has the interpreter, and one format is enough to try the way."""
    formats = [torch.float16, torch.float32]
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        formats.append(torch.bfloat16)
    chosen = formats if device == "cuda" else [torch.float32]
    seeds = 4 if device == "cuda" else 1
    return {
        **{f"selftest-{str(f).removeprefix('torch.')}": partial(selftest, device, f, seeds) for f in chosen},
        "tests": tests,
    }


def selftest(device: str, dtype: torch.dtype, seeds: int) -> Facts:
    """The verdict, and the wall-clock time with an empty and with a filled compile cache.

    `compiling`: the part of `seconds_cold` in which kernels were compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {"TRITON_CACHE_DIR": folder}
        limit = None if device == "cuda" else 900.0  # the interpreter takes its time
        cold = in_child(device, dtype, seeds=seeds, environment=environment, limit=limit)
        warm = in_child(device, dtype, seeds=seeds, environment=environment) if device == "cuda" else cold
    return {"passed": cold.passed, **asdict(cold), "seconds_cold": cold.seconds, "seconds_warm": warm.seconds}


def tests() -> Facts:
    """`pytest -m gpu` in a process of its own: how many passed, failed and were skipped."""
    if find_spec("pytest") is None:
        return {"error": "pytest is not installed here, and vendor/ does not hold it"}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", "-p", "no:cacheprovider", TESTS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=420)
    last = run.stdout.strip().splitlines()[-1:] or [run.stderr[-300:]]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last[0])}
    reasons = sorted(set(re.findall(r"SKIPPED \[\d+\] [^:]+:\d+: (.*)", run.stdout)))
    failures = re.findall(r"^FAILED (.*)", run.stdout, re.M)
    facts: Facts = {"returncode": run.returncode, **counts, "skipped_because": reasons, "failures": failures}
    return facts if counts else {**facts, "error": (run.stderr or run.stdout)[-1000:]}
