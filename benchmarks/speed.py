"""Wall clock on the held-out prompts: drafters against our plain decoder and transformers' generate(), paired.

    speed-up of a task = median over its calls of  plain decoder's seconds a token / the drafter's        > 1: faster
    `..._mean`: the geometric mean of the same ratios

    python -m benchmarks.speed --drafter eagle --drafter draft=FOLDER --split test --prompts 4 --dtype bfloat16
    python -m benchmarks.speed --drafter ngram --drafter suffix --against ngram --depth 0 --no-hf --dtype float32

Batch 1, greedy, whole calls with the prompt's prefill, in one process: `specdec bench` with one setting a drafter and
nothing tuned. `identical` counts texts that are the plain decoder's: in bfloat16 they may part, so time is per token;
`acceptance.py --identity` applies the rule. One JSON object a line on stdout, a table on stderr.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from statistics import geometric_mean, median
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.command import command_parser, print_row
from specdec_ref.bench.harness import median_interval
from specdec_ref.bench.peers import HF, peers
from specdec_ref.bench.sides import PLAIN, Setting, Side, chain_side, named_drafter, plain_side
from specdec_ref.bench.table import Timing, pooled, ratios, run_sides
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.machine import machine_line
from specdec_ref.session import Session
from specdec_ref.workloads import HELD_OUT, load_prompts

__all__ = ["main", "summary"]


def sides(setting: Setting, drafters: Sequence[str], depth: int, *, hf: bool = True) -> Iterator[Side]:
    """The plain decoder first, then transformers, then each drafter under its spelling; depth 0: what suits it."""
    yield plain_side(setting)
    if hf:
        yield next(iter(peers(setting, {})))
    for spelled in drafters:
        budget = DraftBudget(depth) if depth else DraftBudget.suited_to(spelled.partition("=")[0])
        yield chain_side(setting, spelled, named_drafter(spelled, setting.session.target), budget)


def summary(timings: dict[Side, list[Timing]], side: Side, against: str | None = None) -> dict[str, Any]:
    """One side against the plain decoder, transformers if it ran, and the drafter `against`."""
    of = {other.method: calls for other, calls in timings.items()}
    mine, stats = timings[side], pooled(timings[side])
    row: dict[str, Any] = {"side": {HF: "transformers"}.get(side.method, side.method),
                           "ms_per_token": 1000 * median(call.per_token for call in mine)}  # fmt: skip
    bases = {"plain": PLAIN, "transformers": HF} | ({against: against} if against else {})
    for name, base in bases.items():
        if base in of:
            over = ratios(of[base], mine)
            row[f"over_{name}"] = median(over)
            row[f"over_{name}_mean"] = geometric_mean(over)
            row[f"over_{name}_ci"] = [round(end, 3) for end in median_interval(over)]
    texts = zip(of[PLAIN], mine, strict=True)
    row["identical"] = sum(b.answers[0].tokens == m.answers[0].tokens for b, m in texts)
    return row | {"calls": len(mine), "tau": stats.tau if stats else 1.0}


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    keys = [key for key, value in rows[0].items() if isinstance(value, float)]
    means = {key: sum(row[key] for row in rows) / len(rows) for key in keys}
    return {"task": "mean", "side": rows[0]["side"], **means, "over_plain_worst": min(r["over_plain"] for r in rows)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = command_parser("speed", __doc__, prompts=4, tokens=96)
    parser.add_argument("--drafter", action="append", required=True, metavar="NAME[=PATH]", help="repeatable")
    parser.add_argument("--depth", type=int, default=4, help="draft length gamma (default 4); 0: each drafter's own")
    parser.add_argument("--against", metavar="NAME", help="a drafter of this run to divide by as well")
    parser.add_argument("--no-hf", action="store_true", help="leave transformers' generate() out")
    parser.add_argument("--split", choices=["dev", "test"], default="test")
    parser.add_argument("--repeats", type=int, default=1, help="times each prompt is run (default 1)")
    args = parser.parse_args(argv)
    if args.against is not None and args.against not in args.drafter:
        parser.error(f"--against {args.against}: name one of the drafters: {', '.join(args.drafter)}")
    session = Session.open(args.target, dtype=args.dtype)
    print_row(_about(args, session, sys.argv[1:] if argv is None else argv))
    setting = Setting(session, SamplingParams(), session.limits(args.tokens), 1)
    chosen = list(sides(setting, args.drafter, args.depth, hf=not args.no_hf))
    rows: dict[Side, list[dict[str, Any]]] = {side: [] for side in chosen}
    run_sides(chosen, [([session.encode("Hello!")], [0])])  # warm-up: allocations, and what is compiled on first use
    total = len(chosen) * len(args.task) * args.prompts * args.repeats
    with tqdm(total=total, desc="speed", mininterval=0.5) as bar:
        for task in args.task:
            prompts = load_prompts([task], args.split, file=HELD_OUT)[: args.prompts]
            batches = [([session.encode(prompt.prompt)], [0]) for prompt in prompts]
            timings = run_sides(chosen, batches, args.repeats, lambda: _advance(bar))
            for side, done in rows.items():
                done.append({"task": task, **summary(timings, side, args.against)})
                print_row(done[-1])
    means = [_mean(done) for done in rows.values()]
    for mean in means:
        print_row(mean)
    sys.stderr.write("\n" + _table([row for done in rows.values() for row in done] + means) + "\n")
    return 0


def _about(args: argparse.Namespace, session: Session, words: Sequence[str]) -> dict[str, Any]:
    settings = ("depth", "split", "prompts", "tokens", "repeats")
    return {
        "command": shlex.join(["python", "-m", "benchmarks.speed", *words]),
        "machine": machine_line(session.target.device), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "target": args.target, "dtype": str(session.target.dtype), **{name: getattr(args, name) for name in settings},
    }  # fmt: skip


def _advance(bar: Any) -> None:
    bar.update()


def _table(rows: Sequence[dict[str, Any]]) -> str:
    over = [key for key in rows[0] if key.startswith("over_") and not key.endswith(("_ci", "_mean", "_worst"))]
    lines = [f"{'task':<12} {'side':<26} {'ms/token':>8} {'tau':>5}" + "".join(f"{key:>20}" for key in over)]
    lines += [
        f"{row['task']:<12} {row['side'][-26:]:<26} {row['ms_per_token']:>8.1f} {row['tau']:>5.2f}"
        + "".join(f"{row[key]:>20.2f}" for key in over)
        for row in rows
    ]
    return "\n".join(lines).replace("over_", "over ")


if __name__ == "__main__":
    sys.exit(main())
