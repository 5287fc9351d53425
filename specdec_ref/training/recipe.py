"""From nothing to a trained head in three steps, each resumable: corpus, features, training. `specdec train` runs it.

write_corpus   the target answers prompts                     conversations on disk
write_features its hidden states on them                      files of the feature store
fit            a head, or a plain model of the same size      checkpoints, log.jsonl
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from specdec_ref.drafters.eagle import default_layers
from specdec_ref.drafters.eagle_head import Version
from specdec_ref.training.checkpoint import load_state
from specdec_ref.training.corpus import CorpusConfig, generate_corpus
from specdec_ref.training.eagle import TrainConfig, draft_vocabulary, train
from specdec_ref.training.features import Store, extract_features, open_features
from specdec_ref.training.material import Material
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import q_vocab_of

__all__ = ["PRESETS", "Recipe", "fit", "read_log", "write_corpus", "write_features"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much of everything. The vocabulary is that of the drafts, in tokens; 0: the target's whole one."""

    corpus: CorpusConfig
    train: TrainConfig
    draft_vocab: int = 8192


PRESETS = {
    "full": Recipe(
        CorpusConfig(),
        TrainConfig(tokens=5_000_000, curriculum=((0.0, 1), (0.12, 2), (0.35, 3), (0.65, 4)), fall=0.4),
    ),
    "tiny": Recipe(  # a minute on two cores: to see that it learns, not to be good
        CorpusConfig(conversations=48, rows=48, slots=448, max_response=64, max_long_response=64, shard_size=48),
        TrainConfig(tokens=40_000, batch_tokens=512, curriculum=((0.0, 1), (0.5, 2)), warmup=4_000, held_out=8,
                    measure_every=10_000),
        draft_vocab=4096,
    ),
}  # fmt: skip


def write_corpus(
    config: CorpusConfig,
    model: Any,
    tokenizer: Any,
    folder: Path,
    material: Material | None = None,
    features: Path | None = None,
) -> int:
    """`generate_corpus`, up to `config.conversations` in all; the model's own attention is put back afterwards.

    Each of several workers writes its share of them, wherever the others are. `features`: a folder for the features
    of an EAGLE-3 head, which are at hand while the text is written.
    """
    from specdec_ref.training.shards import load_corpus

    if config.conversations is not None:
        stored = load_corpus(sorted(folder.glob(f"seed{config.seed}-*.npz")))
        there = sum(c.number % config.workers == config.worker for c in stored)
        share = len(range(config.worker, config.conversations, config.workers))
        config = replace(config, conversations=max(0, share - there))
    layers = default_layers(3, model.config.num_hidden_layers)
    store = None if features is None else Store(features, model, layers)
    attention = model.config._attn_implementation
    try:
        return generate_corpus(config, model, tokenizer, folder, material, store)
    finally:
        model.config._attn_implementation = attention


def write_features(model: Any, corpus: Sequence[Path], folder: Path, version: Version) -> int:
    """Features of these corpus files, or of all in these folders, that a head of this version reads.

    A plain model reads none, but is trained on the same files. Returns how many response tokens were added.
    """
    files = [
        file
        for path in corpus
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.name.endswith((".npz", ".jsonl.gz"))
    ]
    if not files:
        raise FileNotFoundError(f"no corpus in {', '.join(map(str, corpus))}: `specdec train corpus` writes one")
    return extract_features(model, files, folder, default_layers(version or 3, model.config.num_hidden_layers))


def fit(
    config: TrainConfig,
    model: Any,
    features: Sequence[Path],
    folder: Path,
    *,
    draft_vocab: int = 8192,
    like: Path | None = None,
    start: Path | None = None,
    passes: int | None = None,
) -> Any:
    """Train to the end of the budget, or go on where `folder` stands; a new run begins with the weights of `start`.

    The draft vocabulary is that of `start` or of the head `like`, or the most frequent tokens of the responses in the
    store. A head is a folder or a file that `read_head` reads. `passes`: as in `train`.
    """
    if load_state(folder) is not None:
        return train(config, model, features, folder, passes=passes)
    if start is not None:
        tensors = {
            name: tensor.float() if name != "d2t" else tensor for name, tensor in read_head(start).tensors.items()
        }
        return train(config, model, features, folder, start=tensors, passes=passes)
    return train(config, model, features, folder, _vocabulary(model, features, draft_vocab, like), passes=passes)


def _vocabulary(
    model: Any, features: Sequence[Path], size: int, like: Path | None
) -> Int[Tensor, " draft_vocab"] | None:
    if like is not None:
        d2t = read_head(like).tensors.get("d2t")
        return None if d2t is None else q_vocab_of(d2t)
    if not 0 < size < model.config.vocab_size:
        return None
    answers = (e.tokens[e.prompt :].tolist() for block in open_features(features) for e in block.examples())
    return draft_vocabulary(answers, size, model.config.vocab_size).to(torch.long)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, oldest first. Raises FileNotFoundError if there is none."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]
