"""Run a student's notebook for nbgrader: in a box (`box`), under a guard (`kernel`), watched from here.

What nbgrader would do otherwise: run it with all the memory there is, wait for every cell in turn, and leave the
submission ungraded if the kernel dies. And to nbgrader a graded cell without an error has full points, even if it never
ran or gave no number: so such cells are marked with an error here.
"""

import ast
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute
from traitlets import Instance

from specdec_course.grader.confine import Allowance, Confined, confined
from specdec_course.grader.harmless import message
from specdec_course.grader.sources import role, source

__all__ = ["LimitedExecute", "imported"]

SHOWN, FLOOD = 100_000, 20_000_000  # characters of output that a cell's page shows; that the notebook is stopped at


class LimitedExecute(Execute):
    """nbgrader's Execute, with limits. nbgrader makes preprocessors itself, so this one has to be a subclass."""

    allowance = Instance(Allowance, args=()).tag(config=True)
    _running = 0  # index of the cell that runs
    _box: Confined

    def create_kernel_manager(self) -> Any:
        """nbclient's, which starts our kernel."""
        manager = super().create_kernel_manager()
        self._box.prepare(manager)
        return manager

    def preprocess(self, nb: NotebookNode, resources: Any, km: Any = None) -> tuple[NotebookNode, Any]:
        """Run all cells; where the kernel dies, is killed or hangs, mark the cells that it did not finish."""
        self.shutdown_kernel, self.startup_timeout = "immediate", 300
        self.iopub_timeout = self.timeout  # for a cell to be interrupted in, and for all that it said to arrive
        late = f"this cell ran longer than {self.timeout} seconds and was interrupted"
        self.error_on_timeout = {"ename": "Stopped", "evalue": late, "traceback": [late]}
        self._printed = {"": 0}
        with confined(self.allowance, *imported(nb.cells)) as self._box:
            _copy_files(resources, self._box.work)
            inside = {**resources, "metadata": {**resources["metadata"], "path": str(self._box.work)}}
            try:
                nb, _ = super().preprocess(nb, inside, km)
            except DeadKernelError:
                why = self._box.stopped_because or "its process died: it was ended from inside, or ran out of memory"
            except CellTimeoutError:
                why = f"a cell ran longer than {self.timeout} seconds and could not be interrupted"
            else:
                return nb, resources
        _mark_unrun(nb.cells[self._running :], f"the notebook was stopped: {why}")
        return nb, resources

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> Any:
        """Run one cell, and remember which: one that is cut off may have no output, which would be full points."""
        self._running = index
        self._box.begin()
        cell, resources = super().preprocess_cell(cell, resources, index)
        if role(cell) == "tests" and (fault := _fault(cell)):
            cell.outputs.insert(0, _error("NoPoints", fault))  # nbgrader takes the first that it understands
        return cell, resources

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
        """Of what a kernel shows, text and cleaned HTML: nothing that a notebook cannot hold or a page would run."""
        return super().process_message(message(msg), cell, cell_index)

    def output(self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Keep what a cell says within bounds."""
        size = len(str(msg["content"]))
        seen = self._printed[""] = self._printed[""] + size
        at = f"cell {cell_index}"
        self._printed[at] = self._printed.get(at, 0) + size
        if seen > FLOOD:
            self._box.stop(f"it printed more than {FLOOD // 10**6} million characters")
        if self._printed[at] <= SHOWN or (msg["msg_type"] == "execute_result" and size < SHOWN):
            return super().output(outs, msg, display_id, cell_index)
        if self._printed[at] - size <= SHOWN:
            outs.append(new_output("stream", name="stdout", text=f"[cut off here, after {SHOWN:,} characters]\n"))
        return None


def imported(cells: Sequence[NotebookNode]) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """(modules that the locked cells import, name that the tests use -> (module, attribute) that they bind to it)."""
    modules: list[str] = []
    bound: dict[str, tuple[str, str]] = {}
    used: set[str] = set()
    for cell in cells:
        if role(cell) not in ("locked", "tests") or cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.Import):
                modules += [alias.name for alias in node.names]
                bound.update({alias.asname or alias.name: (alias.name, "") for alias in node.names})
            elif isinstance(node, ast.ImportFrom) and node.module:
                package = node.module in (
                    "specdec_course.checks",
                    "specdec_course.capstone",
                )  # whose names are submodules
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    modules.append(inner if package else node.module)
                    bound[alias.asname or alias.name] = (inner, "") if package else (node.module, alias.name)
            elif isinstance(node, ast.Name) and role(cell) == "tests":
                used.add(node.id)
    return sorted({*modules}), {name: where for name, where in bound.items() if name in used}


def _fault(cell: NotebookNode) -> str | None:
    """Why nbgrader must not take what stands in a graded cell for its points."""
    results = [out["data"].get("text/plain", "") for out in cell.outputs if out.output_type == "execute_result"]
    if any(out.output_type == "error" or out.get("name") == "stderr" for out in cell.outputs):
        return "the tests gave points, and something went wrong besides: see below" if results else None
    if len(results) != 1:
        return f"the tests give their points once, and this cell gave them {len(results)} times"
    try:
        points = float(results[0])
    except ValueError:
        points = math.nan
    if not 0 <= points <= float(cell.metadata.nbgrader["points"]):
        return f"the tests gave {results[0][:50]!r}, which is no number of points"
    return None


def _copy_files(resources: Any, work: Path) -> None:
    """What the exercise brings beside its notebook."""
    folder = Path(resources["metadata"]["path"])
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix != ".ipynb" and path.is_file() and not path.is_symlink():
            shutil.copy(path, work)


def _error(name: str, message: str) -> NotebookNode:
    error: NotebookNode = new_output("error", ename=name, evalue=message, traceback=[message])
    return error


def _mark_unrun(cells: Sequence[NotebookNode], message: str) -> None:
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = [_error("Stopped", message)]
