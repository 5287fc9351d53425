"""What can be proven of the kernels on a machine without a GPU, as three tables: equal, compiled, bytes.

    equal      each kernel in Triton's interpreter against its twin: operations x number formats, over odd shapes
    compiled   every kernel built for GPUs of four kinds: registers, spills, shared memory
    bytes      counted loads and stores against the fewest that the answer can be had with

`python -m specdec_ref.kernels` prints them. Equality and bytes need TRITON_INTERPRET=1, compilation a process without
it.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from specdec_ref.kernels import ops
from specdec_ref.kernels.cases import OPS, Shape, make_case

__all__ = [
    "DTYPES", "LONG", "REAL", "SHAPES", "TOLERANCE", "WIDE", "byte_table", "compiled_table", "difference",
    "equality_table", "matrix", "render",
]  # fmt: skip

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Attention's answers are below 4 in size; both sides sum in float32, each in its own order, and round to the format at
# hand: one unit in the last place there, a few hundred in float32's own.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}
SHAPES = (
    Shape(batch=1, nodes=1, vocab=7, length=0, head_dim=8),
    Shape(batch=3, nodes=5, vocab=97, length=33, group=1),
    Shape(batch=2, nodes=9, vocab=4097, length=130, head_dim=80),
    Shape(batch=2, nodes=3, vocab=8191, length=64, heads=1, group=9, head_dim=64),
    Shape(batch=0, nodes=2, vocab=50),
)
LONG = Shape(batch=3, nodes=5, vocab=7, length=1700, head_dim=24)  # a prefix in four chunks, one in three, one in one
WIDE = Shape(batch=1, nodes=70, vocab=131, length=5)  # two words of bits, two blocks of rows
REAL = Shape(batch=2, nodes=5, vocab=49152, length=300, heads=3, group=3, head_dim=64)  # SmolLM2-135M
CUT = ("tree", "chain", "chain q", "chain q race")  # their hard cases have floors, which other variants read
DEEP = Shape(batch=1, nodes=60, vocab=128256, length=2000, heads=8, group=4, head_dim=128)  # Llama 3.1 8B, one row


def equality_table(
    shapes: Sequence[Shape] = (*SHAPES, WIDE, LONG),
    seeds: int = 2,
    operations: Sequence[str] = OPS,
    dtypes: Sequence[str] = tuple(DTYPES),
) -> list[dict[str, Any]]:
    """One row an operation and number format. `difference`: largest absolute one; integers must agree exactly."""
    rows = []
    for op in operations:
        for name, dtype in ((name, DTYPES[name]) for name in dtypes):
            cases = [make_case(op, shape, dtype, seed=seed) for shape in shapes for seed in range(seeds)]
            worst = max(difference(case.run(ops("torch")), case.run(ops("triton"))) for case in cases)
            limit = TOLERANCE[dtype] if op == "attention" else 0.0
            rows.append(
                {
                    "op": op,
                    "dtype": name,
                    "cases": len(cases),
                    "difference": worst,
                    "limit": limit,
                    "equal": worst <= limit,
                }
            )
    return rows


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest absolute difference; infinite if shapes, types or NaN places differ."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype or not torch.equal(a.isnan(), b.isnan()):
            return float("inf")
        gap = (a.double() - b.double()).nan_to_num().abs()
        worst = max(worst, float(gap.max()) if gap.numel() else 0.0)
    return worst


def byte_table(shapes: Iterable[Shape] = (REAL,), dtype: torch.dtype = torch.bfloat16) -> list[dict[str, Any]]:
    """One row an operation: bytes read and written, and the fewest possible."""
    from specdec_ref.kernels.traffic import counting

    rows = []
    for shape in shapes:
        for op in OPS:
            case = make_case(op, shape, dtype)
            with counting() as traffic:
                case.run(ops("triton"))
            total = traffic.read + traffic.written
            rows.append(
                {
                    "op": op,
                    "shape": str(shape),
                    "read": traffic.read,
                    "written": traffic.written,
                    "least": case.least_bytes,
                    "ratio": total / case.least_bytes,
                }
            )
    return rows


def compiled_table(targets: Sequence[str] = (), dtypes: Sequence[str] = tuple(DTYPES)) -> list[dict[str, Any]]:
    """One row a variant of a kernel, number format and target, compiled from the launches that the operations make.

    `seconds`: CPU time of compiling it, nearly none if Triton's cache holds it. `fits`: in the target's shared memory.
    """
    from specdec_ref.kernels.aot import NO_BFLOAT16, SHARED_KIB, TARGETS, compile_for, recording

    rows = []
    for name, dtype in ((name, DTYPES[name]) for name in dtypes):
        cases = [*(make_case(op, REAL, dtype) for op in OPS), make_case("attention", DEEP, dtype)]  # and heads of 128
        cases += [make_case(op, REAL, dtype, hard=True) for op in CUT]
        for target in targets or TARGETS:
            if name == "bfloat16" and target in NO_BFLOAT16:
                continue
            with recording(target) as launches:
                for case in cases:
                    case.run(ops("triton"))
            for launch in launches.values():
                started = _cpu_seconds()
                built = compile_for(launch, target)
                rows.append(
                    {
                        "kernel": launch.kernel.__name__.strip("_"),
                        "dtype": name,
                        "target": target,
                        "registers": built.registers,
                        "spills": built.spills,
                        "shared_bytes": built.shared_bytes,
                        "fits": built.shared_bytes <= 1024 * SHARED_KIB[target],
                        "code_bytes": built.code_bytes,
                        "seconds": _cpu_seconds() - started,
                    }
                )
    return rows


def _cpu_seconds() -> float:
    """Of this process and of those that it started: ptxas is one."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def matrix(rows: Sequence[dict[str, Any]]) -> str:
    """`compiled_table` as one Markdown table: for each kernel and target the most registers, spills, shared memory.

    The last line has the CPU seconds that compiling took, variants and number formats together.
    """
    targets, kernels = (list(dict.fromkeys(row[name] for row in rows)) for name in ("target", "kernel"))
    lines = [f"| kernel | {' | '.join(targets)} |", "|---" * (len(targets) + 1) + "|"]
    for kernel in kernels:
        cells = (_worst([r for r in rows if (r["kernel"], r["target"]) == (kernel, target)]) for target in targets)
        lines.append(f"| `{kernel}` | {' | '.join(cells)} |")
    spent = (sum(row["seconds"] for row in rows if row["target"] == target) for target in targets)
    lines.append(f"| CPU seconds to compile | {' | '.join(f'{seconds:.0f}' for seconds in spent)} |")
    return "\n".join(lines)


def _worst(rows: Sequence[dict[str, Any]]) -> str:
    """Registers per thread / KiB of shared memory, the largest over the number formats; spilled bytes if any."""
    if not rows:
        return "-"
    registers, spills, shared = (
        max(row[name] or 0 for row in rows) for name in ("registers", "spills", "shared_bytes")
    )
    spilled = ", ".join(sorted({row["dtype"] for row in rows if row["spills"]}))
    cell = f"{registers} / {-(-shared // 1024)}" + (f", {spills} spilled ({spilled})" if spills else "")
    return cell if all(row["fits"] for row in rows) else f"{cell}, **too much shared memory**"


def render(rows: Sequence[dict[str, Any]]) -> str:
    """Plain columns under the keys of the first row."""
    if not rows:
        return "(nothing)"
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
