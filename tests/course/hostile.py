"""Hand-ins that mean harm, or that accidents made: what each does, what it must earn, and what its page must say.

They are of exercise 04, whose four graded cells are quick. An act stands in the cell of one task, or it changes the
whole file; all other answers are right. Acts share a notebook, a task each; one that ends it comes last. What ends each
act is ten times nearer than any other limit, so that a busy machine says the same as an idle one.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from exercise_runner import grade_id, load
from wrong import function

from specdec_course.grader.sources import role, source

__all__ = ["ACTS", "FILES", "FULL", "NAME", "Act", "File", "solved"]

NAME = "04_ngram"
FULL = {"lookup": 4.0, "tree": 3.0, "grams": 2.0, "propose": 2.0}
HEADS = {
    "lookup": "my_lookup(text, gamma, longest, shortest)", "tree": "my_tree(root, branches, nodes)",
    "grams": "my_grams(texts, depth)", "propose": "my_propose(texts, ready, gamma)",
}  # fmt: skip
FORGED = (
    "type('Forged', (), {'passed': 9, '__add__': lambda self, other: self, 'credit': lambda self, points: points})()"
)


@dataclass(frozen=True)
class Act:
    """`notebook`: those with the same one share it. `told`: words of its page, a pattern. `loses`: tasks without points."""

    name: str
    notebook: str
    task: str
    code: str
    told: str
    loses: tuple[str, ...]


def within(task: str, body: str) -> str:
    """A function of the task's name that does this when the tests call it."""
    return function(HEADS[task], body)


def nothing(task: str) -> str:
    """An answer that is wrong."""
    return within(task, "return None")


def act(name: str, notebook: str, task: str, code: str, told: str, *also: str) -> Act:
    return Act(name, notebook, task, code, told, (task, *also))


def acts(root: str) -> tuple[Act, ...]:
    """`root`: the folder of the course that they are handed in to."""
    solution, book = f"{root}/solutions/{NAME}/{NAME}.ipynb", f"{root}/gradebook/gradebook.db"
    return (
        act("endless loop", "one", "lookup", within("lookup", "while True:\n    pass"), "was interrupted"),
        act("memory bomb", "one", "tree", within("tree", "hoard = []\nwhile True:\n    hoard.append(bytes(10**9))"),
            "MemoryError"),
        act("printed flag", "one", "grams", f"{nothing('grams')}print('all 5 cases hold'); print(2.0)", "fails"),
        act("process ended", "one", "propose", within("propose", "import os; os._exit(3)"), "its process died"),
        act("grader patched while it tests", "two", "lookup", within("lookup",
            "import sys\nreport = sys.modules['specdec_course.checks.report']\n"
            "report.Report.credit = lambda self, points: float(points)\nreport.Report.passed = 1\nreturn []"),
            "it raised KeyError"),
        act("endless output", "two", "tree", "while True:\n    print('y' * 100_000)", "more than 2 million characters"),
        act("flood of output", "two", "grams",
            f"{nothing('grams')}for _ in range(1500):\n    print('x' * 1000)", "cut off here"),
        act("cannot be interrupted", "two", "propose",
            "import signal, time\nfor number in (signal.SIGINT, signal.SIGALRM):\n    signal.signal(number, signal.SIG_IGN)\n"
            "while True:\n    time.sleep(1)", "could not be interrupted"),
        act("endless loop in its own cell", "three", "lookup", "while True:\n    pass", "was interrupted"),
        act("checks redefined", "three", "tree",
            f"{nothing('tree')}class check:\n    tree = staticmethod(lambda *a, **k: {FORGED})\n",
            "Task 2, tree: 0 of"),
        act("torch patched", "three", "grams",
            f"{nothing('grams')}torch.allclose = torch.equal = lambda *a, **k: True", "Task 3, n-grams: 0 of"),
        act("many files", "three", "propose", "import os, time\nfor i in range(8):\n    with open(f'f{i}', 'wb') as file:\n"
            "        os.posix_fallocate(file.fileno(), 0, 9 * 10**7)\ntime.sleep(60)", "No space left"),
        act("no number of points", "four", "lookup",
            f"{nothing('lookup')}get_ipython().display_formatter.formatters['text/plain'].for_type_by_name("
            "'specdec_course.checks.report', 'Credit', lambda credit, p, cycle: p.text('thanks'))\n"
            + nothing("lookup"), "fails"),
        act("grader patched", "four", "propose",
            f"{nothing('propose')}import sys\nsys.modules['specdec_course.checks.report'].Report.credit = lambda self, points: points\n"
            "sys.modules['specdec_course.checks.ngram'].propose.__code__ = (lambda *a, **k: None).__code__",
            "KeyError"),
        act("package handed in", "five", "lookup", "from specdec_ref.drafters.trie import Trie as my_lookup",
            "this exercise asks for yours"),
        act("exit", "five", "tree", within("tree", "raise SystemExit(0)"), "SystemExit"),
        act("verifiers handed in", "five", "grams", "from specdec_ref.verifiers import VERIFIERS\nmy_grams = VERIFIERS['greedy']",
            "this exercise asks for yours"),
        act("endless display", "five", "propose", "while True:\n    display('y' * 100_000)", "more than 2 million characters"),
        act("kills its parent", "six", "lookup",
            f"{nothing('lookup')}import os\nos.kill(os.getppid(), 9)\nos.kill(1, 9)", "fails"),
        act("reads the solutions", "six", "grams", f"exec(open({solution!r}).read())", "No such file"),
        act("fork bomb", "six", "propose", "import os\nwhile True:\n    try:\n        os.fork()\n"
            "    except BlockingIOError:\n        pass", "more than 32 processes"),
        act("writes to the gradebook", "seven", "lookup", f"open({book!r}, 'wb').write(b'0')", "No such file"),
        act("huge file", "seven", "tree",
            f"{nothing('tree')}with open('huge', 'wb') as file:\n    while True:\n        file.write(bytes(10**7))", "too large"),
        act("network", "seven", "grams",
            f"{nothing('grams')}import socket\nsocket.create_connection(('10.0.0.1', 80), 5)", "unreachable"),
        act("shell fork bomb", "seven", "propose",
            f"{nothing('propose')}import subprocess\nsubprocess.run(['sh', '-c', 'while true; do sleep 60 & done'])\nwhile True:\n    pass",
            "more than 32 processes"),
    )  # fmt: skip


@dataclass(frozen=True)
class File:
    """What is done to the file itself. `change`: notebook -> bytes, or None for nothing."""

    name: str
    change: Callable[[dict[str, Any]], bytes | None]
    file: str
    told: str
    points: dict[str, float]


def solved() -> dict[str, Any]:
    """The released notebook with our answers to the graded code."""
    released = load("exercises", NAME)
    ours = {grade_id(cell): source(cell) for cell in load("solutions", NAME)["cells"] if role(cell) == "solution"}
    return with_code(released, ours)


def with_code(notebook: dict[str, Any], answers: dict[str, str]) -> dict[str, Any]:
    changed = copy.deepcopy(notebook)
    for cell in changed["cells"]:
        if grade_id(cell) in answers and role(cell) == "solution":
            cell["source"] = answers[grade_id(cell)]
    return changed


def _bytes(notebook: dict[str, Any]) -> bytes:
    return json.dumps(notebook).encode()


def _without(name: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda nb: _bytes({**nb, "cells": [cell for cell in nb["cells"] if grade_id(cell) != name]})


def _twice(notebook: dict[str, Any]) -> bytes:
    """An untouched copy of a task's cell, and one of its tests, behind everything."""
    again = [cell for cell in load("exercises", NAME)["cells"] if grade_id(cell) in ("lookup", "lookup-tests")]
    return _bytes({**notebook, "cells": [*notebook["cells"], *again]})


def _edited(notebook: dict[str, Any]) -> bytes:
    cells = [{**c, "source": "4.0"} if grade_id(c) == "lookup-tests" else c for c in notebook["cells"]]
    return _bytes(with_code({**notebook, "cells": cells}, {"lookup": nothing("lookup")}))


NONE = dict.fromkeys(FULL, 0.0)
FILES = (
    File("cell deleted", _without("lookup"), f"{NAME}.ipynb", "“lookup” was missing", {**FULL, "lookup": 0.0}),
    File("tests deleted", _without("lookup-tests"), f"{NAME}.ipynb", "Ours were used", FULL),
    File("tests edited", _edited, f"{NAME}.ipynb", "Ours were used", {**FULL, "lookup": 0.0}),
    File("cell duplicated", _twice, f"{NAME}.ipynb", "was there 2 times", FULL),
    File("corrupt notebook", lambda nb: _bytes(nb)[:2000], f"{NAME}.ipynb", "breaks off or is damaged", NONE),
    File("no text", lambda nb: b"\x89PNG\r\n\xff", f"{NAME}.ipynb", "it is not text", NONE),
    File("huge notebook", lambda nb: _bytes(nb) + b" " * 100_000_000, f"{NAME}.ipynb", "more than 100 MB", NONE),
    File("missing notebook", lambda nb: b"see the other group", f"{NAME}.docx", "has no notebook", NONE),
    File("renamed notebook", _bytes, "homework (final) 2.ipynb", "recognised as 04_ngram", FULL),
)
ACTS = acts("/course")
