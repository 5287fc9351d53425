"""Predicted against measured: what a method should bring on a task, before it is run there, beside the committed rows.

    plain        = P(m) + (n - 1) s          P: the prompt's forward, by its length m; s: one step of the plain decoder
    speculative  = P'(m) + sum over rounds of draft(depth) + verify(nodes) + overhead       P': with the drafter's start
    predicted    = median over prompts of plain / speculative

What depends on text is counted on the dev split, without a clock: the rounds, how deep each drafted, how many nodes it
had checked, answers of n tokens to prompts of m. What is in seconds is calibrated on this machine, by texts that are of
no task: `calibrate.py`, and prefill as a straight line through a few lengths. Rows are of whole calls, so a prediction
that left the prompt out would promise more than a call can keep.

    python -m benchmarks.predict --prompts 4 > specdec_ref/bench/rows/predicted.jsonl

takes `specdec bench`'s committed rows of this number format and so many threads: temperature 0, batch 1, no added
context, the wall clock. It wants their machine, idle. `reason` says what parts the two: `acceptance` (with the test
split's own tau it would have fitted), `noise` (the prediction lies in the row's interval), else `costs`.
"""

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from re import findall
from statistics import linear_regression, median
from typing import Any

from tqdm import tqdm

from benchmarks.command import command_parser, print_row
from specdec_ref.bench.decode import decode
from specdec_ref.bench.rows import runs
from specdec_ref.bench.run import environment
from specdec_ref.bench.sides import usable_drafters
from specdec_ref.calibrate import calibrate, controller, costs_of, rising
from specdec_ref.config import DraftBudget
from specdec_ref.core import Drafter
from specdec_ref.cost_model import RoundCosts
from specdec_ref.drafters import forget
from specdec_ref.metrics import RunStats
from specdec_ref.request import Generation
from specdec_ref.session import Session
from specdec_ref.workloads import HELD_OUT, load_prompts

__all__ = ["CLOSE", "Clock", "Line", "Method", "main", "predicted", "reason", "summary", "with_tau"]

CLOSE = 0.10  # how far off a prediction may be
SHARED = ("trie", "suffix", "hybrid")  # their rows learn from each other
LENGTHS = (32, 64, 128, 256, 512)  # of prompts whose prefill is timed


@dataclass(frozen=True, slots=True)
class Method:
    """A row's method and setting, taken apart."""

    drafter: str
    budget: DraftBudget
    adaptive: bool

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Method | None":
        """None for the denominators and transformers' own."""
        name, _, kind = row["method"].partition(",")[0].partition(" ")  # a comma: its setting, of --all-settings
        if name in ("plain", "hf"):
            return None
        numbers = [int(word) for word in findall(r"\d+", row["setting"])]
        return cls(name, DraftBudget(*numbers), kind == "adaptive")


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of prefill: a straight line in the prompt's length."""

    slope: float
    start: float

    def __call__(self, tokens: int) -> float:
        """Of a prompt of so many tokens."""
        return self.start + self.slope * tokens


@dataclass(frozen=True, slots=True)
class Clock:
    """This machine's seconds: a plain step, prefill of both sides, and what a round takes."""

    step: float
    plain: Line
    prefill: Line
    costs: RoundCosts

    def round(self, depth: int, nodes: int) -> float:
        """Seconds of a round; one without a draft checks its root alone."""
        return self.costs.round(depth, nodes) * self.costs.verify[1]


def predicted(clock: Clock, prompts: Sequence[int], answers: Sequence[Generation]) -> tuple[float, float]:
    """(speed-up over plain, prefill's share of the speculative side), medians over prompts of these lengths."""
    speedups, shares = [], []
    for length, answer in zip(prompts, answers, strict=True):
        plain = clock.plain(length) + (len(answer.tokens) - 1) * clock.step
        rounds = sum(clock.round(record.depth, record.drafted + 1) for record in answer.records)
        if not answer.records[0].drafted:  # then the prefill's own logits serve
            rounds -= clock.costs.verify[1]
        speculative = clock.prefill(length) + rounds
        speedups.append(plain / speculative)
        shares.append(clock.prefill(length) / speculative)
    return median(speedups), median(shares)


def with_tau(promise: float, share: float, dev: float, test: float) -> float:
    """The prediction, had the dev split accepted as the test split does: as many rounds fewer, the same prefill."""
    return promise / (share + (1 - share) * dev / test)


def reason(row: Mapping[str, Any]) -> str:
    """Why prediction and measurement differ by more than `CLOSE`; "" if they do not."""
    if _close(row["predicted"], row["measured"]):
        return ""
    if _close(row["with_test_tau"], row["measured"]):
        return "acceptance"
    known = row["ci_low"] is not None  # more than one call
    return "noise" if known and row["ci_low"] <= row["predicted"] <= row["ci_high"] else "costs"


def _close(promise: float, measured: float) -> bool:
    return abs(log(promise / measured)) <= log(1 + CLOSE)


class Bench:
    """A session, its drafters, and their clocks, which are read before anything is counted."""

    def __init__(self, session: Session, methods: Sequence[Method]) -> None:
        self.session = session
        self.drafters, _ = usable_drafters(session, list(dict.fromkeys(method.drafter for method in methods)))
        priced = {(m.drafter, m.budget.topk, m.budget.topk > 1 and m.budget.max_nodes): m for m in methods}
        calibrate(session, [(m.drafter, self.drafters[m.drafter], m.budget) for m in priced.values()], fresh=True)
        self.step = self._plain_step()
        self.plain = self._prefill(lambda prompt: self._answer(prompt, 1).prefill_seconds)
        self.prefill = {name: self._prefill(self._start(drafter)) for name, drafter in self.drafters.items()}

    def clock(self, method: Method) -> Clock:
        """This machine's seconds for it; what calibration found is in the cache by now."""
        costs = costs_of(self.session, method.drafter, self.drafters[method.drafter], method.budget)
        return Clock(self.step, self.plain, self.prefill[method.drafter], costs)

    def answers(self, method: Method, prompts: Sequence[str], tokens: int) -> list[Generation]:
        """As `specdec bench` runs it at batch 1. Where rows know nothing of each other a batch counts the same."""
        drafter, control, budget = self.drafters[method.drafter], None, method.budget
        if not method.adaptive and method.drafter not in SHARED:
            return decode(self.session, drafter, prompts, budget=budget, tokens=tokens)
        if method.adaptive:
            control, budget = controller("optimal", self.session, method.drafter, drafter, budget)
        engine = self.session.engine(drafter, budget=budget, limits=self.session.limits(tokens), control=control)
        found = []
        for seed, prompt in enumerate(prompts):
            forget(drafter)
            found += engine.generate([self.session.encode(prompt)], [seed])
        return found

    def _answer(self, prompt: Sequence[int], tokens: int) -> Generation:
        (answer,) = self.session.plain([prompt], limits=self.session.limits(tokens, ignore_eos=True))
        return answer

    def _plain_step(self, tokens: int = 32, repeats: int = 5) -> float:
        """Median seconds of a step of the plain decoder, its own overhead included."""
        return median(self._answer(_words(self.session, 96), tokens).seconds / (tokens - 1) for _ in range(repeats))

    def _start(self, drafter: Drafter) -> Callable[[Sequence[int]], float]:
        engine = self.session.engine(drafter, limits=self.session.limits(1, ignore_eos=True))

        def start(prompt: Sequence[int]) -> float:
            forget(drafter)
            (request,) = engine.start([prompt])
            engine.close()
            return request.prefill_seconds

        return start

    def _prefill(self, seconds: Callable[[Sequence[int]], float], repeats: int = 3) -> Line:
        room = (self.session.target.max_positions or max(LENGTHS)) - 40  # a draft and an answer go behind it
        lengths = [length for length in LENGTHS if length <= room]
        seconds(_words(self.session, lengths[0]))  # the warm-up
        taken = rising({n: median(seconds(_words(self.session, n)) for _ in range(repeats)) for n in lengths})
        times = [taken[length] for length in lengths]
        slope, start = linear_regression(lengths, times)
        if start < 0:  # noise: there is no prompt that takes less than nothing
            slope, start = linear_regression(lengths, times, proportional=True)
        return Line(slope, start)


def _words(session: Session, length: int) -> list[int]:
    """A prompt of so many tokens, whatever they say."""
    return [token % session.target.vocab_size for token in range(length)]


def _cells(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[tuple[Mapping[str, Any], Method]]:
    """The rows to predict, each with its method."""
    asked = {"temperature": 0.0, "batch": 1, "context": 0, "clock": "wall"}
    found = [(row, Method.of(row)) for row in rows if row["task"] in tasks and asked.items() <= row.items()]
    return [(row, method) for row, method in found if method is not None]


def _predictions(
    bench: Bench, cells: Sequence[tuple[Mapping[str, Any], Method]], prompts: int, tokens: int
) -> Iterator[dict[str, Any]]:
    """A row a cell."""
    for row, method in tqdm(cells, desc="dev split", mininterval=0.5):
        texts = [p.prompt for p in load_prompts([row["task"]], "dev", file=HELD_OUT)[:prompts]]
        answers, lengths = bench.answers(method, texts, tokens), [len(bench.session.encode(text)) for text in texts]
        stats = RunStats.from_records([record for answer in answers for record in answer.records])
        promise, share = predicted(bench.clock(method), lengths, answers)
        found = {
            **{key: row[key] for key in ("task", "method", "setting", "dtype", "tau", "ci_low", "ci_high")},
            "tau_dev": stats.tau, "positions": [round(n / stats.rounds, 3) for n in stats.accepted_per_position],
            "prefill": share, "predicted": promise, "measured": row["speedup_vs_plain"],
            "with_test_tau": with_tau(promise, share, stats.tau, row["tau"]),
        }  # fmt: skip
        yield found | {"reason": reason(found)}


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many predictions hold, how many would with the test split's tau, and what is wrong with the others."""
    own = sum(_close(row["with_test_tau"], row["measured"]) for row in rows)
    misses = Counter(row["reason"] for row in rows if row["reason"])
    others = ", ".join(f"{why} {count}" for why, count in misses.items())
    return f"{len(rows) - misses.total()} of {len(rows)} within {CLOSE:.0%}, {own} with the test split's own tau" + (
        f"; the misses: {others}" if others else ""
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = command_parser("predict", __doc__, prompts=4, tokens=96)
    args = parser.parse_args(argv)
    session = Session.open(args.target, dtype=args.dtype)
    about = environment(session)
    rows = [
        row
        for measured, rows in runs("tasks")
        for row in rows
        if (measured["dtype"], measured["threads"]) == (about["dtype"], about["threads"])
    ]
    cells = _cells(rows, args.task)
    if not cells:
        raise SystemExit(f"no committed rows in {about['dtype']} with {about['threads']} threads to predict")
    bench = Bench(session, list(dict.fromkeys(method for _, method in cells)))
    command = shlex.join(["python", "-m", "benchmarks.predict", *(sys.argv[1:] if argv is None else argv)])
    about |= {"prompts": args.prompts, "tokens": args.tokens, "step_ms": round(1e3 * bench.step, 3)}
    print_row({"environment": {"command": command, **about}})
    found = []
    for row in _predictions(bench, cells, args.prompts, args.tokens):
        found.append(row)
        print_row(row)
    sys.stderr.write(summary(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
