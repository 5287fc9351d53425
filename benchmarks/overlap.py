"""Has a head seen the held-out prompts? Their n-grams of tokens against those of a corpus's prompts and responses.

    overlap of a prompt = share of its 8-grams that occur anywhere in the corpus         0: unseen, 1: a copy

    python -m benchmarks.overlap CORPUS_FOLDER ...

Prints a JSON line for each prompt with any overlap, then a summary; exit code 1 if a prompt overlaps by more than
`--limit`. Phrases that everybody uses ("the first time in a ...") share a few 8-grams without any copying.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from specdec_ref.training.prompts import overlaps
from specdec_ref.training.shards import load_corpus
from specdec_ref.workloads import HELD_OUT, Prompt, load_prompts

__all__ = ["main", "prompt_overlaps"]


def prompt_overlaps(
    prompts: Sequence[Prompt], tokenizer: Any, texts: Iterable[Sequence[int]], n: int = 8
) -> dict[str, float]:
    """Overlap of each prompt, by id; `texts` are token ids of the same tokenizer."""
    encoded = [tokenizer.encode(prompt.prompt, add_special_tokens=False) for prompt in prompts]
    return {prompt.id: share for prompt, share in zip(prompts, overlaps(encoded, texts, n), strict=True)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overlap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="+", type=Path, help="folders or shards of `specdec train corpus`")
    parser.add_argument("--target", default="smollm2-135m", help="whose tokenizer wrote the corpus")
    parser.add_argument("--n", type=int, default=8, help="tokens an n-gram (default 8)")
    parser.add_argument("--limit", type=float, default=0.1, help="largest share that passes (default 0.1)")
    args = parser.parse_args(argv)
    from transformers import AutoTokenizer

    from specdec_ref.models.hub import resolve

    texts = ((*c.prompt, *c.response) for c in load_corpus(args.corpus))
    tokenizer = AutoTokenizer.from_pretrained(resolve(args.target))
    found = prompt_overlaps(load_prompts(file=HELD_OUT), tokenizer, texts, args.n)
    for name, share in sorted(found.items(), key=lambda item: -item[1]):
        if share > 0:
            sys.stdout.write(json.dumps({"id": name, "overlap": round(share, 4)}) + "\n")
    worst = max(found.values())
    summary = {"prompts": len(found), "n": args.n, "mean": round(sum(found.values()) / len(found), 5), "worst": worst}
    sys.stdout.write(json.dumps(summary) + "\n")
    return int(worst > args.limit)


if __name__ == "__main__":
    sys.exit(main())
