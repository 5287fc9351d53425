"""A verifier with a mistake planted in it: what the tests of losslessness must notice."""

from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.sampling import residual
from specdec_ref.verifiers import RejectionVerifier

__all__ = ["Broken"]


class Broken:
    """A rejection verifier with one mistake, for chains of any distribution."""

    lossless_for = RejectionVerifier.lossless_for

    def __init__(self, bug: str) -> None:
        self.bug = bug

    def __call__(self, tree: DraftTree, p: Tensor, rng: Randomness) -> VerifyResult:
        bound = 1.0  # one coin for all: having passed r, it is known to be below r when the next draft meets it
        for parent in range(len(tree) - 1):
            token, q = tree.token_list[parent + 1], tree.draft_distribution(parent, p.shape[-1])
            ratio = float(p[parent, token]) / float(q[token])
            accepted = rng.accept(ratio / bound)
            bound = min(bound, ratio) if self.bug == "one coin for all" else 1.0
            if not accepted:
                rest = p[parent] if self.bug == "no residual" else residual(p[parent], q)
                return VerifyResult(tuple(range(1, parent + 1)), rng.draw(rest))
        last = p[len(tree) - 1]
        if self.bug == "no bonus":  # every draft passed: the last accepted one is handed out again as the extra token
            return VerifyResult(tuple(range(1, len(tree) - 1)), tree.token_list[-1])
        return VerifyResult(tuple(range(1, len(tree))), rng.draw(last))
