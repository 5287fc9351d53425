"""Every exercise, as released and as solved: what it grades, what it gives away, and what it tells who is wrong."""

import json
import re
from functools import cache

import pytest
from exercise_runner import EXERCISES, ROOT, Result, grade_id, load, run_all
from wrong import Wrong
from wrong_answers import BANK, table

from specdec_course.grader.sources import HIDDEN, faults, role, source

SOLVED = re.compile(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", re.DOTALL)


def test_there_are_exercises() -> None:
    assert {"01_bottleneck", "02_verification"} <= set(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_sources_are_sound(name: str) -> None:
    assert faults(load("solutions", name)) == []


@pytest.mark.parametrize("name", EXERCISES)
def test_solutions_earn_every_point(name: str) -> None:
    (results,) = run_all([(load("solutions", name), {}, "")])
    assert len(results) >= 3
    assert not any("A likely cause" in result.said for result in results.values())
    told = {wrong.told for wrong in BANK if wrong.exercise == name}
    assert [words for words in told for result in results.values() if words in result.said] == []
    assert {task: result for task, result in results.items() if result.points != result.out_of} == {}


@pytest.mark.parametrize("name", EXERCISES)
def test_untouched_exercises_earn_nothing_in_any_cell(name: str) -> None:
    """Neither as released nor as graded, with the hidden tests in place."""
    stubs = {grade_id(cell): source(cell) for cell in load("exercises", name)["cells"] if role(cell) == "solution"}
    for results in run_all([(load("exercises", name), {}, ""), (load("solutions", name), stubs, "")]):
        assert {task: result for task, result in results.items() if result.points} == {}
        assert all("not written yet" in result.said for result in results.values())


@pytest.mark.parametrize("name", EXERCISES)
def test_points_are_announced_and_a_third_at_most_is_read_by_a_person(name: str) -> None:
    cells = load("exercises", name)["cells"]
    points = {
        grade_id(cell): cell["metadata"]["nbgrader"]["points"] for cell in cells if "points" in str(cell["metadata"])
    }
    read = sum(cell["metadata"]["nbgrader"]["points"] for cell in cells if role(cell) == "manual")
    assert 3 <= len(points) <= 6
    assert 0 < read <= sum(points.values()) / 3
    rows = re.findall(r"^\| \d .*\| (\d+) \|$", source(cells[0]), re.MULTILINE)
    assert [int(row) for row in rows] == list(points.values()), "the table in the first cell says otherwise"
    assert f"of the {sum(points.values())} points" in source(cells[0])


@pytest.mark.parametrize("name", EXERCISES)
def test_exercises_give_nothing_away(name: str) -> None:
    kept, released = load("solutions", name), load("exercises", name)
    text = "\n".join(source(cell) for cell in released["cells"])
    hidden = [match for cell in kept["cells"] for match in HIDDEN.findall(source(cell))]
    solved = [match for cell in kept["cells"] for match in SOLVED.findall(source(cell))]
    written = [source(cell) for cell in kept["cells"] if role(cell) == "manual"]
    assert len(hidden) >= 3, "the search is broken"
    assert len(solved) >= 3, "the search is broken"
    assert len(written) >= 1, "the search is broken"
    secret = [
        line.strip() for block in [*hidden, *solved, *written] for line in block.splitlines() if len(line.strip()) > 30
    ]
    # A find-the-bug task shows the code to be mended, and its solution shares most lines with that.
    shown = "\n".join(source(cell) for cell in kept["cells"] if role(cell) in ("", "locked"))
    assert [line for line in secret if line in text and line not in shown] == []
    assert "HIDDEN" not in text
    assert "SOLUTION" not in text
    assert set(released["metadata"]) <= {"kernelspec", "language_info"}
    assert not any(cell.get("outputs") for cell in released["cells"])


@pytest.mark.parametrize("name", EXERCISES)
def test_every_task_has_a_header_and_folded_hints(name: str) -> None:
    texts = [source(cell) for cell in load("exercises", name)["cells"] if source(cell).startswith("## Task")]
    assert len(texts) >= 3
    for text in texts:
        assert re.search(r"\*Difficulty [●○]{3} · importance [●○]{3} · \d+ minutes · \d points?", text), text[:60]
    code_tasks = sum(role(cell) == "tests" for cell in load("exercises", name)["cells"])
    hints = sum(source(cell).count("<details>") for cell in load("exercises", name)["cells"])
    assert hints >= 2 * code_tasks


def test_the_bank_is_large_and_covers_every_task() -> None:
    assert len(BANK) >= 12
    tasks = {
        (name, grade_id(c).removesuffix("-tests"))
        for name in EXERCISES
        for c in load("solutions", name)["cells"]
        if role(c) == "tests"
    }
    assert {(wrong.exercise, wrong.task) for wrong in BANK} == tasks


def test_the_page_of_wrong_answers_is_the_bank() -> None:
    page = (ROOT / "docs" / "WRONG_ANSWERS.md").read_text(encoding="utf-8")
    assert page == table(), "python tests/course/wrong_answers.py > docs/WRONG_ANSWERS.md"


@cache
def bank_results(name: str) -> dict[Wrong, dict[str, Result]]:
    """Each wrong answer and all it reaches, graded: one child process for all of an exercise."""
    bank = [wrong for wrong in BANK if wrong.exercise == name]
    solved = load("solutions", name)
    jobs = [(solved, {wrong.task: wrong.code}, wrong.task) for wrong in bank]
    return dict(zip(bank, run_all(jobs), strict=True))


@pytest.mark.parametrize("wrong", BANK, ids=[f"{w.exercise}-{w.task}-{w.name}".replace(" ", "_") for w in BANK])
def test_wrong_answers_fail_their_own_task_and_are_told_why(wrong: Wrong) -> None:
    results = dict(bank_results(wrong.exercise)[wrong])
    own = results.pop(f"{wrong.task}-tests")
    assert own.points < own.out_of, own.said
    assert wrong.told in own.said, own.said
    assert {task: result for task, result in results.items() if result.points != result.out_of} == {}


def test_policy_for_assistants_is_beside_the_exercises() -> None:
    text = (ROOT / "exercises" / "AGENTS.md").read_text(encoding="utf-8")
    assert len(text.split()) < 250


def test_notebooks_are_stored_as_json_with_a_newline() -> None:
    for folder in ("solutions", "exercises"):
        for name in EXERCISES:
            text = (ROOT / folder / name / f"{name}.ipynb").read_text(encoding="utf-8")
            assert text.endswith("}\n")
            assert json.loads(text)["nbformat"] == 4
