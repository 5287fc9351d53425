"""The forward of a Llama-like model for a few rows on a CPU, with no more operations than it takes.

    x = embed(tokens)
    layer:   q, k, v = rotate(norm(x) [Wq Wk Wv])       one product for three
             x = x + attend(q, cache + k, v; mask) Wo
             x = x + (act(gate) * up) Wdown             [gate up] = norm(x) [Wgate Wup]
    logits = norm(x) Whead

A step of a small model spends more time between its products than in them: transformers' modules take some 25
operations a layer to do this, and each costs a few microseconds whatever its size. The weights stay the model's, which
is not changed; `Product` packs them where that pays. Only the model's rotary embedding is called as it is. Who takes
part is decided by structure, never by name (`fits.py`); for everything else the reason is kept and transformers' own
forward runs.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from specdec_ref.core import TargetOutput
from specdec_ref.models.kv_cache import SlotCache
from specdec_ref.models.packing import Product
from specdec_ref.models.row_attention import ONES, RowAttention

__all__ = ["FastForward", "Layer", "foreign_hooks", "hooks_of", "rms_norm", "rotation", "wants_fast"]


def wants_fast(choice: bool | None) -> bool:
    """A caller's choice; where there is none, that of the environment: SPECDEC_FAST=0 switches it off."""
    return os.environ.get("SPECDEC_FAST", "1") != "0" if choice is None else choice


def hooks_of(model: nn.Module) -> list[dict[int, Any]]:
    """Where the hooks of a model's modules are kept, now and later."""
    return [hooks for module in model.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks)]


def foreign_hooks(kept: list[dict[int, Any]]) -> bool:
    """Whether there are any but transformers' own, which stay behind once hidden states were asked for, and ours."""
    if not any(kept):
        return False
    owners = (getattr(hook, "__module__", "") for hooks in kept for hook in hooks.values())
    return not all(owner.startswith(("transformers.", "specdec_ref.models.")) for owner in owners)


def rms_norm(norm: Any, x: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
    """What a module of Llama's kind computes: x over its root mean square, times a weight."""
    if x.dtype == torch.float64:  # there the module rounds to float32 in between
        normed: Tensor = norm(x)
        return normed
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def rotation(
    rotary: Any, like: Tensor, positions: Int[Tensor, "batch nodes"]
) -> tuple[Float[Tensor, "batch nodes 1 head_dim"], Float[Tensor, "batch nodes 1 head_dim"]]:
    """(cos, sin) for every head of a node; the sign of the half that is turned back is in sin."""
    cos, sin = rotary(like, positions)
    sin[..., : sin.shape[-1] // 2].neg_()  # a fresh tensor: the module computes it anew in every call
    return cos[:, :, None], sin[:, :, None]


class Layer:
    """One decoder layer: what comes before attention, and what comes after."""

    def __init__(self, layer: Any, head_dim: int, *, pack: bool, lean: bool = False) -> None:
        """`layer`: transformers' module, or an EAGLE head's. `pack`, `lean`: see `Product`."""
        attention, mlp = layer.self_attn, layer.mlp
        self.heads, self.shared = (m.out_features // head_dim for m in (attention.q_proj, attention.k_proj))
        self.qkv = Product(attention.q_proj, attention.k_proj, attention.v_proj, pack=pack, lean=lean)
        self.o, self.down = (Product(linear, pack=pack, lean=lean) for linear in (attention.o_proj, mlp.down_proj))
        self.gate_up, self.act = Product(mlp.gate_proj, mlp.up_proj, pack=pack, lean=lean), mlp.act_fn
        self.products = (self.qkv, self.o, self.gate_up, self.down)
        self.after = layer.post_attention_layernorm
        self.head_dim, self.scale = head_dim, getattr(attention, "scaling", head_dim**-0.5)
        self.norms = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)

    def attend(
        self,
        x: Float[Tensor, "batch nodes inputs"],
        turn: tuple[Tensor, Tensor],
        attention: RowAttention,
        cache: SlotCache,
        index: int,
    ) -> Float[Tensor, "batch nodes width"]:
        """Attention of the normed x: cached keys and values, then the new ones."""
        batch, nodes, _ = x.shape
        qk, v = self.qkv(x).view(batch, nodes, -1, self.head_dim).split((self.heads + self.shared, self.shared), 2)
        if self.norms[0] is not None:
            q, k = qk.split((self.heads, self.shared), 2)
            qk = torch.cat([rms_norm(self.norms[0], q), rms_norm(self.norms[1], k)], 2)
        qk = _turned(qk, *turn)
        new = qk[:, :, self.heads :].transpose(1, 2), v.transpose(1, 2)
        return attention(qk, *cache.write(*new, index, attention.dtype, ONES))

    def finish(
        self, residual: Float[Tensor, "batch nodes hidden"], attended: Float[Tensor, "batch nodes width"]
    ) -> Float[Tensor, "batch nodes hidden"]:
        """The output projection, the MLP, and what passes both by."""
        x = residual + self.o(attended)
        gate, up = self.gate_up(rms_norm(self.after, x)).chunk(2, -1)
        return x + self.down(self.act(gate) * up)

    def attention(
        self, mask: Tensor, positions: Int[Tensor, "batch nodes"], lengths: Sequence[int], dtype: torch.dtype
    ) -> RowAttention:
        """For `attend`, of a forward in `dtype`: a boolean mask, batch x 1 x nodes x slots."""
        return RowAttention(mask, positions, lengths, self.heads, self.shared, self.scale, dtype)


def _turned(x: Float[Tensor, "batch nodes heads head_dim"], cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class FastForward:
    """Reads a model's weights and runs its forward. `fast_forward` makes it, if the model is of the right kind."""

    def __init__(self, model: Any, *, pack: bool, lean: bool = False) -> None:
        """Packing takes a moment and the layers' memory once more, for as long as the model lives, unless `lean`."""
        base, head_dim = model.base_model, model.base_model.layers[0].self_attn.head_dim
        self.model, self.embed, self.rotary, self.norm = model, base.embed_tokens, base.rotary_emb, base.norm
        self.first = [layer.input_layernorm for layer in base.layers]
        self.layers = [Layer(layer, head_dim, pack=pack, lean=lean) for layer in base.layers]
        self.lm_head = Product(model.lm_head, pack=pack)
        self.modules = list(model.modules())
        self.hooks = hooks_of(model)

    def current(self) -> bool:
        """False once modules were exchanged or patched, or packed weights changed: then it has to be made anew."""
        products = [product for layer in self.layers for product in layer.products]
        same = all(
            a is b and "forward" not in vars(a) for a, b in zip(self.modules, self.model.modules(), strict=False)
        )
        return same and not any(product.stale() for product in (*products, self.lm_head))

    def bypassed(self) -> bool:
        """True while somebody listens to the modules or trains them: then they have to run themselves."""
        return self.model.training or foreign_hooks(self.hooks)

    def __call__(
        self,
        tokens: Int[Tensor, "batch nodes"],
        positions: Int[Tensor, "batch nodes"],
        mask: Tensor,
        cache: SlotCache,
        keep: Int[Tensor, " kept"] | None,
        feature_layers: Sequence[int],
    ) -> TargetOutput:
        """As the model's own: logits (`keep`: only at these nodes), and the asked `hidden_states` side by side."""
        x = self.embed(tokens)
        turn = rotation(self.rotary, x, positions)
        attention = self.layers[0].attention(mask, positions, cache.lengths, x.dtype)
        states = {0: x}
        for i, (layer, first) in enumerate(zip(self.layers, self.first, strict=True)):
            x = layer.finish(x, layer.attend(rms_norm(first, x), turn, attention, cache, i))
            states[i + 1] = x
        x = states[len(self.layers)] = rms_norm(self.norm, x)
        features = torch.cat([states[layer] for layer in feature_layers], -1) if feature_layers else None
        return TargetOutput(self.lm_head(x if keep is None else x[:, keep]), features)
