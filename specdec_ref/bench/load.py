"""A load test of a running server: more and more requests at the same time, throughput against latency.

Closed loop: at concurrency c, c clients each send a request, wait for its last token and send the next one. Each client
sends `each` requests. All levels and both servers answer prompts from the same list in the same order.

    tokens_per_s   new tokens of a level / seconds from its first request to its last token
    ttft_ms        time to the first text: network, queue and prefill; percentiles 50, 90 and 99 over requests
    tpot_ms        time per output token after the first: (seconds - first) / (tokens - 1), likewise
    latency_s      time to the whole answer, likewise
    tau            tokens per target forward, from the server's own counts (`server.py`)

Works with everything that speaks OpenAI's chat protocol: SGLang, vLLM, llama.cpp.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from statistics import quantiles
from time import perf_counter
from typing import Any

from specdec_ref.bench.endpoint import PLAIN, Endpoints
from specdec_ref.bench.server import GENERATED, Reply, Server, acceptance, ask, counters

__all__ = ["PERCENTILES", "Load", "crossing", "load_table", "measure_load"]

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Load:
    """What to send. `levels`: concurrencies; `each`: requests per client at a level."""

    prompts: Sequence[str]
    levels: Sequence[int] = (1, 2, 4, 8)
    each: int = 3
    tokens: int = 64
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not self.prompts or not self.levels or min(*self.levels, self.each, self.tokens - 1) < 1:
            raise ValueError("a load test needs prompts, levels and requests per client >= 1, and tokens >= 2")

    @property
    def requests(self) -> int:
        """How many one server gets."""
        return self.each * sum(self.levels)


def measure_load(ends: Endpoints, load: Load, tick: Callable[[], None] = lambda: None) -> Iterator[dict[str, Any]]:
    """One row per level and server, the plain one first. `tick` is called after every answer. Raises ServerError."""
    order = list(range(len(ends.servers)))
    for level in load.levels:
        rows = {place: ends.runner.run(_level(ends.servers[place], load, level, tick)) for place in order}
        order.reverse()
        for place, row in sorted(rows.items()):
            method = PLAIN if place == 0 and len(rows) > 1 else ends.servers[place].engine
            yield {"concurrency": level, "method": method, **row}


async def _level(server: Server, load: Load, level: int, tick: Callable[[], None]) -> dict[str, Any]:
    """One server at one concurrency."""
    before, replies = await counters(server), list[Reply]()
    started = perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for client in range(level):
                group.create_task(_client(server, load, client, replies, tick))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    seconds = perf_counter() - started
    after = await counters(server)
    found = acceptance(server, replies, before, after)
    counted = after is not None and GENERATED.get(server.engine) in after  # then no round of drafts means: no drafts
    row: dict[str, Any] = {
        "requests": len(replies), "seconds": seconds, "tokens_per_s": sum(reply.tokens for reply in replies) / seconds,
        "tau": found.tau if found else 1.0 if counted else None,
    }  # fmt: skip
    for name, values in (
        ("ttft_ms", [1e3 * reply.first for reply in replies]),
        ("tpot_ms", [1e3 * (r.seconds - r.first) / (r.tokens - 1) for r in replies if r.tokens > 1]),
        ("latency_s", [reply.seconds for reply in replies]),
    ):
        row[name] = _percentiles(values)
    return row


async def _client(server: Server, load: Load, client: int, replies: list[Reply], tick: Callable[[], None]) -> None:
    """One client: its requests one after the other."""
    for number in range(client * load.each, (client + 1) * load.each):
        prompt = load.prompts[number % len(load.prompts)]
        replies.append(await ask(server, prompt, tokens=load.tokens, temperature=load.temperature, seed=number))
        tick()


def _percentiles(values: Sequence[float]) -> list[float]:
    """PERCENTILES, with linear interpolation between the values."""
    if len(values) < 2:
        return [*values, *values, *values]
    cuts = quantiles(values, n=100, method="inclusive")
    return [cuts[percentile - 1] for percentile in PERCENTILES]


def crossing(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The concurrency from which the plain server has the higher throughput, interpolated; None if they do not cross.

    Speculation has to be ahead at the lowest level, else there is no crossing.
    """
    speeds = {(row["concurrency"], row["method"] == PLAIN): row["tokens_per_s"] for row in rows}
    levels = sorted({level for level, _ in speeds})
    gains = [log(speeds[level, False] / speeds[level, True]) for level in levels]
    for (low, before), (high, after) in pairwise(zip(levels, gains, strict=True)):
        if before > 0 >= after:
            return float(low * (high / low) ** (before / (before - after)))
    return None


def load_table(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, and where the two servers cross."""
    lines = [
        f"- {server['url']}: {server['model']}, {server['engine']} {server['version'] or ''}".rstrip()
        for server in about["servers"]
    ]
    lines += ["", f"Load test, {about['date']}. Times are percentiles {', '.join(map(str, PERCENTILES))}.", "",
              "| concurrency | server | tokens/s | first token, ms | per token, ms | whole answer, s | tau |",
              "|---:|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for row in rows:
        spans = [
            " / ".join(f"{value:.{digits}f}" for value in row[name])
            for name, digits in (("ttft_ms", 0), ("tpot_ms", 1), ("latency_s", 2))
        ]
        tau = "" if row["tau"] is None else f"{row['tau']:.2f}"
        cells = [str(row["concurrency"]), row["method"], f"{row['tokens_per_s']:.1f}", *spans, tau]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_verdict(rows)]) + "\n"


def _verdict(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line: from which concurrency on speculation loses."""
    levels = {row["concurrency"] for row in rows}
    if len(rows) != 2 * len(levels):
        return []
    at = crossing(rows)
    speeds = [
        {row["method"] == PLAIN: row["tokens_per_s"] for row in rows if row["concurrency"] == level}
        for level in sorted(levels)
    ]
    ahead = [pair[False] > pair[True] for pair in speeds]
    if at is not None:
        return ["", f"Speculation stops paying at about {at:.1f} concurrent requests."]
    if all(ahead) or not any(ahead):
        return ["", f"Speculation gives the {'higher' if ahead[0] else 'lower'} throughput at every level."]
    return ["", "Throughput does not cross once: see the rows."]
