"""Answers that recognise which case they are in, that are constants, or that let the tests do the work.

Each of these once earned a part of the points, some of them all.
"""

from collections.abc import Callable
from typing import Any

import torch

from specdec_course.capstone import checks as capstone
from specdec_course.checks import after_eagle, bottleneck, eagle, production, tree, verification
from specdec_course.checks.report import Report
from specdec_ref.core import DraftTree, VerifyResult

__all__ = ["CHEAP"]

CHAINS, CHILDREN = frozenset({"iid", "point"}), frozenset({"iid", "without_replacement"})


def longest(draft: DraftTree) -> tuple[int, ...]:
    """The way to a deepest node."""
    return max((draft.path(node) for node in range(len(draft))), key=len)


class Rejects:
    """Lossless, and never keeps a draft."""

    lossless_for = CHAINS | CHILDREN

    def __call__(self, draft: DraftTree, p: torch.Tensor, rng: Any) -> VerifyResult:
        return VerifyResult((), rng.draw(p[0])) if not self.keeps(p) else self.all(draft, p, rng)

    def all(self, draft: DraftTree, p: torch.Tensor, rng: Any) -> VerifyResult:
        way = longest(draft)
        return VerifyResult(way, rng.draw(p[way[-1] if way else 0]))

    def keeps(self, p: torch.Tensor) -> bool:
        return False


class ByShape(Rejects):
    """Keeps everything where the shape says that a length is measured."""

    def keeps(self, p: torch.Tensor) -> bool:
        return p.shape == (3, 3)


def by_count(cases: int) -> type:
    """Keeps everything in the last two of so many cases: it counts how often it was made."""

    class ByCount(Rejects):
        made = 0

        def __init__(self) -> None:
            ByCount.made += 1
            self.number = ByCount.made % cases

        def keeps(self, p: torch.Tensor) -> bool:
            return self.number in (cases - 1, 0)

    return ByCount


def constant(text: list[int], gamma: int, marked: bool) -> DraftTree:
    """Word 0 each time; `marked`: declared as drawn from what holds nothing else."""
    q = torch.zeros(gamma + 1, 3, dtype=torch.float64)
    q[:gamma, 0] = 1.0
    chain = torch.tensor([text[-1], *[0] * gamma]), torch.arange(-1, gamma)
    return DraftTree(*chain, "iid", q) if marked else DraftTree(*chain)


def unasked(model: Any, prompt: list[int], most: int, eos: frozenset[int], guess: Any) -> list[int]:
    """A loop that emits the guesses."""
    text, new = list(prompt), list[int]()
    while len(new) < most:
        for token in guess(text) or [0]:
            text.append(token)
            new.append(token)
            if token in eos or len(new) == most:
                return new
    return new


def alone(model: Any, last: int, guess: Any, rng: Any) -> list[int]:
    """A round that ignores the guesses."""
    p = model.score([last])
    model.keep([0])
    return [rng.draw(p[0])]


class Plain:
    """A decoder without a guess, or with some that are thrown away."""

    thrown: tuple[int, ...] = ()

    def generate(self, model: Any, prompt: list[int], most: int, eos: frozenset[int], rng: Any) -> list[int]:
        new, last = list[int](), prompt[-1]
        while len(new) < most and not (new and last in eos):
            p = model.score([last, *self.thrown])
            model.keep([0])
            last = rng.draw(p[0]) if model.temperature else int(p[0].argmax())
            new.append(last)
        return new


class Throwing(Plain):
    thrown = (1, 2)


def refuse(*_: Any) -> None:
    raise ValueError


def unlinked(tokens: list[int], parents: list[int], size: int) -> Any:
    return tokens + [0] * (size - len(tokens)), [-1] * size, [-1] * size


def uniform(base: torch.Tensor, first: int, before: torch.Tensor, after: torch.Tensor, rng: Any) -> Any:
    """Every word from the same row, which is also returned."""
    row = torch.ones(3) / 3
    return [rng.draw(row) for _ in base], [row for _ in base]


def _sampled(**more: Any) -> Callable[[], Report]:
    return lambda: capstone.sampled(alone, **more)


CHEAP: dict[str, Callable[[], Report]] = {
    "02: a verifier that rejects everything": lambda: verification.verifier(Rejects),
    "02: a verifier that goes by the shape": lambda: verification.verifier(ByShape),
    "02: the same on other tables": lambda: verification.verifier(ByShape, target=11, other=4),
    "02: a verifier that counts": lambda: verification.verifier(by_count(5)),
    "02: the same on more words": lambda: verification.verifier(by_count(5), target=21, other=14, words=3),
    "05: a verifier that rejects everything": lambda: tree.verifier(Rejects),
    "05: a verifier that counts": lambda: tree.verifier(by_count(7)),
    "05: the same on other tables": lambda: tree.verifier(by_count(7), target=5, other=3),
    "02: constant drafts": lambda: verification.draft(lambda dist, text, gamma, rng: constant(text, gamma, False)),
    "02: constant drafts, declared as drawn": lambda: verification.draft(
        lambda dist, text, gamma, rng: constant(text, gamma, True)
    ),
    "02: constant drafts on other tables": lambda: verification.draft(
        lambda dist, text, gamma, rng: constant(text, gamma, False), target=3, other=9, tokens=3
    ),
    "09: a loop that never asks": lambda: capstone.loop(unasked),
    "09: the same on other texts": lambda: capstone.loop(unasked, [(51, 20, 7, 6), (52, 6, 8, 5), (53, 9, 8, 9)]),
    "09: plain decoding": lambda: capstone.entry(Plain),
    "09: the same with other texts": lambda: capstone.entry(Plain, seed=17),
    "09: plain decoding that pretends to guess": lambda: capstone.entry(Throwing),
    "09: a round without guesses": _sampled(),
    "09: the same with other guesses": _sampled(more=[(41, ([2, 1], [1])), (42, ([0], [0], [1]))]),
    "01: memory is always the limit": lambda: bottleneck.roofline(
        lambda moved, work, bandwidth, peak: (moved / bandwidth, "memory")
    ),
    "02: acceptance 0": lambda: verification.acceptance(lambda p, q, x: 0.0),
    "02: a correction by p": lambda: verification.correction(lambda p, q: p.clone()),
    "02: a uniform correction": lambda: verification.correction(lambda p, q: torch.ones_like(p) / len(p)),
    "03: nothing is read next": lambda: eagle.commit(
        lambda verified, own, features, chain, path, token: (verified, features[:0], [])
    ),
    "05: no links": lambda: tree.links(unlinked),
    "05: no links, nothing guessed": lambda: tree.links(
        unlinked, [("nothing", (1,), (-1,), 5), ("word 0", (2, 1, 0, 0, 2), (-1, 0, 0, 1, 2), 12)]
    ),
    "08: always refused": lambda: production.flags(refuse),
    "08: the same for other budgets": lambda: production.flags(
        refuse, [(7, 1, None), (1, 4, 5), (1, 4, 6), (5, 4, 8), (4, 1, 4)]
    ),
    "10: the target's distribution": lambda: after_eagle.output(
        lambda drafts, p1, p2: [[p1[s] * p2[s][t] for t in range(3)] for s in range(3)]
    ),
    "10: a uniform block": lambda: after_eagle.block(uniform),
    "10: a block of one word": lambda: after_eagle.block(
        lambda base, *_: ([0] * len(base), [[1.0, 0.0, 0.0]] * len(base))
    ),
    "10: no tree": lambda: after_eagle.tree(lambda rows, nodes: ([], [])),
    "10: no tree, the root alone": lambda: after_eagle.tree(
        lambda rows, nodes: ([], []), [("root", ((0.6, 0.4),), 1), ("two", ((0.6, 0.4),), 3)]
    ),
    "10: nothing is verified": lambda: after_eagle.length(lambda words, confidence, v: 0),
    "10: everything is verified": lambda: after_eagle.length(lambda words, confidence, v: len(words)),
    "10: no draft": lambda: after_eagle.suffix(lambda text, follows, factor, min_prob: ([], 0.0)),
}
