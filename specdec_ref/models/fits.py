"""Which models the fast forward takes (`fast.py`): decided by structure and then by measurement, never by name.

Structure: the modules of every level, their plain attributes, and the kinds of their leaves are exactly those of a
Llama-like model. An attribute that is not known here may be a multiplier, a cap or a second norm, so it refuses the
model. Measurement: on the model itself both forwards must give the same logits.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from specdec_ref.models.attention import TREE_ATTENTION
from specdec_ref.models.fast import FastForward, foreign_hooks, hooks_of
from specdec_ref.models.packing import PackedLinear, can_pack

__all__ = ["alike", "fast_forward", "reason_unfit"]

_MODEL = {"config", "generation_config", "kernel_config", "loss_type", "name_or_path", "vocab_size", "padding_idx",
          "all_tied_weights_keys", "gradient_checkpointing", "has_sliding_layers"}  # fmt: skip
_ATTENTION = {"config", "layer_idx", "layer_type", "head_dim", "num_key_value_groups", "scaling", "attention_dropout",
              "is_causal", "sliding_window"}  # fmt: skip
_ATTRIBUTES = {  # what a module may hold beside its children and weights
    "model": _MODEL, "base": _MODEL, "layer": {"hidden_size", "attention_type"}, "self_attn": _ATTENTION,
    "mlp": {"config", "hidden_size", "intermediate_size"}, "norm": {"variance_epsilon"},
}  # fmt: skip
_CHILDREN = {
    "model": {"lm_head"}, "base": {"embed_tokens", "layers", "norm", "rotary_emb"},
    "layer": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"}, "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}  # fmt: skip
_NORMS = {"q_norm", "k_norm"}  # each head's queries and keys: both or none
_LINEAR = (nn.Linear, PackedLinear)


def reason_unfit(model: Any) -> str | None:
    """One clause saying why a model is not of the known structure, or None. Looks only; runs nothing."""
    if next(model.parameters()).device.type != "cpu":
        return "it is for a CPU"
    if getattr(model.config, "_attn_implementation", None) not in {"sdpa", TREE_ATTENTION}:
        return "its attention implementation is not sdpa"
    base = getattr(model, "base_model", None)
    if base is None or base is model or not getattr(base, "layers", None):
        return "it is no stack of layers below a head"
    if model.training or foreign_hooks(hooks_of(model)) or any("forward" in vars(part) for part in model.modules()):
        return "its modules are trained, listened to or patched"
    if len(base.layers) != model.config.num_hidden_layers:
        return "its configuration names another number of layers"
    parts = [("model", model, {name for name, child in model.named_children() if child is base}), ("base", base, set())]
    for layer in base.layers:
        attention = getattr(layer, "self_attn", None)
        norms = _NORMS if hasattr(attention, "q_norm") else set[str]()
        parts += [("layer", layer, set()), ("self_attn", attention, norms), ("mlp", getattr(layer, "mlp", None), set())]
    for kind, module, more in parts:
        if reason := _odd(kind, module, more):
            return reason
    frequencies = getattr(base.rotary_emb, "inv_freq", torch.zeros(0))
    if 2 * len(frequencies) != base.layers[0].self_attn.head_dim:
        return "its rotary embedding does not turn whole heads"
    return next(filter(None, (_odd_leaf(name, leaf) for name, leaf in model.named_modules())), None)


def _odd(kind: str, module: Any, more: set[str]) -> str | None:
    """What a module of that kind has that is not known, or lacks."""
    children = {name for name, _ in module.named_children()} if isinstance(module, nn.Module) else set[str]()
    if different := children ^ (_CHILDREN[kind] | more):
        return f"its {kind} differs in {', '.join(sorted(different))}"
    return _unknown(kind, module)


def _unknown(kind: str, module: nn.Module) -> str | None:
    names = {name for name in vars(module) if not name.startswith("_") and name != "training"} - _ATTRIBUTES[kind]
    return f"its {kind} has {', '.join(sorted(names))}, which is not known" if names else None


def _odd_leaf(name: str, leaf: nn.Module) -> str | None:
    last = name.rpartition(".")[2]
    if (last.endswith("proj") or last == "lm_head") and type(leaf) not in _LINEAR:
        return f"{last} is a {type(leaf).__name__}, not a linear layer"
    if last.endswith("norm"):
        if list(dict(leaf.named_parameters())) != ["weight"] or not hasattr(leaf, "variance_epsilon"):
            return f"{last} is a {type(leaf).__name__}, not a root mean square norm"
        return _unknown("norm", leaf)
    return None


def alike(own: Tensor, ours: Tensor, model: Any) -> bool:
    """Logits of the same tokens, as far as the rounding of the model's dtype goes.

    NaN is like nothing: the model's own forward says where it comes from.
    """
    limit = 0.25 if next(model.parameters()).dtype.itemsize < 4 else 1e-3
    return bool((own.double() - ours.double()).std() <= limit * own.double().std())


def fast_forward(
    model: Any, logits: Callable[[FastForward | None], Float[Tensor, "batch nodes vocab"]], *, pack: bool = True
) -> tuple[FastForward | None, str]:
    """The fast forward of this model, or None and the reason.

    `logits(forward)`: a small batch's logits by that forward, by the model's own for None. `pack`: where possible.
    """
    reason = reason_unfit(model)
    if reason is None:
        try:
            own = logits(None)
            fast = FastForward(model, pack=pack and can_pack(model))
            ours = logits(fast)
        except (RuntimeError, TypeError, AttributeError, LookupError, ValueError) as error:  # of a foreign forward
            return None, f"off: a small forward failed ({error})"
        if alike(own, ours, model):
            return fast, f"on, {'packed' if fast.lm_head.packed is not None else 'not packed'}"
        reason = "its logits differ from the model's own"
    return None, f"off: {reason}"
