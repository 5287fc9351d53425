"""Chain rejection sampling: the distribution of every emitted token is exactly p.

    accept draft x with probability min(1, p(x) / q(x));  on the first rejection draw from  max(p - q, 0) / its sum  and
    stop; if every draft passed, draw one bonus token from p after the last.

    P(x) = q(x) min(1, p(x)/q(x)) + (1 - sum_y min(p(y), q(y))) * residual(x) = min(p, q) + (p - min(p, q)) = p(x)

Sources: Leviathan et al. 2023, Alg. 1 and App. A.1; Chen et al. 2023, Alg. 2 and Thm. 1. A "point" draft (an n-gram
match, an argmax) was chosen without chance: its q is one-hot, so x passes with probability p(x) and the residual is
p without x.
"""

from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.sampling import residual

__all__ = ["RejectionVerifier"]


class RejectionVerifier:
    """Chains only. A chain drawn without replacement is a chain of independent draws: each node has one child."""

    lossless_for = frozenset({"point", "iid", "without_replacement"})

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """Raises ValueError if a node has two children."""
        if not tree.is_chain:
            raise ValueError("rejection sampling verifies chains; for trees use 'target_only' or 'multi_round'")
        for parent in range(len(tree) - 1):
            token = tree.token_list[parent + 1]
            p_x = float(p[parent, token])
            q = None if tree.drawn == "point" else tree.draft_distribution(parent, p.shape[-1])
            q_x = 1.0 if q is None else float(q[token])
            if rng.accept(p_x / q_x):
                continue
            if q is None:
                rest = p[parent].clone()
                rest[token] = 0.0
            else:
                rest = residual(p[parent], q)
            return VerifyResult(tuple(range(1, parent + 1)), rng.draw(rest))
        return VerifyResult(tuple(range(1, len(tree))), rng.draw(p[len(tree) - 1]))
