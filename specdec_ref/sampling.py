"""From logits to the distribution p that is sampled from, and the residual distribution of a rejection.

Temperature, top-k, top-p and min-p are applied once, here, in transformers' order. Speculative sampling keeps the
distribution of *whatever* p it is given, so target and draft must be warped alike and q must be the distribution that
drafts were drawn from (Leviathan et al. 2023, §2.2). T = 0 is the limit of a vanishing temperature: one-hot at the
argmax.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.config import SamplingParams
from specdec_ref.core import BAD_LOGITS

__all__ = ["BAD_LOGITS", "best_tokens", "residual", "warp"]


def warp(logits: Float[Tensor, "*rows vocab"], sampling: SamplingParams) -> Float[Tensor, "*rows vocab"]:
    """Probabilities, float32 or wider, that sum to one in every row.

    Raises ValueError if a row holds NaN, or no finite logit at all: such a row has no distribution to sample from.
    """
    x = logits if logits.dtype == torch.float64 else logits.float()
    top, best = _top(x)
    if sampling.greedy:
        return torch.zeros_like(x).scatter_(-1, best, 1.0)
    temperature = max(sampling.temperature, torch.finfo(x.dtype).tiny)  # below that it would be 0 in x's dtype
    p = torch.softmax((x - top) / temperature, -1)
    if 0 < sampling.top_k < p.shape[-1]:
        kth = p.topk(sampling.top_k, -1).values[..., -1:]
        p = _renormalise(p.where(p >= kth, 0.0))
    if sampling.top_p < 1.0:
        p = _renormalise(p.where(_nucleus(p, sampling.top_p), 0.0))
    if sampling.min_p > 0.0:
        p = _renormalise(p.where(p >= sampling.min_p * p.amax(-1, keepdim=True), 0.0))
    return p


def best_tokens(logits: Float[Tensor, "*rows vocab"]) -> Int[Tensor, "*rows"]:
    """The argmax of every row: what warping and drawing come to at T = 0. Raises ValueError as `warp` does."""
    return _top(logits)[1].squeeze(-1)


def _top(x: Float[Tensor, "*rows vocab"]) -> tuple[Float[Tensor, "*rows 1"], Int[Tensor, "*rows 1"]]:
    """The largest value of every row and the first index that has it; in bfloat16 five times as fast as `argmax`."""
    top, best = x.max(-1, keepdim=True)
    if not bool(torch.isfinite(top).all()):  # max propagates NaN; a row of -inf has top -inf
        raise ValueError(BAD_LOGITS)
    return top, best


def _nucleus(p: Float[Tensor, "*rows vocab"], top_p: float) -> Tensor:
    """Bool, rows x vocab: the most likely tokens until their mass reaches top_p (Holtzman et al. 2020, §3.1)."""
    ranked = p.sort(dim=-1, descending=True).values
    before = ranked.cumsum(-1) - ranked  # mass of the more likely tokens: the first one always stays
    return p >= ranked.where(before < top_p, float("inf")).amin(-1, keepdim=True)  # equals stay together, as in top-k


def _renormalise(p: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
    return p / p.sum(-1, keepdim=True)


def residual(p: Float[Tensor, " vocab"], q: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """The distribution a correction is drawn from after q's guess was rejected, up to its norm: max(p - q, 0).

    Source: Leviathan et al. 2023, §2.3. Where p = q nothing is ever rejected; if rounding says otherwise, p itself.
    """
    rest = (p - q).clamp_min(0.0)
    return rest if bool(rest.any()) else p
