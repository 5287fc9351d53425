"""Samples of the embedded model, drawn speculatively, against the plain decoder's distribution; and that this test would notice.

At every emitted token x_t the plain decoder says how likely x_t is to be one of the tokens that the draft overrates:

    G_t = {x : q(x | x_<t) > p(x | x_<t)},   pi_t = p(G_t | x_<t)
    Z = sum_t ([x_t in G_t] - pi_t) / sqrt(sum_t pi_t (1 - pi_t))

If the emitted distribution is p, the numerator is a martingale, whatever happened before t, and Z is standard normal (martingale
central limit theorem, 864 terms). Every mistake in accepting or correcting moves mass between what the
draft overrates and the rest, so it moves Z. Two-sided, |Z| > 3.29 has a false-alarm rate of 1e-3. p and q are computed
afresh, by teacher forcing, from the text alone; the coins are keyed by seed, so a verdict is the same every time.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import pytest
import torch
from drafting import chain
from planted import Broken

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Verifier
from specdec_ref.drafters.layer_skip import layer_skip_drafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.sampling import warp

if TYPE_CHECKING:
    from specdec_ref.session import Session

TEXTS = [
    "Once upon a time", "The quick brown fox", "Dear Sir or Madam,", "In the year 1850, the town of",
    "My favourite recipe is", "The experiment shows that",
]  # fmt: skip
SAMPLES, NEW = 12, 12  # 6 prompts x 12 seeds x 12 tokens = 864 tokens
CRITICAL = 3.29
SAMPLING = SamplingParams(1.0)

Terms = list[tuple[float, float]]  # of each sample: its part of the numerator, its part of the variance


@pytest.fixture(scope="module")
def prompts(embedded: "Session") -> list[list[int]]:
    return [embedded.encode(text, raw=True) for text in TEXTS for _ in range(SAMPLES)]


@pytest.fixture(scope="module")
def draft(embedded: "Session") -> Target:
    """The target without its middle fifth of layers: half of its samples are rejected."""
    return layer_skip_drafter(embedded.target).lm


def speculative(lab: "Session", prompts: list[list[int]], verifier: Verifier | str) -> list[list[int]]:
    limits = lab.limits(NEW, ignore_eos=True)
    engine = SpecEngine(
        lab.target,
        layer_skip_drafter(lab.target),
        budget=DraftBudget(2),
        sampling=SAMPLING,
        verifier=verifier,
        limits=limits,
    )
    runs = engine.generate(prompts, range(1000, 1000 + len(prompts)))
    accepted, tested = sum(run.stats.accepted for run in runs), sum(run.stats.tested for run in runs)
    assert 0.3 < accepted / tested < 0.8  # both branches are taken often
    return [run.tokens for run in runs]


def terms(target: Target, draft: Target, prompts: Sequence[list[int]], samples: Sequence[list[int]]) -> Terms:
    found = []
    for begin in range(0, len(prompts), 32):
        texts = list(zip(prompts[begin : begin + 32], samples[begin : begin + 32], strict=True))
        p, q = (dists(lm, texts) for lm in (target, draft))
        overrated = q > p
        share = torch.where(overrated, p, 0.0).sum(-1)
        emitted = torch.tensor([tokens for _, tokens in texts])
        hit = overrated.gather(-1, emitted[..., None])[..., 0].double()
        found += zip((hit - share).sum(1).tolist(), (share * (1 - share)).sum(1).tolist(), strict=True)
    return found


def dists(lm: Target, texts: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    """The model's distribution before every sampled token, samples x tokens x vocab."""
    lm.start([prompt[:-1] for prompt, _ in texts], capacity=64)
    return warp(lm.forward([chain([prompt[-1], *tokens[:-1]]) for prompt, tokens in texts]).logits, SAMPLING)


def statistic(found: Terms) -> float:
    """Z."""
    return sum(part for part, _ in found) / math.sqrt(sum(variance for _, variance in found))


def verdict(what: str, found: Terms, *, broken: bool) -> None:
    z = statistic(found)
    print(f"\n{what}: Z = {z:.2f}, {len(found) * NEW} tokens")  # noqa: T201 - a figure to quote
    assert (abs(z) > CRITICAL) == broken, z


@pytest.mark.slow
def test_speculative_samples_have_the_plain_decoders_distribution(
    embedded: "Session", draft: Target, prompts: list[list[int]]
) -> None:
    samples = speculative(embedded, prompts, "rejection")
    assert len({tuple(tokens) for tokens in samples}) > 0.9 * len(prompts)
    verdict("speculative", terms(embedded.target, draft, prompts, samples), broken=False)


@pytest.mark.slow
def test_the_plain_decoders_own_samples_have_it(embedded: "Session", draft: Target, prompts: list[list[int]]) -> None:
    """The control: the statistic is right where nothing speculates."""
    runs = embedded.plain(prompts, sampling=SAMPLING, limits=embedded.limits(NEW, ignore_eos=True))
    verdict("plain", terms(embedded.target, draft, prompts, [run.tokens for run in runs]), broken=False)


@pytest.mark.slow
def test_its_power_against_corrections_without_the_residual(
    embedded: "Session", draft: Target, prompts: list[list[int]]
) -> None:
    """The bug: after a rejection, draw from p instead of max(p - q, 0).

    Power: share of 1000 bootstrap experiments (whole samples, drawn with replacement) in which it would be noticed.
    """
    found = terms(embedded.target, draft, prompts, speculative(embedded, prompts, Broken("no residual")))
    verdict("no residual", found, broken=True)
    chance = Random(0)
    noticed = sum(statistic(chance.choices(found, k=len(found))) > CRITICAL for _ in range(1000))
    print(f"\npower {noticed / 1000} at a false-alarm rate of 1e-3")  # noqa: T201 - a figure to quote
    assert noticed / 1000 > 0.9
