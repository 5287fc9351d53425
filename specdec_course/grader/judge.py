"""Grade a notebook: a worker in a box runs the student's cells, and the tests run here, on what it answers.

To nbgrader this is the step that executes a notebook. Of the student's process nothing counts but plain data that goes
through the tests: what it prints, displays or does to itself earns nothing. The tests and the imports that they need
are those of the gradebook, whatever stands in the hand-in.
"""

import ast
import builtins
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Instance

from specdec_course.checks.report import Credit, Report
from specdec_course.grader.confine import Allowance, Confined, confined
from specdec_course.grader.proxies import Ended, Kernel
from specdec_course.grader.remote import OFFERED, Remote
from specdec_course.grader.sources import kernels, role
from specdec_ref.models.toy import tiny_llama

__all__ = ["Judge", "Judged", "imported", "preload", "worker"]

MIMES = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png", "image/jpeg", "image/svg+xml")
LATE = {"specdec_course.checks.bottleneck", "specdec_course.capstone.checks"}  # they import transformers as they run
SHOWN, MOST = 100_000, 20_000_000  # characters of one output, and of all that a notebook has


class Judge:
    """The tests of one exercise, with the student's functions at the other end of a wire."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.space: dict[str, Any] = {"__name__": "__main__"}
        self.kernels: dict[str, str] = {}  # as the cells have defined them

    def prepare(self, code: str) -> None:
        """A locked cell: what the tests import."""
        _interpret(imported([code]))
        exec(compile(code, "<locked>", "exec"), self.space)

    def grade(self, cell: str, code: str, seconds: float | int) -> tuple[list[NotebookNode], str]:
        """(outputs of a graded cell, the last of which nbgrader reads; why no other can be graded, or "")."""
        outputs: list[NotebookNode] = []
        tree = ast.parse(code)
        final = tree.body[-1]
        last = final.value if isinstance(final, ast.Expr) else ast.Constant(None)
        tree.body[-1:] = [] if isinstance(final, ast.Expr) else [final]

        def display(report: Any) -> None:
            outputs.append(_shown("display_data", report))

        torch.set_num_threads(1)
        try:
            with self.remote.within(seconds, cell):
                space = {**self.space, "display": display, **self._theirs(_unknown(code, self.space))}
                exec(compile(tree, "<tests>", "exec"), space)
                value = eval(compile(ast.Expression(last), "<tests>", "eval"), space)
            outputs.append(_shown("execute_result", value))
        except Ended as end:
            outputs.append(_error(end.name, str(end)))
            return outputs, str(end) if end.whole else ""
        except Exception as error:  # noqa: BLE001  (a report that earns nothing, or a check that the answer is too much for)
            outputs.append(_error(type(error).__name__, str(error)))
        return outputs, ""

    def _theirs(self, names: set[str]) -> dict[str, Any]:
        """What the student calls so. A kernel is made again from its text: no other object stands in for it."""
        for name in sorted(names):
            if text := self.kernels.get(name):
                self.remote.ask("run", text)
        found = self.remote.names(sorted(names))
        for name, value in found.items():
            if isinstance(value, Kernel):
                value.written = bool(self.kernels.get(name))
        return found

    def run(self, code: str, seconds: float | int) -> tuple[list[NotebookNode], str]:
        """The same of a cell that is the student's to write: its outputs are for a page, and earn nothing."""
        self.kernels.update(kernels(code))
        try:
            with self.remote.within(seconds, ""):
                (outputs,) = self.remote.ask("run", code)
                return list(_outputs(outputs)), ""
        except Ended as end:
            return [_error(end.name, str(end))], str(end) if end.whole else ""
        except Exception as error:  # noqa: BLE001  (raised outside of the cell's own code)
            return [_error(type(error).__name__, str(error))], ""


class Judged(NbGraderPreprocessor):
    """nbgrader's step that executes a hand-in."""

    allowance = Instance(Allowance, args=()).tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Run all cells; those that did not come to run are marked with an error, since no output means full points."""
        ours, folder = _ours(resources), Path(resources["metadata"]["path"])
        beside = [path for path in folder.iterdir() if _beside(path)] if folder.is_dir() else []
        code = [cell for cell in nb.cells if cell.cell_type == "code"]
        texts = [ours.get(_name(cell), cell.source) for cell in code if role(cell) in ("locked", "tests")]
        why, left, done = "", MOST, set[str]()
        with worker(self.allowance, imported(texts), beside) as (remote, _):
            judge = Judge(remote)
            for number, cell in enumerate(code, 1):
                name, kind, text = _name(cell), role(cell), cell.source
                known = kind in ("locked", "tests") and name in ours and name not in done
                if "skip-execution" in cell.metadata.get("tags", []) and not known:
                    cell.outputs, cell.execution_count = [], None
                    continue
                if known and kind == "locked":
                    judge.prepare(ours[name])
                if why:
                    cell.outputs = [_error("Stopped", f"the notebook was stopped: {why}")]
                elif kind == "tests":
                    found = (
                        judge.grade(name, ours[name], self.allowance.cell_seconds)
                        if known
                        else ([_error("NoTests", f"“{name}” is no cell of tests")], "")
                    )
                    cell.outputs, why = found
                else:
                    cell.outputs, why = judge.run(text, self.allowance.cell_seconds)
                done.add(name if known else "")
                cell.execution_count = number
                left -= sum(len(str(output)) for output in cell.outputs)
                if left < 0 and not why:
                    why = f"it printed more than {MOST // 10**6} million characters"
        return nb, resources


@contextmanager
def worker(
    allowance: Allowance, modules: Sequence[str], beside: Sequence[Path] = ()
) -> Iterator[tuple[Remote, Confined]]:
    """A worker that may use these modules of the package. Raises RuntimeError if it cannot even be started."""
    offered = {name: list(OFFERED.get(name, ())) for name in modules if name.partition(".")[0].startswith("specdec_")}
    with confined(allowance, beside) as box:
        try:
            box.wire.receive(120)
            box.wire.send(["begin", allowance.cpu_seconds, offered])
        except (OSError, EOFError) as error:
            raise RuntimeError(f"no process for the notebook could be started: {box.why_dead()}") from error
        box.begin()
        yield Remote(box.wire, box.why_dead, offered), box


def preload(texts: Sequence[str]) -> None:
    """Import what these cells do, and what their tests do as they run: for the processes that will be forked."""
    modules = imported(texts)
    _interpret(modules)
    for name in modules:
        with suppress(ImportError):  # each of them will say so
            import_module(name)
    if LATE.intersection(modules):
        tiny_llama(0)


def _interpret(modules: Sequence[str]) -> None:
    """Kernels are judged in Triton's interpreter, without a GPU."""
    if "specdec_course.checks.kernels" in modules:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported


def imported(texts: Sequence[str]) -> list[str]:
    """The modules that these cells import."""
    modules: set[str] = set()
    for node in (node for text in texts for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            packages = node.module in ("specdec_course.checks", "specdec_course.capstone")  # whose names are submodules
            modules.update(f"{node.module}.{alias.name}" if packages else node.module for alias in node.names)
    return sorted(modules)


def _unknown(code: str, space: dict[str, Any]) -> set[str]:
    """Names that a cell of tests uses and that are neither ours nor its own: the student's."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    own = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in names} - own - set(space) - set(vars(builtins)) - {"display"}


def _ours(resources: Any) -> dict[str, str]:
    """Cell -> its source, of those in the gradebook that are not a student's to write."""
    about = resources["nbgrader"]
    with Gradebook(about["db_url"]) as book:
        cells = book.find_notebook(about["notebook"], about["assignment"]).source_cells
        return {cell.name: cell.source for cell in cells if cell.locked and cell.cell_type == "code"}


def _name(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def _beside(path: Path) -> bool:
    return path.suffix != ".ipynb" and path.is_file() and not path.is_symlink()


def _shown(kind: str, value: Any) -> NotebookNode:
    data = {"text/plain": repr(float(value)) if isinstance(value, Credit) else _cut(str(value))}
    if isinstance(value, Credit | Report) and len(value._repr_html_()) < SHOWN:
        data["text/html"] = value._repr_html_()
    shown: NotebookNode = new_output(kind, data=data)
    return shown


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n[cut off here]"


def _error(name: str, message: str) -> NotebookNode:
    error: NotebookNode = new_output("error", ename=name, evalue=_cut(message), traceback=[_cut(f"{name}: {message}")])
    return error


def _outputs(given: Any) -> Iterator[NotebookNode]:
    """What the worker says that a cell displayed, as far as it has the form of that."""
    for output in given if isinstance(given, list) else []:
        match output:
            case {"output_type": "stream", "name": ("stdout" | "stderr") as name, "text": str(text)}:
                yield new_output("stream", name=name, text=_text(text))
            case {"output_type": ("display_data" | "execute_result") as kind, "data": dict(data)}:
                kept = {mime: _text(data[mime]) for mime in MIMES if isinstance(data.get(mime), str)}
                yield new_output(kind, data=kept)
            case {"output_type": "error", "ename": str(name), "evalue": str(value), "traceback": [*lines]}:
                yield new_output(
                    "error",
                    ename=_cut(_text(name)),
                    evalue=_cut(_text(value)),
                    traceback=[_cut(_text(str(line))) for line in lines],
                )


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
