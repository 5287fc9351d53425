"""`specdec bench --endpoint`: a running server on the held-out prompts, alone or against one that does not speculate.

    tokens_per_s      median over calls of new tokens / seconds until the last of `batch` concurrent answers was whole
    ttft_ms           median over answers of the time to the first text: network, queue and prefill
    tau, alpha        from the server's own counts, see `server.py`; positions: rounds that accepted draft 1, 2, ...
    speedup_vs_plain  median over calls of (the plain server's seconds a token) / (this one's), on the same prompts
    others            tokens that the server wrote for others meanwhile; then its counters are not ours alone

The rest of a row is as in `table.py`. Both servers answer in turn, so neither slows the other down where they share a
machine, and drift meets both. A prompt that is repeated is in the servers' prefix caches: `--repeats` shortens prefill.
"""

import asyncio
import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import eq
from statistics import fmean, median
from time import perf_counter
from typing import Any

import httpx

from specdec_ref.bench.harness import median_interval
from specdec_ref.bench.server import GENERATED, Counters, Reply, Server, acceptance, ask, connect, counters
from specdec_ref.web import address, client
from specdec_ref.workloads import Prompt

__all__ = ["Endpoints", "Work", "settled"]

PLAIN = "plain"
SETTLING = 2.0  # seconds that a server's counters may lag behind its answers


@dataclass(frozen=True, slots=True)
class Work:
    """What to ask, task by task."""

    prompts: Sequence[Prompt]
    tokens: int = 96
    repeats: int = 1
    temperatures: Sequence[float] = (0.0,)
    batches: Sequence[int] = (1,)


@dataclass(frozen=True, slots=True)
class Call:
    """`batch` requests at once."""

    seconds: float
    replies: list[Reply]

    @property
    def per_token(self) -> float:
        """Seconds a new token of the batch."""
        return self.seconds / sum(reply.tokens for reply in self.replies)


@dataclass(frozen=True, slots=True)
class Side:
    """What a server did on a task."""

    server: Server
    calls: list[Call]
    before: Counters
    after: Counters

    @property
    def replies(self) -> list[Reply]:
        """All answers, in the order of the prompts."""
        return [reply for call in self.calls for reply in call.replies]


class Endpoints:
    """Connections to one or two servers. A context: leaving it, by Ctrl-C too, hangs up, and servers stop writing."""

    def __init__(
        self,
        url: str,
        plain: str | None = None,
        *,
        model: str | None = None,
        timeout: float = 120.0,
        key: str | None = None,
    ) -> None:
        self.urls, self.model, self.timeout = [plain, url] if plain else [url], model, timeout
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client: httpx.AsyncClient | None = None
        if plain and plain.rstrip("/") == url.rstrip("/"):
            raise ValueError(f"--endpoint and --endpoint-plain are the same server, {url}")

    def __enter__(self) -> "Endpoints":
        self.runner = asyncio.Runner()
        try:
            self.runner.run(self._connect())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.client is not None:
                self.runner.run(self.client.aclose())
        finally:
            self.runner.close()

    async def _connect(self) -> None:
        self.client = connection = client(
            [address(url) for url in self.urls],
            headers=self.headers,
            limits=httpx.Limits(max_connections=None),
            timeout=httpx.Timeout(self.timeout, connect=min(10.0, self.timeout)),
            follow_redirects=True,
        )
        self.servers = [await connect(connection, url, self.model) for url in self.urls]
        for server in self.servers:  # the warm-up
            await ask(server, "Hello!", tokens=8)

    def environment(self) -> dict[str, Any]:
        """What the rows depend on, besides themselves."""
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return {"date": date, "servers": [server.about() for server in self.servers]}

    def rows(self, work: Work, tick: Callable[[str], None] = lambda text: None) -> Iterator[dict[str, Any]]:
        """As soon as a task is done; with two servers "all" at the end, the geometric mean over tasks."""
        tasks = list(dict.fromkeys(prompt.task for prompt in work.prompts))
        for temperature in work.temperatures:
            for batch in work.batches:
                about = {"batch": batch, "temperature": temperature, "context": 0, "clock": "wall"}
                done: dict[str, list[Side]] = {}
                for task in tasks:
                    prompts = [prompt.prompt for prompt in work.prompts if prompt.task == task]
                    tick(task)
                    done[task] = self.runner.run(self._task(prompts, batch, temperature, work))
                    yield from (about | row for row in _rows(task, done[task], greedy=temperature == 0))
                if len(self.servers) > 1:
                    yield about | _overall(list(done.values()))

    async def _task(self, prompts: Sequence[str], batch: int, temperature: float, work: Work) -> list[Side]:
        """The prompts, `batch` at a time, both servers in turn, another first each time; prompt i has seed i."""
        before = [await counters(server) for server in self.servers]
        calls: list[list[Call]] = [[] for _ in self.servers]
        order = list(range(len(self.servers)))
        for _ in range(work.repeats):
            for first in range(0, len(prompts), batch):
                for place in order:
                    some = range(first, min(first + batch, len(prompts)))
                    jobs = [
                        ask(self.servers[place], prompts[i], tokens=work.tokens, temperature=temperature, seed=i)
                        for i in some
                    ]
                    started = perf_counter()
                    replies = await _together(jobs)
                    calls[place].append(Call(perf_counter() - started, replies))
                order.reverse()
        written = [sum(reply.tokens for call in mine for reply in call.replies) for mine in calls]
        after = [await settled(s, b, n) for s, b, n in zip(self.servers, before, written, strict=True)]
        return [Side(*side) for side in zip(self.servers, calls, before, after, strict=True)]


async def _together(jobs: Sequence[Any]) -> list[Reply]:
    """All at once; the first that fails ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def settled(server: Server, before: Counters, written: int) -> Counters:
    """The counters, once they hold so many more tokens than `before`."""
    started, name = perf_counter(), GENERATED.get(server.engine, "")
    while True:
        after = await counters(server)
        if before is None or after is None or after.get(name, math.inf) - before.get(name, 0.0) >= written:
            return after
        if perf_counter() - started > SETTLING:
            return after
        await asyncio.sleep(0.05)


def _rows(task: str, sides: Sequence[Side], *, greedy: bool) -> Iterator[dict[str, Any]]:
    """A row a server, the plain one first."""
    base = sides[0] if len(sides) > 1 else None
    for side in sides:
        found = acceptance(side.server, side.replies, side.before, side.after)
        over = _ratios(base, side) if base else []
        low, high = median_interval(over) if len(over) > 1 else (None, None)
        texts = [reply.text for reply in side.replies]
        yield {
            "task": task,
            "method": PLAIN if side is base else side.server.engine,
            "setting": _setting(side),
            "dtype": side.server.settings.get("dtype"),
            "calls": len(side.calls),
            "tokens_per_s": median(1 / call.per_token for call in side.calls),
            "ttft_ms": 1e3 * median(reply.first for reply in side.replies),
            "tau": found.tau if found else 1.0 if _counts(side) else None,
            **{name: getattr(found, name, None) for name in ("alpha", "rounds", "accepted", "drafted", "positions")},
            "speedup_vs_plain": median(over) if over else None,
            "speedup_vs_hf": None,
            "ci_low": low,
            "ci_high": high,
            "identical": sum(map(eq, texts, [reply.text for reply in base.replies])) if base and greedy else None,
            "texts": len(texts),
            "others": _others(side),
        }


def _ratios(base: Side, side: Side) -> list[float]:
    """Call by call; > 1 is faster than the base."""
    return [b.per_token / c.per_token for b, c in zip(base.calls, side.calls, strict=True)]


def _counts(side: Side) -> bool:
    """Whether the server's counters were read at all: then no round of drafts means that it makes none."""
    return side.after is not None and GENERATED.get(side.server.engine) in side.after


def _others(side: Side) -> int | None:
    """Tokens beyond ours that the server counted."""
    if side.before is None or side.after is None or not _counts(side):
        return None
    name = GENERATED[side.server.engine]
    return round(side.after[name] - side.before.get(name, 0.0)) - sum(reply.tokens for reply in side.replies)


def _setting(side: Side) -> str:
    """In SGLang's words, if it tells them."""
    told = [(key.removeprefix("speculative_"), value) for key, value in side.server.settings.items() if key != "dtype"]
    return ", ".join(str(value) if key == "algorithm" else f"{key} {value}" for key, value in told)


def _overall(tasks: Sequence[Sequence[Side]]) -> dict[str, Any]:
    """The speculating server over all tasks."""
    ratios = [_ratios(base, side) for base, side in tasks]
    side = tasks[0][1]
    mean = math.exp(fmean(math.log(median(row)) for row in ratios))
    return {"task": "all", "method": side.server.engine, "setting": _setting(side), "calls": sum(map(len, ratios)),
            "speedup_vs_plain": mean}  # fmt: skip
