"""Block verification of chains: the drafts are judged together, and more of them pass than one by one.

    p_0 = 1,  p_i = min(1, p_{i-1} p(x_i) / q(x_i))                      how much of x_1..x_i the target would keep
    S_i = sum_x max(p_i p(x) - q(x), 0)      at the node after x_i        what is left to draw a correction from
    h_i = S_i / (S_i + 1 - p_i) for i < gamma,   h_gamma = p_gamma       x_1..x_i stays with probability h_i,
                                                                         for the largest i whose coin says so
    then draw from max(p_i p - q, 0), or the bonus from p after the last draft

A draft that p likes more than q does makes up for an earlier one that it liked less, which token-by-token rejection
cannot see. The emitted distribution is exactly p, and no fewer drafts are accepted on average, whatever p and q.
Source: Sun et al. 2024, Block Verification Accelerates Speculative Decoding (arXiv 2403.10444), Alg. 2.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult

__all__ = ["BlockVerifier"]


class BlockVerifier:
    """Chains only; a "point" draft counts as drawn from a one-hot q."""

    lossless_for = frozenset({"point", "iid", "without_replacement"})

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """Raises ValueError if a node has two children."""
        if not tree.is_chain:
            raise ValueError("block verification is for chains; for trees use 'target_only' or 'multi_round'")
        drafts = tree.token_list[1:]
        kept, rests = 1.0, []
        chances = []  # h_0 .. h_gamma
        for i, token in enumerate(drafts):
            if tree.drawn == "point":
                q = torch.zeros_like(p[i])
                q[token] = 1.0
            else:
                q = tree.draft_distribution(i, p.shape[-1])
            rests.append((kept * p[i] - q).clamp_min(0.0))
            mass = float(rests[i].sum())
            chances.append(mass / (mass + 1.0 - kept) if kept < 1.0 else 1.0)
            kept = min(1.0, kept * float(p[i, token] / q[token]))
        rests.append(p[len(drafts)])
        chances.append(kept)
        stay = next((i for i in range(len(drafts), 0, -1) if rng.accept(chances[i])), 0)
        rest = rests[stay] if bool(rests[stay].any()) else p[stay]  # nothing left only by rounding: p = q there
        return VerifyResult(tuple(range(1, stay + 1)), rng.draw(rest))
