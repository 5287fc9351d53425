"""The corpus generator: the target answers the prompts of `prompts.py`, and draft heads learn from its answers.

Self-distillation (EAGLE, arXiv 2401.15077, table 6; EAGLE-3, arXiv 2503.01840, section 4): an accepted draft token is
one that the target itself would say, so its own text is the text to fit. Rows finish at different times; a free row
takes the next dialogue at once, so the batch stays full. Stop it at any time: finished conversations are on disk or
saved on the way out, and a new run with the same seed goes on where it ended.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from specdec_ref.config import SamplingParams
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.sampling import warp
from specdec_ref.training.features import States, Store
from specdec_ref.training.material import Material
from specdec_ref.training.prompts import Dialogue, dialogues
from specdec_ref.training.rows import RowDecoder
from specdec_ref.training.script import SHORTEST_ROOM, CorpusConfig, Row, Script, find_loop
from specdec_ref.training.shards import Conversation, load_corpus, write_shard

__all__ = ["CorpusConfig", "ShardWriter", "find_loop", "generate_corpus", "waiting_dialogues"]


def generate_corpus(
    config: CorpusConfig,
    model: nn.Module,
    tokenizer: Any,
    folder: Path | str,
    material: Material | None = None,
    store: Store | None = None,
) -> int:
    """Generate conversations into shards in `folder` until `config.conversations` exist or it is interrupted.

    `model`: a transformers causal LM with full attention, on a CPU in float32 unless that has bfloat16 instructions;
    `tokenizer`: its tokenizer, with a chat template. `store`: where to write the features of these
    conversations, which are at hand here. Returns the number of conversations written. KeyboardInterrupt is passed on
    after the finished conversations are saved. Raises OSError if `folder` cannot be written and ValueError if model or
    template cannot be used.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    waiting = waiting_dialogues(config, place, material)
    writer = ShardWriter(place, config, store)
    bar = tqdm(unit="tok", unit_scale=True, mininterval=0.5 if sys.stderr.isatty() else 60.0, desc="corpus")
    try:
        generator = _Generator(config, model, tokenizer, store.layers if store else ())
        for conversation, states in islice(generator.run(waiting), config.conversations):
            writer.add(conversation, states)
            bar.update(len(conversation.response))
            bar.set_postfix(conversations=writer.written, refresh=False)
    finally:
        writer.flush()
        bar.close()
    return writer.written


def waiting_dialogues(config: CorpusConfig, folder: Path, material: Material | None = None) -> Iterator[Dialogue]:
    """This worker's dialogues of which `folder` holds nothing yet."""
    done = {c.number for c in load_corpus(sorted(folder.glob(f"seed{config.seed}-*.npz")))}
    for dialogue in dialogues(config.seed, material):
        if dialogue.number % config.workers == config.worker and dialogue.number not in done:
            yield dialogue


class ShardWriter:
    """Collects conversations and writes a shard whenever it is full; to `store` their features, if they come along."""

    def __init__(self, folder: Path, config: CorpusConfig, store: Store | None = None) -> None:
        self.folder, self.size, self.written, self.store = folder, config.shard_size, 0, store
        self.stem = f"seed{config.seed}-{config.worker}of{config.workers}"
        self.index = len(list(folder.glob(f"{self.stem}-*.npz")))
        self.pending: list[Conversation] = []
        self.states: list[States] = []

    def add(self, conversation: Conversation, states: States | None = None) -> None:
        """Take one; write a shard if it is full."""
        self.pending.append(conversation)
        if states is not None:
            self.states.append(states)
        self.written += 1
        if len(self.pending) >= self.size:
            self.flush()

    def flush(self) -> None:
        """Write what was taken since the last shard."""
        if self.pending:
            path = self.folder / f"{self.stem}-{self.index:05d}.npz"
            write_shard(path, self.pending)
            if self.store is not None:
                self.store.add(path, self.pending, self.states)
            self.index, self.pending, self.states = self.index + 1, [], []


class _Generator:
    """Continuous batching: the turns of many dialogues through one decoder."""

    def __init__(self, config: CorpusConfig, model: nn.Module, tokenizer: Any, layers: Sequence[int] = ()) -> None:
        self.config, self.script = config, Script(config, tokenizer)
        self.decoder = RowDecoder(model, config.rows, config.slots, config.cache_dtype, layers)
        self.decoder.share_prefix(self.script.chat.head)
        self.rows: dict[int, Row] = {}

    def run(self, waiting: Iterator[Dialogue]) -> Iterator[tuple[Conversation, States | None]]:
        """Conversations as they finish, until no dialogue waits; with their features if the decoder keeps any."""
        while True:
            for place in range(self.config.rows):
                while place not in self.rows and (dialogue := next(waiting, None)) is not None:
                    self._enter(place, self.script.first(dialogue), len(self.script.chat.head))
            if not self.rows:
                return
            for place, row in self._step():
                del self.rows[place]
                if not row.by_user:
                    found = self.script.conversation(row)
                    length = len(found.prompt) + len(found.response)
                    kept = bool(self.decoder.layers)
                    yield found, self.decoder.features(place, len(found.prompt), length) if kept else None
                self._enter(place, *self.script.next(row))

    def _enter(self, place: int, row: Row | None, cached: int) -> None:
        """Prefill what is new in the row. Texts that leave no room for an answer are passed over."""
        if row is not None and row.limit >= SHORTEST_ROOM:
            self.decoder.fill(place, cached, row.tokens[cached:-1])
            self.rows[place] = row

    def _step(self) -> list[tuple[int, Row]]:
        """One token for every row; returns the rows that are finished."""
        places, active = list(self.rows), list(self.rows.values())
        last = [row.tokens[-1] for row in active]
        logits = self.decoder.step(places, last, [len(row.tokens) - 1 for row in active])
        for row, token in zip(active, self._choose(logits, active), strict=True):
            row.tokens.append(token)
        return [(place, row) for place, row in zip(places, active, strict=True) if self._finished(row)]

    def _choose(self, logits: Float[Tensor, "rows vocab"], active: Sequence[Row]) -> list[int]:
        """The next token of every row, at its own temperature; coins are keyed by (seed, dialogue, position)."""
        chosen = logits.argmax(-1).tolist()
        for temperature in {row.temperature for row in active} - {0.0}:
            indices = [i for i, row in enumerate(active) if row.temperature == temperature]
            dists = warp(logits[indices], SamplingParams(temperature=temperature))
            for i, dist in zip(indices, dists, strict=True):
                seed = (self.config.seed << 32) + active[i].dialogue.number
                chosen[i] = KeyedRandomness(seed, len(active[i].tokens), "plain").draw(dist)
        return [int(token) for token in chosen]

    def _finished(self, row: Row) -> bool:
        length = len(row.tokens) - row.start
        over = row.tokens[-1] == self.script.chat.end or length >= row.limit
        return over or (length % 16 == 0 and find_loop(row.tokens[row.start :]) is not None)
