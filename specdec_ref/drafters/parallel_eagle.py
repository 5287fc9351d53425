"""P-EAGLE: an EAGLE-3 head that drafts all its tokens in one pass (arXiv 2602.01469).

EAGLE drafts token by token because each step reads the token and the feature of the step before. P-EAGLE replaces what
is missing by two learned vectors, the same at every position: `mask_hidden` for the target's features, before `fc`, and
a mask token's embedding. Positions go on counting.

    EAGLE     (f, root) -> d1      (g, d1) -> d2      (g', d2) -> d3         three passes of one row
    P-EAGLE   (f, root) (mask, MASK) (mask, MASK) -> d1 d2 d3               one pass of three rows

A mask row attends to all verified pairs and to the mask rows before it. The price is acceptance: d2 is predicted
without knowing d1. `rows.py` says what the drafts may be tested against.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.drafters.eagle import EagleDrafter, Pairs
from specdec_ref.drafters.eagle_head import EagleHead
from specdec_ref.drafters.rows import drafts_from_rows, rows_wanted

__all__ = ["MASK", "MASKS", "ParallelDrafter", "add_masks"]

MASK = -1  # the mask token's id: no token of the target has it
MASKS = ("mask_hidden", "embed_tokens.mask")  # what P-EAGLE adds to a head's weights


class _Embedding(nn.Module):
    """The target's table, and one more vector for MASK. The table itself keeps its size."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table
        self.mask = nn.Parameter(table.weight.detach().float().mean(0).to(table.weight.dtype))

    def forward(self, tokens: Int[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes hidden"]:
        known: Tensor = self.table(tokens.clamp_min(0))
        return torch.where((tokens == MASK)[..., None], self.mask, known)


def add_masks(head: EagleHead, seed: int = 0) -> EagleHead:
    """Make an EAGLE-3 head a P-EAGLE head, in place: two more trained vectors. Raises ValueError for other heads.

    The mask token starts as the mean embedding, `mask_hidden` as small random numbers.
    """
    if head.version != 3:
        raise ValueError(f"only EAGLE-3 heads can draft in parallel, got version {head.version}")
    weight = head.fc.weight
    noise = torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(seed), device="cpu")
    head.embed_tokens = _Embedding(head.embed_tokens)  # type: ignore[assignment]
    head.mask_hidden = nn.Parameter((0.1 * noise).to(weight))
    head.kind = "p-eagle"
    return head


class ParallelDrafter(EagleDrafter):
    """A `Drafter` around a head with masks. It keeps the same cache of verified pairs as `EagleDrafter`."""

    @torch.inference_mode()
    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A chain or a tree per row, all its levels from one pass of the head."""
        self._begin(rows)
        depth = rows_wanted(budget, self.grow)
        if not depth or all(unread is None for unread in self._unread):
            return [DraftTree(torch.tensor([root]), torch.tensor([-1])) for root in self._last]
        logits = self.net.logits(self._ahead(depth))
        depths = [0 if unread is None else depth for unread in self._unread]
        return drafts_from_rows(logits, self._last, depths, budget, sampling, rngs, self.head.q_vocab, self.grow)

    def _ahead(self, depth: int) -> Float[Tensor, "batch depth hidden"]:
        """Outputs at each row's last verified pair and at depth - 1 masks after it; only verified pairs are kept."""
        hidden = self.head.get_parameter("mask_hidden").expand(depth - 1, -1)
        masked = [
            row and Pairs([*(piece.to(hidden) for piece in row.features), hidden], row.tokens + [MASK] * (depth - 1))
            for row in self._unread
        ]
        real = [0 if row is None else len(row.tokens) for row in self._unread]
        g = self._read_all(masked, real)
        first = torch.tensor([max(0, count - 1) for count in real])
        columns = (first[:, None] + torch.arange(depth)).clamp_max(g.shape[1] - 1).to(g.device)
        return g[torch.arange(len(g), device=g.device)[:, None], columns]
