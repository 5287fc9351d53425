"""The board of the capstone: a file of rows, a JSON object a line, and each entry's best among them.

Only a ratio travels from machine to machine, and only between runs on one target: rows are ranked by target and dtype.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["append", "best", "load"]


def load(file: Path) -> list[dict[str, Any]]:
    """All rows so far; none if there is no such file. Raises ValueError naming a line that is no row."""
    if not file.exists():
        return []
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise ValueError(f"{file}, line {number} is no JSON: mend or remove it") from error
        if row is not None and not (isinstance(row, dict) and {"entry", "verdict", "score", "target"} <= row.keys()):
            raise ValueError(f"{file}, line {number} is no row of a leaderboard: mend or remove it")
        rows += [row] if row is not None else []
    return rows


def append(file: Path, row: dict[str, Any]) -> None:
    """One more row, at the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")


def best(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each entry on each target the row with the highest score; an entry that was only ever refused comes last."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["target"], row["entry"])
        if key not in found or (row["score"] or 0.0) >= (found[key]["score"] or 0.0):
            found[key] = row
    return sorted(found.values(), key=lambda row: (row["target"], -(row["score"] or 0.0), row["entry"]))
