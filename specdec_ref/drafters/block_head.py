"""Block heads, the networks only: one pass predicts a whole block of tokens.

    context   c_i = norm(fc [three target layers of token i])       verified tokens only: others have no features
              k_i, v_i = the layers' own k and v projections of c_i: features enter as keys and values (KV injection)
    block     root, mask 1, mask 2, ..       attends to the context and to all of the block: no causal mask
    row k     h_k = norm(output of the last layer), which predicts x_k, the k-th token after the root

    rank 0    z_k = lm_head(h_k)                                    DFlash: no row depends on another draft
    rank r    z_k = lm_head(h_k) + W2 W1[x_{k-1}]                   DSpark: a Markov head of rank r

The embeddings and the rows of the LM head are the target's and are never trained. Each mask is a learned vector of its
own, one per place in the block. A confidence head estimates from h_k and W1[x_{k-1}] how likely x_k is to be right; it
does not see x_k. A head computes `keys` and `rows`, and whoever calls it attends (cached when drafting, text by text
when training), so the two cannot drift apart.
Sources: DFlash, arXiv 2602.06036; DSpark, arXiv 2607.05147.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from specdec_ref.drafters.eagle_head import head_config

__all__ = ["Attend", "BlockHead", "block_config"]

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # (layer, q, k, v of the block) -> what each row attended to


class BlockHead(nn.Module):
    """The network. `q_vocab` holds the target ids of the draft vocabulary, None if it is the whole vocabulary."""

    kind = "block"
    q_vocab: Tensor | None
    place: Tensor  # of each target id: its draft id, or one past the last if it has none

    def __init__(self, config: LlamaConfig, block: int, rank: int, q_vocab: Tensor | None = None) -> None:
        """`config`: of the draft layers, `num_hidden_layers` of them; `block`: tokens per pass; `rank`: 0 or more."""
        super().__init__()
        hidden, eps, vocab = config.hidden_size, config.rms_norm_eps, config.vocab_size
        self.config, self.block, self.rank = config, block, rank
        self.embed_tokens = nn.Embedding(vocab, hidden)
        self.fc = nn.Linear(3 * (getattr(config, "target_hidden_size", None) or hidden), hidden, bias=False)
        self.context_norm = LlamaRMSNorm(hidden, eps)
        self.masks = nn.Parameter(torch.empty(block - 1, hidden).normal_(std=0.02))
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(hidden, eps)
        words = vocab if q_vocab is None else len(q_vocab)
        self.lm_head = nn.Linear(hidden, words, bias=False)
        if rank:
            self.before, self.after = nn.Embedding(words, rank), nn.Linear(rank, words, bias=False)  # W1, W2
        self.confidence = nn.Linear(hidden + rank, 1)
        self.rotary = LlamaRotaryEmbedding(config)
        self.set_vocabulary(q_vocab)

    def set_vocabulary(self, q_vocab: Tensor | None) -> None:
        """Note the draft vocabulary and where each target id is in it."""
        words = self.lm_head.out_features
        device = None if q_vocab is None else q_vocab.device
        place = torch.arange(words, device=device)
        if q_vocab is not None:
            place = torch.full((self.config.vocab_size,), words, device=device).index_copy_(0, q_vocab, place)
        self.register_buffer("q_vocab", q_vocab, persistent=False)
        self.register_buffer("place", place, persistent=False)

    def keys(
        self, features: Float[Tensor, "batch tokens features"], positions: Int[Tensor, "batch tokens"]
    ) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of verified tokens, layer by layer: batch x key heads x tokens x head_dim each."""
        context = self.context_norm(self.fc(features))
        return [self._project(layer, context, positions)[1:] for layer in self.layers]

    def _project(self, layer: Any, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of x, rotary positions applied."""
        attention, size = layer.self_attn, self.config.head_dim
        q, k, v = (
            linear(x).unflatten(-1, (-1, size)).transpose(1, 2)
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return *apply_rotary_pos_emb(q, k, *self.rotary(x, positions)), v

    def rows(
        self, roots: Int[Tensor, " batch"], positions: Int[Tensor, "batch block"], attend: Attend
    ) -> Float[Tensor, "batch block hidden"]:
        """h of every row of a block, from one pass. `positions`: the root's own, and those after it."""
        masks = self.masks.expand(len(roots), -1, -1)
        x = torch.cat([self.embed_tokens(roots)[:, None], masks.to(self.embed_tokens.weight.dtype)], 1)
        layers: list[Any] = list(self.layers)
        for i, layer in enumerate(layers):
            attended = attend(i, *self._project(layer, layer.input_layernorm(x), positions))
            x = x + layer.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        normed: Tensor = self.norm(x)
        return normed

    def markov(self, previous: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows rank"]:
        """W1 of the token before, zero for one outside the draft vocabulary."""
        places = self.place[previous]
        known = places < self.before.num_embeddings
        found: Tensor = self.before(places.where(known, 0))
        return found * known[..., None]

    def joined(self, h: Float[Tensor, "*rows hidden"], previous: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows both"]:
        """h and W1 of the token before, side by side: what the scores and the confidence are computed from."""
        return torch.cat([h, self.markov(previous)], -1) if self.rank else h

    def logits(self, g: Float[Tensor, "*rows both"]) -> Float[Tensor, "*rows draft_vocab"]:
        """Scores of the draft vocabulary, from `joined`."""
        scores: Tensor = self.lm_head(g[..., : self.config.hidden_size])
        return scores + self.after(g[..., self.config.hidden_size :]) if self.rank else scores

    def prepare_logits(self, g: Float[Tensor, "*rows both"]) -> Float[Tensor, "*rows both"]:
        """What the loss reads: `joined` as it is."""
        return g

    def sure(self, g: Float[Tensor, "*rows both"]) -> Float[Tensor, "*rows"]:
        """The estimated probability that the likeliest token of each row is right, given that the tokens before are."""
        estimate: Tensor = self.confidence(g)[..., 0].float().sigmoid()
        return estimate


def block_config(target: Any, layers: int = 1) -> LlamaConfig:
    """Draft layers for this target: as many key heads as heads, since features enter through keys and values alone.

    The MLP is narrower in return, so a layer has about as many weights as one of the target's.
    """
    config = head_config(target, 3)
    saved = 2 * (config.num_attention_heads - config.num_key_value_heads) * config.head_dim
    config.num_key_value_heads, config.num_hidden_layers = config.num_attention_heads, layers
    config.intermediate_size -= saved // 3
    return config
