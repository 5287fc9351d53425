"""How a dialogue becomes texts to write, one after the other, whoever writes them: a decoder here or a server.

A text is a row of tokens: a prompt, and what the target wrote after it so far. `Script.first` begins a dialogue;
`Script.next` returns the row that follows a finished one. Temperatures and lengths depend on (seed, number, turn) only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from specdec_ref.training.chat import ChatPieces
from specdec_ref.training.edits import first_sentences
from specdec_ref.training.prompts import Dialogue, fingerprint
from specdec_ref.training.shards import Conversation

__all__ = ["SHORTEST_ROOM", "CorpusConfig", "Row", "Script", "find_loop"]

SHORTEST_ROOM = 24  # tokens: a prompt that leaves less for its answer is passed over
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
    cache_dtype: torch.dtype | None = None  # of keys and values; None: what this CPU computes in, see `rows.py`

    def __post_init__(self) -> None:
        if not 0 <= self.worker < self.workers:
            raise ValueError(f"worker {self.worker} of {self.workers}: workers are numbered from 0")
        if self.max_response < SHORTEST_ROOM:
            raise ValueError(
                f"max_response is {self.max_response}: answers need room for {SHORTEST_ROOM} tokens or more"
            )
        if self.slots < self.max_long_response + self.max_user_turn or min(self.rows, self.shard_size) < 1:
            raise ValueError("slots must hold the longest response and a prompt; rows and shard_size be positive")


@dataclass(slots=True)
class Row:
    """One text in progress: turn `turn` of its dialogue. All tokens but the last are in the cache."""

    dialogue: Dialogue
    turn: int
    tokens: list[int]
    start: int  # where the text being written begins
    limit: int  # its largest length
    temperature: float
    by_user: bool = False  # the target is writing the user's message


class Script:
    """The turns of dialogues as rows. Keeps the user messages that the target invented, to use none of them twice."""

    def __init__(self, config: CorpusConfig, tokenizer: Any) -> None:
        """Raises ValueError if the tokenizer's chat template cannot be used."""
        self.config, self.chat = config, ChatPieces(tokenizer)
        self.invented: set[tuple[int, ...]] = set()

    def first(self, dialogue: Dialogue) -> Row:
        """The first text of a dialogue: an answer, or in the task "invented" the user's message."""
        turn = dialogue.turns[0]
        if turn.task != "invented":
            return self.answer(dialogue, 0, self.chat.prompt(turn.text))
        head = self.chat.head
        return Row(dialogue, 0, head + self.chat.encode(turn.text), len(head), self.config.max_user_turn, 1.0, True)

    def answer(self, dialogue: Dialogue, turn: int, prompt: list[int]) -> Row:
        """A row in which the target is to answer `prompt`."""
        rng = Random(f"{self.config.seed}:{dialogue.number}:answer{turn}")
        temperature = rng.choice(self.config.temperatures)
        long = rng.random() < self.config.long_share
        limit = self.config.max_long_response if long else self.config.max_response
        return Row(dialogue, turn, prompt, len(prompt), min(limit, self.config.slots - len(prompt)), temperature)

    def next(self, row: Row) -> tuple[Row | None, int]:
        """What follows in this row, and how many of its tokens are cached already."""
        chat, cached, ended = self.chat, len(row.tokens) - 1, row.tokens[-1] == self.chat.end
        written = chat.decode(row.tokens[row.start : -1]).strip()
        turn = row.dialogue.turns[row.turn + 1] if row.turn + 1 < len(row.dialogue.turns) else None
        if row.by_user:
            mark = fingerprint(written)
            new = ended and written and mark not in self.invented
            self.invented.add(mark)
            return (self.answer(row.dialogue, 0, row.tokens + chat.tail[1:]), cached) if new else (None, 0)
        if turn is not None and turn.fresh:
            passage = first_sentences(written, _LONGEST_PASSAGE)
            prompt = chat.prompt(turn.text.replace("{answer}", passage))
            return (self.answer(row.dialogue, row.turn + 1, prompt), len(chat.head)) if passage else (None, 0)
        if turn is not None and ended:  # after an answer that was cut, or ended in a loop, nobody would go on
            prompt = row.tokens + chat.between[1:] + chat.encode(turn.text) + chat.tail
            return self.answer(row.dialogue, row.turn + 1, prompt), cached
        return None, 0

    def conversation(self, row: Row) -> Conversation:
        """A finished answer with its prompt; all but a few repeats of a loop at its end are cut off."""
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
