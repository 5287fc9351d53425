"""The sections of docs/BENCHMARKS.md about what decoding costs: where the milliseconds go, and how much memory."""

from collections.abc import Iterator
from typing import Any

from specdec_ref.bench.rows import committed, runs

__all__ = ["memory", "where_time_goes"]

TIME = """\
## Where the time goes

A plain step reads every weight once, so it cannot be faster than the weights' bytes over the memory's bandwidth: the
floor. The first table takes one forward apart, after 100 tokens: all of it, and its matrix products alone.
"transformers" runs the model's own modules, "packed" the same with packed linear layers, "short" is the forward that
this package uses (`models/fast.py`). The second is of whole answers, prefill included, and of the median round of each
drafter with `gamma` 3. `generate()` is transformers' own. Medians in milliseconds, all sides in turn in one process."""
MEMORY = """\
## Memory

The largest resident set of each command's process. Commands that decode hold the layers' weights once, packed; a
model that a program opens for itself keeps its own beside them. The peak comes while the model is read: in
float32, a file of 16 bits and what it becomes. In `bench`, transformers' own decoding unpacks the layers again."""
PARTS = ("token_ms", "step_ms", "propose_ms", "forward_ms", "verify_ms")


def where_time_goes() -> Iterator[str]:
    """Two tables for each number format."""
    yield from (TIME, "")
    for about, rows in runs("floor"):
        (floor,) = (row for row in rows if row["kind"] == "floor")
        yield from ("```sh", about["command"], "```", "")
        yield (
            f"{about['target']} in {about['dtype']}, {about['machine']}, torch {about['torch']}. "
            f"Floor: {floor['mb']:.0f} MB at {floor['gb_per_s']:.0f} GB/s take {floor['ms']:.1f} ms."
        )
        yield from (
            "",
            "| tokens in a forward | by | all | products | the rest | over the floor |",
            "|---|---|---:|---:|---:|---:|",
        )
        for row in rows:
            if row["kind"] == "forward":
                whole, products = row["ms"], row["products_ms"]
                numbers = f"{whole:.1f} | {products:.1f} | {whole - products:.1f} | {whole / floor['ms']:.1f} x"
                yield f"| {row['nodes']} | {row['by']} | {numbers} |"
        yield from (
            "",
            "| decoding | by | a token | a round | drafting | forward | verifying |",
            "|---|---|---:|---:|---:|---:|---:|",
        )
        for row in rows:
            if row["kind"] == "decoding":
                yield f"| {row['drafter']} | {row['by']} | {' | '.join(_cell(row, part) for part in PARTS)} |"
        yield ""


def _cell(row: dict[str, Any], part: str) -> str:
    return f"{row[part]:.1f}" if part in row else ""


def memory() -> Iterator[str]:
    """A row a command."""
    about, rows = committed("memory")
    yield from (MEMORY, "", "```sh", about["command"], "```", "", f"{about['machine']}, torch {about['torch']}.", "")
    yield from ("| command | MB |", "|---|---:|")
    for row in rows:
        yield f"| {row['what']} | {row['peak_mb']:.0f} |"
