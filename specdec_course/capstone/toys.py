"""Targets small enough to know everything about them, behind the capstone's adapter."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from specdec_course.capstone.adapter import TargetView
from specdec_course.checks.examine import attempt, ids
from specdec_course.checks.toys import PROMPT, SAMPLING
from specdec_ref.config import SamplingParams
from specdec_ref.exact import Distribution, outcomes, table_distribution
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM

__all__ = ["Scripted", "decoder_distribution", "ended_distribution", "rounds_distribution", "view"]

_SURE = 30.0  # a logit that leaves no doubt


@dataclass(frozen=True, slots=True)
class Scripted:
    """A target that writes what a script says, as long as its cache and its mask show it just that text."""

    model: TableLM
    text: list[int]  # prompt and what the target writes after it
    prompt: list[int]
    words: int

    @classmethod
    def of(cls, text: Sequence[int], prompt: int, words: int = 11) -> "Scripted":
        """`prompt`: how many tokens of the text it is. The words are 0 to words - 1, `words` is the end of a text."""
        script = cls(TableLM(words + 1, order=10**6), list(text), list(text[:prompt]), words)
        for end in range(prompt, len(text)):
            script._says(text[:end], text[end])
        return script

    @classmethod
    def random(cls, seed: int, prompt: int, new: int, ends: int | None = None) -> "Scripted":
        """`ends`: which new token is the end of the text; the prompt's second token is one, too."""
        rng, words = Random(seed), 11
        text = [rng.randrange(words) for _ in range(prompt + new)]
        text[1] = words
        if ends is not None:
            text[prompt + ends] = words
        return cls.of(text, prompt, words)

    @property
    def eos(self) -> frozenset[int]:
        """The end-of-text tokens: one."""
        return frozenset({self.words})

    def guesses(self, at: int, kinds: str) -> list[int]:
        """After `at` tokens, a guess a letter: "r" is right, "w" wrong; the target goes on alike behind either."""
        guess: list[int] = []
        for token, kind in zip(self.text[at:], kinds, strict=False):
            self._says([*self.text[:at], *guess], token)
            guess.append(token if kind == "r" else (token + 1) % self.words)
        self._says([*self.text[:at], *guess], self.text[at + len(guess)])
        return guess

    def next(self, text: Sequence[int], gamma: int) -> list[int]:
        """As many right guesses."""
        return self.text[len(text) : len(text) + gamma]

    def answer(self, most: int) -> list[int]:
        """What plain decoding writes."""
        new = self.text[len(self.prompt) :][:most]
        ends = [at for at, token in enumerate(new) if token in self.eos]
        return new[: ends[0] + 1] if ends else new

    def _says(self, context: Sequence[int], token: int) -> None:
        logits = torch.zeros(self.model.vocab, dtype=torch.float64)
        logits[token] = _SURE
        self.model.rows[tuple(context)] = logits


def view(model: TableLM, sampling: SamplingParams = SamplingParams()) -> TargetView:
    """A table behind the adapter."""
    return TargetView(Target(model, check=False), sampling)


def rounds_distribution(
    table: TableLM, one_round: Callable[..., Any], guesses: Sequence[Sequence[int]], tokens: int
) -> tuple[Distribution, float]:
    """The exact distribution of the first words that these rounds emit, and how many they emit on average.

    Both are from one enumeration. Raises Trouble if the learner's code fails.
    """
    model = view(table, SAMPLING)

    def run(rng: Any) -> tuple[int, ...]:
        text = list(PROMPT)
        model.open(text, 16)
        for guess in guesses:
            text += ids(attempt(one_round, model, text[-1], list(guess), rng))
        return tuple(text[len(PROMPT) :])

    dist: Distribution = defaultdict(float)
    mean = 0.0
    for text, prob in _summed(run).items():
        dist[text[:tokens]] += prob
        mean += prob * len(text)
    return dict(dist), mean


def decoder_distribution(
    decoder: Any, table: TableLM, prompt: Sequence[int], tokens: int, eos: frozenset[int]
) -> Distribution:
    """The exact output distribution of what a decoder writes. Raises Trouble if it fails."""
    model = view(table, SAMPLING)
    return _summed(
        lambda rng: tuple(ids(attempt(decoder.generate, model.open(prompt, tokens), list(prompt), tokens, eos, rng)))
    )


def ended_distribution(table: TableLM, prompt: Sequence[int], tokens: int, eos: frozenset[int]) -> Distribution:
    """The target's own distribution of the same: every text is cut behind its first end-of-text token."""
    dist: Distribution = defaultdict(float)
    for text, prob in table_distribution(table, prompt, tokens, SAMPLING).items():
        ends = [at + 1 for at, token in enumerate(text) if token in eos]
        dist[text[: min(ends, default=len(text))]] += prob
    return dict(dist)


def _summed(run: Callable[[Any], tuple[int, ...]]) -> Distribution:
    dist: Distribution = defaultdict(float)
    for prob, text in attempt(lambda: list(outcomes(run))):
        dist[text] += prob
    return dict(dist)
