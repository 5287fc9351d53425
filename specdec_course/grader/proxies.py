"""What a student wrote, seen from the judge: functions, classes and kernels whose calls go to the worker and back.

A check calls them as it calls the real ones in a notebook, and it cannot tell the difference.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from specdec_course.grader.remote import Remote

__all__ = ["Ended", "Function", "Grown", "Kernel", "Object", "stopped_after", "told_alone"]


class Ended(BaseException):
    """The cell, or the whole worker, is at its end. `whole`: nothing more can be asked of it."""

    def __init__(self, name: str, why: str, *, whole: bool = False) -> None:
        super().__init__(why)
        self.name, self.whole = name, whole


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raise Ended in this process, too: data that came over the wire may keep the tests themselves busy."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: Any) -> None:
        raise Ended("Stopped", "what it returned keeps the tests busy for too long", whole=True)

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Grown(torch.autograd.Function):
    """The gradient is computed where the result was."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, remote: "Remote", number: int, *leaves: Tensor) -> Tensor:
        """A copy of the result."""
        ctx.remote, ctx.number, ctx.leaves = remote, number, leaves
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        """What the worker says."""
        (packed,) = ctx.remote.ask("grad", ctx.number, ctx.remote.one(slope), list(range(len(ctx.leaves))))
        slopes = [ctx.remote.value(each) for each in packed]
        fits = [
            s if isinstance(s, Tensor) and s.shape == t.shape else None for s, t in zip(slopes, ctx.leaves, strict=True)
        ]
        return None, None, None, *(None if s is None else s.to(t.dtype) for s, t in zip(fits, ctx.leaves, strict=True))


class Function:
    """A function of the student's, or a method, which keeps its `owner` alive."""

    def __init__(self, remote: "Remote", target: list[Any], owner: "Object | None" = None) -> None:
        self._remote, self._target, self._owner = remote, target, owner

    def __call__(self, *args: Any) -> Any:
        """Call it there."""
        return self._remote.call(self._target, args, None if self._owner is None else self._owner._kept)


class Kernel(Function):
    """A Triton kernel: `kernel[grid](...)`, with the tensors of `bounds.confined`."""

    written = False  # whether a cell defines it under `@triton.jit`

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **named: Any) -> None:
            pointers = [_pointer(arg) if isinstance(arg, Tensor) else self._remote.one(arg) for arg in args]
            self._remote.ask(
                "launch", self._target, self._remote.one(grid), ["tuple", pointers], self._remote.one(named)
            )

        return launch


class Object:
    """An object of a class of the student's; the class is a subclass of this, of their name."""

    remote: "Remote"
    home: str

    def __init__(self, *args: Any) -> None:
        packed, _ = self.remote.pack(*args)
        (self._number,) = self.remote.ask("make", self.home, packed)
        self._kept: list[Any] = []

    @classmethod
    def _of(cls, remote: "Remote", number: Any) -> "Object":
        made = cls.__new__(cls)
        made.remote, made._number, made._kept = remote, number, []
        return made

    def __call__(self, *args: Any) -> Any:
        """Call it there."""
        return self.remote.call(["object", self._number], args, self._kept)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "_number" not in vars(self):
            raise AttributeError(name)
        match self.remote.ask("get", self._number, name):
            case [["method"]]:
                return Function(self.remote, ["method", self._number, name], self)
            case [["value", value]]:
                return self.remote.value(value)
        raise Ended("Stopped", "it sent a message that is none", whole=True)

    def __deepcopy__(self, memo: Any) -> "Object":
        (number,) = self.remote.ask("copy", self._number)
        return type(self)._of(self.remote, number)

    def __del__(self) -> None:
        if "_number" in vars(self):
            self.remote.dropped.append(self._number)


def told_alone(remote: "Remote", name: str) -> Any:
    """Asks the worker what `standalone` finds."""

    def told() -> tuple[str, str]:
        match remote.ask("alone", name):
            case [[str(package), str(cell)]]:
                return package[:80], cell[:80]
        raise Ended("Stopped", "it sent a message that is none", whole=True)

    return staticmethod(told)


def _pointer(tensor: Tensor) -> list[Any]:
    return ["pointer", tensor.data_ptr(), str(tensor.dtype).removeprefix("torch.")]
