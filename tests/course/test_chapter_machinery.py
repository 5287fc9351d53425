"""The machinery that runs and compares chapters: each way in which a stored output could lie turns it red.

Small notebooks go through the real `notebooks/conftest.py` and `tools/run_notebooks.py`, and so does the head of a real
chapter. (The chapters themselves run under nbval when pytest is called without arguments, or as `pytest notebooks`.)
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

for name in ("nbval", "xdist", "nbclient", "ipywidgets", "matplotlib"):
    pytest.importorskip(name, reason=f"running chapters needs {name}: the extras `notebooks` and `dev`")

ROOT = Path(__file__).parents[2]
CHAPTER = ROOT / "notebooks" / "02_verification.ipynb"

Notebook = dict[str, Any]


def code(source: str, *, count: int | None = 1, stdout: str = "", tags: Sequence[str] = ()) -> dict[str, Any]:
    outputs = [{"output_type": "stream", "name": "stdout", "text": stdout}] if stdout else []
    cell = {"cell_type": "code", "id": f"c{count}{abs(hash(source)) % 10**6}", "metadata": {"tags": list(tags)}}
    return {**cell, "source": source, "execution_count": count, "outputs": outputs}


def notebook(*cells: dict[str, Any]) -> Notebook:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def compare(folder: Path, page: Notebook, workers: int = 0, **environment: str) -> tuple[bool, str]:
    """(green?, what pytest printed) for this notebook under the real conftest."""
    for name in ("conftest.py", "nbval_sanitize.cfg"):
        shutil.copy(ROOT / "notebooks" / name, folder / name)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "page.ipynb").write_text(json.dumps(page))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(workers), "page.ipynb"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | environment)
    return run.returncode == 0, run.stdout + run.stderr


def head_of_the_chapter() -> Notebook:
    """Its first cells, up to the acceptance rate: fractions and pictures of them, which run at once and everywhere."""
    page = json.loads(CHAPTER.read_text(encoding="utf-8"))
    at = [cell["id"] for cell in page["cells"]].index("02-003")
    page["cells"] = page["cells"][: at + 1]
    return page


def test_a_changed_number_in_a_real_chapter_is_seen(tmp_path: Path) -> None:
    page = head_of_the_chapter()
    green, said = compare(tmp_path, page)
    assert green, said
    count = sum(cell["cell_type"] == "code" for cell in page["cells"])
    assert f"{count} compared" in said, "the summary must say how many cells were compared"
    (output,) = page["cells"][-1]["outputs"]
    output["data"] = {kind: "".join(text).replace("7/10", "8/10") for kind, text in output["data"].items()}
    green, said = compare(tmp_path, page)
    assert not green
    assert "8/10" in said


def test_each_lie_turns_it_red(tmp_path: Path) -> None:
    """One page, five cells, each wrong in its own way; the last one ends its kernel."""
    lies = {
        "mismatch 'stdout'": code("print(2)", stdout="1\n"),
        "never executed": code("print(2)", count=None),
        "Unexpected output": code("1 + 1", count=2),
        "ZeroDivisionError": code("1 / 0", count=3),
        "kernel died": code("import os\nos._exit(1)", count=4),
    }
    green, said = compare(tmp_path, notebook(*lies.values()))
    assert not green
    assert f"{len(lies)} failed" in said, said
    assert [word for word in lies if word not in said] == []


@pytest.mark.parametrize("workers", [0, 2])
def test_what_may_differ_is_let_through(tmp_path: Path, workers: int) -> None:
    """A trailing semicolon, an address, a warning's temporary file, and a cell that says why it is not compared.

    The summary is the same where another process ran the cells.
    """
    text = "/tmp/ipykernel_1/2.py:2: UserWarning: w\n  warnings.warn('w')\n"
    warning = {"output_type": "stream", "name": "stderr", "text": text}
    page = notebook(
        code("1 + 1;"),
        code("print(object())", count=2, stdout="<object object at 0x7f0000000000>\n"),
        code("import warnings\nwarnings.warn('w')", count=3) | {"outputs": [warning]},
        code("# nbval-ignore-output: chance\nprint(3)", count=4, stdout="4\n", tags=["nbval-ignore-output"]),
    )
    green, said = compare(tmp_path, page, workers)
    assert green, said
    assert "4 cells run, 3 compared" in said
    assert "1 run but not compared: chance" in said


@pytest.fixture
def foreign_kernel(tmp_path: Path) -> str:
    """A folder for JUPYTER_PATH in which another Python calls itself python3."""
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["no-such-python", "-f", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    return str(tmp_path / "jupyter")


def test_chapters_run_in_this_environment(tmp_path: Path, foreign_kernel: str) -> None:
    page = notebook(code("import sys\nprint(sys.executable)", stdout=f"{sys.executable}\n"))
    green, said = compare(tmp_path, page, JUPYTER_PATH=foreign_kernel)
    assert green, said


WIDGET = "import ipywidgets as w\nfrom IPython.display import display\ndisplay(w.IntSlider(description='n'))\nprint(1)"


def test_make_notebooks_is_clean_and_repeatable(tmp_path: Path, foreign_kernel: str) -> None:
    path = tmp_path / "page.ipynb"
    page = notebook(code(WIDGET, count=None, tags=["x"]), code("print(2);", count=None))
    page["metadata"] = {"language_info": {"version": "2.7"}, "kernelspec": {"name": "elsewhere"}}
    page["cells"][1]["metadata"]["execution"] = {"iopub.execute_input": "2026-01-01"}
    path.write_text(json.dumps(page))
    files = []
    for _ in range(2):
        subprocess.run(
            [sys.executable, str(ROOT / "tools" / "run_notebooks.py"), str(path)],
            check=True,
            capture_output=True,
            env=os.environ | {"JUPYTER_PATH": foreign_kernel},
        )
        files.append(path.read_text(encoding="utf-8"))
    assert files[0] == files[1], "two runs differ"
    done = json.loads(files[0])
    assert [cell["execution_count"] for cell in done["cells"]] == [1, 2]
    assert [cell["metadata"] for cell in done["cells"]] == [{"tags": ["x"]}, {}]
    assert set(done["metadata"]) == {"kernelspec", "language_info", "widgets"}
    assert "version" not in done["metadata"]["language_info"]
    (widgets,) = done["metadata"]["widgets"].values()
    shown = done["cells"][0]["outputs"][0]["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert shown in widgets["state"], "the slider's state must be found under the id that the output names"


def test_a_failing_notebook_keeps_its_outputs(tmp_path: Path) -> None:
    path = tmp_path / "page.ipynb"
    path.write_text(json.dumps(notebook(code("1 / 0", stdout="as it was\n"))))
    before = path.read_text()
    command = [sys.executable, str(ROOT / "tools" / "run_notebooks.py"), str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ZeroDivisionError" in run.stderr
    assert "not changed" in run.stderr
    assert path.read_text() == before
