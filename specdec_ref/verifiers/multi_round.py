"""Multi-round tree verification: each child drawn from q gets its turn; what the rejected ones took off p is gone.

    r = p;  for children x1, x2, .. in the order drawn:
        accept x with probability min(1, r(x) / q(x));   else  r <- max(r - q, 0) / its sum
        drawn without replacement: then also             q(x) <- 0,  q <- q / its sum
    all rejected, or a leaf: draw from r and stop

Each round is one step of rejection sampling with r for p, so the emitted distribution stays p. "iid": repeats stay in
the tree, for each is a draw of its own; leave them out and the distribution is wrong. "without_replacement": x_k was
drawn from the renormalised rest of q, and that is what it must be tested against. A "point" tree has no q: use
`target_only`.
Sources: SpecInfer (Miao et al. 2024, multi-step speculative sampling) for iid; Sequoia (Chen et al. 2024, Alg. 2)
without replacement.
"""

from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.sampling import residual

__all__ = ["MultiRoundVerifier"]


class MultiRoundVerifier:
    """Trees of sampled children, chains among them."""

    lossless_for = frozenset({"iid", "without_replacement"})

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """Walk from the root."""
        node = 0
        while True:
            taken, left = _next_child(tree, node, p[node], rng)
            if taken is None:
                return VerifyResult(tree.path(node), rng.draw(left))
            node = taken


def _next_child(
    tree: DraftTree, node: int, left: Float[Tensor, " vocab"], rng: Randomness
) -> tuple[int | None, Float[Tensor, " vocab"]]:
    """The accepted child, or None and the distribution that the correction (at a leaf: the bonus) is drawn from."""
    children = tree.children(node)
    q = tree.draft_distribution(node, len(left)) if children else left
    for child in children:
        token = tree.token_list[child]
        if rng.accept(float(left[token] / q[token])):
            return child, left
        left = residual(left, q)
        left = left / left.sum()
        if tree.drawn == "without_replacement" and child != children[-1]:
            q = q.index_fill(0, tree.tokens[child], 0.0)
            q = q / q.sum()
    return None, left
