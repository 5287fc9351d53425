"""A chi-square test of sampled text against its exact distribution, for drafters of tiny models."""

import torch
from helpers import VOCAB
from torch import nn

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.sampling import warp

PROMPT = [5, 9, 3, 11]


def second_token(
    model: nn.Module, drafter: Drafter, sampling: SamplingParams, samples: int, budget: DraftBudget = DraftBudget(2)
) -> tuple[float, int]:
    """Chi-square of the second new token against its exact output distribution, and the degrees of freedom."""
    with torch.inference_mode():
        ids = torch.tensor([[*PROMPT, token] for token in range(VOCAB)])
        logits = model(ids).logits
        dist = warp(logits[0, -2], sampling) @ warp(logits[:, -1], sampling)
    engine = SpecEngine(
        Target(model, check=False), drafter, budget=budget, sampling=sampling, limits=Limits(max_new_tokens=2)
    )
    counts = torch.zeros(VOCAB, dtype=torch.float64)
    for first in range(0, samples, 250):
        for done in engine.generate([PROMPT] * 250, seeds=range(first, first + 250)):
            counts[done.tokens[1]] += 1
    expected = samples * dist
    assert counts[expected == 0].sum() == 0, "a token outside the distribution came out"
    common = expected >= 5  # where the chi-square distribution is a fair approximation; the others are one bin
    seen = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum()[None]]).clamp_min(1e-9)
    return float(((seen - wanted) ** 2 / wanted).sum()), len(seen) - 1
