"""Put an answer through the self-check of its task, in a forked process, and judge what the report names as the cause.

An answer is a mutant of the reference solution or one of the bank's wrong answers. The process runs the visible test
and then the hidden one, each by itself, and sends back what both reports hold.

A cause that the visible report names for a mutant is *false* if the named mistake, run through all visible and hidden
trials, gives another outcome than the mutant in any of them. The hidden trials take no part in naming it.
"""

import ast
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from exercise_runner import execute, grade_id, load

from specdec_course.checks import examine as examining
from specdec_course.checks.report import Report
from specdec_course.grader.sources import HIDDEN, role, source

__all__ = ["Judged", "Task", "judge_all", "prepare"]

SECONDS = 5.0  # of a check, after which it stops by itself
MOST = 150.0  # of a process, after which it is killed
MEMORY = 3_000_000_000  # bytes that it may take beyond what it starts with


@dataclass(frozen=True)
class Task:
    """One graded code cell: the reference answer, and its tests in two parts."""

    exercise: str
    name: str
    answer: str
    visible: str
    hidden: str


@dataclass(frozen=True)
class Judged:
    """What became of an answer. `cause`: the named one, or ""; `false`: it disagrees in some trial."""

    visible: bool  # whether it passes the visible test
    hidden: bool
    cause: str
    false: bool
    seconds: float  # processor time of the visible test
    said: str
    failed: Sequence[str] = field(default=())  # of the visible cases


def prepare(exercise: str, warm: bool = True) -> tuple[dict[str, Any], list[Task]]:
    """The names that the locked cells bind, and the tasks. Call it once in a process: Triton reads a variable."""
    if exercise == "07_kernels":
        os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    space: dict[str, Any] = {"__name__": "__main__"}
    cells = load("solutions", exercise)["cells"]
    answers = {grade_id(cell): source(cell) for cell in cells if role(cell) == "solution"}
    tasks = []
    for cell in cells:
        if cell["cell_type"] == "code" and role(cell) == "locked":
            said, _, failed = execute(source(cell), space)
            assert not failed, said
        if role(cell) == "tests":
            name = grade_id(cell).removesuffix("-tests")
            code = source(cell)
            (hidden,) = HIDDEN.findall(code)
            tasks.append(Task(exercise, name, answers[name], _calls(HIDDEN.sub("", code)), _calls(hidden)))
    for task in tasks if warm else ():  # what is imported or set up at first use is there in all children
        for code in (task.answer, task.visible, task.hidden):
            said, _, failed = execute(code, space)
            assert not failed, said
    _watch_examine()
    return space, tasks


def _calls(code: str) -> str:
    """Without what displays, asserts, adds up or counts points: the report alone."""
    tree = ast.parse(code)
    tree.body = [each for each in tree.body if isinstance(each, ast.Assign)]
    return ast.unparse(tree)


_calls_seen: list[tuple[Any, Sequence[Any], Sequence[Any]]] = []  # code, trials, suspects of each `examine`


def _watch_examine() -> None:
    """Note down what every `examine` is called with."""
    plain = examining.examine

    def noted(title: str, code: Any, trials: Sequence[Any], suspects: Sequence[Any]) -> Report:
        _calls_seen.append((code, trials, suspects))
        return plain(title, code, trials, suspects)

    for name, module in list(sys.modules.items()):
        ours = name.startswith("specdec_course.") and module is not examining
        if ours and vars(module).get("examine") is plain:
            module.examine = noted  # type: ignore[attr-defined]


def judge_all(
    space: dict[str, Any],
    jobs: Sequence[tuple[Task, str]],
    processes: int = 2,
    tell: Callable[[int, Judged], None] = lambda *_: None,
    budget: float = 1e9,
) -> list[Judged]:
    """Each answer (a task, and the source of its cell) in a process of its own, forked from this one.

    No further one is started once they have taken `budget` seconds of processor time.
    """
    found: dict[int, Judged] = {}
    running: dict[int, tuple[int, int, float, list[bytes]]] = {}  # reading end -> job, process, began, received
    todo = list(enumerate(jobs))[::-1]
    while todo or running:
        if resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > budget:
            todo.clear()
        while todo and len(running) < processes:
            number, job = todo.pop()
            reading, process = _started(space, *job)
            running[reading] = number, process, time.monotonic(), []
        ready, _, _ = select.select(list(running), [], [], 0.2)
        for reading, (number, process, began, received) in list(running.items()):
            if reading in ready:
                data = os.read(reading, 1 << 20)
                received.append(data)
                if data:
                    continue
            elif time.monotonic() - began < MOST:
                continue
            else:
                os.kill(process, signal.SIGKILL)
            os.close(reading)
            os.waitpid(process, 0)
            del running[reading]
            found[number] = _read(b"".join(received))
            tell(number, found[number])
    return [found[i] for i in sorted(found)]


def _read(data: bytes) -> Judged:
    try:
        return Judged(**json.loads(data))
    except (ValueError, TypeError):
        return Judged(False, False, "", False, MOST, f"the process was killed after {MOST:g} seconds")


def _started(space: dict[str, Any], task: Task, code: str) -> tuple[int, int]:
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return reading, process
    try:  # the child
        os.close(reading)
        with open("/proc/self/statm") as about:
            now = int(about.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(vars(_judged(space, task, code))).encode())
    finally:
        os._exit(0)


def _judged(space: dict[str, Any], task: Task, code: str) -> Judged:
    examining.SECONDS = SECONDS
    began = time.process_time()
    said, _, failed = execute(code, space)
    if failed:
        return Judged(False, False, "", False, time.process_time() - began, said)
    reports: list[Report | None] = []
    for number, test in enumerate((task.visible, task.hidden)):
        told, _, failed = execute(test, space)
        reports.append(None if failed else space["report" if number == 0 else "hidden"])
        if number == 0:
            seconds, said = time.process_time() - began, told if failed else str(reports[0])
    report, hidden = reports
    cause = report.reasons[0] if report and report.reasons else ""
    return Judged(
        bool(report and report.ok), bool(hidden and hidden.ok), cause, bool(cause) and not _agrees(cause), seconds,
        said[:4000], [case.asks for case in report.cases if not case.passed] if report else ["no report"],
    )  # fmt: skip


def _agrees(cause: str) -> bool:
    """Whether a suspect with this sentence gives the answer's outcome in all trials, visible and hidden, `side` aside."""
    named = [suspect.code for suspect in _calls_seen[0][2] if suspect.says == cause]
    return not named or any(map(_equal, named))


def _equal(other: Any) -> bool:
    return all(
        examining.same(*pair) for code, trials, _ in _calls_seen for trial in trials
        if not trial.side for pair in [tuple(_outcome(trial, each) for each in (code, other))]
    )  # fmt: skip


def _outcome(trial: Any, code: Any) -> Any:
    try:
        return trial.outcome(code)
    except examining.Trouble as trouble:
        return examining.without_line(str(trouble))
