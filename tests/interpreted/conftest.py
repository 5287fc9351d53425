"""These tests run kernels in Triton's interpreter, in a process of their own: `tests/reference/test_kernels.py` starts it.

By hand:  TRITON_INTERPRET=1 pytest tests/interpreted
"""

from typing import Any

import pytest
from triton.runtime.interpreter import InterpretedFunction


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """numpy warns where the kernels mean IEEE arithmetic: log 0, inf - inf in lanes that are not used."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))


_original = InterpretedFunction.__call__


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """A call of one kernel function by another maps `tl` to numpy anew, which the launch has done: half of the time."""
    ours = function.fn.__module__.startswith(("specdec_ref", "planted"))
    return function.rewrite()(*args, **kwargs) if ours else _original(function, *args, **kwargs)


InterpretedFunction.__call__ = _call
