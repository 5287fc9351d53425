"""The process of a student's notebook: it runs the cells, and calls what they define when the judge asks for it.

The judge (`judge`) is outside, with the tests, what is right, and the marks. Here there are the student's code, IPython,
and of this package little more than the classes of a draft tree: the rest of what the exercise imports is answered from
outside. So nothing here has to be trusted, and nothing is protected: whatever the code does to this process, all that
leaves it is plain data (`wire`), which is right or wrong.
"""

import builtins
import contextlib
import copy
import importlib.abc
import importlib.util
import math
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import make_dataclass
from importlib.machinery import ModuleSpec
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor

from specdec_course.capstone.standalone import alone
from specdec_course.checks.wire import KNOWN, Codec, Counted, Garbled, Wire, sentence
from specdec_course.grader.launch import Pointer, launched
from specdec_course.grader.shell import Shell, Stopped
from specdec_ref import config, core  # noqa: F401  (the classes that notebooks use)

__all__ = ["main"]

PACKAGES = ("specdec_ref", "specdec_course")
GRACE_SECONDS = 5  # of CPU time, between the signal and the end


class Refused(Exception):  # noqa: N818  (an error of the judge's with no builtin type)
    """What the student's code is told where a call to the judge fails."""


class Worker:
    """Serves the judge's requests, one at a time."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.lock = wire, threading.RLock()
        self.shell = Shell.instance()
        self.objects: dict[int, Any] = {}  # the student's objects that the judge holds
        self.kept: dict[int, list[Any]] = {}  # of each, the lists that its methods were given
        self.held, self.asking, self.late = 0, False, False
        signal.signal(signal.SIGALRM, self._alarm)

    def serve(self) -> None:
        """Until the judge goes."""
        while True:
            with self.lock:
                what, seconds, *rest = self.wire.receive()
            with self._clock(seconds):
                reply = self._replied(what, rest)
            with self.lock:
                try:
                    self.wire.send(reply)
                except (Garbled, TypeError, ValueError) as error:
                    self.wire.send(_raised(error))

    def _replied(self, what: str, rest: list[Any]) -> list[Any]:
        try:
            reply: list[Any] = getattr(self, f"on_{what}")(*rest)
        except BaseException as error:  # noqa: BLE001  (SystemExit and KeyboardInterrupt, too)
            reply = _raised(error)
        return reply

    def ask(self, *message: Any) -> Any:
        """A question to the judge; raises what it raised there. It may call a function that it was given."""
        with self.lock:
            answer, *rest = self._exchanged(["ask", *message])
            while answer not in ("told", "refused"):
                answer, *rest = self._exchanged(self._replied(answer, rest[1:]))
        if answer == "told":
            return Values(self).unpack(rest[0])
        name, text = rest
        known = getattr(builtins, name, None)
        usable = isinstance(known, type) and issubclass(known, Exception)
        raise known(text) if usable else type(name, (Refused,), {})(text)

    def _exchanged(self, message: list[Any]) -> list[Any]:
        """Sent, and the next received, whole: an interrupt waits."""
        self.asking = True
        try:
            self.wire.send(message)
            return self.wire.receive()
        finally:
            self.asking = False
            if self.late:
                self._alarm(signal.SIGALRM, None)

    def on_run(self, code: str) -> list[Any]:
        """Run a cell; its outputs."""
        return ["done", self.shell.run(code)]

    def on_names(self, names: Sequence[str]) -> list[Any]:
        """What each of these names is."""
        return ["done", {name: self._kind(self.shell.user_ns[name]) for name in names if name in self.shell.user_ns}]

    def on_call(self, target: list[Any], args: Any) -> list[Any]:
        """Call a function, a method or an object."""
        function, kept = self._target(target)
        return self._called(function, args, kept)

    def on_make(self, name: str, args: Any) -> list[Any]:
        """Make an object of a class; the judge holds it by a number."""
        given = Values(self)
        return ["done", self._hold(_quietly(self.shell.user_ns[name], *given.unpack(args)))]

    def on_hold(self, name: str) -> list[Any]:
        """An object that the notebook has made."""
        return ["done", self._hold(self.shell.user_ns[name])]

    def on_copy(self, number: int) -> list[Any]:
        """A copy of one."""
        return ["done", self._hold(copy.deepcopy(self.objects[number]))]

    def on_free(self, numbers: Sequence[int]) -> list[Any]:
        """These are not needed any more."""
        for number in numbers:
            self.objects.pop(number, None)
            self.kept.pop(number, None)
        return ["done", None]

    def on_get(self, number: int, name: str) -> list[Any]:
        """An attribute: its value, or that it is a method."""
        value = getattr(self.objects[number], name)
        return ["done", ["method"] if callable(value) else ["value", Values(self).pack(value)]]

    def on_grad(self, number: int, slope: Any, which: Sequence[int]) -> list[Any]:
        """The gradients of a result with respect to the arguments that asked for one."""
        result, leaves = self.objects[number]
        slopes = torch.autograd.grad(result, [leaves[i] for i in which], Values(self).unpack(slope), allow_unused=True)
        return ["done", [Values(self).pack(each) for each in slopes]]

    def on_launch(self, target: list[Any], grid: Any, args: Any, named: Any) -> list[Any]:
        """Start a Triton kernel. Its tensors are the judge's: each load and store is asked for there."""
        kernel, _ = self._target(target)
        given = Values(self)
        with launched(self.ask):
            _quietly(kernel[given.unpack(grid)], *given.unpack(args), **given.unpack(named))
        return ["done", None]

    def on_alone(self, name: str) -> list[Any]:
        """See `standalone`."""
        return ["done", list(alone(self.shell.user_ns[name]))]

    def _target(self, target: list[Any]) -> tuple[Any, list[Any] | None]:
        match target:
            case ["name", name]:
                return self.shell.user_ns[name], None
            case ["object", number]:
                return self.objects[number], self.kept[number]
            case ["method", number, name]:
                return getattr(self.objects[number], name), self.kept[number]
        raise Refused(f"{target!r} is nothing that can be called")

    def _called(self, function: Any, args: Any, kept: list[Any] | None) -> list[Any]:
        """The result, which of the lists, dicts and tensors that it was given it has changed, and looks at tokens."""
        given = Values(self)
        values = given.unpack(args)
        seen = (kept or []) + given.seen[:-1]  # not the list of them all
        before, looks = [Values(self).pack(each) for each in seen], Counted.looks[0]
        result = Values(self, [each for each in given.seen if isinstance(each, Tensor) and each.requires_grad])
        value = result.pack(_quietly(function, *values))
        after = [Values(self).pack(each) for each in seen]
        changed = [[i, new] for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        if kept is not None:
            kept[:] = [each for each in seen if type(each) is list]
        return ["done", value, changed, Counted.looks[0] - looks]

    def _hold(self, value: Any) -> int:
        self.held = number = self.held + 1
        self.objects[number], self.kept[number] = value, []
        return number

    def _kind(self, value: Any) -> list[Any]:
        if isinstance(value, type):
            return ["class"]
        if isinstance(value, FunctionType):
            return ["function"]
        packed = Values(self).pack(value)
        if packed[0] != "opaque" if isinstance(packed, list) else True:
            return ["value", packed]
        return ["kernel"] if hasattr(type(value), "__getitem__") else ["object", callable(value)]

    @contextlib.contextmanager
    def _clock(self, seconds: float) -> Iterator[None]:
        self.late = False
        signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds), 1.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _alarm(self, signum: int, frame: FrameType | None) -> None:
        if self.asking:  # half a message would be the end of all that follow
            self.late = True
            return
        self.late = False
        raise Stopped("it ran longer than a cell may, and was interrupted")


class Values(Codec):
    """Values as they are here: what the judge alone has is a handle, whose calls travel back."""

    def __init__(self, worker: Worker, leaves: Sequence[Tensor] = (), *, asks: bool = False) -> None:
        super().__init__()
        self.worker, self.leaves, self.asks = worker, leaves, asks

    def pack_other(self, value: Any) -> Any:
        """A handle goes back as the number that it came as."""
        if isinstance(value, Handle):
            return ["handle", value._number]
        return ["callable", self.worker._hold(value)] if self.asks and callable(value) else None

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
        return self.worker._hold((value, self.leaves)) if self.leaves and value.requires_grad else None

    def grown(self, tensor: Tensor, how: Any) -> Tensor:
        """A leaf, if the judge wants its gradient."""
        return tensor.requires_grad_(True) if how else tensor


class Handle:
    """Something of the judge's: its methods are calls to it."""

    def __init__(self, worker: Worker, number: int) -> None:
        self._worker, self._number = worker, number

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._worker.ask("get", self._number, name)

    def __deepcopy__(self, memo: Any) -> "Handle":
        return self


def _method(name: str) -> Callable[..., Any]:
    def call(self: Handle, *args: Any, **named: Any) -> Any:
        return self._worker.ask("call", self._number, name, _packed(self._worker, args), _packed(self._worker, named))

    call.__name__ = name
    return call


def _packed(worker: Worker, value: Any) -> Any:
    return Values(worker, asks=True).pack(value)


RECORDS: dict[str, Any] = {}  # dataclasses of ours whose module is not here


def _record(name: str) -> Callable[..., Any]:
    def build(**given: Any) -> Any:
        if name not in RECORDS:
            RECORDS[name] = make_dataclass(name, list(given), frozen=True, slots=True)
            RECORDS[name].__module__ = KNOWN[name]
        return RECORDS[name](**given)

    return build


class Answered(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of this package that are not here: the functions that the exercise offers are calls to the judge."""

    def __init__(self, worker: Worker, offered: dict[str, list[str]]) -> None:
        self.worker, self.offered = worker, offered

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """One of ours, a package that leads to one, or an ImportError that says so."""
        if name.partition(".")[0] not in PACKAGES:
            return None
        if not any(f"{module}.".startswith(f"{name}.") for module in self.offered):
            raise ImportError(
                f"{name} is the package's own work, and this exercise asks for yours. While it is graded, cells can "
                f"import of the package only {', '.join(sorted(self.offered))}."
            )
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """With the functions that are offered."""
        module = ModuleType(spec.name)
        for name in self.offered.get(spec.name, ()):
            setattr(module, name, self._function(spec.name, name))
        module.__getattr__ = self._missing(spec.name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It is ready."""

    def _function(self, home: str, name: str) -> Callable[..., Any]:
        def answered(*args: Any, **named: Any) -> Any:
            return self.worker.ask("use", home, name, _packed(self.worker, args), _packed(self.worker, named))

        answered.__name__ = answered.__qualname__ = name
        answered.__module__ = home
        return answered

    def _missing(self, home: str) -> Callable[[str], Any]:
        def look(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise AttributeError(f"{home}.{name} is not here while the notebook is graded: the tests run elsewhere")

        return look


def _quietly(function: Any, *args: Any, **named: Any) -> Any:
    """As `attempt` does it in a notebook."""
    with contextlib.redirect_stdout(_Nowhere()), contextlib.redirect_stderr(_Nowhere()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **named)


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing to do."""


def _raised(error: BaseException) -> list[Any]:
    """Its type, the builtin ones among its bases, its message, and what a report says of it."""
    cause = error.__cause__ if type(error).__name__ == "InterpreterError" and error.__cause__ else error
    bases = [kind.__name__ for kind in type(cause).__mro__ if kind.__module__ == "builtins"]
    try:
        text, says = str(cause)[:20_000], sentence(cause)[:20_000]
    except Exception:  # noqa: BLE001  (the student's own __str__)
        text, says = "", f"it raised {type(cause).__name__}"
    return ["raised", type(cause).__name__[:80], bases, text, says]


def _allow(cpu_seconds: int) -> None:
    """From now on; what the start took is not the notebook's."""
    soft = math.ceil(time.process_time()) + cpu_seconds
    hard = min(soft + GRACE_SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1])
    resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))


def _out_of_time(signum: int, frame: FrameType | None) -> None:
    raise Stopped("the notebook has used up its CPU time")


def main(descriptor: int) -> None:
    """The first message says what may be used."""
    torch.set_num_threads(1)
    wire = Wire(socket.socket(fileno=descriptor))
    signal.signal(signal.SIGXCPU, _out_of_time)
    worker = Worker(wire)
    wire.send(["ready"])
    _, cpu_seconds, offered = wire.receive()
    for name in [name for name in sys.modules if name.startswith("specdec_course.")]:
        del sys.modules[name]  # what the exercise calls so is the judge's
    sys.meta_path.insert(0, Answered(worker, offered))
    _allow(cpu_seconds)
    worker.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
