"""A running SGLang or vLLM server as a client sees it: what it is, one streamed answer, how many drafts it accepted.

    GET  /v1/models              its models, and whose engine it is
    GET  /server_info, /version  settings and version: SGLang's, vLLM's
    POST /v1/chat/completions    an answer as server-sent events; its tokens are counted by the server
    GET  /metrics                Prometheus counters, read before and after (SGLang: with --enable-metrics)

Acceptance, the first of these that a server has; the first token of an answer is prefill's and belongs to no round:

    SGLang, replies     return_spec_tokens_details: verifications, correct drafts and their histogram, a request each
    SGLang, counters    rounds = spec_verify_calls, accepted = generation_tokens - num_requests - rounds
    llama.cpp, replies  timings: predicted_n, draft_n, draft_n_accepted; by position its counters
    vLLM, counters      spec_decode_num_drafts, _num_draft_tokens, _num_accepted_tokens, _num_accepted_tokens_per_pos

SGLang's gauge spec_accept_length is of its last log line and the average in /server_info of its whole life, so neither
says anything of these prompts. Names and formats as in sglang 0.5.23 and vllm 0.33.0, read from their sources.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from time import perf_counter
from typing import Any

import httpx

from specdec_ref.bench import answers
from specdec_ref.bench.answers import ServerError
from specdec_ref.web import address

__all__ = ["Acceptance", "Counters", "Reply", "Server", "ServerError", "acceptance", "ask", "connect", "counters"]

SETTINGS = ("dtype", "total_slots", "speculative_algorithm", "speculative_num_steps", "speculative_eagle_topk",
            "speculative_num_draft_tokens")  # fmt: skip
GENERATED = {"sglang": "sglang:generation_tokens_total", "vllm": "vllm:generation_tokens_total",
             "llamacpp": "llamacpp:tokens_predicted_total"}  # fmt: skip
VERIFIED, FINISHED = "sglang:spec_verify_calls_total", "sglang:num_requests_total"
DRAFTS, DRAFTED = "vllm:spec_decode_num_drafts_total", "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED, POSITION = "vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_accepted_tokens_per_pos_total"

Counters = Mapping[str, float] | None  # sample, its labels added up but for "/position"; None: not to be had


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `first`: seconds until its first text; `details`: SGLang's account of the request, if it gave one."""

    text: str
    tokens: int
    seconds: float
    first: float
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is and what it said of itself. `engine`: sglang, vllm, or whatever else it calls its owner."""

    client: httpx.AsyncClient
    url: str
    model: str
    engine: str
    version: str | None
    settings: Mapping[str, Any]

    def about(self) -> dict[str, Any]:
        """For a table's caption."""
        return {"url": self.url, "model": self.model, "engine": self.engine, "version": self.version, **self.settings}


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Rounds and accepted drafts. `positions`: rounds that accepted draft 1, 2, ... up to the draft length, if told."""

    rounds: int
    accepted: int
    drafted: int | None
    positions: tuple[int, ...]
    source: str

    @property
    def tau(self) -> float:
        """Tokens a round, the target's own included."""
        return 1.0 + self.accepted / self.rounds

    @property
    def alpha(self) -> float | None:
        """Accepted over tested. A round tests draft 1, and draft j + 1 if it accepted draft j.

        Too low where drafts are of different lengths (n-grams): what was never drafted counts as tested.
        """
        return self.accepted / (self.rounds + sum(self.positions[:-1])) if self.positions else None


async def connect(client: httpx.AsyncClient, url: str, model: str | None = None) -> Server:
    """The server at this address, `http://host:port`. Raises ValueError for what is no address, ServerError."""
    url = address(url)
    listed = await _get(client, f"{url}/v1/models")
    try:
        models = answers.models(listed.json())
    except (ValueError, RecursionError) as error:
        raise ServerError(
            f"{url} answers, but /v1/models is no list of models: not an OpenAI-compatible API"
        ) from error
    if not models or model not in (None, *models):
        raise ServerError(f"{url} does not serve {model!r}; it has: {', '.join(models) or 'no model'}")
    name = model or next(iter(models))
    version, settings = await _told(client, url, models[name])
    return Server(client, url, name, models[name], version, settings)


async def _told(client: httpx.AsyncClient, url: str, engine: str) -> tuple[str | None, dict[str, Any]]:
    """Version and settings as far as the engine tells them; a proxy in front of it may hide both."""
    for path in {"sglang": ("/server_info", "/get_server_info"), "vllm": ("/version",), "llamacpp": ("/props",)}.get(
        engine, ()
    ):
        try:
            answer = (await _get(client, f"{url}{path}")).json()
            version = answer.get("version") or answer.get("build_info")
            told = {key: answer[key] for key in SETTINGS if isinstance(answer.get(key) or None, str | int)}
        except (ServerError, ValueError, AttributeError, RecursionError):
            continue
        return str(version) if version else None, told
    return None, {}


async def ask(server: Server, prompt: str, *, tokens: int, temperature: float = 0.0, seed: int = 0) -> Reply:
    """One user turn, streamed. Raises ServerError."""
    body: dict[str, Any] = {
        "model": server.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "seed": seed,
        "temperature": temperature, "top_p": 1.0, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    if server.engine in GENERATED:
        body["top_k"] = -1  # a model's own defaults may say otherwise
    if server.engine == "sglang":
        body["return_spec_tokens_details"] = True
    if server.engine == "llamacpp":
        body |= {"min_p": 0.0, "cache_prompt": False}  # its defaults are 0.05, and to reuse an earlier prompt
    started, first, written, text, details = perf_counter(), None, 0, "", dict[str, Any]()
    url = f"{server.url}/v1/chat/completions"
    with _failing(url):
        async with server.client.stream("POST", url, json=body) as response:
            if response.status_code != 200:
                raise ServerError(_refusal(url, response.status_code, await response.aread()))
            async for event in _events(response, url):
                new = "".join(answers.texts(event))
                text += new
                first = perf_counter() - started if new and first is None else first
                written = answers.written(event, written)
                details = answers.account(event) or details
    seconds = perf_counter() - started
    if not written:
        raise ServerError(f"{url} did not say how many tokens it wrote, or wrote none: {text[:60]!r}")
    return Reply(text, written, seconds, seconds if first is None else first, details)


async def _events(response: httpx.Response, url: str) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each event, up to [DONE]. Split at newlines alone: other line ends may stand inside a text."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            name, _, payload = line.partition(b":")
            if name != b"data":
                continue
            if payload.strip() == b"[DONE]":
                return
            yield answers.event(payload, url)
    raise ServerError(f"{url} ended an answer half way, without [DONE]: see the server's log")


async def counters(server: Server) -> Counters:
    """Every sample of /metrics; None if there is no such page."""
    try:
        page = await _get(server.client, f"{server.url}/metrics")
        samples = answers.samples(page.text)
    except (ServerError, ValueError):
        return None
    found: dict[str, float] = {}
    for sample, value in samples.items():
        name, _, labels = sample.partition("{")
        position = re.search(r'position="(\d+)"', labels)
        key = f"{name}/{position[1]}" if position else name
        found[key] = found.get(key, 0.0) + value
    return found


def acceptance(server: Server, replies: Sequence[Reply], before: Counters, after: Counters) -> Acceptance | None:
    """What these replies' rounds accepted; None if the server does not speculate, or tells nobody."""
    if any(reply.details.get("spec_verify_ct") for reply in replies):  # an answer of one token has no round
        return _detailed(server, [reply.details for reply in replies])
    if any(reply.details.get("draft_n") for reply in replies):
        return _timed([reply.details for reply in replies], before, after)
    if before is None or after is None:
        return None
    grown = {name: round(value - before.get(name, 0.0)) for name, value in after.items()}
    if rounds := grown.get(VERIFIED, 0):
        written, finished = grown.get(GENERATED["sglang"]), grown.get(FINISHED)
        if written is None or finished is None:
            return None
        return Acceptance(rounds, written - finished - rounds, None, (), "counters")
    if rounds := grown.get(DRAFTS, 0):
        places = sorted(int(name.rpartition("/")[2]) for name in grown if name.startswith(f"{POSITION}/"))
        positions = tuple(grown[f"{POSITION}/{place}"] for place in places)
        accepted = grown.get(ACCEPTED)
        return None if accepted is None else Acceptance(rounds, accepted, grown.get(DRAFTED), positions, "counters")
    return None


def _timed(details: Sequence[Mapping[str, Any]], before: Counters, after: Counters) -> Acceptance:
    """From llama.cpp's timings: prefill writes a token, each round one beside the drafts it accepts.

    By position only its counters tell; they are left out if others were served meanwhile.
    """
    written, accepted, drafted = (
        sum(int(row.get(name, 0)) for row in details) for name in ("predicted_n", "draft_n_accepted", "draft_n")
    )
    prefix, positions = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total/", list[int]()
    if before is not None and after is not None:
        places = sorted(int(name.removeprefix(prefix)) for name in after if name.startswith(prefix))
        positions = [round(after[f"{prefix}{i}"] - before.get(f"{prefix}{i}", 0.0)) for i in places]
    told = tuple(positions) if sum(positions) == accepted else ()
    return Acceptance(written - len(details) - accepted, accepted, drafted, told, "replies")


def _detailed(server: Server, details: Sequence[Mapping[str, Any]]) -> Acceptance:
    """From SGLang's accounts: histogram[i] is how many rounds accepted i drafts."""
    rounds, accepted, drafted = (
        sum(row.get(f"spec_{name}", 0) for row in details)
        for name in ("verify_ct", "num_correct_drafts", "num_proposed_drafts")
    )
    histograms = [row.get("spec_correct_drafts_histogram") for row in details]
    columns = zip_longest(*(row for row in histograms if isinstance(row, list)), fillvalue=0)
    tails = list(accumulate(reversed([sum(column) for column in columns])))[::-1]
    steps = answers.whole(server.settings.get("speculative_num_steps")) or 0
    positions = tuple([*tails[1:], *[0] * steps][: max(steps, len(tails) - 1)]) if steps else ()
    return Acceptance(rounds, accepted, drafted, positions, "replies")


async def _get(client: httpx.AsyncClient, url: str) -> httpx.Response:
    with _failing(url):
        response = await client.get(url)
    if response.status_code != 200:
        raise ServerError(_refusal(url, response.status_code, response.content))
    return response


@contextmanager
def _failing(url: str) -> Iterator[None]:
    """httpx's errors in words that say what to do."""
    try:
        yield
    except httpx.ConnectError as error:
        raise ServerError(f"nobody answers at {url} ({error}): is the server up, and the port right?") from error
    except httpx.TimeoutException as error:
        raise ServerError(f"{url} kept silent for too long: is the server stuck, or --timeout too short?") from error
    except (httpx.RemoteProtocolError, httpx.ReadError) as error:
        if isinstance(error, httpx.RemoteProtocolError) and not re.search("closed|disconnected", str(error)):
            raise ServerError(f"{url} does not answer in HTTP ({error}): is the port right?") from error
        raise ServerError(f"{url}: the server ended during an answer; see its log") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"no answer from {url}: {type(error).__name__}, {error}") from error


def _refusal(url: str, status: int, body: bytes) -> str:
    """What a status means, with the server's own words."""
    hints = {401: "; it wants a key: set OPENAI_API_KEY", 404: "; is the address an OpenAI-compatible server's?"}
    try:
        said = answers.reason(json.loads(body))
    except (ValueError, AttributeError, RecursionError):
        said = " ".join(body.decode(errors="replace").split())[:120]
    return f"{url}: HTTP {status}{hints.get(status, '')} ({said or 'no reason given'})"
