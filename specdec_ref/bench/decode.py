"""Decode many prompts with one drafter, in batches: what every table of acceptance starts from."""

from collections.abc import Sequence

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter
from specdec_ref.request import Generation
from specdec_ref.session import Session

__all__ = ["decode"]


def decode(
    session: Session,
    drafter: Drafter,
    prompts: Sequence[str],
    *,
    budget: DraftBudget = DraftBudget(),
    sampling: SamplingParams = SamplingParams(),
    tokens: int = 128,
    batch: int = 8,
) -> list[Generation]:
    """The answers, `batch` at a time, to their end or to `tokens` new tokens; prompt i draws with seed i."""
    engine = session.engine(drafter, budget=budget, sampling=sampling, limits=session.limits(tokens))
    encoded = [session.encode(text) for text in prompts]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))  # like lengths side by side
    answers: dict[int, Generation] = {}
    for first in range(0, len(order), batch):
        group = order[first : first + batch]
        answers |= zip(group, engine.generate([encoded[i] for i in group], seeds=group), strict=True)
    return [answers[i] for i in range(len(encoded))]
