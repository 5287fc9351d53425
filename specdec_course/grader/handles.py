"""Values in the process of a student's notebook: what the judge alone has is a handle, whose calls travel back."""

from collections.abc import Callable, Sequence
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from specdec_course.checks.plain import KNOWN, Codec
from specdec_course.grader.launch import Pointer

if TYPE_CHECKING:
    from specdec_course.grader.worker import Worker

__all__ = ["Handle", "Values", "packed"]


class Values(Codec):
    """Values as they are here: what the judge alone has is a handle, whose calls travel back."""

    def __init__(self, worker: "Worker", leaves: Sequence[Tensor] = (), *, asks: bool = False) -> None:
        super().__init__()
        self.worker, self.leaves, self.asks = worker, leaves, asks

    def pack_other(self, value: Any) -> Any:
        """A handle goes back as the number that it came as."""
        if isinstance(value, Handle):
            return ["handle", value._number]
        return ["callable", self.worker.hold(value)] if self.asks and callable(value) else None

    def unpack_other(self, tag: str, rest: list[Any]) -> Any:
        """A handle, or a tensor of a kernel."""
        if tag == "handle":
            number, name, methods, callable_ = rest
            inside = {each: _method(each) for each in [*methods, *(["__call__"] if callable_ else [])]}
            handle = type(name, (Handle,), inside)
            return handle(self.worker, number)
        if tag == "pointer":
            return Pointer(*rest)
        return super().unpack_other(tag, rest)

    def known(self, name: str) -> Any:
        """Those whose module is not here have their fields, and no more."""
        try:
            return super().known(name)
        except ImportError:
            return _record(name)

    def grows(self, value: Tensor) -> Any:
        """A number by which the judge can ask for the gradient."""
        return self.worker.hold((value, self.leaves)) if self.leaves and value.requires_grad else None

    def grown(self, tensor: Tensor, how: Any) -> Tensor:
        """A leaf, if the judge wants its gradient."""
        return tensor.requires_grad_(True) if how else tensor


class Handle:
    """Something of the judge's: its methods are calls to it."""

    def __init__(self, worker: "Worker", number: int) -> None:
        self._worker, self._number = worker, number

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._worker.ask("get", self._number, name)

    def __deepcopy__(self, memo: Any) -> "Handle":
        return self


def _method(name: str) -> Callable[..., Any]:
    def call(self: Handle, *args: Any, **named: Any) -> Any:
        return self._worker.ask("call", self._number, name, packed(self._worker, args), packed(self._worker, named))

    call.__name__ = name
    return call


def packed(worker: "Worker", value: Any) -> Any:
    """As JSON, for a question: functions too, which the judge may call."""
    return Values(worker, asks=True).pack(value)


RECORDS: dict[str, Any] = {}  # dataclasses of ours whose module is not here


def _record(name: str) -> Callable[..., Any]:
    def build(**given: Any) -> Any:
        if name not in RECORDS:
            RECORDS[name] = make_dataclass(name, list(given), frozen=True, slots=True)
            RECORDS[name].__module__ = KNOWN[name]
        return RECORDS[name](**given)

    return build
