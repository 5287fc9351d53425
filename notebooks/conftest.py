"""`pytest notebooks` runs every chapter and compares it with its stored outputs: nbval, strict.

nbval alone has traps, closed here: it compares nothing unless asked to (--nbval); it passes a cell
that was never executed; it shows the value of a line that ends in `;`, which a notebook does not
(nbval issue 194); a cell may hang for 2000 s, and so does every cell once a kernel has died; and it
takes whatever kernel is called "python3" on this machine.
"""

import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from queue import Empty

import nbval.kernel
import pytest
from nbval.plugin import IPyNbCell

CELL_SECONDS = (
    300  # a whole chapter takes a minute on two quiet cores; this is room for a busy machine
)


def pytest_configure(config: pytest.Config) -> None:
    """What `--nbval ...` on the command line would say, and threads that wait without spinning.

    Spinning threads slow a model tenfold where other jobs want the same cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    config.option.nbval = True
    config.option.nbval_current_env = True  # the kernel is the Python that runs pytest
    config.option.nbval_cell_timeout = CELL_SECONDS
    config.option.nbval_sanitize_with = str(Path(__file__).with_name("nbval_sanitize.cfg"))


def pytest_runtest_call(item: pytest.Item) -> None:
    """A cell that was never executed has nothing to compare with, so it would always pass."""
    if isinstance(item, IPyNbCell) and item.cell.execution_count is None:
        pytest.fail("this cell was never executed: run the chapter with `make notebooks`")


def _execute(self: nbval.kernel.RunningKernel, source: str, allow_stdin: bool | None = None) -> str:
    """With history, as in JupyterLab: then a trailing `;` keeps its meaning."""
    return self.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


def _get_message(
    self: nbval.kernel.RunningKernel, stream: str, timeout: float | None = None
) -> dict:
    """Wait a second at a time, so that the death of the kernel is noticed."""
    receive = {"iopub": self.kc.get_iopub_msg, "shell": self.kc.get_shell_msg}[stream]
    left = float("inf") if timeout is None else timeout
    while True:
        try:
            return receive(timeout=min(left, 1.0))
        except Empty:
            left -= 1.0
            if not self.is_alive():
                raise RuntimeError("the kernel died in this cell") from None
            if left <= 0:
                raise


nbval.kernel.RunningKernel.execute_cell_input = _execute
nbval.kernel.RunningKernel.get_message = _get_message


def pytest_collection_finish(session: pytest.Session) -> None:
    """Each cell's report says whether it is compared, else why not: all that a summary has."""
    for cell in (item for item in session.items if isinstance(item, IPyNbCell)):
        cell.user_properties.append(("compared", str(bool(cell.options["check"]))))
        for reason in re.findall(r"^# nbval-ignore-output: (.+)$", cell.cell.source, re.MULTILINE):
            cell.user_properties.append(("why not", reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cells were compared, which were not and why, and how long each chapter took."""
    seconds: dict[str, float] = defaultdict(float)
    said: Counter[tuple[str, object]] = Counter()
    for report in (r for reports in terminalreporter.stats.values() for r in reports):
        path = Path(str(getattr(report, "nodeid", "")).partition("::")[0])
        if path.suffix == ".ipynb" and isinstance(report, pytest.TestReport):
            seconds[path.stem] += report.duration
            said.update(report.user_properties if report.when == "call" else ())
    compared, ignored = said["compared", "True"], said["compared", "False"]
    if not compared + ignored:
        return
    reasons = Counter({reason: n for (name, reason), n in said.items() if name == "why not"})
    terminalreporter.section("chapters")
    terminalreporter.line(
        f"{compared + ignored} cells run, {compared} compared with their stored outputs"
    )
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count} run but not compared: {reason}")
    for chapter, spent in sorted(seconds.items()):
        terminalreporter.line(f"{spent:6.1f} s  {chapter}")
