"""Drafts from rows that one pass computed together: row d is for draft d + 1, whatever drafts 1 .. d turn out to be.

P-EAGLE and Medusa draft this way. How the tokens are chosen decides what they may be tested against:

    T = 0     the argmax of every row                      "point"
    T > 0     an independent draw from every row           "iid", each tested with its own row
    topk > 1  EAGLE-2's tree: likeliest tokens of the rows "point"

Independent draws are exact with their own rows: given the text and all earlier drafts, draft d + 1 still has row d as
its distribution. It would not be exact to draw the tokens together, or to compute a row again from the drafted tokens
and test with the old one. A draft ends after a token below `min_confidence`, which depends on earlier tokens only.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.kernels.contract import BAD_ROW
from specdec_ref.kernels.reference import predictions
from specdec_ref.sampling import warp
from specdec_ref.trees.dynamic import dynamic
from specdec_ref.trees.growth import Grow
from specdec_ref.trees.masks import chains_of

__all__ = ["chain_tree", "drafts_from_rows", "rows_wanted"]


def rows_wanted(budget: DraftBudget, grow: Grow | None = None) -> int:
    """How many rows a draft under this budget reads."""
    return budget.chain_depth if grow is None and budget.topk == 1 else budget.depth


def drafts_from_rows(
    logits: Float[Tensor, "batch depth draft_vocab"], roots: Sequence[int], depths: Sequence[int], budget: DraftBudget,
    sampling: SamplingParams, rngs: Sequence[Randomness], ids: Tensor | None, grow: Grow | None = None,
) -> list[DraftTree]:  # fmt: skip
    """A chain or a tree per batch row, at most `depths[b]` deep. `ids`: target ids of the draft vocabulary, None: all.

    `grow`: as in `EagleDrafter`. Raises ValueError for logits of NaN.
    """
    if grow is not None or budget.topk > 1:
        return [
            _tree(row, root, replace(budget, depth=min(budget.depth, depth)), sampling, rng, ids, grow or dynamic)
            for row, root, depth, rng in zip(logits, roots, depths, rngs, strict=True)
        ]
    if sampling.greedy and budget.min_confidence == 0.0:
        best = predictions(logits)
        names = best if ids is None else ids[best.clamp_min(0)].where(best >= 0, BAD_ROW)
        return chains_of(roots, list(names.unbind(1)), depths)
    q = warp(logits, SamplingParams(1.0) if sampling.greedy else sampling)
    return [
        _chain(row[:depth], root, budget, sampling, rng, ids)
        for row, root, depth, rng in zip(q, roots, depths, rngs, strict=True)
    ]


def _chain(
    q: Float[Tensor, "depth draft_vocab"], root: int, budget: DraftBudget, sampling: SamplingParams, rng: Randomness,
    ids: Tensor | None,
) -> DraftTree:  # fmt: skip
    """One token per row of q, until one is unsure."""
    tokens = [root]
    for row in q:
        column = int(row.argmax()) if sampling.greedy else rng.draw(row)
        tokens.append(column if ids is None else int(ids[column]))
        if float(row[column]) < budget.min_confidence:
            break
    return chain_tree(tokens, q[: len(tokens) - 1], sampling, ids)


def chain_tree(
    chain: Sequence[int],
    dist: Sequence[Tensor] | Tensor = (),
    sampling: SamplingParams | None = None,
    q_vocab: Tensor | None = None,
) -> DraftTree:
    """The chain as a tree; when sampled, with its q rows and an empty one for the leaf, which has no children."""
    tokens, parents = torch.tensor(chain), torch.arange(-1, len(chain) - 1)
    if not len(dist) or sampling is None or sampling.greedy:
        return DraftTree(tokens, parents)
    return DraftTree(tokens, parents, "iid", torch.stack([*dist, torch.zeros_like(dist[0])]), q_vocab)


def _tree(
    logits: Float[Tensor, "depth draft_vocab"], root: int, budget: DraftBudget, sampling: SamplingParams,
    rng: Randomness, ids: Tensor | None, grow: Grow,
) -> DraftTree:  # fmt: skip
    """Every node of a level has the same row below it."""
    growth = grow(root, budget, sampling, rng, ids)
    for row in logits[: budget.depth]:
        if not growth.nodes.frontier:
            break
        growth.extend(row.expand(len(growth.nodes.frontier), -1))
    return growth.tree()
