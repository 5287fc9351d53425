"""Typical acceptance: keep a guess that the target finds plausible enough. LOSSY: the output is not p.

    keep x  iff  p(x) > min(epsilon, delta * exp(-H(p))),   H(p) = -sum p log p       the surer the target, the stricter
    of all nodes whose whole path is kept, take the deepest, the likeliest among equals; then draw one token from p

A kept guess is emitted with certainty, not with probability p(x): the distribution of that token is off by 1 - p(x) in
total variation, and `VerifyResult.distortion` adds that up. More is accepted than by any lossless rule; this is the
price.
Source: Medusa (Cai et al. 2024, arXiv 2401.10774, section 2.3.1).
"""

import math

from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult

__all__ = ["TypicalVerifier"]


class TypicalVerifier:
    """Chains and trees, however drawn; lossless for none. The defaults are Medusa's."""

    lossless_for: frozenset[str] = frozenset()

    def __init__(self, epsilon: float = 0.09, delta: float = 0.3) -> None:
        """Raises ValueError unless both are positive."""
        if not (epsilon > 0.0 and delta > 0.0):
            raise ValueError(f"epsilon and delta must be positive, got {epsilon} and {delta}")
        self.epsilon, self.delta = epsilon, delta

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """The deepest plausible node, and a draw from p after it."""
        best = (0, 0.0, 0)  # depth, log-likelihood of the path, node
        reached = {0: best}
        for node in range(1, len(tree)):
            parent, token = tree.parent_list[node], tree.token_list[node]
            if parent not in reached:
                continue
            row = p[parent]
            entropy = -float(row.xlogy(row).sum())
            if float(row[token]) > min(self.epsilon, self.delta * math.exp(-entropy)):
                depth, likelihood, _ = reached[parent]
                reached[node] = (depth + 1, likelihood + float(row[token].log()), node)
                best = max(best, reached[node], key=lambda found: found[:2])
        path = tree.path(best[2])
        distortion = math.fsum(1.0 - float(p[tree.parent_list[node], tree.token_list[node]]) for node in path)
        return VerifyResult(path, rng.draw(p[best[2]]), distortion)
