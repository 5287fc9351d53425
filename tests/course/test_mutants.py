"""Self-checks against mutants, differently written right answers, endless loops: what they fail, pass and name."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from random import Random
from unittest.mock import patch

import pytest
import torch
from exercise_runner import CHILDREN, EXERCISES
from mutant_equivalents import ALSO_EQUIVALENT, EQUIVALENT, NOT_COVERED
from mutant_page import PAGE, figures, page, rate, results
from mutant_runs import Judged, judge_all, prepare
from mutation import mutants
from right_answers import RIGHT

from specdec_course.checks import examine as examining
from specdec_course.checks import limits
from specdec_course.checks.examine import Suspect, Trial, attempt, examine

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each answer runs in a forked process")
SAMPLE = 3  # mutants of each exercise that the tests run; `python tests/course/mutants.py` runs them all
ENDLESS = {
    "class": "    def __init__(self):\n        while True:\n            pass\n",
    "def": "    while True:\n        pass\n",
}


@cache
def judged(exercise: str) -> dict[str, Judged]:
    """A few mutants, the right answers and an endless loop, all in one process for each exercise."""
    with patch.dict(os.environ, TRITON_INTERPRET="1"), ProcessPoolExecutor(1, mp_context=CHILDREN) as process:
        return process.submit(_judged, exercise).result()


def _judged(exercise: str) -> dict[str, Judged]:
    space, tasks = prepare(exercise)
    jobs = [
        (f"right: {r.name}", task, r.code)
        for task in tasks
        for r in RIGHT
        if (r.exercise, r.task) == (exercise, task.name)
    ]
    every = [(f"{task.name}: {m.about}", task, m.code) for task in tasks for m in mutants(task.answer)]
    jobs += [(f"mutant: {about}", task, code) for about, task, code in Random(2).sample(every, SAMPLE)]
    first = tasks[0]
    head = next(line for line in first.answer.splitlines() if line.startswith(("def ", "class ")))
    if exercise != "07_kernels" or first.name == "bytes":
        jobs.append(("endless", first, f"{head}\n{ENDLESS[head.split()[0]]}"))
    return dict(zip([name for name, _, _ in jobs], judge_all(space, [job[1:] for job in jobs]), strict=True))


@pytest.mark.parametrize("exercise", EXERCISES)
def test_differently_written_right_answers_pass(exercise: str) -> None:
    right = {name: each for name, each in judged(exercise).items() if name.startswith("right: ")}
    assert len(right) >= 5
    assert {name: each.said for name, each in right.items() if not (each.visible and each.hidden)} == {}


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_sample_of_mutants_fails_the_visible_tests(exercise: str) -> None:
    allowed = {
        f"mutant: {task}: {about}" for (name, task), found in EQUIVALENT.items() if name == exercise for about in found
    }
    allowed |= {f"mutant: {about}" for about in ALSO_EQUIVALENT.get(exercise, ())}
    made = {name: each for name, each in judged(exercise).items() if name.startswith("mutant: ")}
    assert len(made) == SAMPLE
    assert [name for name, each in made.items() if each.visible and name not in allowed] == []


@pytest.mark.parametrize("exercise", EXERCISES)
def test_an_endless_loop_ends_with_a_sentence(exercise: str) -> None:
    endless = judged(exercise)["endless"]
    assert not endless.visible
    assert "is there a loop that never ends?" in endless.said
    assert endless.seconds < 8, "the limit is 5 seconds of processor time here"


def test_the_limit_in_a_notebook_is_below_twenty_seconds() -> None:
    assert 5 <= examining.SECONDS <= 15


@pytest.mark.parametrize("exercise", EXERCISES)
def test_an_exercise_has_at_least_forty_mutants_each_with_another_source(exercise: str) -> None:
    from exercise_runner import load

    from specdec_course.grader.sources import role, source

    cells = [source(cell) for cell in load("solutions", exercise)["cells"] if role(cell) == "solution"]
    made = [mutant.code for cell in cells for mutant in mutants(cell)]
    assert len(made) >= 40
    assert len(set(made)) == len(made)


def test_the_page_of_mutants_is_what_the_results_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/course/mutant_page.py"


def test_equivalent_mutants_exist_and_pass() -> None:
    for (exercise, task), found in EQUIVALENT.items():
        passed = {row["about"] for row in results(exercise) if row["task"] == task and row["visible"] and row["hidden"]}
        assert set(found) <= passed, (exercise, task)


def test_named_causes_are_hardly_ever_false() -> None:
    found = [figures(exercise) for exercise in EXERCISES]
    answers = sum(f["bank"] + f["visible"] for f in found)
    assert sum(f["bank false"] + f["cause false"] for f in found) <= 0.01 * answers


def test_visible_tests_kill_nearly_all_mutants() -> None:
    found = [found for found in map(figures, EXERCISES) if found["mutants"]]
    assert found
    assert sum(f["visible"] for f in found) >= 0.95 * sum(f["mutants"] - f["equivalent"] for f in found)
    assert all(rate(f) > 0.85 for f in found)


def plus(number: int, right: int) -> Trial:
    return Trial(f"f({number})", lambda code: attempt(code, number), lambda came: (came == right, f"it gave {came}"))


TRIALS = (plus(1, 2), plus(5, 6))


def report_of(code: Callable[[int], int], *suspects: Callable[[int], int]) -> tuple[str, ...]:
    return examine("f", code, TRIALS, [Suspect(f"suspect {i}", each) for i, each in enumerate(suspects)]).reasons


def test_a_cause_is_named_only_if_it_gives_every_outcome_passed_ones_too() -> None:
    assert report_of(lambda n: 2, lambda n: 2) == ("suspect 0",)
    assert report_of(lambda n: 2, lambda n: n + 2 if n == 1 else 2) == (), "it fails a case that passed"
    assert report_of(lambda n: 7 - n, lambda n: 2) == (), "one of the two failures is another one"


def test_an_error_is_explained_by_the_same_error_alone() -> None:
    assert report_of(lambda n: n // (n - 1), lambda n: n % (n - 1)) == ()
    assert report_of(lambda n: n // (n - 1), lambda n: 5 // (n - 1) + 2) == ()
    assert report_of(lambda n: n // (n - 1), lambda n: n // (n - 1)) == ("suspect 0",)


def test_one_torch_thread_inside_a_check_and_as_many_as_before_after_it() -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        report_of(lambda n: seen.append(torch.get_num_threads()) or n + 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_a_loop_that_catches_every_error_is_stopped_too() -> None:
    def stubborn(n: int) -> int:
        ends = time.process_time() + 30
        while time.process_time() < ends:
            try:
                while time.process_time() < ends:
                    pass
            except Exception:  # noqa: BLE001  (as a learner may write it)
                pass
        return n

    with patch.object(examining, "SECONDS", 0.3):
        report = examine("f", stubborn, TRIALS, ())
    assert [case.passed for case in report.cases] == [False, False]
    assert "it had not finished after 0.3 seconds" in report.cases[0].says
    assert report.cases[1].says == "not run, because the time was up"


def test_nothing_is_raised_once_the_block_has_ended() -> None:
    for _ in range(20):
        with limits.in_time(60.0):
            pass
    time.sleep(2 * limits.AGAIN / 10)
    assert threading.active_count() < 20


def test_each_survivor_has_its_reason() -> None:
    """A mutant that passes the visible tests is equivalent, or it is known why the check does not see it."""
    reasons = {key: {**EQUIVALENT.get(key, {}), **NOT_COVERED.get(key, {})} for key in {*EQUIVALENT, *NOT_COVERED}}
    without = [
        (exercise, row["task"], row["about"])
        for exercise in EXERCISES
        for row in results(exercise)
        if row["visible"] and not row["about"].startswith(("bank:", "right:"))
        and row["about"] not in reasons.get((exercise, row["task"]), {})
    ]  # fmt: skip
    assert without == []
