"""docs/BENCHMARKS.md is what its command makes of the committed rows, and each table says how it was measured."""

import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page
from benchmarks.page import best_of, quotient

PAGE = Path(__file__).parents[2] / "docs" / "BENCHMARKS.md"
ROWS = files("specdec_ref.bench").joinpath("rows")


def row(task: str, method: str, speedup: float, **other: Any) -> dict[str, Any]:
    return {
        "dtype": "float32",
        "batch": 1,
        "temperature": 0.0,
        "context": 0,
        "clock": "wall",
        "task": task,
        "method": method,
        "setting": "gamma 2",
        "calls": 1,
        "tau": 1.5,
        "speedup_vs_plain": speedup,
        "speedup_vs_hf": 2.5,
        "ci_low": 1.0,
        "ci_high": 2.0,
        "identical": 3,
        "texts": 4,
    } | other


ABOUT = {"command": "specdec bench --dtype float32 --json", "target": "tiny", "dtype": "float32", "machine": "a machine",
         "torch": "2", "transformers": "5", "date": "today", "features": ["AVX2"]}  # fmt: skip
MADE = [
    row(task, method, speedup)
    for method, speedups in {
        "plain": (1, 1),
        "eagle": (1.2, 1.4),
        "eagle tree": (1.6, 1.3),
        "ngram": (0.9, 4.0),
        "hf prompt lookup": (0.6, 3.0),
    }.items()
    for task, speedup in zip(("code", "editing"), speedups, strict=True)
] + [row("all", method, 1.5) for method in ("plain", "eagle", "eagle tree", "ngram", "hf prompt lookup")]

FORETOLD = [
    row("code", "eagle", 0.0, tau_dev=1.8, prefill=0.11, predicted=1.25, with_test_tau=1.1, measured=1.2, reason=""),
    row(
        "editing",
        "ngram",
        0.0,
        tau_dev=1.8,
        prefill=0.1,
        predicted=2.0,
        with_test_tau=3.9,
        measured=4.0,
        reason="acceptance",
    ),
]


def test_the_committed_page_is_what_the_command_gives() -> None:
    """If not: python -m benchmarks.page > docs/BENCHMARKS.md."""
    assert PAGE.read_text(encoding="utf-8") == page.page()


def test_every_run_names_its_command_and_no_path_of_a_machine() -> None:
    for file in ROWS.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            about = json.loads(line).get("environment")
            if about is not None:
                words = shlex.split(about["command"])
                known = (
                    ["specdec", "bench"],
                    ["python", "-m", "benchmarks.predict"],
                    ["python", "-m", "benchmarks.served"],
                    ["python", "-m", "benchmarks.floor"],
                )
                assert any(words[: len(start)] == start for start in known)
                assert not any(word.startswith(("/", "~", ".")) for word in words), about["command"]
                engine = {"llamacpp"} if words[2] == "benchmarks.served" else {"torch", "transformers"}
                assert {"date", "machine", "dtype"} | engine <= about.keys()


def test_a_run_becomes_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        "tasks": [(ABOUT, MADE)],
        "lookup": [(ABOUT | {"date": "tomorrow"}, MADE)],
        "never": [(ABOUT, MADE)],
        "predicted": [(ABOUT, FORETOLD)],
        "drafters": [(ABOUT, MADE)],
    }
    monkeypatch.setattr(page, "runs", lambda name: made[name])
    text = page.page()
    assert text.count("### float32: T = 0, batch 1") == 4, "tables of four files"
    assert "| tomorrow, AVX2 | float32 | 1 |  | ngram | hf prompt lookup | 1.41 |" in text
    assert "### float32: T = 0, batch 1\n\n```sh\nspecdec bench --dtype float32 --json\n```" in text
    assert "| ngram | gamma 2 | 0.90 | 4.00 | **1.50** | 1.00-2.00 | 2.50 | 1.50 | 6/8 |" in text
    assert "6 of 8 cells at 0.97 or more, 6 at 0.99 or more; the lowest is 0.600: hf prompt lookup, code." in text
    assert "| today, AVX2 | float32 | 1 |  | ngram | hf prompt lookup | 1.41 |" in text  # sqrt(0.9 / 0.6 * 4 / 3)
    assert "| float32 | code | 2 to 3 | 1.60 (eagle tree) | 1.5 to 2 | 0.90 (ngram) |" in text
    assert "**1 of 2 within 10%, 2 with the test split's own tau; the misses: acceptance 1**." in text
    assert "| code | eagle | gamma 2 | 1.80 | 1.50 | 0.11 | 1.25 | 1.20 | 1.00-2.00 |  |" in text
    assert "| float32 | editing |  | 1.40 (eagle) |  | 4.00 (ngram) |" in text


def test_adaptive_is_compared_with_the_best_setting_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    about = ABOUT | {"command": "specdec bench --all-settings --json"}
    speeds = {"plain": 1.0, "eagle, gamma 2": 1.2, "eagle, gamma 4": 1.5, "eagle adaptive, up to 12": 1.35,
              "draft, gamma 2": 0.8, "draft adaptive, up to 12": 0.98, "useless adaptive, up to 12": 0.97}  # fmt: skip
    rows = [row("all", method, speed) for method, speed in speeds.items()]
    rows += [
        row(task, method, speed - less)
        for method, speed in speeds.items()
        for task, less in (("code", 0), ("chat", 0.1))
    ]
    monkeypatch.setattr(page, "runs", lambda name: [(about, rows)] if name == "tasks" else [])
    text = page.page()
    assert "| float32, wall | eagle | eagle, gamma 4 | 1.50 | 1.35 | 0.90 | 1.25 |" in text
    assert "| float32, wall | draft | draft, gamma 2 | 0.80 | 0.98 | 0.98 | 0.88 |" in text  # not to draft was better
    assert "| float32, wall | useless | not run |  | 0.97 |  | 0.87 |" in text
    assert "| float32 | code | 2 to 3 |" not in text


def test_what_was_not_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        raise FileNotFoundError(name)

    monkeypatch.setattr(page, "runs", none)
    text = page.page()
    assert "## Tasks" not in text
    assert "## What others published" in text


def test_quotients_want_the_same_tasks() -> None:
    assert quotient(MADE, "ngram", "hf prompt lookup") == pytest.approx(2**0.5)
    assert quotient(MADE, "ngram", "hf assisted layer-skip") is None
    assert quotient(MADE[:-6], "ngram", "hf prompt lookup") is None
    assert best_of(MADE, "trie", "code") is None


def test_published_numbers_say_whose_they_are() -> None:
    _, rows = page.committed("published")
    for published in rows:
        assert all(published[key] for key in ("source", "where", "model", "hardware", "method", "tasks"))
    assert page.page().count("RTX 3090") == sum(row["hardware"] == "RTX 3090" for row in rows)
