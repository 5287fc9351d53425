"""How far the draft's q is from the target's p, and its gradient, without keeping anything of vocabulary size.

With logits z = W h and q = softmax(z), over the draft vocabulary, p renormalised on it:

    cross_entropy   - sum p log q                     dz = q - p        EAGLE-3; forward KL is this minus p's entropy
    total_variation 1/2 sum |p - q|                   1 - acceptance    Leviathan et al. 2023, corollary 3.6
    acceptance      - log sum min(p, q)               the same goal; its gradient does not fade where q is far off
    dspark          0.1 cross_entropy + 0.9 sum |p - q|                              DSpark (arXiv 2607.05147)

EAGLE-1 adds a smooth L1 loss between the head's feature and the target's (arXiv 2401.15077, section 3.2).
Most tokens are nowhere likely in an update's texts, so a `Sample` of the vocabulary gives nearly the same gradient at a
fraction of the products: the tokens likely somewhere, and a few of the others that count for all of them.

W is frozen, so only dh is needed: it is computed in the forward pass, a few rows at a time, and merely scaled in the
backward pass. 2,048 rows over 8,192 tokens would otherwise keep three tensors of 67 MB a step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["LOSSES", "Sample", "distribution_loss", "feature_loss", "sample_vocabulary", "target_distribution"]

CHUNK = 256  # rows: large enough for a fast matrix product, small enough for the cache


def target_distribution(
    final: Float[Tensor, "rows hidden"], weight: Float[Tensor, "draft_vocab hidden"]
) -> Float[Tensor, "rows draft_vocab"]:
    """p, the target at T = 1 renormalised on the draft vocabulary. `weight`: those rows of its LM head.

    The product runs in the dtype of `weight`, as the target's own does; the result has that of `final`.
    """
    dist = final.new_empty(len(final), len(weight))
    for rows, part in zip(final.split(CHUNK), dist.split(CHUNK), strict=True):
        torch.softmax((rows.to(weight.dtype) @ weight.T).to(dist.dtype), -1, out=part)
    return dist


@dataclass(frozen=True, slots=True)
class Sample:
    """Some tokens of the draft vocabulary; `bias` is the log of how many each one counts for."""

    tokens: Int[Tensor, " sample"]  # places in the draft vocabulary
    bias: Float[Tensor, " sample"]

    def distribution(self, dist: Float[Tensor, "rows draft_vocab"]) -> Float[Tensor, "rows sample"]:
        """p on the sample, each token with the weight of those it counts for; sums to 1."""
        part = dist[:, self.tokens] * self.bias.exp()
        return part / part.sum(-1, keepdim=True)


def sample_vocabulary(dist: Float[Tensor, "rows draft_vocab"], size: int, coins: torch.Generator) -> Sample:
    """`size` tokens: four in five are those most likely somewhere in these rows, the others drawn from the rest.

    softmax(z + bias) on the sample is an estimate of softmax(z) on all: the normaliser's expectation is exact (sampled
    softmax: Bengio and Senecal 2008).
    """
    likely, vocab = size * 4 // 5, dist.shape[1]
    order = dist.amax(0).argsort(descending=True)
    drawn = order[likely:][
        torch.randperm(vocab - likely, generator=coins, device="cpu").to(order.device)[: size - likely]
    ]
    bias = dist.new_zeros(size)
    bias[likely:] = math.log((vocab - likely) / (size - likely))
    return Sample(torch.cat([order[:likely], drawn]), bias)


def _cross_entropy(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    log_q = z.log_softmax(-1)
    loss = -torch.dot(log_q.view(-1), p.view(-1))
    return loss, log_q.exp_().sub_(p)


def _total_variation(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    q = z.softmax(-1)
    gap = q - p
    return 0.5 * gap.abs().sum(), _through_softmax(q, gap.sign_().mul_(0.5))


def _acceptance(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    q = z.softmax(-1)
    accepted = torch.minimum(p, q).sum(-1, keepdim=True).clamp_min_(1e-6)
    return -accepted.log().sum(), _through_softmax(q, (q < p).to(q.dtype).div_(-accepted))


def _dspark(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    (entropy, slope), (distance, other) = _cross_entropy(z, p), _total_variation(z, p)
    return 0.1 * entropy + 1.8 * distance, slope.mul_(0.1).add_(other, alpha=1.8)


def _through_softmax(q: Tensor, slope: Tensor) -> Tensor:
    """d loss / dz from d loss / dq."""
    return q * (slope - (q * slope).sum(-1, keepdim=True))


LOSSES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "cross_entropy": _cross_entropy,
    "total_variation": _total_variation,
    "acceptance": _acceptance,
    "dspark": _dspark,
}


class _DistributionLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, dist: Tensor, rows: Tensor, loss: str, bias: Tensor | None,
        learned: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        total, slope, guess = hidden.new_zeros(()), torch.empty_like(hidden), torch.empty_like(rows)
        width, columns = weight.shape[1], None if learned is None else torch.zeros_like(learned)
        weight = weight if learned is None else torch.cat([weight, learned.to(weight.dtype)], 1)
        pieces = (tensor.split(CHUNK) for tensor in (hidden, rows, slope, guess))
        for part, index, out, best in zip(*pieces, strict=True):
            z = (part.to(weight.dtype) @ weight.T).to(part.dtype)
            torch.argmax(z, -1, out=best)
            z = z if bias is None else z.add_(bias)
            value, dz = LOSSES[loss](z, dist[index])
            total += value
            dz = dz.to(weight.dtype)
            out.copy_(dz @ weight)
            if columns is not None:
                columns += dz.T @ part[:, width:].to(dz.dtype)
        ctx.save_for_backward(slope, columns)
        ctx.mark_non_differentiable(guess)
        return total, guess

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        slope, columns = ctx.saved_tensors
        return slope * grad, None, None, None, None, None, None if columns is None else columns * grad


def distribution_loss(
    hidden: Float[Tensor, "nodes width"],
    weight: Float[Tensor, "draft_vocab hidden"],
    dist: Float[Tensor, "rows draft_vocab"],
    rows: Int[Tensor, " nodes"],
    loss: str = "cross_entropy",
    bias: Float[Tensor, " draft_vocab"] | None = None,
    learned: Float[Tensor, "draft_vocab rank"] | None = None,
) -> tuple[Float[Tensor, ""], Int[Tensor, " nodes"]]:
    """(loss, guess): summed loss of softmax(weight @ hidden) against `distribution[rows]`; each node's argmax.

    `bias` is added to the logits (see `Sample`; `weight` and `dist` are those of the sample then). No gradient goes to
    `weight`. `learned`: further columns of the weight, which do get one; `hidden` is wider by as many. The matrix
    products run in the dtype of `weight`, softmax and loss in that of `hidden`. Raises KeyError for an unknown loss.
    """
    result: tuple[Tensor, Tensor] = _DistributionLoss.apply(hidden, weight, dist, rows, loss, bias, learned)  # type: ignore[no-untyped-call]
    return result


def feature_loss(g: Float[Tensor, "nodes hidden"], final: Float[Tensor, "nodes hidden"]) -> Float[Tensor, ""]:
    """EAGLE-1's regression of the next feature: smooth L1, mean over the width, sum over nodes."""
    return F.smooth_l1_loss(g, final, reduction="none").mean(-1).sum()
