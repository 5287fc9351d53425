"""What is counted of our head in llama.cpp, on answers with known counts; and the committed rows keep their promises."""

import pytest

from benchmarks.llamacpp import Answer, compared
from specdec_ref.bench.rows import committed, runs


def test_texts_and_rounds_are_compared_pairwise() -> None:
    plain = [Answer("a", 9, 9), Answer("b", 9, 9), Answer("c", 9, 9), Answer("d", 9, 9)]
    there = [Answer("a", 9, 5), Answer("b", 9, 5), Answer("x", 9, 3), Answer("d", 9, 5)]
    here = [Answer("a", 10, 5), Answer("b", 10, 6), Answer("c", 10, 4), Answer("d", 10, 7)]
    found = compared(plain, there, here)
    assert (found["prompts"], found["identical"], found["same_as_ours"]) == (4, 3, 3)
    assert found["equal_rounds"] == 2, "5 and 6 rounds here go with 5 there, 7 do not"
    assert found["tau_llamacpp"] == pytest.approx(36 / 18)
    assert found["tau_ours"] == pytest.approx(40 / 22)
    assert compared(plain, there[2:3] * 4, here)["tau_ours_same"] is None


def test_the_round_trip_keeps_every_text() -> None:
    about, rows = committed("llamacpp")
    assert about["llamacpp"].startswith("xllamacpp 2")
    whole = {row["type"]: row for row in rows if row["task"] == "all"}
    assert set(whole) >= {"f16", "q4_1"}
    for row in whole.values():
        assert row["prompts"] >= 20
        assert row["identical"] == row["prompts"], "llama.cpp with the head writes llama.cpp's plain text"
    assert whole["f16"]["equal_rounds"] == whole["f16"]["same_as_ours"] >= 15


def test_served_rows_are_whole() -> None:
    for about, rows in runs("served"):
        assert about["command"].startswith("python -m benchmarks.served --type")
        assert [row["method"] for row in rows if row["task"] == "all"] == ["llamacpp"]
        assert all(row["identical"] == row["texts"] for row in rows if row["task"] != "all")
    for _, rows in runs("load"):
        assert {row["method"] for row in rows} == {"plain", "llamacpp"}
        assert len(rows) == 2 * len({row["concurrency"] for row in rows}) >= 8
