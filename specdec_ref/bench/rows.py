"""Committed measurements: what a chapter shows where measuring would take its reader an hour.

`rows/NAME.jsonl` is the output of a command, a JSON object a line; the first says how the others came about: model,
number format, machine.

    heads              python -m specdec_ref.bench.heads
    eagle-acceptance   python -m specdec_ref.bench.acceptance --drafter eagle --drafter draft=PLAIN --temperature 0 1
    eagle-speed        python -m specdec_ref.bench.speed --drafter eagle --drafter draft --depth 3

PLAIN is the folder `weights/plain-smollm2-135m` of this package.
"""

import json
from importlib.resources import files
from typing import Any

__all__ = ["committed"]


def committed(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(how they came about, the rows). Raises FileNotFoundError for a name that has no file."""
    lines = files("specdec_ref.bench").joinpath(f"rows/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    about, *rows = map(json.loads, lines)
    return about, rows
