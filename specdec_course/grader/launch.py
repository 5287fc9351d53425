"""A Triton kernel of a student's, interpreted in their process, with the memory in the judge's.

The judge holds the tensors, so it counts what is read and finds who strays; here a tensor is an address and a dtype.
Nothing is imported from Triton before a kernel is launched: the notebook says first that it is to be interpreted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from specdec_course.checks.plain import Codec

__all__ = ["Pointer", "launched"]


class Pointer:
    """What Triton's interpreter asks of a tensor, without one."""

    def __init__(self, address: int, dtype: str) -> None:
        self.address, self.dtype = address, getattr(torch, dtype)

    def data_ptr(self) -> int:
        """The judge's."""
        return self.address

    def untyped_storage(self) -> "Pointer":
        """Itself: there is nothing to copy."""
        return self

    def cpu(self) -> "Pointer":
        """It is there."""
        return self

    def new_empty(self, *shape: Any, **options: Any) -> "Pointer":
        """The interpreter makes a second tensor of the same memory."""
        return self

    def nothing(self, *args: Any) -> int:
        """Shapes and copies mean nothing here."""
        return 0

    set_ = copy_ = storage_offset = size = stride = nothing


@contextmanager
def launched(ask: Callable[..., Any]) -> Iterator[None]:
    """Inside, each load and store of the interpreter is a question to the judge."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder

    def packed(pointers: Any, mask: Any) -> tuple[list[int], list[Any]]:
        lanes = np.broadcast_to(mask.data.astype(bool), np.broadcast_shapes(mask.data.shape, pointers.data.shape))
        address = np.broadcast_to(pointers.data, lanes.shape).astype(np.uint64).astype(np.int64)
        return list(builder.grid_idx), [Codec().pack(np.array(each)) for each in (address, lanes)]

    def load(pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
        element = pointers.get_element_ty()
        kind = interpreter._get_np_dtype(element)
        where, memory = packed(pointers, mask)
        values = ask("load", where, *memory, np.dtype(kind).name)
        lanes = np.broadcast_to(mask.data.astype(bool), values.shape)
        rest_ = (
            np.zeros_like(values) if other is None else np.broadcast_to(other.data, values.shape).astype(values.dtype)
        )
        return interpreter.TensorHandle(np.where(lanes, values, rest_), element)

    def store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        where, memory = packed(pointers, mask)
        kind = np.dtype(interpreter._get_np_dtype(pointers.get_element_ty()))
        data = np.array(np.broadcast_to(value.data, np.broadcast_shapes(value.data.shape, pointers.data.shape)))
        ask("store", where, *memory, Codec().pack(data.astype(kind)))

    builder.create_masked_load, builder.create_masked_store = load, store
    try:
        yield
    finally:
        del builder.create_masked_load, builder.create_masked_store
