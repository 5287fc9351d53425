"""`specdec grade` on a copy of the course: what is released, graded and reported; submissions that would never end."""

import json
import shutil
from pathlib import Path

import pytest

from specdec_ref.cli import main

ROOT = Path(__file__).parent.parent
NAME = "02_verification"

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of one exercise, its notebook named as in the repository."""
    for folder in ("solutions", "exercises"):
        shutil.copytree(ROOT / folder / NAME, tmp_path / folder / NAME)
    return tmp_path


def cut(notebook: Path, replaced: str) -> None:
    """Make the code cell that holds the student's acceptance rule say something else."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    solutions = [
        c for c in content["cells"] if c["metadata"].get("nbgrader", {}).get("solution") and c["cell_type"] == "code"
    ]
    solutions[0]["source"] = [replaced]
    notebook.write_text(json.dumps(content), encoding="utf-8")


def test_release_check_is_green_until_an_exercise_is_edited(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "release", "--check", "--course", str(course)]) == 0
    released = course / "exercises" / NAME / f"{NAME}.ipynb"
    released.write_text(released.read_text(encoding="utf-8").replace("raise NotImplementedError", "return 1  #", 1))
    capsys.readouterr()
    assert main(["grade", "release", "--check", "--course", str(course)]) == 1
    assert NAME in capsys.readouterr().out
    assert main(["grade", "release", "--course", str(course)]) == 0
    assert released.read_bytes() == (ROOT / "exercises" / NAME / f"{NAME}.ipynb").read_bytes()


def test_a_report_before_anything_is_graded_says_so(
    course: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it need the environment on PATH: nbgrader looks for alembic there."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert main(["grade", "report", "--course", str(course)]) == 0
    assert "nothing is graded yet" in capsys.readouterr().err


@pytest.mark.slow
def test_a_submission_without_an_end_is_cut_off_and_the_class_goes_on(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An endless loop loses its own task by the cell's clock, a killed process everything; both are marked."""
    folder = course / "in"
    folder.mkdir()
    for student, code in (("loop", "while True:\n    pass"), ("exit", "import os\nos._exit(3)")):
        handed_in = folder / f"{student}" / f"{NAME}.ipynb"
        handed_in.parent.mkdir()
        shutil.copy(course / "exercises" / NAME / f"{NAME}.ipynb", handed_in)
        cut(handed_in, code)
        arguments = [
            "grade",
            "autograde",
            str(handed_in),
            "--student",
            student,
            "--course",
            str(course),
            "--cell-seconds",
            "6",
        ]
        main(arguments)
    capsys.readouterr()
    assert main(["grade", "report", "--json", "--course", str(course)]) == 0
    marks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {mark["student"] for mark in marks} == {"loop", "exit"}
    assert sum(mark["points"] or 0.0 for mark in marks) == 0.0
