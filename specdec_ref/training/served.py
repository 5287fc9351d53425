"""A corpus from a server, checked: held-out prompts kept out, and greedy answers compared with the target here.

A head learns the target's features and distributions on this text, so the text has to be the target's own. Another
checkpoint, quantisation or chat template shows in the share of greedy tokens that are the target's argmax here.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from specdec_ref.training.corpus import ShardWriter, waiting_dialogues
from specdec_ref.training.material import Material
from specdec_ref.training.prompts import overlaps
from specdec_ref.training.remote import Asking, Tally, write_remotely
from specdec_ref.training.script import CorpusConfig, Script
from specdec_ref.training.shards import Conversation, load_corpus

__all__ = ["ServedCorpus", "greedy_agreement", "serve_corpus"]

LARGEST_OVERLAP = 0.1  # share of a held-out prompt's 8-grams that a conversation may hold


@dataclass(slots=True)
class ServedCorpus:
    """What `serve_corpus` did. `agreeing` of `compared` greedy tokens are the argmax of the target here."""

    tally: Tally = field(default_factory=Tally)
    compared: int = 0
    agreeing: int = 0

    @property
    def agreement(self) -> float | None:
        """Share of greedy response tokens that our target agrees with; None if none was compared."""
        return self.agreeing / self.compared if self.compared else None


def serve_corpus(
    config: CorpusConfig,
    asking: Asking,
    tokenizer: Any,
    folder: Path,
    *,
    model: Any = None,
    check: int = 16,
    held_out: Sequence[Sequence[int]] = (),
    material: Material | None = None,
) -> ServedCorpus:
    """Write shards to `folder` as `generate_corpus` does, the server at `asking.url` in the place of the model.

    `check`: greedy answers to compare with `model`, the target here. `held_out`: token ids of prompts; a conversation
    that holds over a tenth of one's 8-grams is dropped. Goes on where an earlier run with the same seed ended, and
    appends a line about itself to `endpoint.jsonl`. Errors: see `write_remotely`; finished conversations are saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen = {hash((c.prompt, c.response)) for c in load_corpus([folder])}
    report, greedy, writer = ServedCorpus(), list[Conversation](), ShardWriter(folder, config)
    bar = tqdm(unit="tok", unit_scale=True, mininterval=0.5 if sys.stderr.isatty() else 60.0, desc="corpus")

    def tick(conversation: Conversation, tally: Tally) -> None:
        report.tally = tally
        if conversation.temperature == 0.0 and len(greedy) < check:
            greedy.append(conversation)
        bar.update(len(conversation.response))
        bar.set_postfix(conversations=tally.conversations, refresh=False)

    def refused(conversation: Conversation) -> bool:
        text = (*conversation.prompt, *conversation.response)
        return any(share > LARGEST_OVERLAP for share in overlaps(held_out, [text]))

    try:
        waiting = waiting_dialogues(config, folder, material)
        report.tally = write_remotely(
            asking, Script(config, tokenizer), waiting, writer.add, refused=refused, seen=seen, tick=tick
        )
    finally:
        writer.flush()
        bar.close()
        if model is not None:
            report.agreeing, report.compared = greedy_agreement(model, greedy)
        _append(folder / "endpoint.jsonl", report)
    return report


@torch.inference_mode()
def greedy_agreement(model: Any, conversations: Sequence[Conversation]) -> tuple[int, int]:
    """(agreeing, compared) tokens: response tokens that are the model's argmax after the tokens before them."""
    agreeing = compared = 0
    for c in conversations:
        text = torch.tensor([[*c.prompt, *c.response]])
        choice = model(input_ids=text, use_cache=False).logits[0, len(c.prompt) - 1 : -1].argmax(-1)
        agreeing += int((choice == text[0, len(c.prompt) :]).sum())
        compared += len(c.response)
    return agreeing, compared


def _append(path: Path, report: ServedCorpus) -> None:
    tally = {f.name: getattr(report.tally, f.name) for f in fields(report.tally)}
    row = tally | {"compared": report.compared, "agreeing": report.agreeing}
    with path.open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")
