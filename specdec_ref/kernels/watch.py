"""Record which numbers each program of a kernel loads and stores, lane by lane, in Triton's interpreter.

with watching(x=x, out=out) as accesses:
    kernel[grid](x, out, ...)
accesses[0]                        # program (0, 0, 0) loads x at offsets 0, 1, 2, 3
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from triton.runtime import interpreter

__all__ = ["SECTOR", "WARP", "Access", "owners", "sectors", "watching"]

WARP, SECTOR = 32, 32  # threads of a warp; bytes that a GPU's memory hands out at once


@dataclass(frozen=True)
class Access:
    """One load or store of one program. `offsets`: from the tensor's first number; `active`: not masked."""

    program: tuple[int, int, int]
    kind: str  # "load" or "store"
    name: str
    offsets: Any
    active: Any
    size: int  # bytes of a number


@contextmanager
def watching(**tensors: Tensor) -> Iterator[list[Access]]:
    """Collect all accesses to these contiguous tensors inside this block, in order."""
    seen: list[Access] = []
    builder = interpreter.interpreter_builder
    load, store = builder.create_masked_load, builder.create_masked_store

    def note(kind: str, pointers: Any, mask: Any) -> None:
        active = np.broadcast_to(mask.data.astype(bool), np.broadcast_shapes(pointers.data.shape, mask.data.shape))
        address = np.broadcast_to(pointers.data, active.shape).astype(np.int64)
        for name, tensor in tensors.items():
            offsets = (address - tensor.data_ptr()) // tensor.element_size()
            inside = active & (offsets >= 0) & (offsets < tensor.numel())
            if inside.any():
                seen.append(Access(builder.grid_idx, kind, name, offsets, active, tensor.element_size()))

    def noted_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        note("load", pointers, mask)
        return load(pointers, mask, *rest)

    def noted_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        note("store", pointers, mask)
        return store(pointers, value, mask, *rest)

    builder.create_masked_load, builder.create_masked_store = noted_load, noted_store
    try:
        yield seen
    finally:
        del builder.create_masked_load, builder.create_masked_store


def owners(accesses: Sequence[Access], shape: tuple[int, int], numbers: Sequence[int] | None = None) -> Any:
    """A grid like the tensor: the number of the access that touched each place last, or -1. `numbers`: use these."""
    grid = np.full(shape[0] * shape[1], -1)
    for number, access in zip(numbers if numbers is not None else range(len(accesses)), accesses, strict=True):
        grid[access.offsets[access.active]] = number
    return grid.reshape(shape)


def sectors(access: Access) -> int:
    """Blocks of 32 bytes that the memory has to hand out, warp by warp: neighbouring lanes share them."""
    at, active = access.offsets.ravel() * access.size // SECTOR, access.active.ravel()
    warps = range(0, len(at), WARP)
    return sum(len(np.unique(at[start : start + WARP][active[start : start + WARP]])) for start in warps)
