"""Numbers in the prose of the chapters are those of the committed measurement, log or stored output that they quote."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from specdec_ref.bench.known import known, quoted
from specdec_ref.bench.rows import committed, runs

ROOT = Path(__file__).parents[2]
QUOTED = (  # cells beside a live measurement of v or c
    ("01_bottleneck", "01-017"), ("05_tree", "4de344bd"), ("06_metrics", "metrics-19"), ("08_production", "c07"),
)  # fmt: skip


@cache
def cells(chapter: str) -> Mapping[str, Any]:
    stored = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    return {cell["id"]: cell for cell in stored["cells"]}


def prose(chapter: str, cell: str) -> str:
    return "".join(cells(chapter)[cell]["source"])


def shown(chapter: str, cell: str) -> str:
    """What the stored output of a cell prints."""
    found = cells(chapter)[cell]["outputs"]
    return "".join("".join(o.get("text", ())) + "".join(o.get("data", {}).get("text/plain", ())) for o in found)


def says(chapter: str, cell: str, *parts: str) -> None:
    text = " ".join(prose(chapter, cell).split())
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(("chapter", "cell"), QUOTED)
def test_chapters_quote_one_measurement_of_costs(chapter: str, cell: str) -> None:
    assert "print(quoted())" in prose(chapter, cell)
    assert quoted() in shown(chapter, cell)


def test_chapter_8_quotes_acceptance() -> None:
    copies = known("mean", 0)["ngram"]
    says("08_production", "c10", f"they draft in {100 * copies.drafts:.0f} % of rounds",
         f"the first guess is right in {100 * copies.alive[0]:.0f} %", f"$\\tau - 1 = {copies.tau - 1:.2f}$")  # fmt: skip


def test_chapter_8_quotes_the_load_tests() -> None:
    prices, taus = [], []
    for _, rows in runs("load"):
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        taus.append([f"{row['tau']:.2f}" for _, row in pairs])
        prices.append([f"{row['tau'] * plain['tokens_per_s'] / row['tokens_per_s']:.2f}" for plain, row in pairs])
    assert len(set(taus[0])) == 1
    says("08_production", "p23", f"it is {taus[0][0]} at every level", f"rises from {prices[0][0]} to {prices[0][-1]} plain",
         f"costs {prices[1][0]} plain steps, and it emits {taus[1][0]} tokens")  # fmt: skip


def test_chapter_3_quotes_the_heads() -> None:
    def row(name: str, **wanted: Any) -> dict[str, Any]:
        (found,) = [r for r in committed(name)[1] if wanted.items() <= r.items()]
        return found

    both = {"reads": "three layers", "vocab": 4096}
    one, two, four = (row("heads", **both, steps=steps) for steps in (1, 2, 4))
    percent = [[f"{100 * share:.0f} %" for share in r["single"]] for r in (one, two, four)]
    says("03_eagle", "03-037", f"({percent[0][0]} against {percent[1][0]})",
         f"the share falls from {percent[1][1]} to {percent[0][1]}",
         f"from {1 + sum(two['chain']):.2f} to {1 + sum(four['chain']):.2f}")  # fmt: skip
    shipped = {v: 1 + sum(row("heads-shipped", reads=both["reads"], vocab=v)["chain"]) for v in (4096, 1024, 256)}
    says(
        "03_eagle",
        "03-037",
        f"{shipped[4096]:.2f} with 4,096 tokens, {shipped[1024]:.2f} with 1,024 and {shipped[256]:.2f} with 256",
    )


def test_chapters_6_and_8_quote_the_task_table() -> None:
    def eagle(task: str, dtype: str) -> dict[str, Any]:
        setting = {"task": task, "dtype": dtype, "method": "eagle", "batch": 1, "context": 0, "clock": "wall"}
        rows = [row for _, run in runs("tasks") for row in run]
        return next(row for row in rows if setting.items() <= row.items() and row["temperature"] == 0)

    half = eagle("all", "bfloat16")
    (speed,) = [r for r in committed("eagle-speed")[1] if (r["task"], r["side"]) == ("mean", "eagle")]
    says("06_metrics", "metrics-38", f"Chapter 03 shows {speed['over_plain']:.2f} for *eagle* in bfloat16",
         f"ranges from {half['ci_low']:.2f} to {half['ci_high']:.2f}")  # fmt: skip
    assert half["ci_low"] < speed["over_plain"] < half["ci_high"]
    whole, translated = (eagle(task, "float32")["speedup_vs_plain"] for task in ("all", "translation"))
    says("08_production", "c08", f"a speed-up of {whole:.2f} over all tasks in float32",
         f"({translated:.2f}, from three prompts)")  # fmt: skip


def test_numbers_from_the_log_are_there() -> None:
    log = " ".join((ROOT / "docs" / "LOG.md").read_text(encoding="utf-8").split())
    says("03_eagle", "03-010", "2.15 (head) against 1.55 (twin) at T = 0, and 1.66 against 1.48 at T = 1")
    assert "tau 1.55 against 2.15 of the head at the same tokens (T = 1: 1.48 and 1.66)" in log


def test_prose_quotes_the_output_above_it() -> None:
    says("04_ngram", "ngram-11", "$\\tau$ falls from 1.26 to 1.14")
    code = [line.split() for line in shown("04_ngram", "ngram-10c").splitlines() if line.startswith("code")]
    assert [row[3] for row in code] == ["1.26", "1.14"]
    says("08_production", "c04", "costs 1.24 plain steps at batch size 1 and 4.38 at 16")
    printed = shown("08_production", "c03")
    assert "costs 1.24 plain steps" in printed
    assert "costs 4.38 plain steps" in printed
    says("08_production", "c14", "at batch size 512 the predicted speed-up rises from 1.00 to 2.26")
    rows = [
        line.split(":")[1].split() for line in shown("08_production", "c13").splitlines() if line.startswith("context")
    ]
    assert (rows[0][3], rows[-1][3]) == ("1.00", "2.26")


def test_no_chapter_says_that_half_of_the_guesses_hold() -> None:
    rates = [
        row["alpha"] for row in committed("eagle-acceptance")[1] if row["drafter"] == "eagle" and row["split"] == "test"
    ]
    assert min(rates) < 0.4 < 0.6 < max(rates)
    for chapter in ("00_start_here", "04_ngram"):
        text = " ".join("".join(cell["source"]) for cell in cells(chapter).values())
        assert "half of the time" not in text
        assert "half of its guesses" not in text
