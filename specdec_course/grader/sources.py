"""What a notebook in `solutions/` must be like, so that what is generated from it grades as it should.

Each rule stands for something that nbgrader lets pass: a graded cell of hidden tests alone is released empty and passes
on the untouched stub; points that differ from the metadata fail at hand-in; a copied cell keeps its id and breaks
grading; a task that calls an earlier cell of the student's loses their points twice.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

__all__ = ["faults", "kernels", "role"]

HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS\n", re.DOTALL)
Cell = dict[str, Any]


def role(cell: Cell) -> str:
    """One of "solution", "tests", "manual" and "locked"; "" for a cell that nbgrader leaves alone."""
    about = cell["metadata"].get("nbgrader", {})
    if about.get("grade"):
        return "manual" if about.get("solution") else "tests"
    return "solution" if about.get("solution") else "locked" if about.get("locked") else ""


def kernels(code: str) -> dict[str, str]:
    """Names that this cell gives a value -> the text of the kernel, under `@triton.jit`, or "" for anything else."""
    lines = ["" if line.startswith(("%", "!")) else line for line in code.splitlines()]  # what IPython alone reads
    found: dict[str, str] = {}
    try:
        body = ast.parse("\n".join(lines)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return found
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            text = "\n".join(lines[first - 1 : node.end_lineno])
            found[node.name] = text if isinstance(node, ast.FunctionDef) and _jitted(node) else ""
        else:
            names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
            found.update({each.id: "" for each in names if not isinstance(each.ctx, ast.Load)})
    return found


def _jitted(node: ast.FunctionDef) -> bool:
    match node.decorator_list:
        case [ast.Attribute(value=ast.Name(id="triton"), attr="jit")]:
            return True
    return False


def source(cell: Cell) -> str:
    """Its text, however the file stores it."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def faults(notebook: dict[str, Any]) -> list[str]:
    """Everything that is wrong with it, a sentence each."""
    cells = notebook["cells"]
    found = [f"{name}: two cells have this id" for name, count in Counter(_ids(cells)).items() if count > 1]
    if not cells or not source(cells[0]).startswith("# "):
        found.append("the first cell must begin with the title, as a heading of the first level")
    for cell in cells:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id", cell.get("id"))
        check = {"tests": _tests, "solution": _solution}.get(role(cell))
        found += [f"{name}: {fault}" for fault in check(cell)] if check else []
        if cell.get("outputs") or cell.get("execution_count"):
            found.append(f"{name}: has outputs, and a source is kept without")
    return found + list(_borrowed(cells))


def _ids(cells: list[Cell]) -> Iterator[str]:
    yield from (cell["metadata"]["nbgrader"]["grade_id"] for cell in cells if role(cell))


def _tests(cell: Cell) -> Iterator[str]:
    text, points = source(cell), cell["metadata"]["nbgrader"]["points"]
    if not HIDDEN.search(text):
        yield "has no hidden tests between ### BEGIN HIDDEN TESTS and ### END HIDDEN TESTS"
    visible = ast.parse(HIDDEN.sub("", text))
    if not any(isinstance(node, ast.Assert) for node in visible.body):
        yield "has no visible assert, so that it might pass on the stub"
    if not re.search(rf"\.credit\({points:g}\)$", text):
        yield f"must end in report.credit({points:g}): its metadata says {points:g} points"


def _solution(cell: Cell) -> Iterator[str]:
    if cell["cell_type"] == "code" and ("### BEGIN SOLUTION" not in source(cell)):
        yield "has no ### BEGIN SOLUTION: its signature and docstring would be taken away, too"


def _borrowed(cells: list[Cell]) -> Iterator[str]:
    """Names that one task defines and another uses. A task ends with its tests."""
    owner: dict[str, int] = {}
    task = 0
    for cell in cells:
        if role(cell) in ("solution", "tests") and cell["cell_type"] == "code":
            tree, where = ast.parse(source(cell)), cell["metadata"]["nbgrader"]["grade_id"]
            used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            for name in sorted(used & {name for name, at in owner.items() if at != task}):
                yield f"{where}: uses {name}, which the student wrote in another task"
            if role(cell) == "solution":
                kinds = (ast.FunctionDef, ast.ClassDef)
                owner.update({node.name: task for node in tree.body if isinstance(node, kinds)})
        task += role(cell) in ("tests", "manual")
