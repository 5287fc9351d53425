"""Run a student's notebook for nbgrader, in a process of its own and under limits (`kernel`).

What nbgrader would do otherwise: run it with all the memory there is, wait for every cell in turn, and leave the
submission ungraded if the kernel dies. A cell that never ran has no output, and no output means full points to
nbgrader: so cells that did not come to run are marked with an error here.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Timer
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute
from traitlets import Int

from specdec_ref.grading.kernel import CPU, MEMORY

__all__ = ["Allowance", "LimitedExecute"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one submission may use. Cells and the whole notebook have clocks of their own."""

    cell_seconds: int = 60
    cpu_seconds: int = 180
    wall_seconds: int = 300
    memory_bytes: int = 4_000_000_000


class _StudentKernels(KernelSpecManager):
    """Knows one kernel, ours, whatever name the notebook asks for."""

    environment: dict[str, str]

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """`-P` keeps the submission's folder off the import path until the limits are set."""
        argv = [sys.executable, "-P", "-m", "specdec_ref.grading.kernel", "-f", "{connection_file}", "--log-level=40"]
        return KernelSpec(argv=argv, display_name="student", language="python", env=self.environment)


class LimitedExecute(Execute):
    """nbgrader's Execute, with limits. nbgrader makes preprocessors itself, so this one has to be a subclass."""

    wall_seconds = Int(300, help="seconds for the whole notebook").tag(config=True)
    cpu_seconds = Int(180, help="CPU seconds for the whole notebook").tag(config=True)
    memory_bytes = Int(4_000_000_000, help="bytes that the notebook may write to").tag(config=True)
    _running = 0  # index of the cell that runs

    def create_kernel_manager(self) -> Any:
        """nbclient's, which starts our kernel."""
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = _StudentKernels()
        manager.kernel_spec_manager.environment = {CPU: str(self.cpu_seconds), MEMORY: str(self.memory_bytes)}
        return manager

    def preprocess(self, nb: NotebookNode, resources: Any, km: Any = None) -> tuple[NotebookNode, Any]:
        """Run all cells; where the kernel dies, is killed or hangs, mark the cells that it did not finish."""
        guard = Timer(self.wall_seconds, self._kill)
        guard.start()
        try:
            done: tuple[NotebookNode, Any] = super().preprocess(nb, resources, km)
        except DeadKernelError:
            late = guard.finished.is_set()
            why = f"it ran longer than {self.wall_seconds} seconds" if late else "its process died"
        except CellTimeoutError:
            why = f"a cell ran longer than {self.timeout} seconds and could not be interrupted"
        else:
            return done
        finally:
            guard.cancel()
        _mark_unrun(nb.cells[self._running :], f"the notebook was stopped: {why}")
        return nb, resources

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> Any:
        """Run one cell, and remember which: one that is cut off may have no output, which would be full points."""
        self._running = index
        return super().preprocess_cell(cell, resources, index)

    def _kill(self) -> None:
        kernel = self.km.provisioner.process
        if hasattr(os, "killpg"):
            os.killpg(os.getpgid(kernel.pid), signal.SIGKILL)  # with whatever it has started
        else:
            kernel.kill()


def _mark_unrun(cells: Sequence[NotebookNode], message: str) -> None:
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = [new_output("error", ename="Stopped", evalue=message, traceback=[message])]
