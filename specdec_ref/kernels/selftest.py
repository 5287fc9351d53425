"""Run every kernel against its torch twin on one device: `python -m specdec_ref.kernels.selftest --device cuda:0`.

Inputs are random trees from fixed seeds, half of them with NaN, -inf, a coin of 0 and a tail that must not be read.
An input is used only if its answer stays the same when coins and thresholds move by 2e-5 of their size. The rounding
of `exp`, `log` and running sums therefore cannot change it, and integers are compared exactly.

All kernels are compiled first, several at a time, since that takes most of the time. `--compile-for sm_89` ends there:
it needs no GPU, and measures what the first use of such a GPU adds on this CPU.

`verdicts.py` runs this in a process of its own, so a crash or an endless loop in a kernel ends only that process.
On stdout: a line before each check, then the outcome as JSON. Times are in seconds.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor

from specdec_ref.kernels import ops
from specdec_ref.kernels.cases import OPS, Case, Shape, make_case
from specdec_ref.kernels.tables import DTYPES, TOLERANCE, difference

__all__ = ["checks", "compile_ahead", "find_fault"]

NUDGE = 2e-5  # float32 sums of 5000 terms differ by a few 1e-7 between orders; `exp` and `log` on GPUs by about 1e-6
SHAPES = (Shape(batch=3, nodes=11, vocab=5003, length=150, head_dim=64),)
WIDE = Shape(batch=2, nodes=70, vocab=131, length=30, head_dim=64)  # two words of bits a node
LONG = Shape(batch=2, nodes=11, vocab=7, length=1300, head_dim=64)  # a prefix in three chunks
MORE = {"links": (WIDE,), "attention": (WIDE, LONG)}


def checks(
    dtype: torch.dtype, device: str, operations: Sequence[str] = OPS, seeds: int = 4
) -> Iterator[tuple[str, Case]]:
    """(name, case): `seeds` cases for each operation and shape, every other one hard."""
    for op in operations:
        for shape in (*SHAPES, *MORE.get(op, ())):
            kinds = (False,) if op in ("floors", "gather", "links") else (False, True)
            for kind in kinds:
                build = partial(make_case, op, shape, dtype, hard=kind)
                settled = (seed for seed in count() if _settled(partial(build, seed=seed)))
                for seed in islice(settled, -(-seeds // len(kinds))):
                    yield f"{op} ({'hard' if kind else 'plain'}, {shape.nodes} nodes)", build(device, seed=seed)


def _settled(build: Callable[..., Case]) -> bool:
    """Whether the twin's answer stays the same when coins and thresholds move a little."""
    twin = ops("torch")
    first, *others = (build(nudge=nudge).run(twin) for nudge in (0.0, -NUDGE, NUDGE))
    return all(difference(first, other) == 0.0 for other in others)


def compile_ahead(cases: Iterable[tuple[str, Case]]) -> tuple[str, int]:
    """(the first kernel that does not compile, or "", and the number of compiled variants) of all that these launch.

    Several are compiled at a time: most of the work is LLVM's and ptxas's, which hold no lock of Python's. Nothing is
    launched. Triton's interpreter compiles nothing.
    """
    from triton import AsyncCompileMode

    from specdec_ref.kernels.launch import INTERPRETED, LAUNCHER, warm_up

    if INTERPRETED:
        return "", 0
    begun: dict[int, tuple[str, Any]] = {}

    def begin(kernel: Any, *launch: Any) -> None:
        built = warm_up(kernel, *launch)
        begun.setdefault(id(built), (kernel.__name__, built))

    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        token = LAUNCHER.set(begin)
        try:
            with AsyncCompileMode(pool, ignore_errors=True):
                for _, case in cases:
                    case.run(ops("triton"))
        finally:
            LAUNCHER.reset(token)
    for name, built in begun.values():
        if error := built.future.exception():
            last = str(error).strip().splitlines()[-1:]
            return f"{name} does not compile: {type(error).__name__}: {''.join(last)[:200]}", len(begun)
    return "", len(begun)


def find_fault(
    cases: Iterable[tuple[str, Case]], dtype: torch.dtype, note: Callable[[str], object] = str
) -> tuple[str, int]:
    """(the first difference between a kernel and its twin, or "", and the number of checks). `note` gets each name."""
    done = 0
    for done, (name, case) in enumerate(cases, 1):
        note(name)
        expected, answer = case.run(ops("torch")), case.run(ops("triton"))
        gap, limit = difference(expected, answer), TOLERANCE[dtype] if case.op == "attention" else 0.0
        if not gap <= limit:
            return f"{name} differs from its twin by {gap:g}, allowed {limit:g}", done
        if not all(map(_same_numbers, expected, answer)):
            return f"{name} differs from its twin in where it is infinite", done
    return "", done


def _same_numbers(ours: Tensor, theirs: Tensor) -> bool:
    return torch.equal(ours.isinf(), theirs.isinf())


def main() -> None:
    """Run the checks of one device and number format; the exit code is 0 if they ran, whatever they found."""
    parser = argparse.ArgumentParser(prog="python -m specdec_ref.kernels.selftest", description=__doc__)
    parser.add_argument("--device", default="cuda", help="where to run the kernels (default cuda)")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of logits, keys and values")
    parser.add_argument("--seeds", type=int, default=4, help="cases per operation and shape (default 4)")
    parser.add_argument("--compile-for", metavar="TARGET", help="compile for this GPU and run nothing, e.g. sm_89")
    chosen = parser.parse_args()
    dtype, device = DTYPES[chosen.dtype], "cpu" if chosen.compile_for else chosen.device

    def note(name: str) -> None:
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()

    torch.set_num_threads(1)  # the inputs are small; on a busy machine threads would wait for each other
    note("start")
    begun = time.perf_counter()
    cases = list(checks(dtype, device, seeds=chosen.seeds))
    ready = time.perf_counter()
    note("compiling")
    with _compiling_for(chosen.compile_for):
        fault, variants = compile_ahead(cases)
    compiled, done = time.perf_counter(), 0
    if not (fault or chosen.compile_for):
        fault, done = find_fault(cases, dtype, note)
    found = {
        "fault": fault, "checks": done, "variants": variants, "inputs": ready - begun, "compiling": compiled - ready,
        "checking": time.perf_counter() - compiled,
    }  # fmt: skip
    note(json.dumps({name: round(value, 2) if isinstance(value, float) else value for name, value in found.items()}))
    os._exit(0)  # a driver that hangs while the process ends must not turn the outcome into a failure


@contextmanager
def _compiling_for(target: str | None) -> Iterator[None]:
    """With a target, let Triton compile for it, with an empty cache."""
    if not target:
        yield
        return
    from specdec_ref.kernels.aot import pretending

    with tempfile.TemporaryDirectory() as folder, pretending(target):
        os.environ["TRITON_CACHE_DIR"] = folder
        yield


if __name__ == "__main__":
    main()
