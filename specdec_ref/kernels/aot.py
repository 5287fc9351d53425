"""Compile kernels ahead of time, for GPUs that need not be there, and read what the compiler says of them.

What is compiled is what is launched: `recording` takes the place of the launcher, so types, constants and alignment
come from the very call that would have run. Registers and spills are ptxas's and LLVM's own figures, shared memory is
Triton's. Needs a process without TRITON_INTERPRET: interpreter or compiler is decided when a kernel is decorated.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import type_canonicalisation_dict

from specdec_ref.kernels.launch import LAUNCHER, TARGET

__all__ = ["NO_BFLOAT16", "SHARED_KIB", "TARGETS", "Compiled", "Launch", "compile_for", "pretending", "recording"]

TARGETS = {
    "sm_75": GPUTarget("cuda", 75, 32),  # T4, RTX 20
    "sm_80": GPUTarget("cuda", 80, 32),  # A100
    "sm_86": GPUTarget("cuda", 86, 32),  # A10, RTX 30
    "sm_89": GPUTarget("cuda", 89, 32),  # L4, L40S, RTX 40
    "sm_90": GPUTarget("cuda", 90, 32),  # H100, H200
    "sm_100": GPUTarget("cuda", 100, 32),  # B200
    "sm_120": GPUTarget("cuda", 120, 32),  # RTX 50
    "gfx942": GPUTarget("hip", "gfx942", 64),  # MI300
    "gfx1100": GPUTarget("hip", "gfx1100", 32),  # RX 7900
}
# Shared memory that one block of threads may use, in KiB: CUDA programming guide, "Technical specifications per compute
# capability" (opt-in maximum), and the ISA guides of CDNA 3 and RDNA 3 (LDS per workgroup).
SHARED_KIB = {
    "sm_75": 64, "sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99, "gfx942": 64,
    "gfx1100": 64,
}  # fmt: skip
NO_BFLOAT16 = ("sm_75",)  # no bfloat16 products: `resolve_backend` gives such models to PyTorch


@dataclass(frozen=True)
class Launch:
    """One way a kernel was started: enough to compile it."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[int, ...]
    options: dict[str, Any]

    @property
    def key(self) -> str:
        """Equal for launches that give the same code."""
        return f"{self.kernel.__name__} {self.signature} {self.constants} {self.aligned} {self.options}"


@dataclass(frozen=True)
class Compiled:
    """What the compiler reports for one kernel on one target. None: this target's tools do not say."""

    registers: int | None
    spills: int | None
    shared_bytes: int
    code_bytes: int


@contextmanager
def recording(target: str = "") -> Iterator[dict[str, Launch]]:
    """Collect launches, by key, instead of running them: outputs stay as they were allocated.

    `target`: launch as on this one, if it matters.
    """
    seen: dict[str, Launch] = {}

    def note(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: dict[str, Any]) -> None:
        launch = _describe(kernel, args, constants)
        seen.setdefault(launch.key, launch)

    tokens = LAUNCHER.set(note), TARGET.set(target)
    try:
        yield seen
    finally:
        LAUNCHER.reset(tokens[0])
        TARGET.reset(tokens[1])


@contextmanager
def pretending(target: str) -> Iterator[None]:
    """Triton's own launcher compiles for a GPU that need not be there. Nothing can be run."""
    token = TARGET.set(target)
    triton.runtime.driver.set_active(_Absent(target))
    try:
        yield
    finally:
        TARGET.reset(token)
        triton.runtime.driver._active = None  # `reset_active` would look for a GPU


class _Absent:
    """What Triton asks a driver before it compiles."""

    def __init__(self, target: str) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self.target]

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def _describe(kernel: Any, args: tuple[Any, ...], constants: dict[str, Any]) -> Launch:
    """Types as Triton's own launcher derives them; 16-byte alignment of pointers and sizes likewise."""
    signature, fixed, aligned = {}, {}, []
    for place, name in enumerate(kernel.arg_names):
        value, fitted = args[place] if place < len(args) else constants[name], name not in kernel.do_not_specialize
        if place >= len(args) or value is None or (fitted and isinstance(value, int) and value == 1):
            signature[name], fixed[name] = "constexpr", value
            continue
        if isinstance(value, Tensor):
            signature[name] = "*" + type_canonicalisation_dict[str(value.dtype).removeprefix("torch.")]
            divisible = value.data_ptr() % 16 == 0
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i64" if value >= 2**31 else "i32"
            divisible = fitted and isinstance(value, int) and value % 16 == 0
        aligned += [place] * divisible
    options = {name: value for name, value in constants.items() if name not in kernel.arg_names}
    return Launch(kernel, signature, fixed, tuple(aligned), options)


def compile_for(launch: Launch, target: str) -> Compiled:
    """Compile one recorded launch. Raises whatever the compiler raises."""
    attrs: dict[Any, Any] = {(place,): [["tt.divisibility", 16]] for place in launch.aligned}
    source = ASTSource(launch.kernel, launch.signature, launch.constants, attrs)
    built = triton.compile(source, target=TARGETS[target], options=launch.options)
    if TARGETS[target].backend == "hip":
        text = built.asm["amdgcn"]
        vector, spilled = (_figure(rf"\.{name}:\s+(\d+)", text) for name in ("vgpr_count", "vgpr_spill_count"))
        return Compiled(vector, spilled, built.metadata.shared, len(built.asm["hsaco"]))
    registers, spilled = _resources(built.asm["cubin"])
    return Compiled(registers, spilled, built.metadata.shared, len(built.asm["cubin"]))


def _figure(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def _resources(cubin: bytes) -> tuple[int | None, int | None]:
    """(registers a thread, bytes of local memory it spills to), by the cuobjdump that comes with triton."""
    tool = triton.knobs.nvidia.cuobjdump.path
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=False).stdout
    stack, local = _figure(r"STACK:(\d+)", text), _figure(r"LOCAL:(\d+)", text)  # spilled registers lie on the stack
    return _figure(r"REG:(\d+)", text), None if stack is None or local is None else stack + local
