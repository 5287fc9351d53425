"""EAGLE heads, the networks only: one decoder layer that guesses the next token from the target's hidden states.

Pair i is (g_i, token_{i+1}): a feature, and the token that was sampled from it, which the feature alone cannot know.

    EAGLE-1/2   x = fc [embed(token); g]       layer(x) = next g, in the space of the target's last hidden state
                q = softmax of the target's lm_head(next g)                              arXiv 2401.15077, section 3.1
    EAGLE-3     g = fc [three target layers]   layer reads [norm embed(token); norm g], residual g; next g is its output
                q = softmax of lm_head(norm(next g)) over a reduced vocabulary           arXiv 2503.01840, section 3
    0, none     layer reads norm embed(token), residual embed(token); q as in EAGLE-3: a plain one-layer language model
                with as many trained weights, to see what features buy

Drafting feeds the next g back where the target's features end. A head computes `project`, then attention by whoever
calls it (cached when drafting, training-time test when training), then `finish`: the two cannot drift apart.
Parameter names are those of the published checkpoints. Lossless in use: a head only guesses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from specdec_ref.models.kv_cache import SlotCache

__all__ = ["EagleHead", "Normed", "Projected", "Variant", "Version", "default_layers", "head_config", "new_head"]

Version = Literal[0, 1, 3]
Normed = Callable[[Any, Tensor], Tensor]  # applies a norm


def default_layers(version: int, layers: int) -> tuple[int, ...]:
    """Which `hidden_states` of a target with so many layers a head reads: the published heads' choice.

    EAGLE-1: the last one, after the final norm. EAGLE-3: what layers 2, n/2 and n-3 get as input, that is the outputs
    of layers 1, n/2 - 1 and n - 4.
    """
    return {0: (), 1: (layers,), 3: (2, layers // 2, layers - 3)}[version]


@dataclass(frozen=True, slots=True)
class Variant:
    """What published heads differ in, named as in their config.json. The defaults are EAGLE-3's paper."""

    bias: bool = False  # `fc` has one: EAGLE-1 heads for Vicuna and Llama-2
    norm_before_residual: bool = False  # the residual is g after `hidden_norm`, not before
    norm_before_fc: bool = False  # the three features are normed together, by `input_norm` ...
    fc_norm: bool = False  # ... or each by a norm of its own
    norm_output: bool = False  # what is fed back is g after `norm`, not before


@dataclass(frozen=True, slots=True)
class Projected:
    """What attention needs of each node, rotary positions applied, and the residual that passes it by."""

    residual: Float[Tensor, "batch nodes hidden"]
    q: Float[Tensor, "batch heads nodes head_dim"]
    k: Float[Tensor, "batch key_heads nodes head_dim"]
    v: Float[Tensor, "batch key_heads nodes head_dim"]


class _Attention(nn.Module):
    """The four projections; EAGLE-3's read two vectors side by side (`width` = 2 hidden)."""

    def __init__(self, config: LlamaConfig, width: int) -> None:
        super().__init__()
        hidden, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(width, config.num_attention_heads * config.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * config.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * config.head_dim, hidden, bias=False)


class _Layer(nn.Module):
    """A Llama layer but for what comes before its attention: EAGLE-1 has no norm there, EAGLE-3 one for each input."""

    def __init__(self, config: LlamaConfig, version: Version) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        if version == 3:
            self.hidden_norm = LlamaRMSNorm(hidden, eps)
        if version != 1:
            self.input_layernorm = LlamaRMSNorm(hidden, eps)
        self.self_attn = _Attention(config, hidden * 2 if version == 3 else hidden)
        self.post_attention_layernorm = LlamaRMSNorm(hidden, eps)
        self.mlp = LlamaMLP(config)


class EagleHead(nn.Module):
    """The network of one head. `embed_tokens` and, for EAGLE-1, `lm_head` are the target's and are never trained.

    `q_vocab` holds the target ids of the draft vocabulary, None if it is the whole vocabulary.
    """

    q_vocab: Tensor | None

    def __init__(
        self, config: LlamaConfig, version: Version, *, q_vocab: Tensor | None = None, variant: Variant = Variant()
    ) -> None:
        """`config`: the head's own, as in its config.json. ValueError: a variant that only EAGLE-3 has."""
        super().__init__()
        if version != 3 and variant not in (Variant(), Variant(bias=True)):
            raise ValueError(f"only EAGLE-3 heads have norms to vary, got {variant}")
        hidden, eps = config.hidden_size, config.rms_norm_eps
        wide = getattr(config, "target_hidden_size", None) or hidden
        self.config, self.version, self.variant = config, version, variant
        self.kind = str(version)  # what a checkpoint calls it
        self.embed_tokens = nn.Embedding(config.vocab_size, hidden)
        if version:
            self.fc = nn.Linear(3 * wide if version == 3 else 2 * hidden, hidden, bias=variant.bias)
        if version == 3:
            self.midlayer = _Layer(config, version)
        else:
            self.layers = nn.ModuleList([_Layer(config, version)])
        if version != 1:
            self.norm = LlamaRMSNorm(hidden, eps)
        if variant.norm_before_fc:
            self.input_norm = LlamaRMSNorm(3 * wide, eps)
        if variant.fc_norm:
            self.fc_norm = nn.ModuleList([LlamaRMSNorm(wide, eps) for _ in range(3)])
        self.lm_head = nn.Linear(hidden, config.vocab_size if q_vocab is None else len(q_vocab), bias=False)
        self.register_buffer("q_vocab", q_vocab, persistent=False)
        self.rotary = LlamaRotaryEmbedding(config)

    @property
    def layer(self) -> Any:
        """The decoder layer, whatever its published name."""
        return self.midlayer if self.version == 3 else self.layers[0]

    def fuse(self, features: Float[Tensor, "batch nodes features"]) -> Float[Tensor, "batch nodes hidden"]:
        """g of the target's features: `fc` for EAGLE-3; EAGLE-1 reads them as they are, a plain model not at all."""
        if self.version != 3:
            return features
        if self.variant.norm_before_fc:
            features = self.input_norm(features)
        if self.variant.fc_norm:
            parts = zip(self.fc_norm, features.chunk(3, -1), strict=True)
            features = torch.cat([norm(part) for norm, part in parts], -1)
        fused: Tensor = self.fc(features)
        return fused

    def inputs(
        self, g: Float[Tensor, "batch nodes given"], tokens: Int[Tensor, "batch nodes"],
        normed: Normed, fc: Callable[[Tensor], Tensor] | None,
    ) -> tuple[Float[Tensor, "batch nodes hidden"], Float[Tensor, "batch nodes width"]]:  # fmt: skip
        """(residual, x): what passes the attention by, and what it reads, of the pairs (g, token).

        `normed(norm, y)` applies a norm and `fc` the head's linear layer; drafting has faster ones for both.
        """
        layer, embedded = self.layer, self.embed_tokens(tokens)
        if self.version == 3:
            after = normed(layer.hidden_norm, g)
            residual = after if self.variant.norm_before_residual else g
            return residual, torch.cat([normed(layer.input_layernorm, embedded), after], -1)
        if self.version == 0 or fc is None:
            return embedded, normed(layer.input_layernorm, embedded)
        x = fc(torch.cat([embedded, g], -1))
        return x, x

    def project(
        self,
        g: Float[Tensor, "batch nodes hidden"],
        tokens: Int[Tensor, "batch nodes"],
        positions: Int[Tensor, "batch nodes"],
    ) -> Projected:
        """The pairs (g, token); `positions` are those of the features, one less than the tokens'."""
        residual, x = self.inputs(g, tokens, lambda norm, y: norm(y), getattr(self, "fc", None))
        layer = self.layer
        size = self.config.head_dim
        q, k, v = (
            linear(x).unflatten(-1, (linear.out_features // size, size)).transpose(1, 2)
            for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, *self.rotary(x, positions))
        return Projected(residual, q, k, v)

    def finish(
        self, residual: Float[Tensor, "batch nodes hidden"], attended: Float[Tensor, "batch heads nodes head_dim"]
    ) -> Float[Tensor, "batch nodes hidden"]:
        """The next g, which is fed back: attention's output, residual and MLP, and as a rule no norm."""
        layer = self.layer
        x = residual + layer.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
        after: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(after) if self.variant.norm_output else after

    def step(
        self,
        g: Float[Tensor, "batch nodes width"],
        tokens: Int[Tensor, "batch nodes"],
        positions: Int[Tensor, "batch nodes"],
        mask: Tensor | None,
        cache: SlotCache,
    ) -> Float[Tensor, "batch nodes hidden"]:
        """Drafting: `project`, attention over the cache, `finish`. `mask`: boolean; None shows everything."""
        new = self.project(g, tokens, positions)
        keys, values = cache.update(new.k, new.v, 0)
        attended = F.scaled_dot_product_attention(new.q, keys, values, attn_mask=mask, enable_gqa=True)
        return self.finish(new.residual, attended)

    def logits(self, g: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows draft_vocab"]:
        """Scores of the draft vocabulary for the token after the pair that gave `g`."""
        scores: Tensor = self.lm_head(self.prepare_logits(g))
        return scores

    def prepare_logits(self, g: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        """What `lm_head` reads: there is a final norm of its own, which EAGLE-1 does without."""
        return self.norm(g) if self.version != 1 and not self.variant.norm_output else g


def head_config(target: Any, version: Version, draft_vocab: int | None = None) -> LlamaConfig:
    """The config of a head for this target: one Llama layer of the target's sizes.

    A plain model's MLP is wider, by what EAGLE-3 has in `fc` and in the second half of its q, k and v.
    """
    copied = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size",
              "rms_norm_eps", "max_position_embeddings", "rope_parameters")  # fmt: skip
    missing = [name for name in copied if not hasattr(target, name)]
    if missing:
        raise ValueError(
            f"no head can be made for a {getattr(target, 'model_type', 'model')} target: its configuration lacks "
            f"{', '.join(missing)}. Heads need a Llama-like target: Llama, Qwen2/3, Mistral or SmolLM2"
        )
    config = LlamaConfig(
        **{name: getattr(target, name) for name in copied},
        head_dim=getattr(target, "head_dim", None) or target.hidden_size // target.num_attention_heads,
        num_hidden_layers=1,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    if version == 0:
        projected = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        config.intermediate_size += (3 * config.hidden_size + projected) // 3
    config.draft_vocab_size = draft_vocab or target.vocab_size
    return config


@torch.no_grad()
def new_head(
    target: nn.Module, version: Version, q_vocab: Int[Tensor, " draft_vocab"] | None = None,
    make: Callable[[LlamaConfig], EagleHead] | None = None,
) -> EagleHead:  # fmt: skip
    """An untrained head for a Llama-like target, warm-started from its last layer; float32.

    The layer starts as the target's last one reading the last feature, and the token a little: far better than chance
    before the first step. Embeddings and LM head are the target's (rows of `q_vocab`), frozen. A plain model starts
    as the target's first layer, which reads embeddings as it does. `make`: builds another network of this version.
    """
    model: Any = target
    config = head_config(model.config, version, None if q_vocab is None else len(q_vocab))
    head = (make(config) if make else EagleHead(config, version, q_vocab=q_vocab)).float()
    hidden, source, layer = config.hidden_size, model.base_model.layers[-1 if version else 0], head.layer
    head.embed_tokens.weight.copy_(model.get_input_embeddings().weight)
    lm_head = model.get_output_embeddings().weight
    head.lm_head.weight.copy_(lm_head if q_vocab is None else lm_head[q_vocab])
    for frozen in (head.embed_tokens, head.lm_head):
        frozen.requires_grad_(False)
    wide = model.config.intermediate_size
    layer.mlp.gate_proj.weight[:wide] = source.mlp.gate_proj.weight
    layer.mlp.up_proj.weight[:wide] = source.mlp.up_proj.weight
    layer.mlp.down_proj.weight[:, :wide] = source.mlp.down_proj.weight
    layer.mlp.down_proj.weight[:, wide:] = 0.0  # what is wider says nothing at first
    layer.post_attention_layernorm.load_state_dict(source.post_attention_layernorm.state_dict())
    layer.self_attn.o_proj.load_state_dict(source.self_attn.o_proj.state_dict())
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = getattr(layer.self_attn, name).weight.mul_(0.1)
        weight[:, -hidden:] = getattr(source.self_attn, name).weight
    if version:
        head.fc.weight.mul_(0.1)[:, -hidden:] += torch.eye(hidden)
    if hasattr(head, "norm"):  # an EAGLE-1 head has neither this norm nor one before attention
        first = layer.hidden_norm if version == 3 else layer.input_layernorm
        first.load_state_dict(source.input_layernorm.state_dict())
        head.norm.load_state_dict(model.base_model.norm.state_dict())
    return head
