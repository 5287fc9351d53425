"""Greedy verification: follow the child that equals the target's argmax, as deep as there is one.

    path_i+1 = the child of path_i whose token is argmax p(. | path_i);   next token = argmax after the last one

Lossless for temperature 0, whatever the drafts are: every emitted token is the argmax in its own context, which is what
plain greedy decoding emits (Leviathan et al. 2023, §2.2 with one-hot distributions). At T > 0 it would emit the argmax,
not a
sample: the engine refuses that.
"""

from jaxtyping import Float
from torch import Tensor

from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.sampling import best_tokens
from specdec_ref.trees.links import distinct_children

__all__ = ["GreedyVerifier"]


class GreedyVerifier:
    """Chains and trees of any distribution. `p` may be probabilities or raw logits: only the argmax is read.

    The engine hands it the logits: at T = 0 nothing of vocabulary size has to be written for one comparison a node.
    """

    lossless_for = frozenset({"point", "iid", "without_replacement"})

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """Walk from the root. `rng` is not used."""
        best, children, node = best_tokens(p).tolist(), distinct_children(tree), 0
        while True:
            match = next((child for child in children[node] if tree.token_list[child] == best[node]), None)
            if match is None:
                return VerifyResult(tree.path(node), best[node])
            node = match
