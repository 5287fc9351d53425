"""Run an exercise's cells and mark them by nbgrader's rule, without a kernel each.

`run_all` does so in a child process without the tests' shape checks: with them an enumeration takes ten times as long.
Children are forked from a process that has imported torch and the package, once for all of them.

The rule (nbgrader 0.9.6, `utils.determine_grade`): an error or anything on stderr earns nothing, a number as the cell's
value is that many points, anything else is all of them.
"""

import ast
import contextlib
import io
import json
import linecache
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from cell_names import needed, touched

from specdec_course.grader.sources import role, source

ROOT = Path(__file__).parents[2]
NEEDS_TRITON = {"07_kernels"} if find_spec("triton") is None else set()  # Linux only: elsewhere it is left out
EXERCISES = sorted({path.parent.name for path in (ROOT / "solutions").glob("*/*.ipynb")} - NEEDS_TRITON)


@dataclass(frozen=True)
class Result:
    """What a graded cell earned, and everything that it said."""

    points: float
    out_of: float
    said: str


def load(folder: str, name: str) -> dict[str, Any]:
    """A notebook of `solutions` or `exercises`."""
    notebook: dict[str, Any] = json.loads((ROOT / folder / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    return notebook


def grade_id(cell: dict[str, Any]) -> str:
    return str(cell["metadata"].get("nbgrader", {}).get("grade_id", ""))


def run(notebook: dict[str, Any], answers: Mapping[str, str], changed: str = "") -> dict[str, Result]:
    """grade id of each graded code cell -> result. `answers`: grade id -> source, in place of what stands there.

    `changed`: of the cells, only that one, those that its names reach, and what they need: no other can tell it apart.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    results = {}
    cells, sources = notebook["cells"], _sources(notebook, answers)
    for i in _reached(cells, sources, changed) if changed else range(len(cells)):
        cell, code = cells[i], sources[i]
        if code is not None:
            said, value, failed = execute(code, namespace)
            if role(cell) == "tests":
                out_of = float(cell["metadata"]["nbgrader"]["points"])
                earned = 0.0 if failed else float(value) if isinstance(value, float) else out_of
                results[grade_id(cell)] = Result(earned, out_of, said)
            elif role(cell) != "solution":
                assert not failed, said
    return results


def _sources(notebook: dict[str, Any], answers: Mapping[str, str]) -> list[str | None]:
    """What each cell runs; None for one that does not run."""
    return [
        answers.get(grade_id(cell), source(cell))
        if cell["cell_type"] == "code" and "skip-execution" not in cell["metadata"].get("tags", [])
        else None
        for cell in notebook["cells"]
    ]


def _reached(cells: list[dict[str, Any]], sources: list[str | None], changed: str) -> list[int]:
    return needed(sources, touched(sources, [grade_id(cell) for cell in cells].index(changed)))


def execute(code: str, namespace: dict[str, Any]) -> tuple[str, Any, bool]:
    """(what was displayed and printed, the last expression's value, whether it failed) as in a notebook cell."""
    said: list[str] = []
    namespace["display"] = lambda *shown: said.extend(map(str, shown))
    tree, value, failed = ast.parse(code), None, False
    name = f"<cell {len(linecache.cache)}>"  # its lines stay known, as in IPython: a kernel's source is read back
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            exec(compile(tree, name, "exec"), namespace)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        except Exception as error:  # noqa: BLE001  (whatever a learner's code raises)
            said.append(f"{type(error).__name__}: {error}")
            failed = True
    return "\n".join([*said, out.getvalue()]), value, failed or bool(err.getvalue())


Job = tuple[dict[str, Any], dict[str, str], str]  # a notebook, answers to put in, the one that is of interest or ""
CHILDREN = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
CHILDREN.set_forkserver_preload(["specdec_ref.session"])  # which imports Triton, by way of transformers


def run_all(jobs: Sequence[Job]) -> list[dict[str, Result]]:
    """`run` of each job, all in one new process. Triton interprets there, as exercise 07 asks before it imports Triton."""
    interpreting = patch.dict(os.environ, TRITON_INTERPRET="1")  # the fork server takes it over when it starts
    with interpreting, ProcessPoolExecutor(1, mp_context=CHILDREN) as process:
        return process.submit(_each, jobs).result()


def _each(jobs: Sequence[Job]) -> list[dict[str, Result]]:
    torch.set_num_threads(1)
    return [run(*job) for job in jobs]
