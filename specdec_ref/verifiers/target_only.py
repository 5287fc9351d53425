"""Tree verification that never looks at q: one coin a node decides which child the target would have drawn, if any.

    at a node with distinct children c1, c2, ..:   child ci with probability p(ci),   none with the rest of the mass
    none, or a leaf:                               draw from p without the children's tokens, and stop

That is inverting the CDF of p in the order "children first", so every emitted token has distribution p, however the
children were chosen, as long as their choice did not look at the coins. Repeated siblings are merged: they are one
outcome, counted once. It accepts with probability sum p(ci), the most that can be had from guesses made without chance
("point"); where they were drawn from q, `multi_round` uses q and accepts more.
Sources: SGLang's tree_speculative_sampling_target_only at thresholds of 1, with the strict comparison (coin < sum): a
token of probability zero is never emitted. EAGLE-2's rule with q = 1 (Li et al. 2024) has the same distribution.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.trees.links import distinct_children

__all__ = ["TargetOnlyVerifier"]


class TargetOnlyVerifier:
    """Chains and trees of any distribution."""

    lossless_for = frozenset({"point", "iid", "without_replacement"})

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """Walk from the root."""
        children, node = distinct_children(tree), 0
        while children[node]:
            guesses = tree.tokens[children[node]].to(p.device)
            others = p[node].index_fill(0, guesses, 0.0)
            taken = rng.draw(torch.cat([p[node, guesses], others.sum()[None]]))
            if taken == len(guesses):
                return VerifyResult(tree.path(node), rng.draw(others))
            node = children[node][taken]
        return VerifyResult(tree.path(node), rng.draw(p[node]))
