"""Whatever is handed in, the run goes to its end and everybody has a row: malformed files, and graders that die."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from exercise_runner import ROOT, load
from hostile import FULL, NAME, solved
from malformed import ARCHIVES, NOTEBOOKS, PLAIN, READABLE, fuzzed

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

import nbformat

from specdec_course.grader.classroom import collect
from specdec_course.grader.course import Course
from specdec_course.grader.handin import receive, recognised
from specdec_course.grader.isolated import Bounds, Job, isolated, run_all
from specdec_course.grader.sources import role, source
from specdec_course.grader.students import Students
from specdec_ref.cli import main

RELEASE = load("exercises", NAME)


def answers(notebook: dict) -> list[str]:
    return [source(cell) for cell in notebook["cells"] if role(cell) == "solution" and cell["cell_type"] == "code"]


def fit(data: bytes) -> dict:
    """What becomes of it, which nbformat must take for a notebook and any file must hold."""
    recognised(data, {NAME: RELEASE})
    received = receive(data, RELEASE)
    text = json.dumps(received.notebook, ensure_ascii=False)
    nbformat.validate(nbformat.reads(text, as_version=4))
    text.encode()
    "\n".join((*received.notes, *received.looks)).encode()
    return received.notebook


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_malformed_notebook_becomes_one_that_can_be_graded(name: str) -> None:
    notebook = fit(NOTEBOOKS[name])
    if name in READABLE:
        assert answers(notebook) == answers(solved()), "what can be read counts"


def test_a_thousand_notebooks_and_archives_changed_by_chance(tmp_path: Path) -> None:
    """Notebooks at once, archives in one class; each is taken or refused with words, and nothing is raised."""
    folder = tmp_path / "in"
    folder.mkdir()
    kept = 0
    for number, (ending, data) in enumerate(fuzzed(1000)):
        if ending == ".zip":
            (folder / f"s{number}.zip").write_bytes(data)
        else:
            kept += answers(fit(data)) == answers(solved())
    assert 100 < kept < 500, "the fuzzer changes too much, or nothing"
    (tmp_path / "scratch").mkdir()
    found = collect([folder], {NAME: RELEASE}, tmp_path / "scratch", Students(tmp_path / "s.json"), NAME)
    assert {each.student for each in found.hand_ins} == {path.stem for path in folder.iterdir()}
    taken = [each for each in found.hand_ins if each.file is not None]
    assert 20 < len(taken) < 480
    assert all(each.note for each in found.hand_ins if each.file is None)
    for each in taken[:50]:
        assert each.file is not None
        fit(each.file.read_bytes())


WHOLE = {"names that climb", "names from the root", "a name too long", "a name with an escape", "stored", "bzip2", "text before it", "a date that is none", "names too deep"}  # fmt: skip


def test_a_malformed_archive_costs_nobody_else_anything(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name, data in ARCHIVES.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "work.zip").write_bytes(data)
    (folder / "good").mkdir()
    (folder / "good" / f"{NAME}.ipynb").write_bytes(PLAIN)
    (tmp_path / "scratch").mkdir()
    students = Students(tmp_path / "s.json")
    found = collect([folder], {NAME: RELEASE}, tmp_path / "scratch", students, NAME)
    by_name = {students.of(each.student).user: each for each in found.hand_ins}
    assert set(by_name) == {*ARCHIVES, "good"}
    assert by_name["good"].file == folder / "good" / f"{NAME}.ipynb"
    for name in WHOLE:
        file = by_name[name].file
        assert file is not None, (name, by_name[name].note)
        assert answers(fit(file.read_bytes())) == answers(solved()), name
        assert file.is_relative_to(tmp_path / "scratch"), "nothing is written elsewhere"
    for name in ("a damaged stream", "a bomb", "no archive", "encrypted", "an unknown method", "empty"):
        assert by_name[name].file is None
        assert re.search(r"cannot be (read|opened)", by_name[name].note), by_name[name].note
    size = sum(path.stat().st_size for path in (tmp_path / "scratch").rglob("*") if path.is_file())
    assert size < 100_000_000, "a bomb leaves nothing"


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hoards() -> int:
    return len(bytearray(3_000_000_000))


def says(what: str) -> str:
    return what


def raises() -> None:
    raise RecursionError("too deep")


@pytest.mark.parametrize(
    ("function", "args", "told"),
    [
        (dies, (), "ended by SIGKILL"), (time.sleep, (60,), "longer than 2 seconds"), (hoards, (), "MemoryError"),
        (raises, (), "RecursionError: too deep"), (os._exit, (3,), "without an answer"), (object, (), "not JSON serializable"),
    ],
)  # fmt: skip
def test_a_call_that_goes_wrong_is_an_outcome(function, args: tuple, told: str) -> None:
    done = isolated(function, *args, bounds=Bounds(2, 5, 1_000_000_000))
    assert done.value is None
    assert told in done.error


def test_calls_share_the_time_and_one_death_leaves_the_others() -> None:
    jobs = [
        Job(number, dies if number == 3 else says, () if number == 3 else (f"{number} \ud800",)) for number in range(20)
    ]
    done = {job.key: outcome for job, outcome in run_all(jobs, 4, Bounds(20, 5))}
    assert {number: outcome.value for number, outcome in done.items() if number != 3} == {
        n: f"{n} \ud800" for n in range(20) if n != 3
    }
    assert "SIGKILL" in done[3].error


@pytest.mark.slow
def test_a_grader_that_dies_for_one_hand_in_leaves_a_mark_a_message_and_everybody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if a file had found a fault in a parser: of three, one kills the judge, and one the page that is made of it."""
    from specdec_course.grader import classrun

    for folder in ("solutions", "exercises"):
        shutil.copytree(ROOT / folder / NAME, tmp_path / folder / NAME)
    for name in ("good", "kills", "page"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / f"{NAME}.ipynb").write_bytes(PLAIN)
    graded, rendered = Course.autograde, classrun.page

    def autograde(self: Course, student: str, name: str) -> None:
        if student == "kills" and "could not be graded" not in self.submitted(student, name).read_text():
            os._exit(9)
        graded(self, student, name)

    def page(notebook: dict, student: str, *rest: object) -> str:
        if student == "page":
            dies()
        return rendered(notebook, student, *rest)

    monkeypatch.setattr(Course, "autograde", autograde)
    monkeypatch.setattr(classrun, "page", page)
    command = ["grade", "class", str(tmp_path / "in"), "--course", str(tmp_path), "--jobs", "2", "--unread"]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "NOT GRADED  kills" in said
    assert "2 graded, 0 unchanged, 1 failed" in said
    rows = (tmp_path / "gradebook" / "grades.csv").read_text().splitlines()[1:]
    full = f"{sum(FULL.values()):g}"
    assert rows == [f"good,{full},{full}", "kills,0,0", f"page,{full},{full}"]
    pages = {
        name: (tmp_path / "gradebook" / "feedback" / name / NAME / f"{NAME}.html").read_text()
        for name in ("good", "kills", "page")
    }
    assert "could not be graded" in pages["kills"]
    assert "whole page could not be made" in pages["page"]
    assert f"{full} <small>of" in pages["page"]
    monkeypatch.undo()
    assert main([*command, "--student", "kills"]) == 0, "it is tried again the next time, alone if asked for"
    assert "1 graded, 0 unchanged, 0 failed" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 graded, 3 unchanged, 0 failed" in capsys.readouterr().out
