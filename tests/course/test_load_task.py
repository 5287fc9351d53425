"""Exercise 08, task 5: the answers beside its tables, read off by hand, agree with the package's own reading."""

import pytest

from specdec_course.checks.production.loads import SUSPECTS, TABLES, Table, capacity, load_rows
from specdec_ref.bench.load import crossing


@pytest.mark.parametrize("table", TABLES, ids=[table[0] for table in TABLES])
def test_answers_by_hand_agree_with_the_crossing(table: Table) -> None:
    _, levels, limit, pays, plan = table
    rows = load_rows(levels)
    at, speeds = crossing(rows), {(row["concurrency"], row["method"]): row["tokens_per_s"] for row in rows}
    ordered = sorted(row[0] for row in levels)
    lead = speeds[ordered[0], "eagle"] > speeds[ordered[0], "plain"]
    assert pays == (0 if not lead else ordered[-1] if at is None else max(level for level in ordered if level < at))
    by_speed = sorted(rows, key=lambda row: -row["tokens_per_s"])
    kept = [(row["method"], row["concurrency"]) for row in by_speed if row["tpot_ms"][1] <= limit]
    assert plan == (kept[0] if kept else ("none", 0))


@pytest.mark.parametrize("suspect", SUSPECTS, ids=[suspect.says[:40] for suspect in SUSPECTS])
def test_every_common_mistake_fails_and_is_named(suspect: object) -> None:
    report = capacity(suspect.code)  # type: ignore[attr-defined]
    assert not report.ok
    assert suspect.says in report.reasons  # type: ignore[attr-defined]
