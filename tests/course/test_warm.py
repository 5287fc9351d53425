"""Boxes that are forked from one process: as closed as those that a command starts, and gone with whoever asked for them."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

from specdec_course.grader.confine import Allowance
from specdec_course.grader.forked import NURSERY, Forked, warm
from specdec_course.grader.judge import worker
from specdec_course.grader.policy import namespaces
from specdec_course.grader.remote import Remote

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(namespaces()) or not hasattr(os, "pidfd_open"), reason=f"no sandbox here: {namespaces()}"),
]

FACTS = """
import json, os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
kept = ("Cap", "Seccomp", "NoNewPrivs", "Groups", "Threads", "SigBlk", "SigIgn", "Uid", "Gid")
print(json.dumps({
    "status": {name: text.split() for name, text in status.items() if name.startswith(kept)},
    "limits": [line for line in open("/proc/self/limits") if "cpu time" not in line],  # from what was used so far
    "environment": sorted(os.environ), "root": sorted(os.listdir("/")), "files": len(os.listdir("/proc/self/fd")),
    "owner": os.stat("/proc/self/fd").st_uid, "processes": [name for name in os.listdir("/proc") if name.isdigit()],
    "leader": os.getsid(0) == os.getpid(), "folder": os.path.basename(os.getcwd()), "mask": os.umask(0o22),
    "package": sorted(name for name in sys.modules if name.startswith("specdec")), "main": sorted(vars(sys.modules["__main__"]))[:3],
}))
"""
NO_CAPABILITIES = {f"Cap{name}": ["0" * 16] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
CHANCE = "import random, numpy; print(random.random(), numpy.random.random())"


def printed(remote: Remote, code: str) -> str:
    with remote.within(60, ""):
        ((said,),) = remote.ask("run", code)
    return str(said["text"])


def facts(nursery: Any) -> tuple[str, Any]:
    """(how it was made, what a cell finds out) of a box in this context."""
    with nursery, worker(Allowance(), []) as (remote, box):
        return type(box.process).__name__, json.loads(printed(remote, FACTS))


@pytest.fixture(scope="module")
def nursery() -> Iterator[None]:
    with warm():
        yield


def test_a_fork_keeps_nothing_that_a_command_would_not_have() -> None:
    forked, started = facts(warm()), facts(contextlib.nullcontext())
    assert (forked[0], started[0]) == ("Forked", "Popen")
    assert forked[1] == started[1]
    assert {name: text for name, text in forked[1]["status"].items() if name.startswith("Cap")} == NO_CAPABILITIES


def test_boxes_do_not_share_chance(nursery: None) -> None:
    said = []
    for _ in range(2):
        with worker(Allowance(), []) as (remote, _box):
            said += printed(remote, CHANCE).split()
    assert len(set(said)) == 4


def test_the_end_of_a_worker_is_told(nursery: None) -> None:
    ends = {
        "import os; os._exit(7)": 7,
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": 256 - signal.SIGKILL,
    }
    for code, expected in ends.items():
        with worker(Allowance(), []) as (remote, box):
            with pytest.raises(BaseException, match="its process died"):
                printed(remote, code)
            assert box.process.wait(10) == expected


def test_a_box_ends_with_who_asked_for_it(nursery: None) -> None:
    """A judge that is killed closes nothing itself: the system closes its end of the socket."""
    with worker(Allowance(), []) as (_, box):
        assert isinstance(box.process, Forked)
        first = psutil.Process(box.process.pid)
        processes = [first, *first.children(recursive=True)]
        assert len(processes) == 3
        box.process.close()
        assert psutil.wait_procs(processes, timeout=10)[1] == []
        box.process.returncode = 0  # nobody can tell any more


def test_without_the_process_that_forks_a_command_starts_the_box() -> None:
    with warm():
        open_now = NURSERY.get()
        assert open_now is not None
        open_now._process.kill()
        open_now._process.wait()
        with worker(Allowance(), []) as (remote, box):
            assert type(box.process).__name__ == "Popen"
            assert printed(remote, "print(1)") == "1\n"


def test_it_ends_when_it_is_closed_and_its_boxes_with_it() -> None:
    before = NURSERY.get()
    with contextlib.ExitStack() as stack:
        with warm():
            opened = NURSERY.get()
            assert opened is not None
            _, box = stack.enter_context(worker(Allowance(), []))
            first = psutil.Process(box.process.pid)
            inside = [first, *first.children(recursive=True)]
        assert opened._process.returncode == 0
        until = time.monotonic() + 10
        while any(each.is_running() for each in inside) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(each.is_running() for each in inside)
    assert NURSERY.get() is before
