"""The one door to the GPU: every kernel starts through `launch`, so that it can also be compiled or counted instead.

Block sizes live here as well. Vocabulary blocks are wide, since their rows are read once from end to end.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import triton
from jaxtyping import Int
from torch import Tensor

from specdec_ref.transfer import upload

__all__ = [
    "INTERPRETED", "LAUNCHER", "TARGET", "VARYING", "VOCAB_BLOCK", "addresses", "few_registers", "launch", "padded",
    "warm_up",
]  # fmt: skip

VOCAB_BLOCK = 4096
# Arguments that differ between rounds. Triton compiles a kernel again where an integer becomes 1 or a multiple of 16;
# for these that would interrupt a decode and gain nothing, so kernels are declared not to be specialised to them.
VARYING = ("nodes", "words", "picks", "splits", "rows", "moved", "coin_batch", "coin_node")
INTERPRETED: bool = triton.knobs.runtime.interpret  # decided when kernels are decorated, that is now

Launcher = Callable[[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]], None]


def _run(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: dict[str, Any]) -> None:
    with _device_of(args):
        kernel[grid](*args, **constants)


def warm_up(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: dict[str, Any]) -> Any:
    """Compile what a launch with these arguments would run, and run nothing. Returns what Triton made."""
    with _device_of(args):
        return kernel.warmup(*args, grid=grid, **constants)


def _device_of(args: tuple[Any, ...]) -> AbstractContextManager[object]:
    """Makes the GPU of the tensors the current one: Triton compiles and launches for that."""
    device = next((arg.device for arg in args if isinstance(arg, Tensor)), None)
    return torch.cuda.device(device) if device is not None and device.type == "cuda" else nullcontext()


LAUNCHER: ContextVar[Launcher] = ContextVar("launcher", default=_run)
# the target whose launches are recorded, e.g. sm_75; "": ask the device
TARGET: ContextVar[str] = ContextVar("target", default="")


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
