"""Self-checks of exercise 03: the draft vocabulary's map, the drafting loop, what follows an acceptance, mask, loss.

What is right is counted or enumerated: every chain that a toy head can draft, with its chance; what a draft would find
in its cache; which rows of a loss get a gradient, and how much.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from specdec_course.checks.eagle import suspects as wrong
from specdec_course.checks.eagle.draft import draft
from specdec_course.checks.eagle.loss import loss
from specdec_course.checks.examine import Trial, Trouble, attempt, examine, numbers
from specdec_course.checks.report import Report

__all__ = ["commit", "draft", "loss", "mask", "vocabulary"]

Corpus = tuple[Sequence[Sequence[int]], int, int]  # texts, size of the draft vocabulary, of the target's

CORPORA: tuple[tuple[str, Corpus], ...] = (
    ("Clear ranks", (((5, 5, 5, 2, 2, 9), (9, 9, 9, 2)), 3, 12)),
    ("A tie at the edge", (((7, 5, 5, 8), (5, 8, 3, 7), (3, 1)), 3, 12)),
    ("One text repeats a word", (((4, 4, 4, 4, 6), (6, 2), (6, 2)), 2, 9)),
    ("More room than words", (((6, 6, 4),), 5, 9)),
)


def vocabulary(function: Callable[..., tuple[Any, Any]], corpora: Sequence[tuple[str, Corpus]] = CORPORA) -> Report:
    """Of `function(texts, size, vocab)`: d2t, the offsets of the draft words, and t2d, a mark for each target word."""

    def outcome(corpus: Corpus) -> Callable[[Any], list[list[float]]]:
        def run(code: Any) -> list[list[float]]:
            texts, size, vocab = corpus
            came = attempt(code, [list(text) for text in texts], size, vocab)
            if not isinstance(came, tuple | list) or len(came) != 2:
                raise Trouble(f"it returned {type(came).__name__}, and a pair, d2t and t2d, was expected")
            offsets = numbers(came[0], size)
            if not all(offset.is_integer() for offset in offsets):
                raise Trouble(f"d2t is {offsets}, and whole numbers were expected")
            return [offsets, numbers(came[1], vocab)]

        return run

    trials = []
    for name, corpus in corpora:
        trials.append(Trial(f"{name}: d2t", outcome(corpus), _leads_to_the_words(corpus)))
        trials.append(Trial(f"{name}: t2d", outcome(corpus), _marks_the_words(corpus), weight=0.5))
    return examine("Task 1, the draft vocabulary", function, trials, wrong.VOCABULARIES)


def words_of(corpus: Corpus) -> list[int]:
    """The most frequent words, sorted by id; among equals the smaller id is taken."""
    texts, size, vocab = corpus
    counts = Counter(token for text in texts for token in text)
    return sorted(sorted(range(vocab), key=lambda token: (-counts[token], token))[:size])


def _leads_to_the_words(corpus: Corpus) -> Callable[[list[list[float]]], tuple[bool, str]]:
    def judge(came: list[list[float]]) -> tuple[bool, str]:
        ids = [draft + int(offset) for draft, offset in enumerate(came[0])]
        gave = f"draft words 0 to {len(ids) - 1} become the target's {ids}"
        if ids == words_of(corpus):
            return True, gave
        if not all(0 <= token < corpus[2] for token in ids):
            return False, f"{gave}, and there are ids from 0 to {corpus[2] - 1} only"
        if sorted(ids) == words_of(corpus):
            return False, f"{gave}: the right words, in another order than that of their ids"
        return False, f"{gave}, which are not the {corpus[1]} most frequent words"

    return judge


def _marks_the_words(corpus: Corpus) -> Callable[[list[list[float]]], tuple[bool, str]]:
    def judge(came: list[list[float]]) -> tuple[bool, str]:
        marked = [token for token, mark in enumerate(came[1]) if mark]
        return marked == words_of(corpus), f"it marks the target's words {marked}"

    return judge


Round = tuple[int, Sequence[int], Sequence[int], int]  # pairs verified before, chain with its root, path, next token

ROUNDS: tuple[tuple[str, Round], ...] = (
    ("Nothing accepted", (6, (11, 12, 13, 14), (), 19)),
    ("One of three accepted", (6, (11, 12, 13, 14), (1,), 19)),
    ("All accepted", (9, (21, 22, 23), (1, 2), 29)),
)


def commit(function: Callable[..., Any], rounds: Sequence[tuple[str, Round]] = ROUNDS) -> Report:
    """Of `function(verified, own, features, chain, path, next_token)`: pairs that stay cached, pairs to read next."""

    def outcome(case: Round) -> Callable[[Any], list[list[float]]]:
        def run(code: Any) -> list[list[float]]:
            verified, chain, path, next_token = case
            features = torch.tensor([[float(token)] for token in chain])  # a feature that says whose it is
            came = attempt(code, verified, max(0, len(chain) - 2), features, list(chain), tuple(path), next_token)
            if not isinstance(came, tuple | list) or len(came) != 3:
                raise Trouble(f"it returned {type(came).__name__}, and kept, features and tokens were expected")
            try:
                rows = [float(row) for row in torch.as_tensor(came[1]).flatten()]
                tokens = [float(token) for token in came[2]]
            except (TypeError, ValueError, RuntimeError):
                raise Trouble(f"it returned {came!r}, and a number, features and tokens were expected") from None
            if len(rows) != len(tokens):
                raise Trouble(f"it returned {len(rows)} features and {len(tokens)} tokens, which make no pairs")
            return [numbers(came[0], 1), rows, tokens]

        return run

    trials = []
    for name, case in rounds:
        stays = _keeps(case)  # the first argument, in every case
        trials.append(Trial(f"{name}: what stays in the cache", outcome(case), stays, weight=0.5, side=True))
        trials.append(Trial(f"{name}: what is read next", outcome(case), _reads(case)))
    return examine("Task 3, after the verification", function, trials, wrong.COMMITS)


def _keeps(case: Round) -> Callable[[list[list[float]]], tuple[bool, str]]:
    def judge(came: list[list[float]]) -> tuple[bool, str]:
        kept, right = came[0][0], case[0]
        more = kept - right
        if not more:
            return True, f"{right} pairs stay: all of them have the target's features"
        lost = f"and {-more:g} good ones are thrown away"
        word = f"{more:g} of them with the head's own output" if more > 0 else lost
        return False, f"{kept:g} pairs stay, {word}"

    return judge


def _reads(case: Round) -> Callable[[list[list[float]]], tuple[bool, str]]:
    _, chain, path, next_token = case
    text = [chain[0], *(chain[node] for node in path), next_token]  # what is now certain, from the root on
    right = list(pairwise(text))

    def spelled(pairs: Sequence[tuple[float, float]]) -> str:
        return ", ".join(f"(f{feature:g}, {token:g})" for feature, token in pairs) or "nothing"

    def judge(came: list[list[float]]) -> tuple[bool, str]:
        pairs = list(zip(came[1], came[2], strict=True))
        gave = f"it reads {spelled(pairs)}, where f{chain[0]} is the feature of token {chain[0]}"
        if pairs == right:
            return True, gave
        lost = [pair for pair in right if pair not in pairs]
        missing = "1 pair of the text is missing" if len(lost) == 1 else f"{len(lost)} pairs of the text are missing"
        why = missing if lost else "Some are not of the text"
        return False, f"{gave}. {why}"

    return judge


def mask(function: Callable[[int, int], Any], cases: Sequence[tuple[int, int]] = ((5, 0), (5, 1), (4, 3))) -> Report:
    """Of `function(columns, step)`: who may look at whom at a step of training-time test, as rows of booleans."""

    def outcome(columns: int, step: int) -> Callable[[Any], list[list[float]]]:
        def run(code: Any) -> list[list[float]]:
            came = attempt(code, columns, step)
            try:
                rows = torch.as_tensor(came).to(torch.float64)
            except (TypeError, ValueError, RuntimeError):
                raise Trouble(f"it returned {type(came).__name__}, and a mask was expected") from None
            shape = (columns, columns * (step + 1))
            if tuple(rows.shape) != shape:
                raise Trouble(f"the mask has the shape {tuple(rows.shape)}: {shape} is a row a column, a block a step")
            return [list(map(float, row)) for row in rows.tolist()]

        return run

    trials = [
        Trial(f"Step {step} over {columns} columns", outcome(columns, step), _sees_its_cache(columns, step))
        for columns, step in cases
    ]
    return examine("Task 4, training-time test", function, trials, wrong.MASKS)


def cache_of_a_draft(began: int, step: int) -> set[tuple[int, int]]:
    """(step, column) of the pairs that a draft has read when it guesses its token `step`, having begun there."""
    cache = {(0, column) for column in range(began + 1)}  # the text, up to its root
    for own in range(1, step + 1):
        cache.add((own, began))  # then its own tokens, one a step
    return cache


def _sees_its_cache(columns: int, step: int) -> Callable[[list[list[float]]], tuple[bool, str]]:
    def judge(rows: list[list[float]]) -> tuple[bool, str]:
        for began, row in enumerate(rows):
            cache = cache_of_a_draft(began, step)
            for place, sees in enumerate(row):
                block, column = divmod(place, columns)
                if bool(sees) != ((block, column) in cache):
                    what = f"the true pair of column {column}" if not block else f"own step {block} of column {column}"
                    word = "sees" if sees else "does not see"
                    return False, f"the draft that began at column {began} {word} {what}, which it would " + (
                        "not have read" if sees else "have in its cache"
                    )
        return True, f"each of {columns} drafts sees what it would have in its cache, and nothing else"

    return judge
