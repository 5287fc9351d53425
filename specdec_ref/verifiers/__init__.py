"""Verifiers: which guesses stay, and the one more token that the target adds.

`verify_batch` is the seam that the engine calls: raw logits in, results out. Its "torch" backend warps the logits and
loops over a readable `Verifier`; a kernel backend may take the logits as they are and write nothing of vocabulary size.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import SamplingParams
from specdec_ref.core import DraftTree, Randomness, Verifier, VerifyResult
from specdec_ref.sampling import warp
from specdec_ref.verifiers.auto import AutoVerifier
from specdec_ref.verifiers.greedy import GreedyVerifier
from specdec_ref.verifiers.multi_round import MultiRoundVerifier
from specdec_ref.verifiers.rejection import RejectionVerifier
from specdec_ref.verifiers.target_only import TargetOnlyVerifier

__all__ = [
    "VERIFIERS", "AutoVerifier", "GreedyVerifier", "MultiRoundVerifier", "RejectionVerifier", "TargetOnlyVerifier",
    "choose_verifier", "verify_batch",
]  # fmt: skip

VERIFIERS: dict[str, Callable[[], Verifier]] = {
    "greedy": GreedyVerifier,
    "rejection": RejectionVerifier,
    "target_only": TargetOnlyVerifier,
    "multi_round": MultiRoundVerifier,
}


def choose_verifier(name: str, sampling: SamplingParams) -> Verifier:
    """The verifier of that name; "auto" is greedy at T = 0, and above it the one that fits each tree.

    Raises ValueError for an unknown name, or for the greedy verifier at T > 0 (it would not keep the law).
    """
    if name == "auto":
        return GreedyVerifier() if sampling.greedy else AutoVerifier()
    if name not in VERIFIERS:
        raise ValueError(f"unknown verifier {name!r}; choose from auto, {', '.join(VERIFIERS)}")
    verifier = VERIFIERS[name]()
    if getattr(verifier, "greedy_only", False) and not sampling.greedy:
        raise ValueError(f"verifier {name!r} is exact at temperature 0 only, not at {sampling.temperature}")
    return verifier


def verify_batch(
    verifier: Verifier,
    trees: Sequence[DraftTree],
    logits: Float[Tensor, "batch nodes vocab"],
    sampling: SamplingParams,
    rngs: Sequence[Randomness],
    *,
    backend: str = "torch",
) -> list[VerifyResult]:
    """Verify a round: row i of `logits` belongs to `trees[i]`, rows beyond its nodes are padding.

    Raises ValueError if a tree's law is not one the verifier is lossless for, if a row's logits are NaN or if the
    backend is unknown.
    """
    if backend != "torch":
        raise ValueError(f"unknown verification backend {backend!r}; choose 'torch'")
    results = []
    for tree, row, rng in zip(trees, logits, rngs, strict=True):
        if len(tree) > 1 and tree.law not in verifier.lossless_for:  # a root alone is a plain step: nothing to assume
            raise ValueError(
                f"{type(verifier).__name__} is not lossless for drafts drawn {tree.law!r}; it supports "
                f"{', '.join(sorted(verifier.lossless_for)) or 'none'}"
            )
        results.append(verifier(tree, warp(row[: len(tree)], sampling), rng))
    return results
