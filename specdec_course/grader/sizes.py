"""How large an argument may be that a student's code sends to one of the judge's own functions."""

from collections import deque
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import NoneType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec_course.checks.plain import MANY, Opaque

__all__ = ["small"]

PLAIN = (NoneType, float, complex, torch.dtype, BaseException)  # nothing of these is large


def small(value: Any, known: Callable[[Any], bool]) -> Any:
    """Itself, if nothing of it can keep the judge busy for long. `known`: whether an object is one that may be given.

    Raises ValueError for what is too large, and for every kind of value that is not listed here.
    """
    if known(value):
        return value
    if isinstance(value, np.generic):
        small(value.item(), known)
    elif isinstance(value, int):
        _within(abs(value), 100 * MANY, value)
    elif isinstance(value, str | bytes):
        _within(len(value), 100 * MANY, value)
    elif isinstance(value, Tensor | np.ndarray):
        _within(value.numel() if isinstance(value, Tensor) else value.size, 100 * MANY, value)
    elif isinstance(value, range):
        _within(len(value), MANY, value)
        small([*value[:1], *value[-1:]], known)
    elif isinstance(value, list | tuple | set | frozenset | deque):
        _within(len(value), MANY, value)
        for each in value:
            small(each, known)
    elif isinstance(value, dict):
        small(list(value.items()), known)
    elif isinstance(value, SimpleNamespace):
        small(vars(value), known)
    elif is_dataclass(value):
        small([getattr(value, each.name) for each in fields(value)], known)
    elif isinstance(value, Opaque):
        small(list(value) if hasattr(value, "__iter__") else None, known)
    elif not isinstance(value, PLAIN):
        raise ValueError(f"a {type(value).__name__} is nothing that can be given here")
    return value


def _within(size: int, most: int, value: Any) -> None:
    if size > most:
        raise ValueError(f"a {type(value).__name__} of this size is too large here")
