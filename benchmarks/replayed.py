"""tau of EAGLE heads on held-out prompts by replay: the target decodes the prompts once, each head then takes seconds.

    python -m benchmarks.replayed --head shipped --head runs/a --head runs/b --split dev

At temperature 0 the target's answers do not depend on the head, so they and their features are computed once and kept
in the user's cache. Each head reads these texts, and `agreement.replay` counts the rounds that chains of `--depth`
drafts would take. Compared with `benchmarks.acceptance`, which runs the engine, only rounding differs. Use it to
compare heads on the dev split during a search; published figures come from the engine. JSON lines: a row for each head
and task, and one for their mean (each task counts alike).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import print_row
from specdec_ref.cache import cache_dir
from specdec_ref.drafters.eagle import default_layers
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.training.agreement import prepare, replay
from specdec_ref.training.features import Example, extract_features, feature_folder, open_features
from specdec_ref.training.rows import RowDecoder
from specdec_ref.training.shards import Conversation, write_shard
from specdec_ref.weights import shipped_folder
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import build_head
from specdec_ref.workloads import HELD_OUT, TASKS, chat_ids, load_prompts

__all__ = ["answers", "main", "texts"]


@torch.inference_mode()
def answers(model: Any, prompts: Sequence[Sequence[int]], end: int, tokens: int) -> list[list[int]]:
    """The target's greedy answers, all side by side, at most `tokens` long. Its attention is put back afterwards."""
    attention, written = model.config._attn_implementation, [list[int]() for _ in prompts]
    try:
        decoder = RowDecoder(model, len(prompts), max(map(len, prompts)) + tokens, model.dtype)
        for row, prompt in enumerate(prompts):
            decoder.fill(row, 0, prompt[:-1])
        for _ in range(tokens):
            live = [row for row, answer in enumerate(written) if not answer or answer[-1] != end]
            if not live:
                break
            last = [written[row][-1] if written[row] else prompts[row][-1] for row in live]
            logits = decoder.step(live, last, [len(prompts[row]) - 1 + len(written[row]) for row in live])
            for row, token in zip(live, logits.argmax(-1).tolist(), strict=True):
                written[row].append(token)
    finally:
        model.config._attn_implementation = attention
    return written


def texts(model: Any, tokenizer: Any, name: str, split: str, tokens: int) -> list[Example]:
    """The split's prompts with the target's answers and features, from the user's cache if they are there."""
    layers = default_layers(3, model.config.num_hidden_layers)
    dtype = str(model.dtype).removeprefix("torch.")
    folder = feature_folder(f"heldout-{split}-{tokens}-{dtype}", Path(name).name, layers)
    try:
        blocks = open_features([folder])
    except FileNotFoundError:
        prompts = load_prompts(split=split, file=HELD_OUT)
        asked = [chat_ids(tokenizer, prompt.prompt) for prompt in prompts]
        said = answers(model, asked, int(tokenizer.eos_token_id), tokens)
        shard = cache_dir() / f"heldout-{split}-{tokens}-{dtype}.npz"
        write_shard(
            shard,
            [
                Conversation(prompt.task, tuple(q), tuple(a), 0.0, i)
                for i, (prompt, q, a) in enumerate(zip(prompts, asked, said, strict=True))
            ],
        )
        extract_features(model, [shard], folder, layers)
        blocks = open_features([folder])
    return [example for block in blocks for example in block.examples()]


def rows(model: Any, examples: Sequence[Example], head: Path, depth: int) -> Iterator[dict[str, Any]]:
    """A row for each task, and their mean."""
    loaded = build_head(read_head(head), model)
    lm_head, taus = model.get_output_embeddings().weight, list[float]()
    for task in TASKS:
        held_out = prepare([example for example in examples if example.task == task], lm_head)
        tokens, rounds = map(sum, zip(*replay(loaded.head, held_out, depth), strict=True))
        taus.append(tokens / rounds)
        yield {"head": head.name, "depth": depth, "task": task, "tokens": tokens, "rounds": rounds, "tau": taus[-1]}
    yield {"head": head.name, "depth": depth, "task": "mean", "tau": sum(taus) / len(taus), "tau_worst": min(taus)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replayed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", action="append", required=True, metavar="DIR", help="`shipped` or a run; repeatable")
    parser.add_argument("--target", default=EMBEDDED, help="model name, folder or Hugging Face id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float64")
    parser.add_argument("--split", choices=["dev", "test"], default="dev", help="tune on dev (default), report on test")
    parser.add_argument("--depth", type=int, default=4, help="draft length gamma (default 4)")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer, at most (default 128)")
    args = parser.parse_args(argv)
    model, tokenizer = load(args.target, dtype=args.dtype, device="cpu", pack=False)
    examples = texts(model, tokenizer, args.target, args.split, args.tokens)
    for head in args.head:
        folder = shipped_folder(Path(args.target).name) if head == "shipped" else Path(head)
        if folder is None:
            parser.error(f"no head is shipped for {args.target}: name the folder of a run")
        for row in rows(model, examples, folder, args.depth):
            print_row({"split": args.split, **row})
    return 0


if __name__ == "__main__":
    sys.exit(main())
