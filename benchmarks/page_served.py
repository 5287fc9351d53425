"""The sections of docs/BENCHMARKS.md about llama.cpp: the round trip, task by task, and the load test."""

from collections.abc import Iterator, Mapping
from typing import Any

from specdec_ref.bench.load import crossing
from specdec_ref.bench.rows import committed, runs

__all__ = ["round_trip", "under_load", "with_and_without"]

TRIP = """\
## Our head in llama.cpp

The shipped head, exported to GGUF, in llama.cpp and in this package: greedy answers to held-out prompts. "As plain"
counts texts that are llama.cpp's own plain text, "as ours" those that are also this package's text, "same rounds" those
of them that took as many target passes there and here. A quantised target is another model in effect: it writes other
texts and gives the head other features."""
PAIRED = """\
## llama.cpp with the head, against llama.cpp without it

Two servers on this machine, paired prompt by prompt; seconds of whole answers, prefill included. "Price" is the mean
cost of a round in plain steps: tau divided by the speed-up. Nothing else ran on the machine. Absolute speeds vary
between runs all the same (a plain float32 step took 15 to 22 ms; why was not measured); pairing protects the ratios."""
LOADED = """\
## llama.cpp under load

Closed loop: so many clients at the same time, each with one request in flight. Times per token are of whole answers,
percentiles 50 / 90 / 99 over requests. Nothing else ran on the machine."""


def round_trip() -> Iterator[str]:
    """Texts and rounds."""
    about, rows = committed("llamacpp")
    yield from (TRIP, "", f"`{about['command']}`", "")
    yield (
        f"{about['llamacpp']}, one thread; this package in {about['ours']}; {about['tokens']} tokens, "
        f"{about['depth']} drafts per round; {_where(about)}."
    )
    yield from (
        "",
        "| target | task | prompts | as plain | as ours | same rounds | tau there | tau here |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    )
    for row in rows:
        counts = " | ".join(str(row[key]) for key in ("prompts", "identical", "same_as_ours", "equal_rounds"))
        yield f"| {row['type']} | {row['task']} | {counts} | {row['tau_llamacpp']:.2f} | {row['tau_ours']:.2f} |"


def with_and_without() -> Iterator[str]:
    """Task by task, by number format of the target."""
    measured = runs("served")
    yield from (PAIRED, "")
    yield from _commands(measured)
    tasks = [row["task"] for row in measured[0][1] if row["method"] != "plain" and row["task"] != "all"]
    yield f"| drafter, target | {' | '.join(tasks)} | all | tau | price | plain tokens/s | same text |"
    yield f"|---|{'---:|' * (len(tasks) + 5)}"
    for about, rows in measured:
        mine = [row for row in rows if row["method"] != "plain" and row["task"] != "all"]
        (whole,) = (row["speedup_vs_plain"] for row in rows if row["task"] == "all")
        tau = 1 + sum(row["accepted"] for row in mine) / sum(row["rounds"] for row in mine)
        plain = sorted(row["tokens_per_s"] for row in rows if row["method"] == "plain")
        speeds = " | ".join(f"{row['speedup_vs_plain']:.2f}" for row in mine)
        same = f"{sum(row['identical'] for row in mine)}/{sum(row['texts'] for row in mine)}"
        yield (
            f"| {_side(about)} | {speeds} | **{whole:.2f}** | {tau:.2f} | {tau / whole:.2f} "
            f"| {plain[0]:.0f} to {plain[-1]:.0f} | {same} |"
        )


def under_load() -> Iterator[str]:
    """Throughput and latency by concurrency."""
    measured = runs("load")
    yield from (LOADED, "")
    yield from _commands(measured)
    yield "| drafter, target | at the same time | server | tokens/s | per token, ms | first token, ms | tau |"
    yield "|---|---:|---|---:|---:|---:|---:|"
    for about, rows in measured:
        for row in rows:
            spans = (" / ".join(f"{value:.0f}" for value in row[key]) for key in ("tpot_ms", "ttft_ms"))
            yield (
                f"| {_side(about)} | {row['concurrency']} | {row['method']} | {row['tokens_per_s']:.1f} "
                f"| {' | '.join(spans)} | {row['tau']:.2f} |"
            )
    for about, rows in measured:
        at = crossing(rows)
        where = (
            "there is no crossing" if at is None else f"the curves cross at about {at:.1f} requests at the same time"
        )
        yield from ("", f"{_side(about)}: {where}.")


def _side(about: Mapping[str, Any]) -> str:
    return f"{about.get('drafter', 'eagle')}, {about['dtype']}"


def _commands(measured: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> Iterator[str]:
    yield from ("```sh", *(about["command"] for about, _ in measured), "```", "")
    about = measured[0][0]
    yield f"{about['llamacpp']}, {about['date'][:10]}; {_where(about)}."
    yield ""


def _where(about: Mapping[str, Any]) -> str:
    return f"{about['machine']} ({', '.join(about['features'])})"
