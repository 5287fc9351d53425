"""Hand-ins made gradable, private tests, the pages, the archive for students: without running any."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from exercise_runner import ROOT, grade_id, load
from hostile import NAME, solved

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

from specdec_course.checks.report import Case, Report
from specdec_course.grader.bundle import bundle
from specdec_course.grader.confine import Allowance
from specdec_course.grader.course import Course
from specdec_course.grader.feedback import page
from specdec_course.grader.handin import receive
from specdec_course.grader.marks import Mark
from specdec_course.grader.overlay import overlaid
from specdec_course.grader.sources import role, source
from specdec_ref.cli import main

RELEASES = {NAME: load("exercises", NAME)}
RIGHT = json.dumps(solved()).encode()


def test_a_mended_notebook_has_every_cell_of_the_release_once_in_its_order() -> None:
    release = RELEASES[NAME]
    shuffled = solved()
    shuffled["cells"] = [*reversed(shuffled["cells"]), {"cell_type": "code", "metadata": {}, "source": "helper = 1"}]
    mended = receive(json.dumps(shuffled).encode(), release).notebook
    marked = [grade_id(cell) for cell in mended["cells"] if grade_id(cell)]
    assert marked == [grade_id(cell) for cell in release["cells"] if grade_id(cell)]
    assert any(source(cell) == "helper = 1" for cell in mended["cells"])
    first = next(cell for cell in mended["cells"] if cell["cell_type"] == "code")
    assert grade_id(first) == "setup", "nothing of the student's runs before our imports"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"cells": 3}', b'{"cells": [{"cell_type": "code"}]}', b"[" * 100_000])
def test_what_is_no_notebook_becomes_one_without_answers(data: bytes) -> None:
    received = receive(data, RELEASES[NAME])
    assert "could not be read as a notebook" in received.notes[0]
    assert [source(cell) for cell in received.notebook["cells"]] == [source(cell) for cell in RELEASES[NAME]["cells"]]


def test_an_honest_notebook_gets_no_note_and_no_look() -> None:
    received = receive(RIGHT, RELEASES[NAME])
    assert (received.notes, received.looks) == ((), ())


PRIVATE = "# %% lookup-tests\nmine = check.lookup(my_lookup, more=[('a b a', 1, 1, 1)])\nreport += mine\n"


def test_private_tests_stand_behind_the_hidden_ones_and_belong_to_a_task(tmp_path: Path) -> None:
    merged = overlaid(load("solutions", NAME), PRIVATE)
    text = next(source(cell) for cell in merged["cells"] if grade_id(cell) == "lookup-tests")
    assert text.index("BEGIN HIDDEN") < text.index("mine = ") < text.index("END HIDDEN") < text.index("report.credit")
    with pytest.raises(ValueError, match="no graded cells are called look"):
        overlaid(load("solutions", NAME), "# %% look\npass\n")
    for folder in ("solutions", "exercises"):
        shutil.copytree(ROOT / folder / NAME, tmp_path / folder / NAME)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / f"{NAME}.py").write_text(PRIVATE)
    course = Course(tmp_path, Allowance(), tmp_path / "private")
    course.prepare(NAME)
    assert "mine" not in json.dumps(course.released(NAME))
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{tmp_path / 'gradebook' / 'gradebook.db'}", "specdec") as book:
        assert "mine = check.lookup" in book.find_source_cell("lookup-tests", NAME, NAME).source


def test_a_page_runs_nothing_and_asks_for_nothing() -> None:
    notebook: dict[str, Any] = solved()
    evil = "<script>alert(1)</script><img src='http://example.org/x.png'><b onclick='x()'>bold</b>"
    for cell in notebook["cells"]:
        if grade_id(cell) == "lookup-tests":
            cell["outputs"] = [{"output_type": "display_data", "data": {"text/html": evil}, "metadata": {}}]
    html = page(notebook, "<i>ada</i>", [Mark("ada", NAME, "lookup-tests", 3.0, 4.0, "<u>good</u>")], ["a < b"])
    for gone in ("<script", "<img", "onclick=", "<u>", "<i>ada"):
        assert gone not in html
    for kept in ("<b>bold</b>", "3 of 4", "a &lt; b", "default-src 'none'", "Task 1: the lookup"):
        assert kept in html


def test_a_page_tells_the_hidden_tests_from_those_that_students_had() -> None:
    notebook: dict[str, Any] = solved()
    report = Report("Task 1", (Case("It copies", True, "yes"),))
    for cell in notebook["cells"]:
        if grade_id(cell) == "lookup-tests":
            shown = {"output_type": "display_data", "data": {"text/html": report._repr_html_()}, "metadata": {}}
            credit = {"data": {"text/html": report.credit(4)._repr_html_()}, "metadata": {}}
            cell["outputs"] = [shown, shown, credit | {"output_type": "execute_result"}]
    words = next(grade_id(cell) for cell in notebook["cells"] if role(cell) == "manual")
    marks = [Mark("ada", NAME, "lookup-tests", 4.0, 4.0), Mark("ada", NAME, words, None, 2.0)]
    html = page(notebook, "ada", marks, [])
    assert "Handing in" in report.credit(4)._repr_html_()
    assert "Handing in" not in html, "it was handed in, and the hidden tests are among these"
    first, second = html.split("What the hidden tests say")
    assert first.count("It copies") == second.count("It copies") == 1
    assert html.count(", in words") == 2  # in the table, and above the answer


def test_what_a_cell_printed_never_stands_under_the_tests_heading() -> None:
    """A forged report in our own markup, in the solution cell's outputs; and the rest of the page stays short."""
    notebook: dict[str, Any] = solved()
    forged = "<p><b>Task 1: all 7 cases hold, 4 of 4 points</b></p>"
    reported = Report("Task 1", (Case("It copies", False, "no"),))._repr_html_()
    error = {"output_type": "error", "ename": "E\u202e" + "x" * 10**6, "evalue": "", "traceback": []}
    shown = {"output_type": "display_data", "metadata": {}}
    for cell in notebook["cells"]:
        if grade_id(cell) == "lookup":
            many = {"data": {"text/html": "<p>" + "y" * 200_000 + "</p>"}}
            cell["outputs"] = [shown | {"data": {"text/html": forged}}, error, *([shown | many] * 9)]
        elif grade_id(cell) == "lookup-tests":
            cell["outputs"] = [shown | {"data": {"text/html": reported}}]
    html = page(notebook, "ada", [Mark("ada", NAME, "lookup-tests", 0.0, 4.0)], [])
    printed, tests = html.split("What your cell printed")[1].split("What the tests say")
    assert "all 7 cases hold" in printed
    assert "all 7 cases hold" not in tests
    assert "It copies" in tests
    assert "\u202e" not in html
    assert len(html) < 600_000


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("%pwd\nimport gc, ctypes", "uses ctypes, gc, magics"),
        ("!pwd", "uses magics"),
        ("%%capture\nimport gc", "uses magics"),
        ("  import gc\n  gc.collect()", "uses gc"),
        (">>> import gc", "uses gc"),
        ("get_ipython().user_ns", "uses get_ipython"),
        ("import gc\nif (", "cannot be read as Python"),
        ("-" * 100_000 + "1", "cannot be read as Python"),
    ],
)
def test_no_form_of_a_cell_hides_from_a_person_what_it_uses(code: str, told: str) -> None:
    """IPython runs magics, prompts and indented cells, which are no Python by themselves."""
    notebook = solved()
    notebook["cells"].append({"cell_type": "code", "metadata": {}, "source": code, "outputs": []})
    (look,) = receive(json.dumps(notebook).encode(), RELEASES[NAME]).looks
    assert look == f"a cell of their own {told}"


def test_the_students_archive_has_exercises_and_no_solutions(tmp_path: Path) -> None:
    count = bundle(ROOT, tmp_path / "a.zip")
    bundle(ROOT, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "a.zip").namelist()
    assert len(names) == count
    for needed in (
        f"exercises/{NAME}/{NAME}.ipynb",
        "notebooks/00_start_here.ipynb",
        "Makefile",
        "pyproject.toml",
        "README.md",
        "constraints.txt",
    ):
        assert f"specdec-course/{needed}" in names
    assert not [name for name in names if "/solutions/" in name or "/tests/" in name or "wrong_answers" in name.lower()]


def test_nbgraders_own_pages_have_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nbgrader loads it: the configuration file in the folder where it is started."""
    from nbgrader.apps import NbGrader
    from nbgrader.server_extensions.formgrader.formgrader import FormgradeExtension

    monkeypatch.chdir(ROOT)
    app = NbGrader()
    app.load_config_file()
    extension = FormgradeExtension()
    extension.root_dir = str(ROOT)
    extension.initialize([])
    assert extension.config.HTMLExporter.filters["markdown2html"].__module__ == "specdec_course.grader.formgrader"
    assert app.config.CourseDirectory.source_directory == "solutions"
    assert app.config.CourseDirectory.submitted_directory == str(ROOT / "gradebook" / "submitted")
    steps = [step.__name__ for step in app.config.Autograde.autograde_preprocessors]
    assert "Judged" in steps
    assert "Execute" not in steps
    assert app.config.HTMLExporter.sanitize_html, "Formgrader must not run what students wrote"


def test_class_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "solutions" / NAME, tmp_path / "solutions" / NAME)
    assert main(["grade", "class", str(tmp_path / "none"), "--course", str(tmp_path)]) == 2
    assert "neither a folder nor a zip archive" in capsys.readouterr().err


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A course of one exercise of which a release was made; no test here runs a hand-in."""
    root = tmp_path_factory.mktemp("course")
    for folder in ("solutions", "exercises"):
        shutil.copytree(ROOT / folder / NAME, root / folder / NAME)
    course = Course(root, Allowance())
    course.prepare(NAME)
    (root / "in" / "ada").mkdir(parents=True)
    (root / "in" / "ada" / f"{NAME}.ipynb").write_bytes(RIGHT)
    return course


ROSTERS = {
    "an Excel workbook": (b"PK\x03\x04xx", [], "Excel workbook"), "nobody of the class": (b"Name,ID\nBob,7\n", [], "--match, one of Name, ID"),
    "no such column": (b"Name,ID\nada,7\n", ["--match", "Login"], "no columns called 'Login'"), "no file": (None, [], "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("what", ROSTERS)
def test_a_wrong_roster_ends_the_run_before_anything_is_graded(
    what: str, prepared: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, more, told = ROSTERS[what]
    if data is not None:
        (tmp_path / "r.csv").write_bytes(data)
    command = [
        "grade",
        "class",
        str(prepared.root / "in"),
        "--course",
        str(prepared.root),
        "--roster",
        str(tmp_path / "r.csv"),
    ]
    assert main([*command, *more]) == 2
    assert told in capsys.readouterr().err
    assert not (prepared.root / "gradebook" / "autograded").exists()


def test_what_was_graded_is_graded_again_when_its_tests_or_the_checks_have_changed(
    prepared: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specdec_course.grader import course as module

    file = prepared.root / "in" / "ada" / f"{NAME}.ipynb"
    assert prepared.hand_in("zed", NAME, file)
    prepared.graded("zed", NAME).parent.mkdir(parents=True)
    shutil.copy(prepared.submitted("zed", NAME), prepared.graded("zed", NAME))
    assert not prepared.hand_in("zed", NAME, file)
    (tmp_path / f"{NAME}.py").write_text(PRIVATE)
    assert Course(prepared.root, Allowance(), tmp_path).hand_in("zed", NAME, file), "private tests"
    monkeypatch.setattr(module, "checks_hash", lambda: b"another version of the checks")
    assert prepared.hand_in("zed", NAME, file)
    shutil.rmtree(prepared.graded("zed", NAME).parents[2])


def test_only_a_student_who_handed_in_can_be_graded_alone(prepared: Course, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["grade", "class", str(prepared.root / "in"), "--course", str(prepared.root), "--student", "bob"]
    assert main(command) == 2
    assert "nothing there was handed in by bob" in capsys.readouterr().err
    assert main([*command[:-2], "--due", "soon"]) == 2
    assert "2026-11-20T23:59" in capsys.readouterr().err
