"""Judge an exercise's cells through a worker, and the same cells in this process: what each earns and says."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from exercise_runner import Result, execute, grade_id, load

from specdec_course.grader.confine import Allowance
from specdec_course.grader.judge import Judge, imported, worker
from specdec_course.grader.sources import role, source

Cells = list[dict[str, Any]]
Job = tuple[str, Mapping[str, str]]  # a task's tests, answers to put in


def code_cells(name: str) -> Cells:
    """Those of the solution that run."""
    cells = load("solutions", name)["cells"]
    return [c for c in cells if c["cell_type"] == "code" and "skip-execution" not in c["metadata"].get("tags", [])]


@contextmanager
def judged(name: str, **allowed: Any) -> Iterator[Judge]:
    """A worker for an exercise, and its judge; the cells that are not tasks have run in both."""
    cells = code_cells(name)
    modules = imported([source(cell) for cell in cells if role(cell) in ("locked", "tests")])
    with worker(Allowance(**allowed), modules) as (remote, _):
        judge = Judge(remote)
        remote.done.update(map(grade_id, cells))  # what a cell may use once the tasks before it are graded
        for cell in cells:
            if role(cell) == "locked":
                judge.prepare(source(cell))
            if role(cell) in ("locked", ""):
                _, why = judge.run(source(cell), 60)
                assert not why, why
        yield judge


def graded(judge: Judge, cell: dict[str, Any], seconds: float = 600) -> Result:
    """One graded cell."""
    outputs, _ = judge.grade(grade_id(cell), source(cell), seconds)
    out_of = float(cell["metadata"]["nbgrader"]["points"])
    values = [float(each.data["text/plain"]) for each in outputs if each.output_type == "execute_result"]
    said = [
        f"{o.ename}: {o.evalue}" if o.output_type == "error" else o.data["text/plain"]
        for o in outputs
        if o.output_type != "execute_result"
    ]
    return Result(values[0] if values else 0.0, out_of, "\n".join(said).strip())


def there(name: str, jobs: Sequence[Job]) -> list[Result]:
    """Each by the judge."""
    torch.set_num_threads(1)
    by_name = {grade_id(cell): cell for cell in code_cells(name)}
    results = []
    with judged(name, cpu_seconds=3_000, wall_seconds=3_600) as judge:
        for tests, answers in jobs:
            for code in answers.values():
                judge.run(code, 60)
            judge.remote.done = set(list(by_name)[: list(by_name).index(tests)])
            results.append(graded(judge, by_name[tests]))
    return results


def here(name: str, jobs: Sequence[Job]) -> list[Result]:
    """Each in this process, as in a student's notebook."""
    torch.set_num_threads(1)
    cells, results = code_cells(name), []
    by_name = {grade_id(cell): cell for cell in cells}
    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if role(cell) in ("locked", ""):
            execute(source(cell), space)
    for tests, answers in jobs:
        for code in answers.values():
            execute(code, space)
        said, value, failed = execute(source(by_name[tests]), space)
        points = 0.0 if failed else float(value)
        results.append(Result(points, float(by_name[tests]["metadata"]["nbgrader"]["points"]), said.strip()))
    return results
