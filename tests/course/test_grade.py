"""`specdec grade` on a copy of the course: what is released, graded and reported; submissions that would never end."""

import json
import re
import shutil
from pathlib import Path

import pytest

from specdec_course.grader.course import _require
from specdec_course.grader.isolated import isolated
from specdec_ref.cli import main

ROOT = Path(__file__).parents[2]
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


def handed_in(course: Path, student: str, code: str) -> Path:
    """The exercise as released, with this code in its first task."""
    notebook = course / "in" / student / f"{NAME}.ipynb"
    notebook.parent.mkdir(parents=True)
    shutil.copy(course / "exercises" / NAME / f"{NAME}.ipynb", notebook)
    cut(notebook, code)
    return notebook


# What a submission does, the limits that stop it, and what its graded copy then says. More is in test_hostile.py.
DEF = "def my_acceptance(p, q, x):\n    "
RUNAWAYS = {
    "cpu": ("while True:\n    pass", ["--cpu-seconds", "12"], "the notebook has used up its CPU time"),
    "wall": (f"{DEF}import time; time.sleep(600)", ["--wall-seconds", "25"], "the notebook was stopped: it ran longer than 25 s"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("student", RUNAWAYS)
def test_a_submission_without_an_end_is_cut_off_marked_and_told_why(
    student: str, course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options stand before and behind the path, as people type them."""
    code, limits, told = RUNAWAYS[student]
    notebook = handed_in(course, student, code)
    assert main(["grade", "autograde", "--student", student, str(notebook), "--course", str(course), *limits]) == 0
    graded = (course / "gradebook" / "autograded" / student / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    assert told in graded
    capsys.readouterr()
    assert main(["grade", "report", "--json", "--course", str(course)]) == 0
    marks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {mark["student"] for mark in marks} == {student}
    assert len(marks) == 6
    assert sum(mark["points"] or 0.0 for mark in marks) == 0.0


@pytest.mark.slow
def test_a_person_reads_the_written_answer_and_enters_its_points(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = [NAME, "--course", str(course)]
    me = ["--student", "me"]
    assert main(["grade", "mark", *about, *me]) == 2, "nothing is graded yet"
    notebook = handed_in(course, "me", f"{DEF}pass")
    answer(notebook, "It stays the same, since p decides.")
    main(["grade", "autograde", str(notebook), "--course", str(course)])
    capsys.readouterr()
    assert main(["grade", "mark", *about]) == 0
    queue = capsys.readouterr()
    assert "It stays the same, since p decides." in queue.out
    assert "*Marking:" in queue.out
    assert "1 answer to be read" in queue.err
    assert main(["grade", "mark", "--points", "1.5", *about, *me, "--comment", "the reason is missing"]) == 0
    assert re.search(r"prediction +1\.5 of 2", capsys.readouterr().out)
    assert main(["grade", "mark", "--points", "3", *about, *me]) == 2
    assert "0 to 2 points" in capsys.readouterr().err
    page = course / "gradebook" / "feedback" / "me" / NAME / f"{NAME}.html"
    assert "the reason is missing" in page.read_text(encoding="utf-8")
    main(["grade", "autograde", "--course", str(course)])
    assert re.search(r"prediction +1\.5 of 2", capsys.readouterr().out), "an answer that is the same keeps its mark"
    answer(notebook, "It changes.")
    main(["grade", "autograde", str(notebook), "--course", str(course)])
    assert re.search(r"prediction +to be read", capsys.readouterr().out), "another one is to be read again"


def answer(notebook: Path, text: str) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    (cell,) = [c for c in content["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == "prediction"]
    cell["source"] = [text]
    notebook.write_text(json.dumps(content), encoding="utf-8")


def fails_as_nbgrader_does() -> None:
    trace = "".join(f'  File "a.py", line {at}, in step\n' for at in range(300))
    log = f"[INFO] begins\n[ERROR] it failed\nTraceback (most recent call last):\n{trace}KeyError: 'what was missing'"
    _require({"success": False, "log": log, "error": None}, "Anna, 02")


def test_a_failure_of_nbgrader_keeps_its_traceback() -> None:
    """Its beginning and its end also reach the process that goes on."""
    with pytest.raises(RuntimeError, match=r"(?s)Anna, 02: nbgrader failed: .*Traceback.*KeyError"):
        fails_as_nbgrader_does()
    done = isolated(fails_as_nbgrader_does)
    assert done.raised
    assert "it failed" in done.error
    assert done.error.endswith("KeyError: 'what was missing'")
    assert "begins" not in done.error
