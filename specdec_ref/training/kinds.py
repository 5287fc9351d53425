"""What can be trained on a target's features: for each kind a new network, and its counterpart of `unroll`.

All share the loop, the loss and the batches of `eagle.py`. A kind's `unroll` yields (rows, g) after each step j, where
`prepare_logits(g)` is what the LM head reads to predict the token j + 2 after the feature.

    eagle    reads three layers (EAGLE-3) or the last (EAGLE-1); step j reads the text's token and its own output
    mtp      reads the last layer; the same recursion
    medusa   reads the last layer; step j is head j, which reads neither tokens nor other heads
    p-eagle  reads three layers; step j is the j-th mask row, which attends to the text's pairs and the masks before it
    dspark   reads three layers; step j is row j of a block, which reads the text's token before it (a Markov head)
    dflash   the same without the Markov head
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.drafters.eagle_head import EagleHead, new_head
from specdec_ref.drafters.medusa import MedusaHeads, new_medusa
from specdec_ref.drafters.mtp import new_mtp
from specdec_ref.drafters.parallel_eagle import MASK, MASKS, add_masks
from specdec_ref.training.block import BLOCK, new_block, unroll_block
from specdec_ref.training.unroll import Batch, Stay, Unroll, attend, unroll

__all__ = ["KINDS", "Kind", "unroll_masks", "unroll_medusa"]

Steps = Iterator[tuple[Int[Tensor, " rows"], Float[Tensor, "rows hidden"]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """`new(target, version, q_vocab)`: an untrained network. `reads`: whose features, EAGLE-1's or EAGLE-3's.

    `own`: weights that an EAGLE head lacks, from which this kind may start. `learned(head)`: trained columns beside
    the LM head's, None if there are none. `extra(head, g, right)`: a further loss, summed over the rows of g; `right`:
    whether the likeliest token of each is the text's. `settings`: what differs from `TrainConfig`'s defaults.
    """

    new: Callable[[Any, Any, Tensor | None], Any]
    unroll: Unroll
    reads: int
    own: tuple[str, ...] = ()
    learned: Callable[[Any], Tensor | None] = lambda head: None
    extra: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def unroll_medusa(heads: MedusaHeads, batch: Batch, steps: int, stay: Stay | None = None) -> Steps:
    """Head by head. Raises ValueError for more steps than there are heads."""
    if steps > len(heads.blocks):
        raise ValueError(f"there are {len(heads.blocks)} Medusa heads, asked for {steps} steps")
    h, rows = batch.fused[batch.query], torch.arange(len(batch.query))
    for step in range(steps):
        rows = rows if stay is None or not step else rows[stay(step, rows)]
        yield rows, heads.after(h[rows], step)


def unroll_masks(head: EagleHead, batch: Batch, steps: int, stay: Stay | None = None) -> Steps:
    """Step 0 as EAGLE's, then mask rows: each attends to the text's pairs up to its column, and to its own masks."""
    first = head.project(head.fuse(batch.fused[None]), batch.tokens[batch.pair_token][None], batch.position[None])
    rows, later = torch.arange(len(batch.query)), list[tuple[Tensor, Tensor]]()
    residual, q = first.residual[:, batch.query], first.q[:, :, batch.query]
    mask = head.get_parameter("mask_hidden")[None, None]
    for step in range(steps):
        if step:
            if stay is not None:
                kept = stay(step, rows).nonzero()[:, 0]
                rows, later = rows[kept], [(k[:, :, kept], v[:, :, kept]) for k, v in later]
            g, tokens = head.fuse(mask).expand(-1, len(rows), -1), torch.full((1, len(rows)), MASK)
            here = head.project(g, tokens, batch.position[batch.query[rows]][None] + step)
            later.append((here.k, here.v))
            residual, q = here.residual, here.q
        yield rows, head.finish(residual, attend(q, first, later, batch, rows))[0]


def _block(rank: int | None) -> Kind:
    options = {} if rank is None else {"rank": rank}
    return Kind(
        new=lambda target, _, ids: new_block(target, ids, **options),
        unroll=unroll_block,
        reads=3,
        learned=lambda head: head.after.weight if head.rank else None,
        extra=_confidence_loss,
        settings={"curriculum": ((0.0, BLOCK),), "loss": "dspark", "decay": math.exp(-1 / 2)},
    )


def _confidence_loss(head: Any, g: Tensor, right: Tensor) -> Tensor:
    """Binary cross entropy of the confidence head; the rest of the head learns nothing from it."""
    return F.binary_cross_entropy_with_logits(head.confidence(g.detach())[:, 0], right.to(g.dtype), reduction="sum")


KINDS = {
    "eagle": Kind(new_head, unroll, 3),
    "mtp": Kind(lambda target, _, ids: new_mtp(target, ids), unroll, 1),
    "medusa": Kind(lambda target, _, ids: new_medusa(target, ids), unroll_medusa, 1),
    "p-eagle": Kind(lambda target, _, ids: add_masks(new_head(target, 3, ids)), unroll_masks, 3, MASKS),
    "dspark": _block(None),
    "dflash": _block(0),
}
