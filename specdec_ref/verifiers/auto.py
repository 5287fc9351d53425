"""The verifier that fits a tree, at any temperature above 0: by its shape and by how its children were drawn.

    a chain                                     rejection      drawn: min(1, p/q); without chance: q is one-hot
    children without chance ("point")           target_only    there is no q to use
    children drawn from q                       multi_round    each child is tested against the q it came from

All three are lossless for what they are given here, so the choice changes how much is accepted and never the
distribution. A drafter may hand out a chain in one round and a tree in the next.
"""

from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.verifiers.multi_round import MultiRoundVerifier
from specdec_ref.verifiers.rejection import RejectionVerifier
from specdec_ref.verifiers.target_only import TargetOnlyVerifier

__all__ = ["AutoVerifier"]


class AutoVerifier:
    """Chains and trees of any distribution, T > 0."""

    lossless_for = frozenset({"point", "iid", "without_replacement"})

    def __init__(self) -> None:
        self._chain, self._point, self._drawn = RejectionVerifier(), TargetOnlyVerifier(), MultiRoundVerifier()

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """Ask the one that fits."""
        if tree.is_chain:
            return self._chain(tree, p, rng)
        return (self._point if tree.drawn == "point" else self._drawn)(tree, p, rng)
