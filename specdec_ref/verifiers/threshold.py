"""Target-only verification with SGLang's two thresholds. LOSSY below 1: guesses stay that p would not have drawn.

    children in order, acc = running sum of p:    take c  iff  p(c) > 0 and (coin < acc / total or p(c) >= single)
    none taken: draw from p without the children's tokens

At single = total = 1 this is `target_only`, exactly p. Below, `single` takes any guess of at least that probability,
and `total` stretches the children's mass; `VerifyResult.distortion` adds up how far each decision's distribution is
from p in total variation. The flags look like a setting of speed, and the text changes.
Source: SGLang, --speculative-accept-threshold-single and -acc.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.trees.links import distinct_children

__all__ = ["ThresholdVerifier"]


class ThresholdVerifier:
    """Chains and trees, however drawn; lossless for none, unless you know that both thresholds are 1."""

    lossless_for: frozenset[str] = frozenset()

    def __init__(self, single: float = 0.5, total: float = 1.0) -> None:
        """Raises ValueError unless both are in (0, 1]."""
        if not (0.0 < single <= 1.0 and 0.0 < total <= 1.0):
            raise ValueError(f"thresholds must be in (0, 1], got single {single} and total {total}")
        self.single, self.total = single, total

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """Walk from the root."""
        children, node, distortion = distinct_children(tree), 0, 0.0
        while children[node]:
            guesses = tree.tokens[children[node]].to(p.device)
            others = p[node].index_fill(0, guesses, 0.0)
            shares = self._shares(p[node, guesses])
            distortion += float((shares - p[node, guesses]).clamp_min(0.0).sum())
            none = (1.0 - shares.sum()).clamp_min(0.0) * bool(others.any())
            taken = rng.draw(torch.cat([shares, none[None]]))
            if taken == len(guesses):
                return VerifyResult(tree.path(node), rng.draw(others), distortion)
            node = children[node][taken]
        return VerifyResult(tree.path(node), rng.draw(p[node]), distortion)

    def _shares(self, masses: Float[Tensor, " children"]) -> Float[Tensor, " children"]:
        """How likely each child is taken: the coin's interval, or all that is left where p(c) alone is enough."""
        ends = (masses.cumsum(0) / self.total).clamp(max=1.0)
        ends = torch.where(masses >= self.single, torch.ones_like(ends), ends).cummax(0).values
        return ends.diff(prepend=ends.new_zeros(1))
