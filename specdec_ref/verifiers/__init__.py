"""Verifiers: which guesses stay, and the one more token that the target adds.

`verify_batch` is the seam that the engine calls: raw logits in, results out. Its "torch" backend warps the logits and
loops over a readable `Verifier`; "triton" takes the logits as they are and writes nothing of vocabulary size
(`fused.py`).
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import SamplingParams
from specdec_ref.core import DraftTree, Randomness, Verifier, VerifyResult
from specdec_ref.kernels import resolve_backend
from specdec_ref.sampling import warp
from specdec_ref.verifiers.auto import AutoVerifier
from specdec_ref.verifiers.block import BlockVerifier
from specdec_ref.verifiers.fused import fused_verify, reason_unfused
from specdec_ref.verifiers.greedy import GreedyVerifier
from specdec_ref.verifiers.multi_round import MultiRoundVerifier
from specdec_ref.verifiers.rejection import RejectionVerifier
from specdec_ref.verifiers.target_only import TargetOnlyVerifier
from specdec_ref.verifiers.threshold import ThresholdVerifier
from specdec_ref.verifiers.typical import TypicalVerifier

__all__ = [
    "VERIFIERS", "AutoVerifier", "BlockVerifier", "GreedyVerifier", "MultiRoundVerifier", "RejectionVerifier",
    "TargetOnlyVerifier", "ThresholdVerifier", "TypicalVerifier", "choose_verifier", "verify_batch",
]  # fmt: skip

VERIFIERS: dict[str, Callable[[], Verifier]] = {
    "greedy": GreedyVerifier,
    "rejection": RejectionVerifier,
    "target_only": TargetOnlyVerifier,
    "multi_round": MultiRoundVerifier,
    "block": BlockVerifier,
    "typical": TypicalVerifier,
    "threshold": ThresholdVerifier,
}


def choose_verifier(choice: str | Verifier, sampling: SamplingParams, *, lossy: bool = False) -> Verifier:
    """The verifier of that name, or the given one; "auto" is greedy at T = 0, and above it what fits each tree.

    Raises ValueError for an unknown name, for the greedy verifier by name at T > 0 (it would not keep the
    distribution), and for one that is lossless for nothing, unless `lossy` says that this is wanted.
    """
    if choice == "auto":
        return GreedyVerifier() if sampling.greedy else AutoVerifier()
    if isinstance(choice, str) and choice not in VERIFIERS:
        raise ValueError(f"unknown verifier {choice!r}; choose from auto, {', '.join(VERIFIERS)}")
    verifier = VERIFIERS[choice]() if isinstance(choice, str) else choice
    if choice == "greedy" and not sampling.greedy:
        raise ValueError(f"verifier 'greedy' is exact at temperature 0 only, not at {sampling.temperature}")
    if not verifier.lossless_for and not lossy:
        name = choice if isinstance(choice, str) else type(choice).__name__
        raise ValueError(
            f"verifier {name!r} changes the distribution of the text: say lossy=True (--lossy) if that is wanted"
        )
    return verifier


def verify_batch(
    verifier: Verifier,
    trees: Sequence[DraftTree],
    logits: Float[Tensor, "batch nodes vocab"],
    sampling: SamplingParams,
    rngs: Sequence[Randomness],
    *,
    backend: str = "auto",
) -> list[VerifyResult]:
    """Verify a round: row i of `logits` belongs to `trees[i]`, rows beyond its nodes are padding.

    `backend`: "auto" is the kernels on CUDA where they can do this round, else torch.
    A verifier that is lossless for nothing says so, and was let in by `choose_verifier`: it gets every tree.
    Raises ValueError if the verifier is not lossless for how a tree was drawn, if a row's logits are NaN, or if
    the backend is unknown or cannot do it.
    """
    chosen = resolve_backend(backend, logits.device, logits.dtype)
    for tree in trees:
        claims = verifier.lossless_for
        if claims and len(tree) > 1 and tree.drawn not in claims:  # a root alone is a plain step: nothing to assume
            raise ValueError(
                f"{type(verifier).__name__} is not lossless for drafts drawn {tree.drawn!r}; it supports "
                f"{', '.join(sorted(claims))}"
            )
    if chosen == "triton":
        reason = reason_unfused(verifier, trees, logits, sampling, rngs)
        if reason is None:
            return fused_verify(verifier, trees, logits, sampling, rngs, chosen)
        if backend != "auto":
            raise ValueError(f"the kernels cannot verify this round: {reason}")
    raw = sampling.greedy and isinstance(verifier, GreedyVerifier)
    return [
        verifier(tree, row[: len(tree)] if raw else warp(row[: len(tree)], sampling), rng)
        for tree, row, rng in zip(trees, logits, rngs, strict=True)
    ]
