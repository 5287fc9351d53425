"""The judge's end of the wire: requests to the worker, and what the student's code may ask of the judge meanwhile.

What comes back is plain data. Of the judge's own objects the student's code reaches the methods that are listed here,
and no others.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from math import prod
from types import FunctionType, LambdaType, MethodType
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.plain import ARRAYS, Codec, Counted
from specdec_course.checks.wire import Garbled, Wire, built
from specdec_course.grader.proxies import Ended, Function, Grown, Kernel, Object, stopped_after, told_alone
from specdec_course.grader.sizes import small

__all__ = ["OFFERED", "Remote"]

GRACE_SECONDS = 5.0  # to obey an interrupt
OWN_SECONDS = 120.0  # that the tests may take behind the student's code: they try what explains a mistake
MOST_NUMBERS = 16_000_000  # of a tensor: no message has more bytes
REACHED: dict[str, tuple[str, ...]] = {  # type -> the methods and attributes of the judge's objects
    "specdec_ref.exact._Replay": ("accept", "draw"),
    "specdec_ref.randomness.KeyedRandomness": ("accept", "draw"),
    "specdec_ref.cost_model.VerifyCurve": ("__call__",),
    "specdec_course.checks.metrics._World": ("__call__",),
    "specdec_course.checks.eagle.draft.ToyHead": ("read", "step", "logits", "q_vocab"),
    "specdec_course.capstone.adapter.TargetView": ("score", "keep", "length", "forwards", "vocab_size", "temperature"),
}
OFFERED: dict[str, tuple[str, ...]] = {  # module -> functions that a notebook's cells may call; the judge answers
    "specdec_ref.sampling": ("residual",),
    "specdec_ref.cost_model": ("expected_tau", "speedup"),
    "specdec_ref.exposition": ("exposition", "parse"),
    "specdec_course.checks.ngram": ("look",),
    "specdec_course.checks.metrics": ("record",),
    "specdec_course.checks.production": ("load_rows", "run_of"),
    "specdec_course.capstone.checks": ("toy", "greedy_round"),
}
WITHHELD = {"decoder-tests": ("greedy_round",)}  # while that cell is judged
LATER: dict[str, dict[str, str]] = {  # an exercise's checks -> function -> the cell after which it is answered
    "specdec_course.checks.bottleneck": {"expected_tau": "speedup-tests", "speedup": "speedup-tests"},
    "specdec_course.checks.verification": {"residual": "correction-tests"},
    "specdec_course.checks.ngram": {"look": "lookup-tests"},
    "specdec_course.checks.production": {"exposition": "metrics-tests"},
    "specdec_course.capstone.checks": {"greedy_round": "greedy-tests"},
}


class Remote:
    """The judge's end of the wire. `why_dead()`: what is known of a worker that has ended.

    `offered`: module -> functions that this exercise offers; no others are answered.
    """

    def __init__(
        self, wire: Wire, why_dead: Callable[[], str], offered: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.wire, self._why_dead, self._offered = wire, why_dead, offered or {}
        self.handles: dict[int, Any] = {}  # number -> object of the judge's that the student's code may call
        self.numbers: dict[int, int] = {}  # its id -> number
        self.dropped: list[int] = []  # numbers of the student's objects that no check holds any more
        self.ends, self.cell = 0.0, ""
        self.done: set[str] = set()  # graded cells
        self.later = {name: cell for home in self._offered for name, cell in LATER.get(home, {}).items()}

    @contextmanager
    def within(self, seconds: float | int, cell: str) -> Iterator[None]:
        """The time that one cell has. `cell`: the graded one; what its checks handed out is taken back."""
        self.ends, self.cell, before = time.monotonic() + seconds, cell, len(self.handles)
        try:
            with stopped_after(seconds + OWN_SECONDS):
                yield
        finally:
            for number in range(before + 1, len(self.handles) + 1) if cell else ():
                self.numbers.pop(id(self.handles.pop(number)))
            self.done.add(cell)
            self.cell = ""

    def ask(self, what: str, *message: Any) -> list[Any]:
        """A request, and what comes of it. Raises what the student's code raised, or Ended."""
        if self.dropped and what != "free":
            dropped, self.dropped = self.dropped, []
            self.ask("free", dropped)
        left = self.ends - time.monotonic()
        if left <= 0:
            raise Ended("Stopped", "the tests of this cell took too long together")
        try:
            self.wire.send([what, left, *message])
            while (reply := self.wire.receive(self.ends + GRACE_SECONDS - time.monotonic()))[0] == "ask":
                self.wire.send(self._answer(reply[1:]))
        except TimeoutError:
            raise Ended("Stopped", "it ran longer than a cell may, and could not be interrupted", whole=True) from None
        except Garbled as error:
            raise Ended("Stopped", str(error), whole=True) from None
        except (OSError, EOFError):
            raise Ended("Stopped", self._why_dead(), whole=True) from None
        match reply:
            case ["done", *rest]:
                return rest
            case ["raised", str(name), list(bases), str(text), str(says)]:
                raise _error(name, bases, *(each.encode("utf-8", "replace").decode() for each in (text, says)))
        raise Ended("Stopped", "it sent a message that is none", whole=True)

    def pack(self, *values: Any) -> tuple[Any, list[Any]]:
        """(as JSON, the lists, dicts and tensors in them)."""
        codec = Values(self)
        return codec.pack(list(values)), codec.seen[:-1]  # the list of them all is ours

    def one(self, value: Any) -> Any:
        """As JSON."""
        return Values(self).pack(value)

    def value(self, packed: Any) -> Any:
        """From JSON."""
        return Values(self).unpack(packed)

    def names(self, names: Sequence[str]) -> dict[str, Any]:
        """Those that the notebook has defined, as something to call."""
        try:
            (kinds,) = self.ask("names", list(names))
            return {name: self._made(name, kinds[name]) for name in names if name in kinds}
        except (TypeError, KeyError, ValueError):
            raise Ended("Stopped", "it sent a message that is none", whole=True) from None

    def _made(self, name: str, kind: Any) -> Any:
        match kind:
            case ["function"]:
                return Function(self, ["name", name])
            case ["class"]:
                return type(name, (Object,), {"remote": self, "home": name, "told_alone": told_alone(self, name)})
            case ["kernel"]:
                return Kernel(self, ["name", name])
            case ["object", bool()]:
                (number,) = self.ask("hold", name)
                return Object._of(self, number)
            case ["value", value]:
                return Values(self).unpack(value)
        raise ValueError(kind)

    def call(self, target: list[Any], args: Sequence[Any], kept: list[Any] | None = None) -> Any:
        """What a call gives; what it changed of its arguments is changed here, too."""
        packed, seen = self.pack(*args)
        reply = self.ask("call", target, packed)
        seen = (kept or []) + seen
        if kept is not None:
            kept[:] = [each for each in seen if type(each) is list]
        match reply:
            case [value, list(changed), int(looks)]:
                leaves = [each for each in seen if isinstance(each, Tensor) and each.requires_grad]
                try:
                    for at, new in changed:
                        _change(seen[at], Values(self).unpack(new))
                    Counted.looks[0] += looks
                    return Values(self, leaves).unpack(value)
                except (Garbled, IndexError, TypeError, ValueError, RuntimeError):
                    pass
        raise Ended("Stopped", "it sent data of no known form", whole=True)

    def _answer(self, question: list[Any]) -> list[Any]:
        """What a question of the student's code gets."""
        try:
            return ["told", Values(self).pack(self._answered(question))]
        except Ended as end:
            if end.whole:
                raise
            return ["refused", end.name, str(end)]
        except Exception as error:  # noqa: BLE001  (it is raised over there, where it was caused)
            return ["refused", type(error).__name__, str(error)]

    def _answered(self, question: list[Any]) -> Any:
        def given(packed: Any) -> Any:
            return Values(self, asked=True).unpack(packed)

        match question:
            case ["call", int(number), str(name), args, named] if name in _reached(self.handles.get(number)):
                return getattr(self.handles[number], name)(*small(given(args), _known), **small(given(named), _known))
            case ["get", int(number), str(name)] if name in _reached(self.handles.get(number)):
                return getattr(self.handles[number], name)
            case ["get", int(number), str(name)]:
                raise AttributeError(f"{type(self.handles.get(number)).__name__!r} object has no attribute {name!r}")
            case ["use", str(home), str(name), args, named] if name in self._offered.get(home, ()):
                if name in WITHHELD.get(self.cell, ()):
                    raise PermissionError(f"{name} is not at hand while this task is judged")
                value = getattr(import_module(home), name)(*small(given(args), _known), **small(given(named), _known))
                if self.later.get(name, "") not in {"", *self.done} and not _printed(name, given(args)):
                    raise PermissionError(f"{name} is not at hand before {self.later[name]} have been judged")
                return value  # a check that forbids this function has seen the call, refused or not
            case ["load", where, address, lanes, str(kind)] if kind in ARRAYS:
                return _memory(where).load(given(address), given(lanes), kind)
            case ["store", where, address, lanes, values]:
                return _memory(where).store(given(address), given(lanes), given(values))
        raise PermissionError("that is not at hand while the notebook is graded")


class Values(Codec):
    """Values as they are in the judge."""

    def _unpack_tagged(self, tag: str, rest: list[Any], deep: int) -> Any:
        """Without tensors that have no numbers, and yet so many rows that a list of them fills the memory."""
        if tag in ("tensor", "array"):
            size = prod(max(n, 1) for n in rest[1])
            if size > MOST_NUMBERS:
                raise Garbled("it sent a tensor of an impossible size")
        return super()._unpack_tagged(tag, rest, deep)

    def __init__(self, remote: Remote, leaves: Sequence[Tensor] = (), *, asked: bool = False) -> None:
        super().__init__()
        self.remote, self.leaves, self.asked = remote, leaves, asked

    def pack_other(self, value: Any) -> Any:
        """A handle, for what has methods that the student's code may call."""
        names = _reached(value)
        if not names:
            return None
        number = self.remote.numbers.setdefault(id(value), len(self.remote.handles) + 1)
        self.remote.handles[number] = value
        methods = [name for name in names if name != "__call__" and callable(getattr(type(value), name, None))]
        return ["handle", number, type(value).__name__, methods, "__call__" in names]

    def unpack_other(self, tag: str, rest: list[Any]) -> Any:
        """What it was given comes back."""
        if tag == "handle" and rest and rest[0] in self.remote.handles:
            return self.remote.handles[rest[0]]
        if tag == "callable" and self.asked:
            return Function(self.remote, ["object", int(rest[0])])
        return super().unpack_other(tag, rest)

    def grows(self, value: Tensor) -> Any:
        """Whether a gradient will be asked for."""
        return True if value.requires_grad else None

    def grown(self, tensor: Tensor, how: Any) -> Tensor:
        """A result whose gradient the worker knows."""
        if type(how) is int and self.leaves and tensor.is_floating_point():
            return Grown.apply(tensor, self.remote, how, *self.leaves)  # type: ignore[no-untyped-call, no-any-return]
        return tensor


def _reached(value: Any) -> tuple[str, ...]:
    kind = type(value)
    if kind in (FunctionType, LambdaType, MethodType):
        return ("__call__",)
    return REACHED.get(f"{kind.__module__}.{kind.__qualname__}", ())


def _known(value: Any) -> bool:
    """Whether it is an object of the judge's, or a function of the student's."""
    return isinstance(value, Function) or bool(_reached(value))


def _printed(name: str, given: Any) -> bool:
    """Whether it is the example that exercise 08 prints before its first task."""
    check = import_module("specdec_course.checks.production")
    return name == "exposition" and list(given) == [check.run_of((2, 0, 3)), check.DraftBudget(3)]


def _memory(where: Any) -> Any:
    """What the kernel that runs may reach; nothing if none does."""
    from specdec_ref.kernels import bounds

    x, y, z = map(int, where)
    return bounds.reached((x, y, z))


def _change(old: Any, new: Any) -> None:
    """Make it what it has become over there."""
    if type(old) is list and type(new) is list:
        old[:] = new
    elif type(old) is dict and type(new) is dict:
        old.clear()
        old.update(new)
    elif isinstance(old, Tensor) and isinstance(new, Tensor) and old.shape == new.shape and old.dtype == new.dtype:
        with torch.no_grad():
            old.copy_(new)


def _error(name: str, bases: Sequence[Any], text: str, says: str) -> BaseException:
    """An error of the student's, as far as a check can tell: its builtin type, and what a report says of it."""
    if "Exception" not in bases:
        return Ended(name, text or name)
    if name == "StrayError":
        from specdec_ref.kernels.bounds import StrayError

        return StrayError(text)
    try:
        error = built(bases, text)
    except Garbled as garbled:
        return Ended("Stopped", str(garbled), whole=True)
    error.told = says  # type: ignore[attr-defined]
    return error
