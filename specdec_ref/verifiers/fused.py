"""Verification by the kernels: a batch's raw logits in, accepted paths out, one copy to the host.

The readable verifiers are the specification. A kernel gets the very coins that they would have thrown: the first number
of a row's stream decides at the root, the next one level below, and the one after the last test draws the last token.
So both emit the same tokens, but where a coin lies within rounding of a break point. Which kernel does whose work:

    GreedyVerifier -> greedy_walk      RejectionVerifier -> chain_reject      TargetOnlyVerifier -> tree_sample
    AutoVerifier   -> chain_reject for chains, tree_sample for trees drawn without chance; multi-round has no kernel
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.config import SamplingParams
from specdec_ref.core import DraftTree, Randomness, Verifier, VerifyResult
from specdec_ref.kernels import Backend, ops
from specdec_ref.kernels.contract import BAD_ROW, DraftProbs, Links
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.sampling import BAD_LOGITS
from specdec_ref.transfer import upload
from specdec_ref.trees.masks import padded_trees
from specdec_ref.verifiers.auto import AutoVerifier
from specdec_ref.verifiers.greedy import GreedyVerifier
from specdec_ref.verifiers.rejection import RejectionVerifier
from specdec_ref.verifiers.target_only import TargetOnlyVerifier

__all__ = ["fused_verify", "kernel_for", "reason_unfused"]

Kernel = Literal["greedy", "chain", "tree"]


def kernel_for(verifier: Verifier, trees: Sequence[DraftTree], sampling: SamplingParams) -> Kernel | None:
    """The kernel with this verifier's answers on these trees, if there is one. A learner's own verifier has none."""
    kind, chains = type(verifier), all(tree.is_chain for tree in trees)
    if kind is GreedyVerifier or (sampling.greedy and kind in (TargetOnlyVerifier, AutoVerifier)):
        return "greedy"  # at T = 0 p is one-hot, and all of them follow the argmax
    if kind in (RejectionVerifier, AutoVerifier) and chains:
        return "greedy" if sampling.greedy else "chain"
    if kind is TargetOnlyVerifier or (kind is AutoVerifier and all(tree.drawn == "point" for tree in trees)):
        return "tree"
    return None


def reason_unfused(
    verifier: Verifier, trees: Sequence[DraftTree], logits: Tensor, sampling: SamplingParams, rngs: Sequence[Randomness]
) -> str | None:
    """Why the kernels cannot do this round, or None if they can."""
    if logits.dtype == torch.float64:
        return "they compute in float32, the logits are float64"
    kernel = kernel_for(verifier, trees, sampling)
    if kernel is None:
        return f"there is none for {type(verifier).__name__} on such trees"
    if kernel != "greedy" and not _all_keyed(rngs):
        return "they need coins from KeyedRandomness"
    return None


def _all_keyed(rngs: Sequence[Randomness]) -> TypeGuard[Sequence[KeyedRandomness]]:
    return all(isinstance(rng, KeyedRandomness) for rng in rngs)


def fused_verify(
    verifier: Verifier,
    trees: Sequence[DraftTree],
    logits: Float[Tensor, "batch nodes vocab"],
    sampling: SamplingParams,
    rngs: Sequence[Randomness],
    backend: Backend,
) -> list[VerifyResult]:
    """Verify a round that `reason_unfused` has nothing against.

    Raises ValueError for logits without a distribution, as `sampling.warp` does, and TypeError for other coins.
    """
    kernels, kind = ops(backend), kernel_for(verifier, trees, sampling)
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    drafted, parents = padded_trees(trees, logits.device)
    tokens = drafted.clamp_min(0)
    links = kernels.tree_links(tokens, parents, tokens.new_zeros(len(trees)))
    if kind == "greedy":
        walk = kernels.greedy_walk(tokens, links, kernels.predictions(logits))
    else:
        node = torch.arange(tokens.shape[1], device=tokens.device)
        floors = kernels.logit_floors(logits, node.where((parents >= 0) | (node == 0), -1), sampling)
        if not _all_keyed(rngs):
            raise TypeError("the kernels need coins from KeyedRandomness")
        coins, last_coins = _coins(rngs, links, max(max(tree.depths) for tree in trees))
        temperature = max(sampling.temperature, torch.finfo(torch.float32).tiny)  # as in `sampling.warp`
        given = (logits, tokens, links, coins, last_coins, temperature, floors)
        walk = (
            kernels.tree_sample(*given) if kind == "tree" else kernels.chain_reject(*given, _draft_probs(trees, logits))
        )
    answer = torch.cat([drafted, walk.accept_index, walk.next_token[:, None]], 1)
    rows = answer.tolist()  # the round's one wait for the device
    if any(row[-1] == BAD_ROW for row in rows):
        raise ValueError(BAD_LOGITS)
    for tree, row in zip(trees, rows, strict=True):
        tree.tell(row[: len(tree)])
    start = drafted.shape[1] + 1  # behind the tokens and the root
    return [VerifyResult(tuple(node for node in row[start:-1] if node >= 0), row[-1]) for row in rows]


def _coins(
    rngs: Sequence[KeyedRandomness], links: Links, depth: int
) -> tuple[Float[Tensor, "batch nodes"], Float[Tensor, "batch nodes"]]:
    """(coin that tests a node's children, coin of the last draw if the walk ends there), as a verifier throws them."""
    thrown = torch.tensor([[rng.uniform() for _ in range(depth + 2)] for rng in rngs], dtype=torch.float64)
    stream = upload(thrown, links.positions.device)
    at = links.positions.clamp(max=depth)  # with lengths of zero, a node's position is its depth
    return stream.gather(1, at), stream.gather(1, at + (links.next_token >= 0))


def _draft_probs(trees: Sequence[DraftTree], logits: Float[Tensor, "batch nodes vocab"]) -> DraftProbs | None:
    """q where the drafter left it; None if nothing was drawn."""
    drawn = [tree for tree in trees if tree.q is not None]
    if not drawn:
        return None
    column = None if drawn[0].q_vocab is None else _columns(drawn[0].q_vocab, logits.shape[-1]).to(logits.device)
    return DraftProbs([None if t.q is None else t.q.to(logits.device).contiguous() for t in trees], column)


@lru_cache(maxsize=8)
def _columns(q_vocab: Int[Tensor, " draft_vocab"], vocab: int) -> Int[Tensor, " vocab"]:
    """Target id -> column of q, -1 where there is none. A drafter hands out the same `q_vocab` every round."""
    place = torch.arange(len(q_vocab), device=q_vocab.device)
    return torch.full((vocab,), -1, device=q_vocab.device).scatter_(0, q_vocab, place)
