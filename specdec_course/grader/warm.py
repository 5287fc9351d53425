"""A process that has imported what a worker needs, and forks one for each box: to import torch takes over a second.

`python -P warm.py`, outside of any box, with requests on its standard input. It never runs a student's code, and holds
nothing of the judge's: only libraries, and the little of this package that a box has. A fork becomes a box (`box`)
before it serves a notebook, and does here what `exec` does for a command: it closes what it inherited, and takes the
environment of its policy. (That it keeps no capability is seen to in `box`.)

A request is the path of a policy, with the worker's end of the wire and a socket that is told the box's process number,
then its exit code. When the other end of that socket is closed, the box is killed. Until then its number is not used
again.
"""

import gc
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["main"]

PR_SET_DUMPABLE = 4
LONGEST, FILES = 4096, 4096  # bytes of a path; open files to close


@dataclass
class _Running:
    pid: int
    ended: int  # a descriptor that has news when the process has ended
    told: socket.socket


def main(work: Callable[[int], None], box: ModuleType) -> None:
    """Serve until nobody holds the other end of standard input. `work(descriptor)` is what a box runs."""
    server, waiting, running = socket.socket(fileno=os.dup(0)), select.poll(), dict[int, _Running]()
    waiting.register(server, select.POLLIN)
    gc.freeze()  # the collector of a fork leaves these pages shared
    while True:
        descriptor = waiting.poll()[0][0]
        if descriptor == server.fileno():
            path, given, _, _ = socket.recv_fds(server, LONGEST, 2)
            if not path:
                break
            wire, told = given
            pid = os.fork() or _become(box, work, path, wire)
            os.close(wire)
            new = _Running(pid, os.pidfd_open(pid), socket.socket(fileno=told))
            for descriptor in (told, new.ended):
                running[descriptor] = new
                waiting.register(descriptor, select.POLLIN)
            _tell(new, pid)
        elif descriptor == running[descriptor].ended:
            one = running.pop(descriptor)
            waiting.unregister(descriptor)
            left = os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
            assert left is not None  # for the type checker
            _tell(one, left.si_status if left.si_code == os.CLD_EXITED else -left.si_status)
        else:  # nobody wants it any more
            one = running.pop(descriptor)
            waiting.unregister(descriptor)
            if running.pop(one.ended, None):
                waiting.unregister(one.ended)
            _kill(one)
    for one in {each.pid: each for each in running.values()}.values():
        _kill(one)


def _kill(one: _Running) -> None:
    os.kill(one.pid, signal.SIGKILL)
    os.waitpid(one.pid, 0)
    os.close(one.ended)
    one.told.close()


def _tell(one: _Running, number: int) -> None:
    with suppress(OSError):
        one.told.send(struct.pack("i", number))


def _become(box: Any, work: Callable[[int], None], path: bytes, wire: int) -> NoReturn:
    """A box. Nothing returns from here."""
    code = 1
    try:
        os.closerange(3, wire)
        os.closerange(wire + 1, FILES)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        policy: dict[str, Any] = box.read(os.fsdecode(path))

        def begin() -> None:
            os.closerange(3, wire)
            os.closerange(wire + 1, FILES)
            os.environ.update(policy["environment"])
            box.call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after exec: its files in /proc are its own
            work(wire)

        code = box.main(policy, begin)
    finally:
        os._exit(code)


def _boxes() -> ModuleType:
    """The module `box`, which a box itself has not got."""
    loader = SourceFileLoader("box", str(Path(__file__).with_name("box.py")))
    module = ModuleType("box")
    loader.exec_module(module)
    return module


if __name__ == "__main__":
    from specdec_course.grader.worker import main as serve

    main(serve, _boxes())
