"""Answers that are none, and questions to the judge that an exercise does not allow: what they earn, which is nothing.

Each of these once earned a part of the points, ended a report, or could have.
"""

import socket
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import pytest
import torch

from specdec_course.checks.examine import Trouble, unaided
from specdec_course.checks.ngram import look
from specdec_course.checks.plain import Codec
from specdec_course.checks.wire import Garbled, Wire
from specdec_course.grader.proxies import Ended
from specdec_course.grader.remote import LATER, OFFERED, Remote
from specdec_ref.config import DraftBudget
from specdec_ref.metrics import RunStats

Reports = dict[str, tuple[str, list[tuple[str, bool, str]]]]


def child(home: str, names: str) -> Reports:
    """Not imported above: with the tests' shape checks that module cannot be."""
    found: Reports = import_module("unearned").reports(getattr(import_module(home), names))
    return found


def reports(names: str, home: str = "unearned") -> Reports:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(child, home, names).result()


def test_what_is_no_answer_earns_nothing_and_gets_a_report() -> None:
    found = reports("NOTHING")
    assert len(found) >= 25
    assert {name: said for name, (said, cases) in found.items() if any(passed for _, passed, _ in cases)} == {}
    assert [name for name, (said, _) in found.items() if "FAILS" not in said] == []


def test_what_recognises_its_case_or_does_without_the_task_earns_nothing() -> None:
    found = reports("CHEAP", "cheap")
    assert len(found) >= 20
    earned = {name: said for name, (said, cases) in found.items() if any(passed for _, passed, _ in cases)}
    assert earned == {}


def test_no_coin_makes_a_round_count_for_more() -> None:
    """It has mean 1.0, whatever it asks of the random numbers: what they are asked for always sums to 1."""
    found = reports("TRICKS")
    assert len(found) >= 8
    for name, (said, cases) in found.items():
        measured = [(passed, what) for _, passed, what in cases[3:]]
        assert len(measured) == 2
        assert not any(passed for passed, _ in measured), f"{name}: {said}"
        assert all("yields 1.000 words" in what or "it raised" in what for _, what in measured), f"{name}: {said}"


@pytest.mark.parametrize("home", sorted(OFFERED))
def test_the_judge_answers_only_what_this_exercise_offers(home: str) -> None:
    """Each of these is offered by some exercise, and would be the answer to a task of another one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        remote = Remote(Wire(ours), lambda: "", {"specdec_course.checks.nothing": ("look",)})
        for name in OFFERED[home]:
            told = remote._answer(["use", home, name, ["list", []], ["dict", []]])
            assert told[:2] == ["refused", "PermissionError"]
        allowed = Remote(Wire(ours), lambda: "", OFFERED)
        assert allowed._answer(["use", home, OFFERED[home][0], ["list", []], ["dict", []]])[:2] != [
            "refused",
            "PermissionError",
        ]


@pytest.mark.parametrize(("checks", "home", "name", "cell"), [
    (checks, next(home for home, names in OFFERED.items() if name in names), name, cell)
    for checks, names in LATER.items() for name, cell in names.items()
])  # fmt: skip
def test_what_a_task_must_not_use_is_answered_after_its_tests(checks: str, home: str, name: str, cell: str) -> None:
    ours, theirs = socket.socketpair()
    given: dict[str, list[Any]] = {
        "expected_tau": [0.5, 3], "speedup": [2.0, 3, 0.1, lambda k: 1.0], "residual": [torch.ones(2), torch.ones(2)],
        "look": [["a", "b", "a"], 2], "exposition": [RunStats(), DraftBudget(3)], "greedy_round": [],
    }  # fmt: skip
    with ours, theirs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{home}.{name}", lambda *_: 7)
        remote = Remote(Wire(ours), lambda: "", {checks: (), home: (name,)})
        args, _ = remote.pack(*given[name])
        question = ["use", home, name, args, ["dict", []]]
        assert remote._answer(question)[:2] == ["refused", "PermissionError"]
        with remote.within(10, "some other cell"):
            assert remote._answer(question)[:2] == ["refused", "PermissionError"]
        with remote.within(10, cell):
            assert remote._answer(question)[:2] == ["refused", "PermissionError"]
        assert remote._answer(question) == ["told", 7]


def test_a_function_that_is_refused_is_still_seen_by_the_check() -> None:
    def refused() -> float:
        look(["a"], 1)
        raise PermissionError

    with pytest.raises(Trouble, match="it calls `look`"):
        unaided(refused, look)()


def test_too_much_in_a_question_is_refused_wherever_it_hides() -> None:
    ours, theirs = socket.socketpair()
    home = "specdec_course.checks.ngram"
    budget = ["known", "DraftBudget", [["depth", 10**12], ["children", 1], ["nodes", 0]]]
    with ours, theirs:
        remote = Remote(Wire(ours), lambda: "", OFFERED)
        for hidden in (["list", [1] * 10_001], ["set", list(range(10_001))], ["range", 0, 20_000, 1],
                       ["list", [["list", [10**9]]]], ["namespace", [["x", 1]]], budget):  # fmt: skip
            told = remote._answer(["use", home, "look", ["list", [hidden, 1]], ["dict", []]])
            assert told[0] == "refused", hidden


@pytest.mark.parametrize("kind", ["object", "V100000", "str", "O", "m8", "float16, (99,)"])
def test_a_kernel_loads_numbers_only(kind: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = ["array", "int64", [1], "AAAAAAAAAAA="]
        told = Remote(Wire(ours), lambda: "")._answer(["load", [0, 0, 0], one, ["array", "bool", [1], "AQ=="], kind])
        assert told[:2] == ["refused", "PermissionError"]


@pytest.mark.parametrize("packed", [["range", 0, 10**9, 1], ["range", 0, 10**30, 1], ["range", 0, -(10**9), -1]])
def test_a_range_without_end_is_no_data(packed: Any) -> None:
    with pytest.raises(Garbled):
        Codec().unpack(packed)


@pytest.mark.parametrize("tag", ["dict", "Counter", "OrderedDict"])
def test_mappings_arrive_as_they_were(tag: str) -> None:
    made = Codec().unpack([tag, [["a", 1], ["b", 2], ["a", 3]]])
    assert (type(made).__name__, dict(made)) == (tag, {"a": 3, "b": 2})


def endless() -> None:
    """Mappings whose keys all have one hash."""
    same = [[number * (2**61 - 1), 0] for number in range(1, 60_000)]
    while True:
        Codec().unpack(["dict", same])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_data_that_keeps_the_tests_busy_ends_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    # An alarm that falls into a callback of the garbage collector is lost; the next one comes a second later.
    monkeypatch.setattr("specdec_course.grader.remote.OWN_SECONDS", 0.2)
    ours, theirs = socket.socketpair()
    began = time.monotonic()
    with ours, theirs:
        remote = Remote(Wire(ours), lambda: "")
        with pytest.raises(Ended, match="keeps the tests busy"), remote.within(0.1, "lookup-tests"):
            endless()
    assert time.monotonic() - began < 20
