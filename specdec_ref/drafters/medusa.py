"""Medusa heads: K small networks on one hidden state, each for another position ahead (arXiv 2401.10774, section 3.1).

    head j:   softmax of lm_head(h + silu(W_j h))      h: the target's last hidden state of the token before the root

Head 1 predicts the token after the root without knowing the root, head 2 the one after that, and so on: no head sees
what the others say. There is no attention and no cache. The tree joins the likeliest tokens of every head; `rows.py`
says what the drafts may be tested against. Each W_j starts at zero. The LM head is the target's, its rows of the draft
vocabulary, and frozen; the paper trains one per head.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.drafters.rows import drafts_from_rows, rows_wanted
from specdec_ref.models.packing import Product, can_pack

__all__ = ["MedusaDrafter", "MedusaHeads", "new_medusa"]


class MedusaHeads(nn.Module):
    """The network: `count` heads. `q_vocab`: target ids of the draft vocabulary, None if it is the whole one."""

    kind = "medusa"
    q_vocab: Tensor | None

    def __init__(self, hidden: int, vocab: int, count: int, q_vocab: Tensor | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(count))
        for weight in self.blocks.parameters():
            nn.init.zeros_(weight)
        self.lm_head = nn.Linear(hidden, vocab if q_vocab is None else len(q_vocab), bias=False)
        self.register_buffer("q_vocab", q_vocab, persistent=False)

    def after(self, h: Float[Tensor, "rows hidden"], block: int) -> Float[Tensor, "rows hidden"]:
        """What the LM head reads of one head."""
        return h + F.silu(self.blocks[block](h))

    def prepare_logits(self, g: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        """What the LM head reads: the output of `after` as it is."""
        return g

    def logits(self, g: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows draft_vocab"]:
        """Scores of the draft vocabulary."""
        scores: Tensor = self.lm_head(g)
        return scores


@torch.no_grad()
def new_medusa(target: Any, q_vocab: Int[Tensor, " draft_vocab"] | None = None, count: int = 4) -> MedusaHeads:
    """Untrained heads for a target; float32."""
    lm_head = target.get_output_embeddings().weight
    heads = MedusaHeads(lm_head.shape[1], len(lm_head), count, q_vocab).float()
    heads.lm_head.weight.copy_(lm_head if q_vocab is None else lm_head[q_vocab]).requires_grad_(False)
    return heads


class MedusaDrafter:
    """A `Drafter` around Medusa heads: it keeps one hidden state per row."""

    def __init__(self, heads: MedusaHeads, layer: int) -> None:
        """`layer`: index of the target's last `hidden_states`."""
        self.heads = heads.eval().requires_grad_(False)
        self.feature_layers: tuple[int, ...] = (layer,)
        pack = can_pack(heads)
        self.blocks, self.lm_head = [Product(b, pack=pack) for b in heads.blocks], Product(heads.lm_head, pack=pack)
        self._seen: dict[int, tuple[int, Tensor | None]] = {}  # last token, hidden state of the one before it

    def start(
        self, rows: Sequence[int], prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "_ hidden"]] | None,
    ) -> None:  # fmt: skip
        """Keep each prompt's last hidden state. A prompt of one token has none, so its first round has no draft."""
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            self._seen[row] = prompt[-1], features[i][-1] if features is not None and len(prompt) > 1 else None

    @torch.inference_mode()
    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A chain or a tree per row, at most as deep as there are heads."""
        roots, states = zip(*(self._seen[row] for row in rows), strict=True)
        depth, known = min(rows_wanted(budget), len(self.blocks)), [h for h in states if h is not None]
        if not depth or not known:
            return [DraftTree(torch.tensor([root]), torch.tensor([-1])) for root in roots]
        h = torch.stack([torch.zeros_like(known[0]) if h is None else h for h in states])
        logits = self.lm_head(torch.stack([h + F.silu(block(h)) for block in self.blocks[:depth]], 1))
        depths = [0 if h is None else depth for h in states]
        return drafts_from_rows(logits, roots, depths, budget, sampling, rngs, self.heads.q_vocab)

    def commit(
        self, rows: Sequence[int], trees: Sequence[DraftTree], results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "_ hidden"]] | None,
    ) -> None:  # fmt: skip
        """Keep the hidden state of the last accepted token. ValueError: the engine gave no features."""
        if features is None:
            raise ValueError(f"this drafter needs the target's features of layers {list(self.feature_layers)}")
        for row, result, new in zip(rows, results, features, strict=True):
            self._seen[row] = result.next_token, new[-1]

    def finish(self, rows: Sequence[int]) -> None:
        """Forget these rows."""
        for row in rows:
            self._seen.pop(row, None)
