"""The corpus written by a server with an OpenAI-compatible API: SGLang, vLLM, llama.cpp and others.

    completions   the prompt is sent as token ids: every kind of dialogue, whatever the server's own chat template
    chat          messages are sent; "invented" dialogues are left out, since no server writes the user's message

Answers come back as text. They are tokenised again, so a text that the model spelled with other tokens than the
tokenizer would is stored in the tokenizer's spelling (`retokenised` counts these). Dialogues, numbers, temperatures
and shards are those of `corpus.py`, so either can go on where the other stopped.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import httpx

from specdec_ref.training.prompts import Dialogue
from specdec_ref.training.script import SHORTEST_ROOM, Row, Script
from specdec_ref.training.shards import Conversation
from specdec_ref.web import address, client

__all__ = ["Api", "Asking", "EndpointError", "Tally", "write_remotely"]

Api = Literal["completions", "chat"]
_REPLACED = "\ufffd"  # what a server puts for bytes that are no UTF-8: an answer cut within a character
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # worth another try later
_UNRESTRICTED = {  # switches off a server's own default truncation of the distribution
    "vllm": {"top_k": -1, "min_p": 0.0}, "sglang": {"top_k": -1, "min_p": 0.0}, "llamacpp": {"top_k": 0, "min_p": 0.0},
}  # fmt: skip


class EndpointError(RuntimeError):
    """A server that cannot write the corpus; the message says why and what to do."""


class _UselessError(ValueError):
    """An answer that cannot be used. The message is the reason that is counted."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask the server at `url`. `model`, `api`: None finds out. Times in seconds."""

    url: str
    model: str | None = None
    api: Api | None = None
    concurrency: int = 64
    timeout: float = 300.0
    first_wait: float = 1.0  # before a request is repeated; doubled each time, up to `longest_wait`
    longest_wait: float = 60.0
    patience: float = 1800.0  # without any answer until the run gives up
    most_malformed: int = 16  # in a row until the run gives up
    key: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{self.url!r} is no address of a server; write it as http://localhost:30000")
        if self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}: at least one request must be under way")


@dataclass(slots=True)
class Tally:
    """What a run did. `skipped`: answers that were not used, by reason."""

    api: str = ""
    model: str = ""
    engine: str = ""
    conversations: int = 0
    tokens: int = 0
    retries: int = 0
    duplicates: int = 0
    held_out: int = 0  # texts with too much of a held-out prompt in them
    retokenised: int = 0  # answers whose length in our tokens is not the server's
    skipped: Counter[str] = field(default_factory=Counter)


def write_remotely(
    asking: Asking,
    script: Script,
    waiting: Iterator[Dialogue],
    add: Callable[[Conversation], None],
    *,
    refused: Callable[[Conversation], bool] = lambda _: False,
    seen: set[int] | None = None,
    tick: Callable[[Conversation, Tally], None] = lambda *_: None,
) -> Tally:
    """Let the server answer the dialogues of `waiting` until none is left or `config.conversations` are written.

    `refused`: conversations not to keep, e.g. because they hold a held-out prompt. `seen`: hashes of (prompt,
    response) written earlier. Raises EndpointError if the server is silent for longer than `patience` or answers
    uselessly; that and KeyboardInterrupt leave all finished conversations with `add`.
    """
    return asyncio.run(_Client(asking, script, waiting, add, refused, set() if seen is None else seen, tick).run())


class _Client:
    """One run: `concurrency` tasks that take dialogues from the same iterator."""

    def __init__(
        self,
        asking: Asking,
        script: Script,
        waiting: Iterator[Dialogue],
        add: Callable[[Conversation], None],
        refused: Callable[[Conversation], bool],
        seen: set[int],
        tick: Callable[[Conversation, Tally], None],
    ) -> None:
        self.asking, self.script, self.waiting, self.add = asking, script, waiting, add
        self.refused, self.seen, self.tick, self.tally = refused, seen, tick, Tally()
        self.url = address(asking.url)
        self.malformed, self.answered = 0, -1.0  # answered: when last; -1.0: never

    async def run(self) -> Tally:
        asking = self.asking
        headers = {"Authorization": f"Bearer {asking.key}"} if asking.key else {}
        limits = httpx.Limits(max_connections=None)
        async with client([self.url], headers=headers, timeout=asking.timeout, limits=limits) as self.http:
            await self._connect()
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(asking.concurrency):
                        group.create_task(self._work())
            except* EndpointError as failed:
                raise failed.exceptions[0] from None
        return self.tally

    async def _connect(self) -> None:
        """Find the model and the API, and compare lengths of a prompt: another chat template shows there."""
        cards = (await self._send("GET", "/v1/models", None)).get("data")
        if not isinstance(cards, list) or not all(isinstance(card, dict) and "id" in card for card in cards):
            raise EndpointError(f"{self.url}/v1/models is no list of models: this is not an OpenAI-compatible API")
        owners = {str(card["id"]): str(card.get("owned_by")) for card in cards}
        self.tally.model = self.asking.model or next(iter(owners), "")
        if self.tally.model not in owners:
            raise EndpointError(
                f"{self.url} does not serve {self.tally.model!r}; it has: {', '.join(owners) or 'no model'}"
            )
        self.tally.engine = owners[self.tally.model]
        prompt, problems = self.script.chat.prompt("Hello!"), list[str]()
        for api in (self.asking.api,) if self.asking.api else ("completions", "chat"):
            self.tally.api = api
            try:
                await self._answer(Row(Dialogue(0, ()), 0, prompt, len(prompt), 4, 0.0), 0)
            except _UselessError as error:
                problems.append(f"{api}: {error}")
            else:
                return
        raise EndpointError(
            f"{self.url} cannot write this corpus ({'; '.join(problems)}); it must serve the target itself, "
            "with the target's own chat template"
        )

    async def _work(self) -> None:
        wanted = self.script.config.conversations
        while wanted is None or self.tally.conversations < wanted:
            await asyncio.sleep(0)  # so that Ctrl-C is noticed even if nothing is asked
            dialogue = next(self.waiting, None)
            if dialogue is None:
                return
            row: Row | None = self.script.first(dialogue)
            if row is not None and row.by_user and self.tally.api == "chat":
                self.tally.skipped["invented (needs completions)"] += 1
                continue
            for turn in count():
                if row is None or row.limit < SHORTEST_ROOM:
                    break
                try:
                    row.tokens += await self._answer(row, turn)
                except _UselessError as error:
                    self._skip(str(error))
                    break
                self.malformed = 0
                if not row.by_user and not self._keep(self.script.conversation(row)):
                    break
                row, _ = self.script.next(row)

    def _keep(self, conversation: Conversation) -> bool:
        """Write it, unless it is there already, must not be used, or the run has all it was to write."""
        mark = hash((conversation.prompt, conversation.response))
        wanted = self.script.config.conversations
        if wanted is not None and self.tally.conversations >= wanted:
            return False
        if mark in self.seen:
            self.tally.duplicates += 1
            return False
        self.seen.add(mark)
        if self.refused(conversation):
            self.tally.held_out += 1
            return False
        self.add(conversation)
        self.tally.conversations += 1
        self.tally.tokens += len(conversation.response)
        self.tick(conversation, self.tally)
        return True

    def _skip(self, reason: str) -> None:
        self.tally.skipped[reason] += 1
        self.malformed += 1
        if self.malformed >= self.asking.most_malformed:
            raise EndpointError(f"{self.url}: {self.malformed} useless answers in a row, the last one: {reason}")

    async def _answer(self, row: Row, turn: int) -> list[int]:
        """The tokens after `row`, the end token included if the model ended its turn."""
        chat, tally = self.script.chat, self.tally
        body: dict[str, Any] = {
            "model": tally.model, "max_tokens": row.limit, "temperature": row.temperature, "top_p": 1.0,
            "seed": (self.script.config.seed * 1_000_003 + row.dialogue.number * 4 + turn) % 2**31,
            **_UNRESTRICTED.get(tally.engine, {}),
        }  # fmt: skip
        if tally.api == "chat":
            asked: dict[str, Any] = {"messages": chat.messages(row.tokens)}
            reply = await self._send("POST", "/v1/chat/completions", body | asked)
        else:
            reply = await self._send("POST", "/v1/completions", body | {"prompt": row.tokens})
        text, ended, counted, prompt = _read(reply)
        if prompt is not None and prompt != len(row.tokens):
            raise _UselessError("its prompt has another length: another chat template or tokenizer")
        if not text and not (ended and row.by_user):
            raise _UselessError("no text")
        if _REPLACED in text:
            raise _UselessError("text cut within a character")
        tokens = chat.encode(text)
        if chat.end in tokens:
            tokens, ended = tokens[: tokens.index(chat.end)], True
        if chat.decode(tokens) != text[: len(chat.decode(tokens))] or chat.head[0] in tokens:
            raise _UselessError("text that our tokenizer does not give back")
        tally.retokenised += counted is not None and counted not in (len(tokens), len(tokens) + ended)
        return [*tokens[: row.limit], *([chat.end] if ended and len(tokens) < row.limit else [])]

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """One request, repeated while the server is away or busy. Raises _UselessError for any other answer."""
        asking, wait = self.asking, self.asking.first_wait
        while True:
            try:
                response = await self.http.request(method, self.url + path, json=body)
                if response.status_code not in _BUSY:
                    self.answered = time.monotonic()
                    return _parsed(response)
                problem = f"status {response.status_code}"
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                if self.answered < 0:
                    raise EndpointError(
                        f"no server at {self.url} ({problem}): start it, or correct --endpoint"
                    ) from error
            self.answered = time.monotonic() if self.answered < 0 else self.answered
            if time.monotonic() - self.answered > asking.patience:
                raise EndpointError(
                    f"{self.url} has not answered for {asking.patience:.0f} s ({problem}). All finished conversations "
                    "are saved: start the server and give the same command again"
                )
            self.tally.retries += 1
            await asyncio.sleep(wait)
            wait = min(2 * wait, asking.longest_wait)


def _parsed(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise _UselessError(f"status {response.status_code}: {response.text[:120]}")
    try:
        reply = response.json()
    except (ValueError, RecursionError) as error:
        raise _UselessError("not JSON") from error
    if not isinstance(reply, dict):
        raise _UselessError("not a JSON object")
    return reply


def _read(reply: dict[str, Any]) -> tuple[str, bool, int | None, int | None]:
    """(text, whether the model ended it, its tokens and the prompt's as the server counted them)."""
    try:
        choice = reply["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        ended, usage = choice["finish_reason"] == "stop", reply.get("usage") or {}
        counted, prompt = usage.get("completion_tokens"), usage.get("prompt_tokens")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _UselessError("no choice with a text") from error
    if not isinstance(text, str):
        raise _UselessError("no choice with a text")
    return text, ended, counted, prompt
