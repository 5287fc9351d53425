"""Three measurements of the engine on the real model, paired in one process.

    plain      our plain decoder against transformers' generate(), greedy, the same tokens
    ngram      prompt lookup against our plain decoder on the committed editing prompts
    overhead   share of a speculative step that is not a model forward

    python -m benchmarks.engine --dtype float32 --repeats 15

Only ratios are meant to be quoted. Tokens are compared: a row says whether both sides wrote the same.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.command import print_row
from specdec_ref.bench.harness import median_interval, paired
from specdec_ref.config import DraftBudget
from specdec_ref.request import Generation, Limits
from specdec_ref.session import Session
from specdec_ref.workloads import load_prompts

__all__ = ["main"]

STORY = "Write a short story about a lighthouse keeper who finds a message in a bottle and decides to answer it."


def plain_against_transformers(session: Session, tokens: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Whole calls, prefill included, for exactly `tokens` new tokens. ratio > 1: ours is faster."""
    prompt = session.encode(STORY)
    ids = torch.tensor([prompt], device=session.target.device)
    limits = session.limits(tokens, ignore_eos=True)
    model: Any = session.target.model
    texts: dict[str, list[int]] = {}

    def transformers_generate() -> float:
        started = time.perf_counter()
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        texts["transformers"] = out[0, len(prompt) :].tolist()
        return time.perf_counter() - started

    def ours() -> float:
        started = time.perf_counter()
        texts["ours"] = session.plain([prompt], limits=limits)[0].tokens
        return time.perf_counter() - started

    pairs = paired(transformers_generate, ours, repeats, seconds=seconds, progress=lambda: _tick("plain"))
    low, high = pairs.interval()
    return {
        "measure": "plain / transformers generate()", "ratio": pairs.ratio, "ci_low": low, "ci_high": high,
        "tokens": tokens, "repeats": len(pairs.ratios), "identical": texts["ours"] == texts["transformers"],
    }  # fmt: skip


def ngram_against_plain(
    session: Session, depth: int, tokens: int, repeats: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """Seconds per token of decoding, prefill left out, on each editing prompt; then the median over prompts."""
    limits = session.limits(tokens)
    engine = session.engine("ngram", budget=DraftBudget(depth), limits=limits)
    rows: list[dict[str, Any]] = []
    prompts = load_prompts(["editing"])
    for prompt in prompts:
        ids = session.encode(prompt.prompt)
        last: dict[str, Generation] = {}

        def plain(ids: Sequence[int] = ids, limits: Limits = limits, last: dict[str, Generation] = last) -> float:
            last["plain"] = session.plain([ids], limits=limits)[0]
            return last["plain"].seconds / max(1, len(last["plain"].tokens) - 1)

        def speculative(ids: Sequence[int] = ids, last: dict[str, Generation] = last) -> float:
            last["ngram"] = engine.generate([ids])[0]
            return last["ngram"].seconds / len(last["ngram"].tokens)

        share = seconds / len(prompts)
        pairs = paired(plain, speculative, repeats, seconds=share, progress=lambda: _tick("ngram"))
        done = last["ngram"]
        spent = sum(record.step_s for record in done.records)
        rows.append({
            "measure": f"ngram / plain, {prompt.id}", "ratio": pairs.ratio, "repeats": len(pairs.ratios),
            "tau": done.stats.tau, "alpha": done.stats.alpha, "tokens": len(done.tokens),
            "identical": done.tokens == last["plain"].tokens,
            "overhead": 1 - sum(record.forward_s for record in done.records) / spent,
        })  # fmt: skip
        yield rows[-1]
    ratios = [row["ratio"] for row in rows]
    low, high = median_interval(ratios)
    yield {
        "measure": f"ngram / plain, median of {len(rows)} prompts", "ratio": statistics.median(ratios), "ci_low": low,
        "ci_high": high, "overhead": statistics.median(row["overhead"] for row in rows), "depth": depth,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """One JSON object a line on stdout: the environment first, then a row a measurement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--target", default="smollm2-135m", help="model name, folder or Hugging Face id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16")
    parser.add_argument("--repeats", type=int, default=15, help="pairs a measurement (default 15)")
    parser.add_argument("--seconds", type=float, default=300.0, help="stop a measurement after this (default 300)")
    parser.add_argument("--tokens", type=int, default=96, help="new tokens a prompt (default 96)")
    parser.add_argument("--depth", type=int, default=12, help="draft length of the n-gram drafter (default 12)")
    parser.add_argument("--only", choices=["plain", "ngram"], help="one measurement instead of all")
    args = parser.parse_args(argv)
    session = Session.open(args.target, dtype=args.dtype)
    print_row({"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
            "torch": torch.__version__, "model": args.target, "dtype": str(session.target.dtype)})  # fmt: skip
    if args.only != "ngram":
        print_row(plain_against_transformers(session, args.tokens, args.repeats, args.seconds))
    if args.only != "plain":
        for row in ngram_against_plain(session, args.depth, args.tokens, max(3, args.repeats // 5), args.seconds):
            print_row(row)
    return 0


def _tick(what: str) -> None:
    sys.stderr.write(f"\r{what}: a pair done at {time.strftime('%H:%M:%S')}")


if __name__ == "__main__":
    sys.exit(main())
