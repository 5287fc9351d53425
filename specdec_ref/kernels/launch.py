"""The one door to the GPU: every kernel starts through `launch`, so that it can also be compiled or counted instead.

Block sizes live here as well. Vocabulary blocks are wide, since their rows are read once from end to end.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
import triton
from jaxtyping import Int
from torch import Tensor

from specdec_ref.transfer import upload

__all__ = ["INTERPRETED", "LAUNCHER", "TARGET", "VOCAB_BLOCK", "addresses", "few_registers", "launch", "padded"]

VOCAB_BLOCK = 4096
INTERPRETED: bool = triton.knobs.runtime.interpret  # decided when kernels are decorated, that is now

Launcher = Callable[[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]], None]


def _run(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: dict[str, Any]) -> None:
    kernel[grid](*args, **constants)


LAUNCHER: ContextVar[Launcher] = ContextVar("launcher", default=_run)
TARGET: ContextVar[str] = ContextVar(
    "target", default=""
)  # whose launches are recorded, e.g. sm_75; "": ask the device


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Run `kernel` once for every point of `grid`; an empty grid is no launch."""
    if all(grid):
        LAUNCHER.get()(kernel, grid, args, constants)


def few_registers(device: torch.device) -> bool:
    """Whether a product needs a smaller tile on the GPU of these launches: NVIDIA before sm_80, and AMD's RDNA."""
    if TARGET.get() or device.type != "cuda":
        return TARGET.get() in ("sm_75", "gfx1100")
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).startswith(("gfx10", "gfx11", "gfx12"))
    return torch.cuda.get_device_capability(device) < (8, 0)


def padded(count: int, least: int = 1) -> int:
    """The next power of two: what a block's size must be."""
    return max(least, int(triton.next_power_of_2(max(count, 1))))


def addresses(tensors: list[Tensor], like: Tensor) -> Int[Tensor, " tensors"]:
    """Where tensors lie, as one tensor: a kernel reaches many buffers without copying them together first."""
    return upload(torch.tensor([buffer.data_ptr() for buffer in tensors]), like.device)
