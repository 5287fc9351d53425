"""The committed task rows, which chapter 06 shows: whole, each with the run it comes from, and honest in themselves."""

from collections.abc import Iterator
from typing import Any

import pytest

from specdec_ref.bench.rows import committed, runs
from specdec_ref.workloads import TASKS

RUNS = runs("tasks")
COLD = {"eagle", "ngram", "trie", "draft", "hybrid", "eagle adaptive", "ngram adaptive", "hybrid adaptive"}
WARM = {"eagle", "ngram", "draft", "eagle tree", "eagle adaptive", "hybrid adaptive"}


def rows() -> Iterator[dict[str, Any]]:
    for _, measured in RUNS:
        yield from measured


def test_every_row_belongs_to_a_run_that_says_how_it_was_made() -> None:
    first, rest = committed("tasks")
    assert first == {"environment": RUNS[0][0]}
    assert len(rest) == sum(len(measured) for _, measured in RUNS) + len(RUNS) - 1
    for about, measured in RUNS:
        assert {"command", "date", "machine", "target", "dtype", "torch", "threads"} <= set(about)
        assert about["command"].startswith("specdec bench")
        assert measured, f"a run without rows: {about['command']}"
        assert {row["dtype"] for row in measured} == {about["dtype"]}


def test_both_temperatures_have_every_task_and_method_of_the_chapter() -> None:
    for temperature, methods in ((0.0, COLD), (1.0, WARM)):
        there = {
            (row["method"], row["task"])
            for row in rows()
            if (row["dtype"], row["temperature"], row["batch"], row["context"]) == ("bfloat16", temperature, 1, 0)
        }
        assert {(method, task) for method in methods for task in (*TASKS, "all")} - there == set()
    assert len({row["batch"] for row in rows()}) > 1
    assert len({row["context"] for row in rows()}) > 1


def test_numbers_are_possible() -> None:
    for row in rows():
        where = {name: row[name] for name in ("task", "method", "batch", "temperature")}
        assert 0.05 < row["speedup_vs_plain"] < 20, where
        assert row["ci_low"] <= row["speedup_vs_plain"] * 1.0001, where
        assert row["speedup_vs_plain"] <= row["ci_high"] * 1.0001, where
        assert row["tau"] >= 1 or row["task"] == "all", where
        if row["method"] == "plain":
            assert row["speedup_vs_plain"] == row["tau"] == 1.0


def test_a_trie_was_cold() -> None:
    """It knows the text so far, as n-grams do; had it heard the answer, it would be right nearly always."""
    taus = {
        (row["method"], row["task"]): row["tau"]
        for row in rows()
        if (row["dtype"], row["temperature"], row["batch"], row["context"]) == ("bfloat16", 0.0, 1, 0)
    }
    for task in ("chat", "creative"):
        assert taus["trie", task] < taus["ngram", task] + 0.5, task
        assert taus["trie adaptive", task] < taus["ngram adaptive", task] + 0.5, task


def test_a_file_of_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"environment": {"n": 1}}, {"task": "a"}, {"task": "b"}, {"environment": {"n": 2}}, {"task": "c"}]
    monkeypatch.setattr("specdec_ref.bench.rows._lines", lambda name: lines)
    assert runs("x") == [({"n": 1}, [{"task": "a"}, {"task": "b"}]), ({"n": 2}, [{"task": "c"}])]
