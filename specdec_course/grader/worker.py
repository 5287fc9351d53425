"""The process of a student's notebook: it runs the cells, and calls what they define when the judge asks for it.

The judge (`judge`) is outside, with the tests, what is right, and the marks. Here there are the student's code,
IPython, and of this package little more than the classes of a draft tree: the judge answers the rest of what the
exercise imports. So nothing here is trusted, and nothing is protected: whatever the code does to this process, all that
leaves it is plain data (`plain`), which is right or wrong.
"""

import builtins
import contextlib
import copy
import math
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType, FunctionType
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.plain import Counted
from specdec_course.checks.standalone import alone
from specdec_course.checks.wire import Garbled, Wire, sentence
from specdec_course.grader.answered import Answered
from specdec_course.grader.handles import Values
from specdec_course.grader.launch import launched
from specdec_course.grader.shell import Shell, Stopped
from specdec_ref import config, core  # noqa: F401  (the classes that notebooks use)

__all__ = ["main"]

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
        known: Any = getattr(builtins, name, None)
        usable = isinstance(known, type) and issubclass(known, Exception)
        error: Exception = known(text) if usable else type(name, (Refused,), {})(text)
        raise error

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
        return ["done", self.hold(_quietly(self.shell.user_ns[name], *given.unpack(args)))]

    def on_hold(self, name: str) -> list[Any]:
        """An object that the notebook has made."""
        return ["done", self.hold(self.shell.user_ns[name])]

    def on_copy(self, number: int) -> list[Any]:
        """A copy of one."""
        return ["done", self.hold(copy.deepcopy(self.objects[number]))]

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

    def hold(self, value: Any) -> int:
        """The number by which the judge can name it."""
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
