"""Count the bytes a kernel reads and writes, in Triton's interpreter: every load and store passes through here.

A load counts each distinct address once, since lanes that ask for the same word share one transaction; masked lanes
count nothing. What one load fetches and a later one fetches again counts twice: caches are not modelled, so these are
bytes asked of the memory system, an upper bound on what DRAM sees.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from triton.runtime import interpreter

__all__ = ["Traffic", "counting"]


@dataclass
class Traffic:
    """Bytes so far."""

    read: int = 0
    written: int = 0


def _bytes(pointers: Any, mask: Any) -> int:
    asked = np.broadcast_to(pointers.data, mask.data.shape)[mask.data.astype(bool)]
    return len(np.unique(asked)) * int(pointers.get_element_ty().primitive_bitwidth) // 8


@contextmanager
def counting() -> Iterator[Traffic]:
    """Count everything that interpreted kernels load and store inside this block."""
    traffic, builder = Traffic(), interpreter.interpreter_builder
    load, store = builder.create_masked_load, builder.create_masked_store

    def counted_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        traffic.read += _bytes(pointers, mask)
        return load(pointers, mask, *rest)

    def counted_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        traffic.written += _bytes(pointers, mask)
        return store(pointers, value, mask, *rest)

    builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
    try:
        yield traffic
    finally:
        del builder.create_masked_load, builder.create_masked_store
