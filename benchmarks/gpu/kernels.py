"""Step 2: microseconds of every kernel beside the fewest bytes possible, its twin, and torch.compile of the twin."""

import statistics
import time
from collections.abc import Callable
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.journal import Facts
from specdec_ref.kernels import ops
from specdec_ref.kernels.cases import OPS, Case, Shape, make_case
from specdec_ref.kernels.tables import REAL, difference

__all__ = ["DTYPES", "copy_bandwidth", "native_dtype", "units"]

LLAMA: dict[str, int] = {"vocab": 128256, "heads": 8, "group": 4, "head_dim": 128}  # Llama 3.1 8B
SHAPES = {
    "smollm2-batch-1": REAL,
    "llama-batch-1": Shape(batch=1, nodes=8, length=2000, **LLAMA),
    "llama-tree-of-60": Shape(batch=1, nodes=60, length=2000, **LLAMA),
    "llama-batch-32": Shape(batch=32, nodes=5, length=2000, **LLAMA),
    "llama-long-text": Shape(batch=1, nodes=8, length=32000, **LLAMA),
}
TOY = {"toy": Shape(batch=2, nodes=4, vocab=5000, length=20)}
DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}
BOUND_US = 20.0  # a kernel whose fewest bytes take less than this at the copy's bandwidth is not bound by memory


def units(device: str) -> dict[str, Callable[[], Facts]]:
    """The copy's bandwidth, then a unit per shape and operation."""
    shapes = SHAPES if device == "cuda" else TOY
    timed = {
        f"{name}.{op.replace(' ', '-')}": partial(timing, device, op, shape)
        for name, shape in shapes.items()
        for op in OPS
    }
    return {"copy": lambda: {"copy_GBps": copy_bandwidth(device)}, **timed}


def native_dtype(device: str) -> torch.dtype:
    """bfloat16 where the device multiplies it, float16 on older cards, float32 on a CPU."""
    if device != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def microseconds(run: Callable[[], object], device: str, repeats: int = 30) -> float:
    """Median time of one call. On a GPU by events, with the L2 cache overwritten before each."""
    run()
    if device != "cuda":
        started = time.perf_counter()
        run()
        return 1e6 * (time.perf_counter() - started)
    scratch = torch.empty(256 * 2**20, dtype=torch.int8, device=device)
    for _ in range(3):
        run()
    spans = []
    for _ in range(repeats):
        scratch.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        spans.append(1e3 * begin.elapsed_time(end))
    return float(statistics.median(spans))


@lru_cache
def copy_bandwidth(device: str) -> float:
    """GB/s, read and written, of copying one large tensor."""
    source = torch.empty(2**30 if device == "cuda" else 2**22, dtype=torch.int8, device=device)
    goal = torch.empty_like(source)
    return 2e-3 * float(source.numel()) / microseconds(lambda: goal.copy_(source), device)


def timing(device: str, op: str, shape: Shape) -> Facts:
    """One operation. Kernel and twin are compared once more on the way. In half precision; on a CPU in float32."""
    dtype = native_dtype(device)
    case = make_case(op, shape, dtype, device)
    kernel, twin = (microseconds(partial(case.run, ops(side)), device) for side in ("triton", "torch"))
    copy = copy_bandwidth(device)
    floor = 1e-3 * case.least_bytes / copy
    return {
        "op": op, "shape": str(shape), "dtype": DTYPES[dtype], "kernel_us": kernel, "twin_us": twin,
        **compiled(case, device), "floor_us": floor, "of_copy": floor / kernel, "memory_bound": floor > BOUND_US,
        "difference": difference(case.run(ops("torch")), case.run(ops("triton"))),
    }  # fmt: skip


def compiled(case: Case, device: str) -> Facts:
    """The twin under torch.compile, or why there is no figure: its loops over rows may be too much for the compiler."""
    if device != "cuda":
        return {"compiled_us": None, "not_compiled": "dry run"}

    def run(side: ModuleType) -> list[Tensor]:
        return case.run(side)

    whole: Any = partial(torch.compile(run), ops("torch"))
    try:
        return {"compiled_us": microseconds(whole, device, repeats=10)}
    except torch._dynamo.exc.TorchDynamoException as error:
        return {"compiled_us": None, "not_compiled": f"{type(error).__name__}: {error}"[:200]}
