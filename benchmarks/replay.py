"""Similar requests in a row, as an agent sends them: what drafters gain that remember earlier answers.

    python -m benchmarks.replay --drafter ngram --drafter trie --drafter suffix --split dev

Each episode of workloads/replay.jsonl goes through request by request at temperature 0. A drafter keeps what it learned
within an episode and forgets it before the next one, so nothing has heard the answer that it drafts. Every request
is decoded plainly and by each drafter in turn. One JSON object a line: the settings, then a row per drafter and episode
and one for all episodes (`mean`: the mean of their tau; the speed-up: median over requests, with a 95 % interval).
`same` counts answers with the tokens of plain decoding; in bfloat16 near-ties may part the others.

`--no-clock` leaves plain decoding out: tau alone, in a third of the time.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.command import command_parser, print_row
from specdec_ref.bench.harness import median_interval
from specdec_ref.bench.sides import named_drafter
from specdec_ref.config import DraftBudget
from specdec_ref.core import Drafter
from specdec_ref.drafters import forget
from specdec_ref.metrics import RunStats, StepRecord
from specdec_ref.request import Generation
from specdec_ref.session import Session
from specdec_ref.workloads import Episode, load_episodes

__all__ = ["main", "replay"]

Pair = tuple[Generation | None, Generation]  # an answer decoded plainly, and by a drafter


def replay(
    session: Session, drafters: dict[str, Drafter], episode: Episode, *, tokens: int, depth: int | None, clock: bool
) -> dict[str, list[Pair]]:
    """The requests of an episode in order, by every drafter, each beginning without any memory."""
    limits, found = session.limits(tokens), defaultdict[str, list[Pair]](list)
    engines = {}
    for name, drafter in drafters.items():
        budget = DraftBudget.suited_to(name.partition("=")[0]) if depth is None else DraftBudget(depth)
        engines[name] = session.engine(drafter, budget=budget, limits=limits)
    for drafter in drafters.values():
        forget(drafter)
    for number, prompt in enumerate(episode.prompts):
        encoded = [session.encode(prompt)]
        plain = session.plain(encoded, limits=limits)[0] if clock else None
        order = list(engines) if number % 2 else list(reversed(engines))  # a drift favours nobody
        for name in order:
            found[name].append((plain, engines[name].generate(encoded)[0]))
    return found


def row_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """tau, drafts per round, and against plain decoding the speed-up and how many answers are the same."""
    records: list[StepRecord] = [record for _, answer in pairs for record in answer.records]
    stats = RunStats.from_records(records)
    row: dict[str, Any] = {"requests": len(pairs), "tau": stats.tau, "drafted_per_round": stats.drafted / stats.rounds}
    ratios = [plain.seconds / answer.seconds for plain, answer in pairs if plain is not None]
    if ratios:
        low, high = median_interval(ratios)
        same = sum(plain is not None and plain.tokens == answer.tokens for plain, answer in pairs)
        row |= {"speedup": statistics.median(ratios), "low": low, "high": high, "same": same}
    return row


def _rows(session: Session, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    drafters = {spelled: named_drafter(spelled, session.target) for spelled in args.drafter}
    everything, taus = defaultdict[str, list[Pair]](list), defaultdict[str, list[float]](list)
    for episode in load_episodes(args.split):
        found = replay(session, drafters, episode, tokens=args.tokens, depth=args.depth, clock=not args.no_clock)
        for name, pairs in found.items():
            everything[name] += pairs
            row = row_of(pairs)
            taus[name].append(row["tau"])
            yield {"drafter": name, "episode": episode.id, "kind": episode.kind, **row}
    for name, pairs in everything.items():
        yield {"drafter": name, "episode": "mean", **row_of(pairs), "tau": statistics.fmean(taus[name])}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = command_parser("replay", __doc__, prompts=None, tokens=96)
    parser.add_argument("--drafter", action="append", required=True, metavar="NAME[=PATH]", help="repeatable")
    parser.add_argument("--depth", type=int, default=None, help="draft length gamma (default: what suits each drafter)")
    parser.add_argument("--split", choices=["dev", "test"], default="test")
    parser.add_argument("--no-clock", action="store_true", help="no plain decoding: tau alone")
    args = parser.parse_args(argv)
    session = Session.open(args.target, dtype=args.dtype)
    about = {
        "target": args.target, "dtype": str(session.target.dtype), "torch": torch.__version__, "split": args.split,
        "tokens": args.tokens, "depth": args.depth, "threads": torch.get_num_threads(),
    }  # fmt: skip
    sys.stdout.write(json.dumps(about) + "\n")
    for row in _rows(session, args):
        print_row(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
