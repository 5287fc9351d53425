"""The corpus generator: the target answers the prompts of `prompts.py`, and draft heads learn from its answers.

Self-distillation (EAGLE, arXiv 2401.15077, table 6; EAGLE-3, arXiv 2503.01840, section 4): an accepted draft token is
one that the target itself would say, so its own text is the text to fit. Rows finish at different times; a free row
takes the next dialogue at once, so the batch stays full. Stop it at any time: finished conversations are on disk or
saved on the way out, and a new run with the same seed goes on where it ended.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from specdec_ref.config import SamplingParams
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.sampling import warp
from specdec_ref.training.chat import ChatPieces
from specdec_ref.training.edits import first_sentences
from specdec_ref.training.material import Material
from specdec_ref.training.prompts import Dialogue, dialogues, fingerprint
from specdec_ref.training.rows import RowDecoder
from specdec_ref.training.shards import Conversation, load_corpus, write_shard

__all__ = ["CorpusConfig", "find_loop", "generate_corpus"]

_SHORTEST_ROOM = 24  # tokens: a prompt that leaves less for its answer is passed over
_LONGEST_PASSAGE = 900  # characters of an answer that is handed back as the text of a new prompt
_LONGEST_PERIOD = 64  # tokens: longer repetitions are left alone


@dataclass(frozen=True, slots=True)
class CorpusConfig:
    """What to generate. Lengths in tokens. Several workers with the same seed share the dialogues out by number."""

    seed: int = 0
    worker: int = 0  # this process takes the dialogues whose number is `worker` modulo `workers`
    workers: int = 1
    conversations: int | None = None  # stop after so many; None: go on until interrupted
    rows: int = 96
    slots: int = 768  # prompt and response together
    max_response: int = 256
    max_long_response: int = 512
    long_share: float = 0.15
    max_user_turn: int = 96  # of messages the target writes itself
    temperatures: tuple[float, ...] = (0.0, 0.0, 0.7, 0.7, 1.0)  # one is drawn an answer; at 1 this target rambles
    shard_size: int = 256  # conversations a file
    cache_dtype: torch.dtype = torch.bfloat16  # of keys and values; see `rows.py` for what it costs and saves

    def __post_init__(self) -> None:
        if not 0 <= self.worker < self.workers:
            raise ValueError(f"worker {self.worker} of {self.workers}: workers are numbered from 0")
        if self.slots < self.max_long_response + self.max_user_turn or min(self.rows, self.shard_size) < 1:
            raise ValueError("slots must hold the longest response and a prompt; rows and shard_size be positive")


@dataclass(slots=True)
class _Row:
    """One text in progress: turn `turn` of its dialogue. All tokens but the last are in the cache."""

    dialogue: Dialogue
    turn: int
    tokens: list[int]
    start: int  # where the text being written begins
    limit: int  # its largest length
    temperature: float
    by_user: bool = False  # the target is writing the user's message


def generate_corpus(
    config: CorpusConfig, model: nn.Module, tokenizer: Any, folder: Path | str, material: Material | None = None
) -> int:
    """Generate conversations into shards in `folder` until `config.conversations` exist or it is interrupted.

    `model`: a transformers causal LM on the CPU with full attention, float32 where the CPU has no bfloat16
    instructions; `tokenizer`: its tokenizer, with a chat template. Returns the number of conversations written.
    KeyboardInterrupt is passed on after the finished conversations are saved. Raises OSError if `folder` cannot be
    written and ValueError if model or template cannot be used.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    done = {c.number for c in load_corpus(sorted(place.glob(f"seed{config.seed}-*.npz")))}
    waiting = (
        d for d in dialogues(config.seed, material)
        if d.number % config.workers == config.worker and d.number not in done
    )  # fmt: skip
    writer = _ShardWriter(place, config)
    bar = tqdm(unit="tok", unit_scale=True, mininterval=0.5 if sys.stderr.isatty() else 60.0, desc="corpus")
    try:
        for conversation in islice(_Generator(config, model, tokenizer).run(waiting), config.conversations):
            writer.add(conversation)
            bar.update(len(conversation.response))
            bar.set_postfix(conversations=writer.written, refresh=False)
    finally:
        writer.flush()
        bar.close()
    return writer.written


class _ShardWriter:
    """Collects conversations and writes a shard whenever it is full."""

    def __init__(self, folder: Path, config: CorpusConfig) -> None:
        self.folder, self.size, self.written = folder, config.shard_size, 0
        self.stem = f"seed{config.seed}-{config.worker}of{config.workers}"
        self.index = len(list(folder.glob(f"{self.stem}-*.npz")))
        self.pending: list[Conversation] = []

    def add(self, conversation: Conversation) -> None:
        self.pending.append(conversation)
        self.written += 1
        if len(self.pending) >= self.size:
            self.flush()

    def flush(self) -> None:
        if self.pending:
            write_shard(self.folder / f"{self.stem}-{self.index:05d}.npz", self.pending)
            self.index, self.pending = self.index + 1, []


class _Generator:
    """Continuous batching: the turns of many dialogues through one decoder."""

    def __init__(self, config: CorpusConfig, model: nn.Module, tokenizer: Any) -> None:
        self.config, self.chat = config, ChatPieces(tokenizer)
        self.decoder = RowDecoder(model, config.rows, config.slots, config.cache_dtype)
        self.decoder.share_prefix(self.chat.head)
        self.rows: dict[int, _Row] = {}
        self.invented: set[tuple[int, ...]] = set()

    def run(self, waiting: Iterator[Dialogue]) -> Iterator[Conversation]:
        """Conversations as they finish, until no dialogue waits."""
        while True:
            for place in range(self.config.rows):
                while place not in self.rows and (dialogue := next(waiting, None)) is not None:
                    self._enter(place, self._first(dialogue), len(self.chat.head))
            if not self.rows:
                return
            for place, row in self._step():
                del self.rows[place]
                if not row.by_user:
                    yield self._conversation(row)
                self._enter(place, *self._next(row))

    def _enter(self, place: int, row: _Row | None, cached: int) -> None:
        """Prefill what is new in the row. Texts that leave no room for an answer are passed over."""
        if row is not None and row.limit >= _SHORTEST_ROOM:
            self.decoder.fill(place, cached, row.tokens[cached:-1])
            self.rows[place] = row

    def _first(self, dialogue: Dialogue) -> _Row:
        turn = dialogue.turns[0]
        if turn.task != "invented":
            return self._answer(dialogue, 0, self.chat.prompt(turn.text))
        head = self.chat.head
        return _Row(dialogue, 0, head + self.chat.encode(turn.text), len(head), self.config.max_user_turn, 1.0, True)

    def _answer(self, dialogue: Dialogue, turn: int, prompt: list[int]) -> _Row:
        """A row in which the target is to answer `prompt`."""
        rng = Random(f"{self.config.seed}:{dialogue.number}:answer{turn}")
        temperature = rng.choice(self.config.temperatures)
        long = rng.random() < self.config.long_share
        limit = self.config.max_long_response if long else self.config.max_response
        return _Row(dialogue, turn, prompt, len(prompt), min(limit, self.config.slots - len(prompt)), temperature)

    def _next(self, row: _Row) -> tuple[_Row | None, int]:
        """What follows in this row, and how many of its tokens are cached already."""
        chat, cached, ended = self.chat, len(row.tokens) - 1, row.tokens[-1] == self.chat.end
        written = chat.decode(row.tokens[row.start : -1]).strip()
        turn = row.dialogue.turns[row.turn + 1] if row.turn + 1 < len(row.dialogue.turns) else None
        if row.by_user:
            mark = fingerprint(written)
            new = ended and written and mark not in self.invented
            self.invented.add(mark)
            return (self._answer(row.dialogue, 0, row.tokens + chat.tail[1:]), cached) if new else (None, 0)
        if turn is not None and turn.fresh:
            passage = first_sentences(written, _LONGEST_PASSAGE)
            prompt = chat.prompt(turn.text.replace("{answer}", passage))
            return (self._answer(row.dialogue, row.turn + 1, prompt), len(chat.head)) if passage else (None, 0)
        if turn is not None and ended:  # after an answer that was cut, or ended in a loop, nobody would go on
            prompt = row.tokens + chat.between[1:] + chat.encode(turn.text) + chat.tail
            return self._answer(row.dialogue, row.turn + 1, prompt), cached
        return None, 0

    def _step(self) -> list[tuple[int, _Row]]:
        """One token for every row; returns the rows that are finished."""
        places, active = list(self.rows), list(self.rows.values())
        last = [row.tokens[-1] for row in active]
        logits = self.decoder.step(places, last, [len(row.tokens) - 1 for row in active])
        for row, token in zip(active, self._choose(logits, active), strict=True):
            row.tokens.append(token)
        return [(place, row) for place, row in zip(places, active, strict=True) if self._finished(row)]

    def _choose(self, logits: Float[Tensor, "rows vocab"], active: Sequence[_Row]) -> list[int]:
        """The next token of every row, at its own temperature; coins are keyed by (seed, dialogue, position)."""
        chosen = logits.argmax(-1).tolist()
        for temperature in {row.temperature for row in active} - {0.0}:
            indices = [i for i, row in enumerate(active) if row.temperature == temperature]
            dists = warp(logits[indices], SamplingParams(temperature=temperature))
            for i, dist in zip(indices, dists, strict=True):
                seed = (self.config.seed << 32) + active[i].dialogue.number
                chosen[i] = KeyedRandomness(seed, len(active[i].tokens), "plain").draw(dist)
        return [int(token) for token in chosen]

    def _finished(self, row: _Row) -> bool:
        length = len(row.tokens) - row.start
        over = row.tokens[-1] == self.chat.end or length >= row.limit
        return over or (length % 16 == 0 and find_loop(row.tokens[row.start :]) is not None)

    def _conversation(self, row: _Row) -> Conversation:
        response = row.tokens[row.start :]
        if (loop := find_loop(response)) is not None:
            begin, period = loop
            response = response[: begin + max(4 * period, 24)]
        task = row.dialogue.turns[row.turn].task
        return Conversation(task, tuple(row.tokens[: row.start]), tuple(response), row.temperature, row.dialogue.number)


def find_loop(tokens: Sequence[int]) -> tuple[int, int] | None:
    """(begin, period) of a text that ends by repeating itself: at least 48 tokens and three times over; else None.

    Small models fall into such loops under greedy decoding. A few repeats are worth learning, hundreds are not.
    """
    for period in range(1, min(_LONGEST_PERIOD, len(tokens) // 2) + 1):
        run = 0
        while run + period < len(tokens) and tokens[-1 - run] == tokens[-1 - run - period]:
            run += 1
        if run >= max(3 * period, 48):
            return len(tokens) - run - period, period
    return None
