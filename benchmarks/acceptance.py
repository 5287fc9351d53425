"""How many tokens a round brings: drafters on the held-out prompts, task by task. Counts, so no clock is needed.

    tau  mean tokens a target forward, the bonus included        position i: share of rounds whose draft i was accepted

    python -m benchmarks.acceptance --drafter eagle --drafter draft=FOLDER --split test --temperature 0 1

A drafter is a name, or name=folder-or-file for one that is trained. One JSON object a line on stdout, a row for each
drafter, temperature, split and task and one for their mean (each task counts alike); a table on stderr.

`--identity` compares every greedy text with the plain decoder's by the rule of `identity.py`, and the exit code is 1 if
one is wrong: in float64 all have to be the same, in float32 near-ties may part them.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.command import command_parser
from specdec_ref.bench.decode import decode
from specdec_ref.bench.sides import named_drafter
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.drafters import forget
from specdec_ref.identity import EPSILON, check_identity
from specdec_ref.metrics import RunStats
from specdec_ref.request import Generation
from specdec_ref.session import Session
from specdec_ref.workloads import HELD_OUT, load_prompts

__all__ = ["main", "table"]


def identity(
    session: Session, encoded: Sequence[list[int]], plain: Sequence[list[int]], found: Sequence[Generation]
) -> dict[str, Any]:
    """The identity rule on these greedy answers, beside those of the plain decoder."""
    epsilon = 0.0 if session.target.dtype == torch.float64 else EPSILON
    report = check_identity(session.target, encoded, plain, [g.tokens for g in found], epsilon=epsilon)
    parted, wrong = len(report.differences), len(report.errors)
    return {"identical": report.texts - parted, "near_ties": parted - wrong, "wrong": wrong,
            "gaps": [difference.gap for difference in report.differences]}  # fmt: skip


def row_of(stats: RunStats) -> dict[str, Any]:
    """The figures of one task."""
    positions = [round(count / max(1, stats.rounds), 4) for count in stats.accepted_per_position]
    return {"rounds": stats.rounds, "tokens": stats.tokens, "tau": round(stats.tau, 4), "alpha": round(stats.alpha, 4),
            "per_position": positions}  # fmt: skip


def mean_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every task counts alike."""
    columns = zip_longest(*(row["per_position"] for row in rows), fillvalue=0.0)  # a task may have had no drafts
    means = {key: round(sum(row[key] for row in rows) / len(rows), 4) for key in ("tau", "alpha")}
    return {"task": "mean", **means, "per_position": [round(sum(column) / len(rows), 4) for column in columns],
            "tau_worst": min(row["tau"] for row in rows)}  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [f"{'drafter':<24} {'T':>4} {'split':<5} {'task':<12} {'tau':>5}  {'alpha':>5}  by position"]
    for row in rows:
        positions = " ".join(f"{share:.2f}" for share in row["per_position"])
        lines.append(
            f"{row['drafter'][-24:]:<24} {row['temperature']:>4g} {row['split']:<5} {row['task']:<12} "
            f"{row['tau']:>5.2f}  {row['alpha']:>5.2f}  {positions}"
        )
    return "\n".join(lines)


def _rows(session: Session, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    work = [(d, t, s, task) for d in args.drafter for t in args.temperature for s in args.split for task in args.task]
    drafters = {spelled: named_drafter(spelled, session.target) for spelled in args.drafter}
    done: list[dict[str, Any]] = []
    plain: dict[tuple[str, str], list[list[int]]] = {}  # by split and task: the same for all drafters
    for spelled, temperature, split, task in tqdm(work, desc="acceptance", mininterval=0.5):
        prompts = [p.prompt for p in load_prompts([task], split, file=HELD_OUT)][: args.prompts]
        forget(drafters[spelled])  # a trie learns within a task, and no answer of another row
        found = decode(
            session,
            drafters[spelled],
            prompts,
            budget=DraftBudget(args.depth, args.topk, args.nodes),
            sampling=SamplingParams(temperature),
            tokens=args.tokens,
            batch=args.batch,
        )
        stats = RunStats.from_records([record for answer in found for record in answer.records])
        same: dict[str, Any] = {}
        if args.identity and temperature == 0:
            encoded = [session.encode(text) for text in prompts]
            if (split, task) not in plain:
                answers = session.plain(encoded, limits=session.limits(args.tokens))
                plain[split, task] = [answer.tokens for answer in answers]
            same = identity(session, encoded, plain[split, task], found)
        setting = {"drafter": spelled, "temperature": temperature, "split": split, "depth": args.depth,
                   "topk": args.topk, "nodes": args.nodes}  # fmt: skip
        done.append({**setting, "task": task, "prompts": len(prompts), **row_of(stats), **same})
        yield done[-1]
        if task == args.task[-1]:
            yield {**setting, **mean_of(done[-len(args.task) :])}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = command_parser("acceptance", __doc__, prompts=None, tokens=128)
    parser.add_argument("--drafter", action="append", required=True, metavar="NAME[=PATH]", help="repeatable")
    parser.add_argument("--depth", type=int, default=4, help="draft length gamma (default 4)")
    parser.add_argument("--topk", type=int, default=1, help="children a node may have (default 1: chains)")
    parser.add_argument("--nodes", type=int, default=0, help="cap on a tree, its root included (default: depth + 1)")
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0])
    parser.add_argument("--split", nargs="+", choices=["dev", "test"], default=["test"])
    parser.add_argument(
        "--batch", type=int, default=8, help="prompts side by side (default 8); changes no distribution"
    )
    parser.add_argument("--identity", action="store_true", help="compare greedy texts with the plain decoder's")
    args = parser.parse_args(argv)
    session = Session.open(args.target, dtype=args.dtype)
    about = {
        "target": args.target,
        "dtype": str(session.target.dtype),
        "torch": torch.__version__,
        "tokens": args.tokens,
    }
    sys.stdout.write(json.dumps(about) + "\n")
    rows = []
    for row in _rows(session, args):
        rows.append(row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    sys.stderr.write("\n" + table(rows) + "\n")
    return int(any(row.get("wrong") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
