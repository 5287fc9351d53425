"""Committed measurements: what a chapter shows where measuring would take its reader an hour.

`rows/NAME.jsonl` is the output of a command, a JSON object a line; the first says how the others came about: model,
number format, machine.

    heads              python -m benchmarks.heads
    eagle-acceptance   python -m benchmarks.acceptance --drafter eagle --drafter draft=PLAIN --temperature 0 1
    eagle-scaling      the training log of the shipped head, transcribed from docs/LOG.md (2026-11-24, midday)
    eagle-speed        python -m benchmarks.speed --drafter eagle --drafter draft --depth 3
    tasks              specdec bench --json, several runs one behind the other: each environment has its command
    never              specdec bench --json --cpu-clock: every drafter with its length decided, against plain decoding
    lookup             specdec bench --json on a processor without AVX512
    ngram-acceptance   python -m benchmarks.acceptance --drafter ngram --temperature 0 1 --prompts 8
    predicted          python -m benchmarks.predict: such runs, too
    llamacpp           python -m benchmarks.llamacpp: our head in llama.cpp and here, text by text
    served             python -m benchmarks.served: llama.cpp with the head against llama.cpp without it
    load               the same with --load: a load test
    after-eagle        python -m benchmarks.after_eagle: EAGLE-3 and what came after it, trained on the same text
    drafters           specdec bench --json: the drafters of chapter 10, with heads that benchmarks.after_eagle trained
    suffix-lookup      python -m benchmarks.speed --against ngram: suffix decoding and prompt lookup, in turn
    memory             python -m benchmarks.memory: the largest resident set of each command
    floor              python -m benchmarks.floor: where the milliseconds of a step go
    costs              python -m benchmarks.costs: what a round costs on an idle machine, which the chapters quote
    published          what others measured elsewhere, each with its source

PLAIN is the folder `weights/plain-smollm2-135m` of this package.
"""

import json
from importlib.resources import files
from typing import Any

__all__ = ["committed", "runs"]


def committed(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(how they came about, the rows). Raises FileNotFoundError for a name that has no file."""
    about, *rows = _lines(name)
    return about, rows


def runs(name: str) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """[(environment, its rows), ...] of a file with the output of `specdec bench --json` or its like, once or more."""
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for line in _lines(name):
        if "environment" in line:
            found.append((line["environment"], []))
        else:
            found[-1][1].append(line)
    return found


def _lines(name: str) -> list[dict[str, Any]]:
    file = files("specdec_ref.bench").joinpath(f"rows/{name}.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
