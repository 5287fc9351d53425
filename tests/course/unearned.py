"""Answers to tasks that are none, and verifiers that ask for odd coins: what the checks make of them.

The test runs this in a child process: with the tests' shape checks, the checks' own tables of mistakes cannot be imported.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from specdec_course.capstone import checks as capstone
from specdec_course.capstone.checks import greedy_round
from specdec_course.checks import after_eagle, bottleneck, eagle, metrics, ngram, production, verification
from specdec_course.checks.report import Report
from specdec_ref.config import DraftBudget
from specdec_ref.core import DraftTree, VerifyResult
from specdec_ref.exposition import exposition, parse

NAN, INF = math.nan, math.inf


def by_the_package(emitted: list[int], nodes: int) -> tuple[float, float]:
    """Task 4 of exercise 08 with functions that the page imports for its example."""
    page = parse(exposition(production.run_of([each - 1 for each in emitted], nodes - 1), DraftBudget(nodes - 1)))
    return page["sglang:spec_accept_length"], page["sglang:spec_accept_rate"]


def read_by_the_package(page: dict[str, float]) -> tuple[float, float, list[float]]:
    """Task 1 of exercise 08: the rounds that make such a page, and what the package says of them."""
    name = 'vllm:spec_decode_num_accepted_tokens_per_pos_total{position="%d"}'
    reached = [page[name % at] for at in range(len(page)) if name % at in page]
    rounds, drafted = (int(page[f"vllm:spec_decode_num_{what}_total"]) for what in ("drafts", "draft_tokens"))
    accepted = [sum(count > number for count in reached) for number in range(rounds)]
    made = parse(exposition(production.run_of(accepted, drafted // rounds), DraftBudget(drafted // rounds)))
    return made["specdec:tau"], made["specdec:alpha"], [count / rounds for count in reached]


class Silent:
    """An index that guesses the same whatever it was given."""

    guessed: Any = None

    def add(self, tokens: list[int]) -> None:
        pass

    def guess(self, gamma: int) -> Any:
        return self.guessed


def silent(guess: Any) -> Callable[[], Any]:
    return type("Index", (Silent,), {"guessed": guess})


NOTHING: dict[str, Callable[[], Report]] = {
    "an endless time for a step": lambda: bottleneck.roofline(lambda *_: (INF, "")),
    "no number for a time": lambda: bottleneck.roofline(lambda *_: (NAN, "")),
    "no number for bytes": lambda: bottleneck.step(lambda *_: (NAN, INF)),
    "no number for an acceptance": lambda: verification.acceptance(lambda *_: NAN),
    "no numbers for a correction": lambda: verification.correction(lambda *_: torch.full((3,), NAN)),
    "no correction at all": lambda: verification.correction(lambda *_: None),
    "no number for tau": lambda: verification.tau(lambda *_: NAN),
    "the package's greedy round": lambda: capstone.greedy(greedy_round),
    "the package's greedy round, called": lambda: capstone.greedy(lambda *given: greedy_round(*given)),
    "the package's page": lambda: production.metrics(by_the_package),
    "the package's page, read": lambda: production.reading(read_by_the_package),
    "the word for a refusal": lambda: production.flags(lambda *_: "refused"),
    "an index that returns None": lambda: capstone.index(silent(None)),
    "an index that returns a word": lambda: capstone.index(silent("x")),
    "an index that returns NaN": lambda: capstone.index(silent([NAN])),
    "an index that returns halves": lambda: capstone.index(silent([0.5])),
    "no number for a choice": lambda: production.choice(lambda *_: ("none", NAN)),
    "an endless length": lambda: production.choice(lambda *_: ("head", INF)),
    "numbers for drafts": lambda: ngram.propose(lambda texts, *_: [2] * len(texts)),
    "tensors for drafts": lambda: ngram.propose(lambda texts, *_: [torch.ones(2)] * len(texts)),
    "numbers for pairs": lambda: eagle.commit(lambda *_: (NAN, 3, 3)),
    "words for pairs": lambda: eagle.commit(lambda *_: (1, "ab", "ab")),
    "no numbers for a vocabulary": lambda: eagle.vocabulary(lambda texts, size, vocab: ([NAN] * size, [0] * vocab)),
    "no numbers for lengths": lambda: metrics.lengths(lambda draft, rounds, tiers: [NAN] * rounds),
    "no number for a mean": lambda: metrics.tau(lambda *_: NAN),
    "no numbers for an output": lambda: after_eagle.output(lambda *_: [[NAN] * 3] * 3),
    "some numbers for an output": lambda: after_eagle.output(lambda *_: [[0.1, 0.1, 0.1], [0.1, NAN, 0.1], [NAN] * 3]),
    "no numbers for rows": lambda: after_eagle.block(lambda base, *_: ([0] * len(base), [[NAN] * 3] * len(base))),
    "no rows": lambda: after_eagle.block(lambda base, *_: ([0] * len(base), None)),
    "halves for a tree": lambda: after_eagle.tree(lambda *_: ([0.5], [0])),
    "a tree without a root": lambda: after_eagle.tree(lambda rows, nodes: ([0] * (nodes - 1), [-1] * (nodes - 1))),
    "no number for a cut-off": lambda: after_eagle.length(lambda *_: NAN),
    "True for a cut-off": lambda: after_eagle.length(lambda *_: True),
    "an endless score": lambda: after_eagle.suffix(lambda *_: ([], INF)),
    "an index that never guesses": lambda: capstone.index(silent([])),
}


class Plain:
    """A verifier that keeps no draft, but has its rounds count for more where their length is measured."""

    lossless_for = frozenset({"iid", "point"})

    def __init__(self, trick: Callable[[Any], Any]) -> None:
        self.trick = trick

    def __call__(self, tree: DraftTree, p: torch.Tensor, rng: Any) -> VerifyResult:
        if p.shape == (3, 3):
            self.trick(rng)
        return VerifyResult((), rng.draw(p[0]))


class Changing:
    """Asks for other chances each time that the same situation comes again."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, rng: Any) -> None:
        self.count += 1
        rng.accept(0.9 if self.count % 2 else 0.2)


def plain(trick: Callable[[Any], Any]) -> Callable[[], Report]:
    return lambda: verification.verifier(Plain(trick))


TRICKS: dict[str, Callable[[], Report]] = {
    "nothing": plain(lambda rng: None),
    "a negative chance": plain(lambda rng: rng.accept(-0.7)),
    "no number": plain(lambda rng: rng.accept(NAN)),
    "more than certain": plain(lambda rng: rng.accept(7.0)),
    "a negative weight": plain(lambda rng: rng.draw(torch.tensor([1.7, -0.7]))),
    "an endless weight": plain(lambda rng: rng.draw(torch.tensor([INF, 1.0]))),
    "no weight": plain(lambda rng: rng.draw(torch.zeros(2))),
    "a memory": plain(Changing()),
}


def reports(runs: dict[str, Callable[[], Report]]) -> dict[str, tuple[str, list[tuple[str, bool, str]]]]:
    """Of each: what the report says, and its cases: what they ask, whether they hold, what came out."""
    torch.set_num_threads(1)
    found = {name: run() for name, run in runs.items()}
    return {name: (str(each), [(c.asks, c.passed, c.says) for c in each.cases]) for name, each in found.items()}
