"""Attacks on marks: each in a worker of its own, before the four graded cells of exercise 04, with wrong answers."""

import re
import socket
import sys
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from attacks import ATTACKS, SYSTEM, Attack, wrong_answers
from exercise_runner import grade_id
from forgeries import BYTES, REPLIES, VALUES
from quick import sampled

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

from remote_runner import code_cells, graded, judged

from specdec_course.checks import ngram as check
from specdec_course.checks.wire import Wire
from specdec_course.grader.forked import warm
from specdec_course.grader.judge import Judge
from specdec_course.grader.policy import namespaces
from specdec_course.grader.remote import Remote
from specdec_course.grader.sources import role, source

pytestmark = pytest.mark.slow

NAME = "04_ngram"
OFFERS = {"specdec_course.checks.ngram": ("look",)}
TESTS = [cell for cell in code_cells(NAME) if role(cell) == "tests"]
SOLVED = {grade_id(cell): source(cell) for cell in code_cells(NAME) if role(cell) == "solution"}


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    """As a class is graded: boxes are forked from one process."""
    with warm():
        yield


def points(judge: Judge, seconds: float = 1.0) -> tuple[dict[str, float], str]:
    """What each task earns, and all that is said about it."""
    results = {grade_id(cell): graded(judge, cell, seconds) for cell in TESTS}
    return {name: each.points for name, each in results.items()}, "\n".join(each.said for each in results.values())


def attacked(attack: Attack) -> tuple[dict[str, float], str]:
    with judged(NAME, cpu_seconds=60, wall_seconds=60, memory_bytes=2 * 10**9) as judge:
        judge.run(wrong_answers(), 10)
        said = [str(judge.run(cell, 10)) for cell in attack.cells]
        earned, words = points(judge)
    return earned, "\n".join([*said, words])


def test_honest_answers_earn_every_point_and_wrong_ones_none() -> None:
    """Else the tests below would hold for any attack."""
    with judged(NAME) as judge:
        judge.run(wrong_answers(), 10)
        assert set(points(judge)[0].values()) == {0.0}
        for code in SOLVED.values():
            judge.run(code, 10)
        earned, said = points(judge, 60)
        assert earned == {grade_id(c): float(c["metadata"]["nbgrader"]["points"]) for c in TESTS}, said


def test_there_are_forty_of_our_own() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 51


@pytest.mark.parametrize("attack", sampled(ATTACKS, 4), ids=lambda each: each.name.replace(" ", "_"))
def test_no_attack_earns_a_point_or_changes_the_judge(attack: Attack, forked: None) -> None:
    before = str(check.lookup(check.look)), str(check.lookup(lambda *_: []))
    earned, said = attacked(attack)
    assert set(earned.values()) == {0.0}, said
    assert re.search(attack.told, said), said
    assert (str(check.lookup(check.look)), str(check.lookup(lambda *_: []))) == before


class Forger(Thread):
    """A worker that answers every call with the same message or bytes."""

    def __init__(self, ours: socket.socket, answer: Any) -> None:
        super().__init__(daemon=True)
        self.wire, self.answer = Wire(ours), answer

    def run(self) -> None:
        while True:
            try:
                what, _, *rest = self.wire.receive()
                if what == "names":
                    self.wire.send(["done", {name: ["function"] for name in rest[0]}])
                elif what != "call":
                    self.wire.send(["done", None])
                elif isinstance(self.answer, bytes):
                    self.wire.connection.sendall(self.answer)
                else:
                    self.wire.send(self.answer)
                    if self.answer[:1] == ["ask"]:
                        self.wire.receive()
                        self.wire.send(["done", None, [], 0])
            except (EOFError, OSError):
                return


SYSTEM_STARTED = sampled(SYSTEM, 4)
FORGERIES = sampled([*BYTES, *REPLIES, *(["done", value, [], 0] for value in VALUES)], 2)


@pytest.mark.parametrize("answer", FORGERIES, ids=[repr(each)[:60] for each in FORGERIES])
def test_no_forged_message_earns_a_point(answer: Any) -> None:
    ours, theirs = socket.socketpair()
    forger = Forger(theirs, answer)
    forger.start()
    with theirs:
        with ours:
            judge = Judge(Remote(Wire(ours), lambda: "it has ended", OFFERS))
            for cell in code_cells(NAME):
                if role(cell) == "locked":
                    judge.prepare(source(cell))
            earned, said = points(judge)
        forger.join(10)
    assert set(earned.values()) == {0.0}, said


@pytest.mark.skipif(bool(namespaces()) or sys.platform != "linux", reason=f"no sandbox here: {namespaces()}")
@pytest.mark.parametrize("attack", SYSTEM, ids=[each.name.replace(" ", "_") for each in SYSTEM])
def test_the_sandbox_refuses(attack: Attack, forked: None) -> None:
    refuses(attack)


@pytest.mark.skipif(bool(namespaces()) or sys.platform != "linux", reason=f"no sandbox here: {namespaces()}")
@pytest.mark.parametrize("attack", SYSTEM_STARTED, ids=[each.name.replace(" ", "_") for each in SYSTEM_STARTED])
def test_the_sandbox_of_a_single_hand_in_refuses(attack: Attack) -> None:
    refuses(attack)


def refuses(attack: Attack) -> None:
    earned, said = attacked(attack)
    assert set(earned.values()) == {0.0}, said
    assert re.search(attack.told, said), said
    assert "DONE" not in said
