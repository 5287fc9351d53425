"""Trees of a trained drafter on the held-out prompts: what is accepted, what Sequoia predicts, what it saves.

    ranks      dev split: how often the child of each rank is the one accepted, by depth, on a wide probe tree
    tau        test split: predicted from those ranks against measured; chains, fixed, dynamic and optimal trees
    speed      test split: our plain decoder's seconds over the tree's, paired, prompt by prompt
    identity   both splits, greedy, alone and in batches: the identity rule (float32) for the optimal tree

    python -m benchmarks.trees ranks tau speed identity --drafter eagle=FILE --temperature 0 1

Every measure after `ranks` uses its vectors, so `ranks` always runs first. One JSON object a line on stdout.
"""

import argparse
import copy
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.command import command_parser, print_row
from specdec_ref.bench.harness import median_interval, paired
from specdec_ref.bench.sides import named_drafter
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, VerifyResult
from specdec_ref.engine import SpecEngine
from specdec_ref.identity import check_identity
from specdec_ref.metrics import RunStats, StepRecord
from specdec_ref.session import Session
from specdec_ref.trees.growth import Grow, static
from specdec_ref.trees.sequoia import expected_tokens, optimal_tree
from specdec_ref.trees.static import budget_of, chain, k_ary, probe
from specdec_ref.workloads import HELD_OUT, load_prompts

__all__ = ["Plan", "main", "plans", "probe", "rank_acceptance"]

Decided = tuple[DraftTree, VerifyResult]
NODES = (4, 6, 8, 12, 16)  # sizes of the optimal trees, root included


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to draft: `parents` is its shape, None if the draft decides (dynamic)."""

    name: str
    budget: DraftBudget
    parents: tuple[int, ...] | None
    grow: Grow | None


def rank_acceptance(rounds: Iterable[Decided]) -> list[list[float]]:
    """[depth][rank]: of the accepted nodes at that depth (the root's is 0) with a child of that rank, who kept it."""
    kept: dict[tuple[int, int], int] = defaultdict(int)
    there: dict[tuple[int, int], int] = defaultdict(int)
    for tree, result in rounds:
        for depth, node in enumerate((0, *result.path)):
            for rank, child in enumerate(tree.children(node)):
                there[depth, rank] += 1
                kept[depth, rank] += child in result.path
    depths = 1 + max((depth for depth, _ in there), default=-1)
    widths = [sum(at == depth for at, _ in there) for depth in range(depths)]
    return [[kept[d, r] / there[d, r] for r in range(width)] for d, width in enumerate(widths)]


def plans(ranks: Sequence[Sequence[float]], greedy: bool, depth: int) -> Iterator[Plan]:
    """The contestants. Fixed shapes draw without replacement above T = 0; dynamic ones never draw."""
    for gamma in (2, 3, 4, 6):
        yield Plan(f"chain {gamma}", DraftBudget(gamma), tuple(chain(gamma)), None)
    fixed = {"2-ary, depth 2": k_ary(2, 2), "2-ary, depth 3": k_ary(2, 3), "3-ary, depth 2": k_ary(3, 2)}
    optimal = {f"optimal {nodes}": optimal_tree(ranks, nodes, depth)[0] for nodes in NODES}
    for name, parents in (fixed | optimal).items():
        yield Plan(name, budget_of(parents), tuple(parents), static(parents))
    for topk, nodes in ((2, 6), (2, 8), (3, 12), (4, 16)):
        yield Plan(f"dynamic {topk}/{nodes}", DraftBudget(min(depth, 5), topk, nodes), None, None)


class Bench:
    """What all measures share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.session = args, Session.open(args.target, dtype=args.dtype)
        self.drafter: Any = named_drafter(args.drafter, self.session.target)
        self.limits = self.session.limits(args.tokens)

    def engine(self, plan: Plan, sampling: SamplingParams) -> SpecEngine:
        """A shallow copy of the drafter shares its weights; its state begins anew with every batch."""
        drafter = copy.copy(self.drafter)
        drafter.grow = plan.grow
        return self.session.engine(drafter, budget=plan.budget, sampling=sampling, limits=self.limits)

    def prompts(self, split: str) -> list[list[int]]:
        """The first `--prompts` of each task."""
        texts = [
            p.prompt for task in self.args.task for p in load_prompts([task], split, file=HELD_OUT)[: self.args.prompts]
        ]
        return [self.session.encode(text) for text in texts]

    def rounds(self, plan: Plan, sampling: SamplingParams, split: str) -> tuple[list[Decided], RunStats]:
        """Everything that was proposed and decided, batch after batch."""
        engine, prompts = self.engine(plan, sampling), self.prompts(split)
        seen: list[Decided] = []
        records: list[StepRecord] = []
        for first in range(0, len(prompts), self.args.batch):
            batch = prompts[first : first + self.args.batch]
            requests = engine.start(batch, range(first, first + len(batch)))
            while engine.requests:
                engine.step()
                seen += engine.last_round
            records += [record for request in requests for record in request.records]
        return seen, RunStats.from_records(records)

    def ranks(self, sampling: SamplingParams) -> list[list[float]]:
        """The acceptance vectors of the dev split."""
        shape = probe(min(4, self.args.depth))
        plan = Plan("probe", budget_of(shape), tuple(shape), static(shape))
        rounds, stats = self.rounds(plan, sampling, "dev")
        ranks = rank_acceptance(rounds)
        print_row(
            {
                "measure": "ranks",
                "temperature": sampling.temperature,
                "rounds": stats.rounds,
                "nodes": len(shape),
                "tau": stats.tau,
                "acceptance": [[round(x, 4) for x in row] for row in ranks],
            }
        )
        return ranks

    def tau(self, plan: Plan, ranks: Sequence[Sequence[float]], sampling: SamplingParams) -> dict[str, Any]:
        """Predicted and measured."""
        _, stats = self.rounds(plan, sampling, "test")
        predicted = None if plan.parents is None else expected_tokens(plan.parents, ranks)
        return {"predicted": predicted, "tau": stats.tau, "rounds": stats.rounds}

    def speed(self, plan: Plan, ranks: Sequence[Sequence[float]], sampling: SamplingParams) -> dict[str, Any]:
        """Seconds a token of whole calls, plain over speculative; the median over prompts of the median over pairs."""
        engine = self.engine(plan, sampling)
        ratios: list[float] = []
        stats: list[RunStats] = []
        for seed, prompt in enumerate(self.prompts("test")):

            def plain(prompt: list[int] = prompt, seed: int = seed) -> float:
                done = self.session.plain([prompt], sampling=sampling, limits=self.limits, seeds=[seed])[0]
                return done.seconds / max(1, len(done.tokens))

            def speculative(prompt: list[int] = prompt, seed: int = seed) -> float:
                done = engine.generate([prompt], [seed])[0]
                stats.append(done.stats)
                return done.seconds / max(1, len(done.tokens))

            ratios.append(paired(plain, speculative, self.args.repeats).ratio)
        tau = sum(s.tokens for s in stats) / sum(s.rounds for s in stats)
        return {"speedup": statistics.median(ratios), "ci": median_interval(ratios), "prompts": len(ratios), "tau": tau}

    def identity(self, plan: Plan, ranks: Sequence[Sequence[float]], sampling: SamplingParams) -> dict[str, Any]:
        """Greedy texts of both splits, alone and in batches, by the identity rule. Raises RuntimeError if broken."""
        prompts = self.prompts("dev") + self.prompts("test")
        plain = [self.session.plain([prompt], limits=self.limits)[0].tokens for prompt in prompts]
        found: dict[str, Any] = {"texts": len(prompts)}
        for size in (1, self.args.batch):
            engine = self.engine(plan, SamplingParams())
            other: list[list[int]] = []
            for first in range(0, len(prompts), size):
                other += [run.tokens for run in engine.generate(prompts[first : first + size])]
            report = check_identity(self.session.target, prompts, plain, other)
            found[f"batch {size}"] = str(report)
            if not report.ok:
                raise RuntimeError(f"{plan.name} broke the identity rule: {report}")
        return found


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("trees", __doc__, prompts=4, tokens=96)
    parser.add_argument("measure", nargs="+", choices=["ranks", "tau", "speed", "identity"])
    parser.add_argument("--drafter", default="eagle", metavar="NAME[=PATH]", help="eagle, draft=FOLDER, layer-skip")
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0])
    parser.add_argument("--depth", type=int, default=6, help="cap on the levels of an optimal tree (default 6)")
    parser.add_argument("--plan", action="append", help="only these contestants, by name; repeatable")
    parser.add_argument("--batch", type=int, default=8, help="prompts side by side where no clock runs (default 8)")
    parser.add_argument("--repeats", type=int, default=1, help="pairs a prompt in `speed` (default 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    args = _parser().parse_args(argv)
    bench = Bench(args)
    print_row(
        {
            "target": args.target,
            "drafter": args.drafter,
            "dtype": str(bench.session.target.dtype),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "prompts": args.prompts,
            "tokens": args.tokens,
        }
    )
    for temperature in args.temperature:
        sampling = SamplingParams(temperature)
        ranks = bench.ranks(sampling)
        contest = [p for p in plans(ranks, sampling.greedy, args.depth) if args.plan is None or p.name in args.plan]
        for measure in args.measure:
            chosen = [p for p in contest if p.name.startswith("optimal")][-1:] if measure == "identity" else contest
            for plan in tqdm(
                [] if measure == "ranks" else chosen, desc=f"{measure}, T = {temperature:g}", mininterval=0.5
            ):
                row = getattr(bench, measure)(plan, ranks, sampling)
                shape = {"plan": plan.name, "nodes": plan.budget.max_nodes, "parents": plan.parents}
                print_row({"measure": measure, "temperature": temperature, **shape, **row})
    return 0


if __name__ == "__main__":
    sys.exit(main())
