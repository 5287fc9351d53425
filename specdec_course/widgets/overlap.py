"""Overlap explorer: how often a draft is accepted is how much of two distributions lies on top of each other.

alpha = sum_x min(p(x), q(x)) = 1 - TV(p, q)            simulated beside the formula, with the emitted tokens beside p
"""

import math

import torch
from torch import Tensor

from specdec_course.plots import Number, overlap
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_ref.sampling import residual

__all__ = ["overlap_explorer", "overlap_view", "simulate"]

TOKENS = 9
KNOBS = (
    Knob("target's width", "small: the target is sure of its word", 0.2, 4, 1.4, 0.1, "tokens"),
    Knob("draft's width", "small: the draft is sure of its own", 0.2, 4, 1.8, 0.1, "tokens"),
    Knob("draft is off by", "distance between the two favourites", -4, 4, 1, 0.25, "tokens"),
    Knob("rounds", "how many drafts to simulate", 4, 14, 10, 1, "drafts", log2=True),
)


def bump(centre: Number, width: Number) -> Tensor:
    """A bell over the tokens, float64, that sums to one."""
    x = torch.arange(TOKENS, dtype=torch.float64)
    return torch.softmax(-((x - centre) ** 2) / (2 * width**2), 0)


def simulate(p: Tensor, q: Tensor, rounds: int, seed: int = 0) -> tuple[float, Tensor]:
    """Draft, test, correct, `rounds` times at once: the share accepted, and how often each token was emitted."""
    rng = torch.Generator().manual_seed(seed)
    drafts = torch.multinomial(q, rounds, replacement=True, generator=rng)
    coins = torch.rand(rounds, dtype=p.dtype, generator=rng)
    accepted = coins < (p / q)[drafts]
    corrections = torch.multinomial(residual(p, q), rounds, replacement=True, generator=rng)
    emitted = torch.where(accepted, drafts, corrections)
    return float(accepted.double().mean()), torch.bincount(emitted, minlength=len(p)).double() / rounds


def overlap_view(target_width: Number, draft_width: Number, off: Number, rounds: Number) -> View:
    """The two distributions, alpha by formula and by simulation, and what came out."""
    middle = TOKENS // 2
    p, q = bump(middle, target_width), bump(middle + off, draft_width)
    count = round(rounds)
    rate, emitted = simulate(p, q, count)
    alpha = float(torch.minimum(p, q).sum())
    distance = float((emitted - p).abs().sum()) / 2
    error = math.sqrt(max(alpha * (1 - alpha), 0.0) / count)
    html = (
        f"<p>alpha = sum of min(p, q) = 1 &minus; TV(p, q) = <b>{alpha:.3f}</b>. "
        f"Simulated: <b>{rate:.3f}</b> of {count:,} drafts accepted (expected to be off by about {error:.3f}). "
        f"Emitted distribution against p: TV = {distance:.3f}, sampling noise that shrinks as rounds grow.</p>"
    )
    alt = f"Target p and draft q over nine tokens; their common area, {alpha:.2f}, is what gets accepted."
    return View(html, overlap(p.tolist(), q.tolist(), "abcdefghi", alt=alt, emitted=emitted.tolist()))


def overlap_explorer() -> Explorer:
    """Four sliders."""
    return Explorer.build(KNOBS, overlap_view)
