"""Acceptance that was measured already, on prompts that no head was trained on: what a choice can start from.

    rows/*-acceptance.jsonl    output of `bench.acceptance`; of n-grams:
                               python -m benchmarks.acceptance --drafter ngram --temperature 0 1 --prompts 8
    weights/*/README.md        the tables in the cards of the heads that come with the package
    rows/costs.jsonl           what rounds cost on one idle machine: python -m benchmarks.costs

    share of rounds that draft at all = rejections + whole drafts = (tau - 1) (1/alpha - 1) + alive_gamma

since a drafted round ends in a rejection or accepts its draft to the end. A trained drafter drafts always. All of it is
of one small model with chains of gamma = 4: your model, your prompts and your temperature will differ.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import zip_longest
from statistics import fmean
from typing import Any

from specdec_ref.bench.rows import committed
from specdec_ref.cost_model import RoundCosts
from specdec_ref.workloads import TASKS

__all__ = ["Known", "known", "quoted", "reference_costs"]

COPIES = ("ngram", "trie", "suffix")  # the others draft in every round


@dataclass(frozen=True, slots=True)
class Known:
    """`alive`: share of rounds whose draft 1, 2, ... was accepted; `drafts`: share of rounds with a draft."""

    alive: tuple[float, ...]
    drafts: float
    tau: float


def known(task: str = "mean", temperature: float = 0.0, split: str = "test") -> dict[str, Known]:
    """Drafter -> what was measured; "mean": every task counts alike. Raises ValueError if there is nothing."""
    tasks = TASKS if task == "mean" else (task,)
    rows: dict[tuple[str, tuple[float, str, str]], Known] = {}
    for name, setting, row in _all():
        rows.setdefault((name, setting), row)
    found = {}
    for name in dict.fromkeys(name for name, _ in rows):
        own = [rows[name, (temperature, split, t)] for t in tasks if (name, (temperature, split, t)) in rows]
        if len(own) == len(tasks):
            found[name] = _mean(own)
    if not found:
        raise ValueError(f"nothing was measured for task {task!r} at temperature {temperature:g}")
    return found


def reference_costs(dtype: str = "float32") -> dict[str, RoundCosts]:
    """Drafter -> what rounds cost, from the one committed measurement. `dtype`: float32 or bfloat16."""
    found = {row["drafter"]: row["costs"] for row in committed("costs")[1] if row["dtype"] == dtype}
    if not found:
        raise ValueError(f"costs were not measured in {dtype!r}; choose float32 or bfloat16")
    return {drafter: RoundCosts.from_dict(costs) for drafter, costs in found.items()}


def quoted(dtype: str = "float32") -> str:
    """What chapters print beside their own measurement: v(5), an EAGLE head's c, and its round with 4 guesses."""
    about, eagle = committed("costs")[0], reference_costs(dtype)["eagle"]
    where = f"{about['date'][:10]}, {about['target']} in {dtype}, {about['machine']}"
    v, whole = eagle.verify[5] / eagle.verify[1], eagle.round(4, 5)
    return (
        f"committed measurement (costs.jsonl, {where}):\n"
        f"    v(5) = {v:.2f}; with the EAGLE head c = {eagle.c(1):.2f}, "
        f"a whole round with 4 guesses costs {whole:.2f} plain steps"
    )


def _mean(rows: Sequence[Known]) -> Known:
    alive = tuple(fmean(column) for column in zip_longest(*(row.alive for row in rows), fillvalue=0.0))
    return Known(alive, fmean(row.drafts for row in rows), fmean(row.tau for row in rows))


def _all() -> Iterator[tuple[str, tuple[float, str, str], Known]]:
    """(drafter, (temperature, split, task), figures) of all that comes with the package; the rounded cards last."""
    for file in files("specdec_ref.bench").joinpath("rows").iterdir():
        if file.name.endswith("-acceptance.jsonl"):
            for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()[1:]):
                yield row["drafter"].partition("=")[0], (row["temperature"], row["split"], row["task"]), _of(row)
    for folder in files("specdec_ref.weights").iterdir():
        card = folder.joinpath("README.md")
        if card.is_file():
            yield from _card(card.read_text(encoding="utf-8"))


def _card(text: str) -> Iterator[tuple[str, tuple[float, str, str], Known]]:
    """The rows of a card's table: drafter, T, split, task, tau, shares by position."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[1].replace(".", "").isdigit():
            name, temperature, split, task, tau, shares = cells
            row = Known(tuple(map(float, shares.split())), 1.0, float(tau))
            yield name, (float(temperature), split, task), row


def _of(row: dict[str, Any]) -> Known:
    alive = tuple(float(share) for share in row["per_position"])
    rejections = (row["tau"] - 1) * (1 / row["alpha"] - 1) if row["alpha"] else 0.0
    if row["drafter"] not in COPIES:
        return Known(alive, 1.0, float(row["tau"]))
    return Known(alive, min(1.0, rejections + (alive[-1] if alive else 0.0)), float(row["tau"]))
