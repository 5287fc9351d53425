"""Holds interpreted kernels to the tensors they were given, as `compute-sanitizer` does on a GPU, in sentences.

A stray address reads a neighbour's numbers, or ends the process; here it ends the launch, with a sentence. Rows may be
said to lie further apart than they do: addresses are translated, so that offsets beyond 2^31 are tried without the
memory that they would take. What is loaded is counted by tensor.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from triton.runtime import interpreter

__all__ = ["Memory", "Region", "StrayError", "confined", "reached"]


class StrayError(Exception):
    """A load or store outside of all regions, or far too many of them."""


@dataclass(frozen=True)
class Region:
    """A tensor of one or two dimensions. `pitch`: numbers from row to row, as the kernel is told; else the real one."""

    name: str
    tensor: Tensor
    pitch: int | None = None

    def offsets(self, address: Any) -> tuple[Any, Any, Any]:
        """(inside, row, byte in the row) of each address."""
        size, width = self.tensor.element_size(), self.tensor.shape[-1]
        told = (self.pitch or self.tensor.stride(0)) * size if self.tensor.ndim == 2 else width * size
        row, byte = np.divmod(address - self.tensor.data_ptr(), told)
        rows = len(self.tensor) if self.tensor.ndim == 2 else 1
        return (row >= 0) & (row < rows) & (byte < width * size), row, byte

    def real(self, row: Any, byte: Any) -> Any:
        """Where that byte really lies."""
        step = self.tensor.stride(0) * self.tensor.element_size() if self.tensor.ndim == 2 else 0
        return self.tensor.data_ptr() + row * step + byte


def _translated(regions: Sequence[Region], address: Any, lanes: Any, what: str, loaded: Counter[str]) -> Any:
    real, left = address.copy(), lanes.copy()
    for region in regions:
        inside, row, byte = region.offsets(address)
        inside &= left
        real = np.where(inside, region.real(row, byte), real)
        loaded[region.name] += len(np.unique(address[inside])) if what == "reads" else 0
        left &= ~inside
    if left.any():
        raise StrayError(_sentence(regions, address[left], what))
    return real


def _sentence(regions: Sequence[Region], strays: Any, what: str) -> str:
    x, y, _ = interpreter.interpreter_builder.grid_idx
    who, lanes = f"program ({x}, {y}) {what}", f"{len(strays)} lane{'s' * (len(strays) > 1)}"
    for region in regions:
        wrap = 2**32 * region.tensor.element_size()
        if any(region.offsets(strays + turn * wrap)[0].all() for turn in (-1, 1)):
            return f"{who} {region.name} at an offset that has wrapped around at 2^31: it was computed in 32 bits"
    nearest = min(regions, key=lambda region: int(_distance(region, strays).min()))
    end = "behind the end of a row" if nearest.tensor.ndim == 2 else "behind the end"
    if (strays < nearest.tensor.data_ptr()).all():
        minus_one = nearest.tensor.data_ptr() - nearest.tensor.element_size()
        end = "before the beginning" + ", where -1 points," * bool((strays == minus_one).all())
    return f"{who} {end} of {nearest.name}, with {lanes}"


def _distance(region: Region, strays: Any) -> Any:
    """Bytes to the nearest number of the tensor as it really lies."""
    tensor, start = region.tensor, region.tensor.data_ptr()
    numbers = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return np.maximum(np.maximum(start - strays, strays - start - numbers * tensor.element_size()), 0)


class Memory:
    """What kernels may reach while they are confined. `most`: how many loads, and how many stores."""

    def __init__(self, regions: Sequence[Region], most: int) -> None:
        self.regions, self.most = regions, most
        self.loaded, self._calls = Counter[str](), Counter[str]()

    def held(self, address: Any, lanes: Any, what: str) -> Any:
        """Where these bytes really lie. Raises StrayError."""
        self._calls[what] += 1
        if self._calls[what] > self.most:
            raise StrayError(f"it does not come to an end: a program {what} again and again")
        return _translated(self.regions, address, lanes, what, self.loaded)

    def load(self, address: Any, lanes: Any, kind: str) -> Any:
        """The numbers there, for an interpreter in another process; 0 in lanes that are off."""
        self.held(address, lanes, "reads")
        values = np.zeros(address.shape, dtype=kind)
        for numbers, inside, place in self._places(address, lanes, kind):
            values[inside] = numbers[place]
        return values

    def store(self, address: Any, lanes: Any, values: Any) -> None:
        """Write them."""
        self.held(address, lanes, "writes")
        for numbers, inside, place in self._places(address, lanes, values.dtype.name):
            numbers[place] = values[inside]

    def _places(self, address: Any, lanes: Any, kind: str) -> Iterator[tuple[Any, Any, Any]]:
        """By indices into each tensor, never by address: what another process says is not trusted."""
        left = lanes.copy()
        for region in self.regions:
            inside, row, byte = region.offsets(address)
            inside &= left
            left &= ~inside
            if not inside.any():
                continue
            numbers, size = region.tensor.numpy(), region.tensor.element_size()
            if numbers.dtype.name != kind or (byte[inside] % size).any():
                raise StrayError(f"it takes the numbers of {region.name} for {kind}, and they are {numbers.dtype.name}")
            column = byte[inside] // size
            yield numbers, inside, (row[inside], column) if numbers.ndim == 2 else (column,)


_REACHABLE: ContextVar[Memory] = ContextVar("memory of the launch that runs")


def reached(program: tuple[int, int, int]) -> Memory:
    """The memory of the launch that runs, asked for by this program of another process. Raises if there is none."""
    memory = _REACHABLE.get(None)
    if memory is None:
        raise PermissionError("no kernel is launched")
    interpreter.interpreter_builder.grid_idx = program
    return memory


@contextmanager
def confined(regions: Sequence[Region], most: int = 20_000) -> Iterator[Counter[str]]:
    """Inside, kernels reach these tensors alone, and load `most` times at most; yields numbers loaded, by name."""
    builder, memory = interpreter.interpreter_builder, Memory(regions, most)
    load, store = builder.create_masked_load, builder.create_masked_store

    def held(pointers: Any, mask: Any, what: str) -> Any:
        lanes = np.broadcast_to(mask.data.astype(bool), np.broadcast_shapes(mask.data.shape, pointers.data.shape))
        address = np.broadcast_to(pointers.data, lanes.shape).astype(np.int64)
        real = memory.held(address, lanes, what)
        return interpreter.TensorHandle(real.astype(np.uint64), pointers.dtype)

    def held_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        return load(held(pointers, mask, "reads"), mask, *rest)

    def held_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        return store(held(pointers, mask, "writes"), value, mask, *rest)

    builder.create_masked_load, builder.create_masked_store = held_load, held_store
    token = _REACHABLE.set(memory)
    try:
        yield memory.loaded
    finally:
        _REACHABLE.reset(token)
        del builder.create_masked_load, builder.create_masked_store
