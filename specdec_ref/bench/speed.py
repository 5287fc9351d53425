"""Wall clock on the held-out prompts: drafters against our plain decoder and transformers' generate(), paired.

    speed-up of a task = median over its calls of  plain decoder's seconds a token / the drafter's        > 1: faster

    python -m specdec_ref.bench.speed --drafter eagle --drafter draft=FOLDER --split test --prompts 4 --dtype bfloat16

Batch 1, greedy, whole calls with the prompt's prefill, in one process. All sides run in turn on every prompt, starting
with another one each time; a busy moment spoils one ratio, and the median does not mind. `identical` counts texts that
are the plain decoder's: in bfloat16 they may part, so time is per token; `acceptance.py --identity` applies the rule.
One JSON object a line on stdout, a table on stderr.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from specdec_ref.bench.acceptance import named_drafter
from specdec_ref.bench.harness import median_interval
from specdec_ref.bench.workloads import HELD_OUT, TASKS, load_prompts
from specdec_ref.config import DraftBudget
from specdec_ref.metrics import RunStats
from specdec_ref.request import Limits
from specdec_ref.session import Session

__all__ = ["Call", "main", "sides", "summary", "time_task"]

Call = Callable[[list[int]], tuple[list[int], RunStats | None]]  # prompt -> new tokens, rounds if there were any


def sides(session: Session, drafters: Sequence[str], depth: int, limits: Limits) -> dict[str, Call]:
    """What is timed: the plain decoder first, then transformers, then each drafter under its spelling."""
    model: Any = session.target.model

    def plain(ids: list[int]) -> tuple[list[int], RunStats | None]:
        return session.plain([ids], limits=limits)[0].tokens, None

    def transformers_generate(ids: list[int]) -> tuple[list[int], RunStats | None]:
        prompt = torch.tensor([ids], device=session.target.device)
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=limits.max_new_tokens, do_sample=False,
            eos_token_id=sorted(limits.eos) or None, pad_token_id=0,
        )  # fmt: skip
        return out[0, len(ids) :].tolist(), None

    calls: dict[str, Call] = {"plain": plain, "transformers": transformers_generate}
    for spelled in drafters:
        engine = session.engine(named_drafter(spelled, session.target), budget=DraftBudget(depth), limits=limits)

        def speculative(ids: list[int], engine: Any = engine) -> tuple[list[int], RunStats | None]:
            done = engine.generate([ids])[0]
            return done.tokens, done.stats

        calls[spelled] = speculative
    return calls


def time_task(
    calls: dict[str, Call], prompts: Sequence[list[int]], repeats: int, tick: Callable[[], None] = lambda: None
) -> dict[str, list[dict[str, Any]]]:
    """Side -> a record a call, in the same order for all sides: seconds a token, tokens, stats."""
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in calls}
    names = list(calls)
    for number, ids in enumerate(ids for ids in prompts for _ in range(repeats)):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            tokens, stats = calls[name](ids)
            seconds = time.perf_counter() - started
            records[name].append({"per_token": seconds / len(tokens), "tokens": tokens, "stats": stats})
        tick()
    return records


def summary(records: dict[str, list[dict[str, Any]]], name: str) -> dict[str, Any]:
    """One side against the plain decoder and transformers."""
    mine = records[name]
    row: dict[str, Any] = {"side": name, "ms_per_token": 1000 * median(r["per_token"] for r in mine)}
    for base in ("plain", "transformers"):
        ratios = [b["per_token"] / m["per_token"] for b, m in zip(records[base], mine, strict=True)]
        row[f"over_{base}"] = median(ratios)
        row[f"over_{base}_ci"] = [round(end, 3) for end in median_interval(ratios)]
    row["identical"] = sum(b["tokens"] == m["tokens"] for b, m in zip(records["plain"], mine, strict=True))
    row["calls"] = len(mine)
    rounds = [m["stats"] for m in mine if m["stats"] is not None]
    row["tau"] = sum(s.tokens for s in rounds) / sum(s.rounds for s in rounds) if rounds else 1.0
    return row


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    keys = ("ms_per_token", "over_plain", "over_transformers", "tau")
    means = {key: sum(row[key] for row in rows) / len(rows) for key in keys}
    return {"task": "mean", "side": rows[0]["side"], **means, "over_plain_worst": min(r["over_plain"] for r in rows)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m specdec_ref.bench.speed", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--target", default="smollm2-135m", help="model name, folder or Hugging Face id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16")
    parser.add_argument("--drafter", action="append", required=True, metavar="NAME[=PATH]", help="repeatable")
    parser.add_argument("--depth", type=int, default=4, help="draft length gamma (default 4)")
    parser.add_argument("--split", choices=["dev", "test"], default="test")
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--prompts", type=int, default=4, help="the first N prompts a task (default 4)")
    parser.add_argument("--tokens", type=int, default=96, help="at most so many new tokens a call (default 96)")
    parser.add_argument("--repeats", type=int, default=1, help="times each prompt is run (default 1)")
    args = parser.parse_args(argv)
    session = Session.open(args.target, dtype=args.dtype)
    _print({"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
            "torch": torch.__version__, "target": args.target, "dtype": str(session.target.dtype), "depth": args.depth,
            "split": args.split, "prompts": args.prompts, "tokens": args.tokens, "repeats": args.repeats})  # fmt: skip
    calls = sides(session, args.drafter, args.depth, session.limits(args.tokens))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in calls}
    for call in calls.values():  # warm-up: allocations, and whatever is compiled on first use
        call(session.encode("Hello!"))
    with tqdm(total=len(args.task) * args.prompts * args.repeats, desc="speed", mininterval=0.5) as bar:
        for task in args.task:
            chosen = load_prompts([task], args.split, file=HELD_OUT)[: args.prompts]
            records = time_task(calls, [session.encode(p.prompt) for p in chosen], args.repeats, bar.update)
            for name, done in rows.items():
                done.append({"task": task, **summary(records, name)})
                _print(done[-1])
    means = [_mean(done) for done in rows.values()]
    for mean in means:
        _print(mean)
    sys.stderr.write("\n" + _table([row for done in rows.values() for row in done] + means) + "\n")
    return 0


def _print(row: dict[str, Any]) -> None:
    short = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
    sys.stdout.write(json.dumps(short) + "\n")
    sys.stdout.flush()


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'task':<12} {'side':<26} {'ms/token':>8} {'tau':>5} {'over plain':>10} {'over transformers':>17}"]
    lines += [f"{row['task']:<12} {row['side'][-26:]:<26} {row['ms_per_token']:>8.1f} {row['tau']:>5.2f} "
              f"{row['over_plain']:>10.2f} {row['over_transformers']:>17.2f}" for row in rows]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
