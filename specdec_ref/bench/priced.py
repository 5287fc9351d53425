"""What llama.cpp's rounds accept and cost, measured in the engine itself, so that `choose` can answer for it.

    plain       seconds per step                                 the unit of all costs
    EAGLE-3     depths 1, 2 and 4: seconds per round             cost of a round with that many drafts
    n-grams     depth 4: a round that drafts                     v: looking up costs nothing, so this is the check alone

All servers run side by side and answer each prompt in turn, so drift of the machine meets all of them; a cost is the
median over prompts of a paired ratio. All times are of decoding, from an answer's first token to its last: no draft
shortens prefill. Between two measured lengths a cost is interpolated.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from specdec_ref.bench.endpoint import settled
from specdec_ref.bench.server import Server, acceptance, ask, connect, counters
from specdec_ref.choose import Option
from specdec_ref.config import DraftBudget, SpecConfig
from specdec_ref.engines.process import LlamaServer
from specdec_ref.exporters.llamacpp import to_llamacpp
from specdec_ref.web import client

__all__ = ["Decoded", "Priced", "options", "price_llamacpp", "steps"]

DEPTHS = (1, 2, 4)
COPIED = 4  # drafts of an n-gram round
REPEATS = (  # n-grams draft in a third of the rounds of these answers, with the embedded model
    "Write a poem in which every line is the same: The sea is blue.",
    "List the numbers from 1 to 60, separated by commas.",
)
FEW = 6  # fewer drafting rounds than that give no price
DRAFTING = "llamacpp:spec_decode_num_drafts_total"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One answer. `drafting`: rounds that drafted; `positions`: rounds that accepted draft 1, 2, ..."""

    seconds: float
    rounds: int
    drafting: int = 0
    drafted: int = 0
    positions: tuple[int, ...] = ()

    @property
    def per_round(self) -> float:
        """Mean seconds per round."""
        return self.seconds / self.rounds


Answers = Sequence[Decoded]  # one per prompt


@dataclass(frozen=True, slots=True)
class Priced:
    """Answers to the task's prompts, `eagle` by depth; and of both servers to REPEATS, (plain, n-grams)."""

    plain: Answers
    eagle: Mapping[int, Answers]
    ngram: Answers
    repeats: tuple[Answers, Answers]

    @property
    def check(self) -> dict[int, float]:
        """Price of checking k tokens in plain steps, {1: 1} with what was measured."""
        plain, run = self.repeats
        drafting = sum(answer.drafting for answer in run)
        if drafting < FEW:
            return {1: 1.0}
        cost = sum(mine.seconds / other.per_round for mine, other in zip(run, plain, strict=True))
        cost -= sum(answer.rounds - answer.drafting for answer in run)  # those that found nothing are plain steps
        return {1: 1.0, 1 + round(sum(answer.drafted for answer in run) / drafting): cost / drafting}

    def price(self, run: Answers) -> float:
        """Of a round, in plain steps."""
        return median(mine.per_round / other.per_round for mine, other in zip(run, self.plain, strict=True))


def options(priced: Priced) -> tuple[list[Option], Callable[[int], float]]:
    """(what llama.cpp can draft with, v by k), for `choose`. A drafter that never drafted is left out."""
    found, v = [], steps(priced.check)
    if priced.eagle:
        prices = {0: 1.0, **{depth: priced.price(run) for depth, run in priced.eagle.items()}}
        found.append(Option("eagle", _alive(priced.eagle[max(priced.eagle)]), steps(prices)))
    share = sum(answer.drafting for answer in priced.ngram) / sum(answer.rounds for answer in priced.ngram)
    if share and len(priced.check) > 1:
        found.append(Option("ngram", _alive(priced.ngram), lambda gamma: v(gamma + 1), share))
    return found, v


def _alive(run: Answers) -> tuple[float, ...]:
    """Share of rounds that accepted draft 1, 2, ..."""
    rounds, deepest = sum(answer.rounds for answer in run), max(len(answer.positions) for answer in run)
    return tuple(sum(answer.positions[i] for answer in run if answer.positions) / rounds for i in range(deepest))


def steps(measured: Mapping[int, float]) -> Callable[[int], float]:
    """Piecewise linear through the measured points, continued with the last slope."""
    at = sorted(measured)
    values = [measured[k] for k in at]
    slope = (values[-1] - values[-2]) / (at[-1] - at[-2]) if len(at) > 1 else 0.0
    return lambda k: float(np.interp(k, at, values)) + slope * max(0, k - at[-1])


def price_llamacpp(
    target: Path,
    head: Path | None,
    prompts: Sequence[str],
    *,
    threads: int = 1,
    tokens: int = 64,
    temperature: float = 0.0,
    tick: Callable[[str], None] = lambda text: None,
) -> Priced:
    """Five servers, two without a head, that share the target's pages. Raises EngineError and ServerError."""
    shared = ["--port", "0", "--ctx-size", "2048", "--parallel", "1", "--threads", str(threads), "--metrics"]
    wanted = [("none", 0), ("ngram", COPIED), *(("eagle", depth) for depth in DEPTHS if head is not None)]
    with ExitStack() as stack:
        servers = []
        for drafter, depth in wanted:
            tick(f"starting {drafter} {depth or ''}".strip())
            draft = str(head) if drafter == "eagle" else None
            config = SpecConfig(str(target), drafter, draft, budget=DraftBudget(depth))
            servers.append(stack.enter_context(LlamaServer.start([*to_llamacpp(config).command[1:], *shared])))
        urls = [server.url for server in servers]
        plain, ngram, *eagle = asyncio.run(_in_turn(urls, prompts, tokens, temperature, tick))
        again = asyncio.run(_in_turn(urls[:2], REPEATS, 64, 0.0, tick))
    return Priced(plain, dict(zip(DEPTHS, eagle, strict=False)), ngram, (again[0], again[1]))


async def _in_turn(
    urls: Sequence[str], prompts: Sequence[str], tokens: int, temperature: float, tick: Callable[[str], None]
) -> list[list[Decoded]]:
    """Every prompt to every server, one request at a time, each time in the other direction."""
    async with client(urls, timeout=120.0) as connection:
        servers = [await connect(connection, url) for url in urls]
        for server in servers:  # the warm-up
            await ask(server, "Hello!", tokens=8)
        found: list[list[Decoded]] = [[] for _ in urls]
        order = list(range(len(urls)))
        for number, prompt in enumerate(prompts):
            tick(f"prompt {number + 1} of {len(prompts)}")
            for place in order:
                found[place].append(await _answer(servers[place], prompt, tokens, temperature, number))
            order.reverse()
    return found


async def _answer(server: Server, prompt: str, tokens: int, temperature: float, seed: int) -> Decoded:
    before = await counters(server)
    reply = await ask(server, prompt, tokens=tokens, temperature=temperature, seed=seed)
    after = await settled(server, before, reply.tokens)
    found, seconds = acceptance(server, [reply], before, after), reply.seconds - reply.first
    if found is None or not found.drafted:  # every token after the first is a round of its own
        return Decoded(seconds, max(1, reply.tokens - 1))
    drafting = round((after or {}).get(DRAFTING, 0.0) - (before or {}).get(DRAFTING, 0.0))
    return Decoded(seconds, found.rounds, drafting, found.drafted, found.positions)
