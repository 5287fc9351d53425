"""The judge of a hand-in and the checks of a student's notebook: the same points, and the same words."""

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import pytest
from exercise_runner import EXERCISES, Result, grade_id, load
from quick import sampled
from wrong import Wrong
from wrong_answers import BANK as WHOLE_BANK

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

import remote_runner
from remote_runner import Job

from specdec_course.grader.sources import role, source

pytestmark = pytest.mark.slow

BANK = sampled(WHOLE_BANK, 8)
SEEDED = "import random, torch\nrandom.seed(0)\ntorch.manual_seed(0)\n"  # an answer that takes chance from outside gives the same in both places


def both(name: str, jobs: list[Job]) -> tuple[list[Result], list[Result]]:
    """(by the judge, as in a notebook), each in a child without the tests' shape checks, and with Triton's interpreter."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        patch.setenv("TRITON_INTERPRET", "1")
        here = process.submit(remote_runner.here, name, jobs).result()
        return process.submit(remote_runner.there, name, jobs).result(), here


def answers(folder: str, name: str) -> list[Job]:
    """Each task's tests with what stands in its cell."""
    cells = [cell for cell in load(folder, name)["cells"] if cell["cell_type"] == "code"]
    written = {grade_id(cell): source(cell) for cell in cells if role(cell) == "solution"}
    return [(f"{task}-tests", {task: code}) for task, code in written.items()]


@cache
def bank_results(name: str) -> dict[Wrong, tuple[Result, Result]]:
    bank = [wrong for wrong in BANK if wrong.exercise == name]
    there, here = both(name, [(f"{wrong.task}-tests", {wrong.task: SEEDED + wrong.code}) for wrong in bank])
    return dict(zip(bank, zip(there, here, strict=True), strict=True))


@pytest.mark.parametrize("name", EXERCISES)
def test_solutions_earn_every_point_and_stubs_none(name: str) -> None:
    solved, stubs = answers("solutions", name), answers("exercises", name)
    there, here = both(name, [*solved, *stubs])
    assert there == here
    assert [result.points == result.out_of for result in there[: len(solved)]] == [True] * len(solved)
    assert [result.points for result in there[len(solved) :]] == [0.0] * len(stubs)


@pytest.mark.parametrize("wrong", BANK, ids=[f"{w.exercise}-{w.task}-{w.name}".replace(" ", "_") for w in BANK])
def test_common_mistakes_get_the_same_points_and_words(wrong: Wrong) -> None:
    there, here = bank_results(wrong.exercise)[wrong]
    assert there.said == here.said
    assert there == here
