"""What a draft head learns: by what it reads, how deep it is unrolled in training, how many tokens it may say.

    reads    tokens alone (a plain model), features alone, or tokens and the features of three layers (EAGLE-3)
    steps    unrolled in training: 1 is EAGLE-1's way, more is training-time test, here from the first token on
    vocab    the draft vocabulary; the LM head is the target's and frozen, so a smaller one is cut out after training

    python -m benchmarks.heads > specdec_ref/bench/rows/heads.jsonl
    python -m benchmarks.heads --shipped > specdec_ref/bench/rows/heads-shipped.jsonl

Five small heads of one architecture (the plain model as wide), each trained on the same 428 conversations of
`training/_text/small` for as many response tokens, with the same loss, warm start, rate and seed; a hundredth of what
the shipped ones had. `--shipped`: those, which need no training here; "features" is then the EAGLE head with its
embeddings zeroed. Agreement with the target at T = 0 on 64 other conversations, which it decoded greedily, so that
`chain` is exact. JSON lines.
"""

import argparse
import copy
import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from specdec_ref.drafters.eagle import default_layers
from specdec_ref.drafters.eagle_head import EagleHead
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.models.target import Target
from specdec_ref.training.agreement import HeldOut, measure, prepare
from specdec_ref.training.eagle import TrainConfig, draft_vocabulary, train
from specdec_ref.training.features import extract_features, open_features
from specdec_ref.training.shards import load_corpus, small_corpus
from specdec_ref.weights import shipped
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import build_head

__all__ = ["STEPS", "VOCABS", "main", "small_corpus"]

STEPS = {"tokens": (1,), "features": (4,), "three layers": (1, 2, 4)}  # a plain model reads no output of its own
VOCABS = (4096, 2048, 1024, 512, 256)  # falling: each is cut out of the one before
POSITIONS = 5


def blind(model: Any) -> Any:
    """The same target, but a head made for it sees no token: every embedding is zero."""
    twin = copy.copy(model)
    empty = nn.Embedding.from_pretrained(torch.zeros_like(model.get_input_embeddings().weight))
    twin.get_input_embeddings = lambda: empty
    return twin


def cut_vocabulary(head: EagleHead, kept: torch.Tensor) -> None:
    """Leave only these tokens of the draft vocabulary, in place: rows of the LM head, and their target ids."""
    ids = torch.arange(head.config.vocab_size) if head.q_vocab is None else head.q_vocab
    columns = torch.isin(ids, kept).nonzero()[:, 0]
    head.lm_head.weight = nn.Parameter(head.lm_head.weight[columns], requires_grad=False)
    head.q_vocab = ids[columns]


def trained(model: Any, reads: str, steps: int, features: Path, tokens: int, q_vocab: torch.Tensor) -> EagleHead:
    """A small head. The one held-out conversation of `train` is only for its log."""
    config = TrainConfig(
        version=0 if reads == "tokens" else 3,
        tokens=tokens,
        batch_tokens=512,
        curriculum=((0.0, steps),),
        warmup=4_000,
        fall=0.6,
        bfloat16=model.dtype is torch.bfloat16,
        held_out=1,
        measure_every=tokens * 2,
    )
    with tempfile.TemporaryDirectory() as folder:
        seen = blind(model) if reads == "features" else model
        head: EagleHead = train(config, seen, [features], Path(folder), q_vocab)
    return head


def shipped_head(model: Any, reads: str) -> tuple[EagleHead, int]:
    """One that comes with the package, and the tokens that it was trained on."""
    files = read_head(shipped(Target(model), "draft" if reads == "tokens" else "eagle") or "")
    head = build_head(files, blind(model) if reads == "features" else model, torch.float32).head
    return head, json.loads(files.metadata["progress"])["tokens"]


def rows(model: Any, work: Path, tokens: int | None) -> Iterator[dict[str, Any]]:
    """All heads, at every size of the vocabulary. `tokens`: to train each on; None: the shipped ones."""
    answers = [c.response for c in load_corpus([small_corpus("train")])]
    vocabularies = {size: draft_vocabulary(answers, size, model.config.vocab_size) for size in VOCABS}
    layers = default_layers(3, len(model.base_model.layers))
    for part in ("train", "heldout") if tokens else ("heldout",):
        extract_features(model, [small_corpus(part)], work / part, layers)
    examples = [e for block in open_features([work / "heldout"]) for e in block.examples()]
    held_out = prepare(examples, model.get_output_embeddings().weight.float())
    for reads, depths in STEPS.items():
        if tokens is None:
            head, seen = shipped_head(model, reads)
            yield from measured(head, held_out, vocabularies, {"reads": reads, "steps": depths[-1], "tokens": seen})
            continue
        for steps in depths:
            head = trained(model, reads, steps, work / "train", tokens, vocabularies[VOCABS[0]])
            yield from measured(head, held_out, vocabularies, {"reads": reads, "steps": steps, "tokens": tokens})


def measured(
    head: EagleHead, held_out: Sequence[HeldOut], vocabularies: dict[int, torch.Tensor], about: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row a vocabulary."""
    for size, kept in vocabularies.items():
        cut_vocabulary(head, kept)
        found = measure(head, held_out, POSITIONS)
        shares = {name: [round(share, 4) for share in getattr(found, name)] for name in ("single", "chain")}
        yield {**about, "vocab": size, **shares}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.heads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=40_000, help="response tokens a small head is trained on")
    parser.add_argument("--shipped", action="store_true", help="measure the shipped heads, train none")
    parser.add_argument("--work", type=Path, default=None, help="where features are kept (default: thrown away)")
    args = parser.parse_args(argv)
    model, _ = load(EMBEDDED, dtype="auto", device="cpu", pack=False)
    about = {"target": EMBEDDED, "dtype": str(model.dtype), "machine": platform.processor() or platform.machine(),
             "torch": torch.__version__,
             "measured": "agreement with the target's argmax, T = 0, 64 held-out conversations"}  # fmt: skip
    sys.stdout.write(json.dumps(about) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows(model, args.work or Path(scratch), None if args.shipped else args.tokens):
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
