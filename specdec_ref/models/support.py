"""Refuse, when a model is wrapped, whatever a 4-D mask and a slot cache cannot run; say why and what to use instead.

First the configuration is read, which gives a clear reason. Then small forwards measure the model itself (`probe.py`).
A failure is explained by what can be seen in the weights: quantised, NaN, experts without a float64 kernel.
"""

import inspect
from typing import Any

import torch

from specdec_ref.models.attention import TREE_ATTENTION
from specdec_ref.models.probe import Probed, dependence, position_limit

__all__ = ["check_supported", "reason_unsupported"]

_ALIBI = {"bloom", "mpt"}
_TRIPS = (RuntimeError, TypeError, AttributeError, LookupError, ValueError)  # what a foreign forward may raise
_ADVICE = "use a full-attention model such as Llama, Qwen2/3, GPT-2, GPT-NeoX, OLMo2 or SmolLM2"


def reason_unsupported(config: Any) -> str | None:
    """One clause saying why a model with this configuration cannot be run, or None if nothing speaks against it."""
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder model"
    if config.model_type in _ALIBI or getattr(config, "alibi", False):
        return "it uses ALiBi, whose position bias is not built from position_ids"
    if getattr(config, "attention_type", None) == "block_sparse":
        return "its attention is block-sparse in longer texts; set attention_type to 'original_full'"
    if not hasattr(config, "num_hidden_layers") and hasattr(config, "text_config"):
        return "it is a multimodal model; its language model alone may work"
    window, positions = getattr(config, "sliding_window", None), getattr(config, "max_position_embeddings", None)
    wide = bool(window and positions and window >= positions)  # a window that no text can leave is full attention
    layers = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)  # the latter: GPT-Neo
    full = {"full_attention", "attention", "global"} | ({"sliding_attention"} if wide else set())
    kinds = set(layers or ()) - full
    if kinds:
        return f"it has layers of kind {', '.join(sorted(kinds))}"
    if window and not wide and getattr(config, "use_sliding_window", True) and not getattr(config, "layer_types", None):
        return f"it attends through a sliding window of {window} tokens"
    if config._attn_implementation not in {"sdpa", "eager", TREE_ATTENTION}:
        return f"its attention implementation is {config._attn_implementation!r}; load it with 'sdpa' or 'eager'"
    return None


@torch.inference_mode()
def check_supported(target: Probed) -> int | None:
    """The positions that texts must stay within so that rows stay independent; None if there is no such limit.

    Raises ValueError that names the reason why the model cannot be used. Leaves the target's cache for the caller to
    replace.
    """
    name = getattr(target.config, "model_type", type(target.model).__name__)
    reason, limit = reason_unsupported(target.config) or _visible(target), None
    try:
        if reason is None:
            reason = dependence(target)
            limit = None if reason else position_limit(target)
            reason = reason and _unasked(target, reason)
    except _TRIPS as error:
        reason = _cause(target, error)
    if reason:
        raise ValueError(f"{name} cannot be used as target or draft model: {reason}; {_ADVICE}")
    return limit


def _visible(target: Probed) -> str | None:
    """What the modules themselves show: weights that are no floating-point numbers, attention in both directions."""
    if not target.dtype.is_floating_point or target.dtype.itemsize < 2:
        return f"{_quantised(target)}; load it in bfloat16, float16 or float32"
    crossing = ("cross", "encoder_attn", "encoder_attention")  # reads another model's output, if there is any
    both_ways = (n for n, module in target.model.named_modules() if getattr(module, "is_causal", None) is False)
    if any(not any(word in name.lower() for word in crossing) for name in both_ways):
        return "its attention is not causal, so it reads texts in both directions"
    return None


def _unasked(target: Probed, reason: str) -> str:
    """The reason itself, or what explains it: a forward without a parameter that it would need."""
    forward = inspect.signature(target.model.forward).parameters
    for name, clause in (
        ("past_key_values", "it keeps no cache of keys and values"),
        ("position_ids", "it takes no positions from its caller"),
        ("attention_mask", "it takes no attention mask"),
    ):
        if name not in forward and hasattr(target.model, "set_attn_implementation"):
            return f"{clause} (its forward has no argument {name!r})"
    return reason


def _quantised(target: Probed) -> str:
    """One clause if weights are quantised, else ""."""
    settings = getattr(target.config, "quantization_config", None)
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    kinds = {p.dtype for p in target.model.parameters() if not p.is_floating_point() or p.dtype.itemsize < 2}
    if not settings and not kinds:
        return ""
    stored = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    how = " by ".join(filter(None, ["its weights are quantised", str(method or "")]))
    return how + (f" (stored as {stored})" if stored else "")


def _cause(target: Probed, error: Exception) -> str:
    """Why a forward failed: the weights' own state where that explains it, else the error."""
    broken = [name for name, weight in target.model.named_parameters() if bool(_not_finite(weight))]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        return f"its weights hold NaN or infinity ({broken[0]}{more}), so the file is damaged or the dtype too narrow"
    if clause := _quantised(target):
        return f"{clause}, and a forward with them failed ({error}); load it in bfloat16, float16 or float32"
    if "NaN" in str(error):
        return f"its logits are NaN in {str(target.dtype).removeprefix('torch.')}; try float32 (--dtype float32)"
    experts = any("expert" in name for name, _ in target.model.named_parameters())
    if experts and target.dtype == torch.float64:
        return "its experts are multiplied by a kernel without float64; load it in float32 (--dtype float32)"
    if target.dtype == torch.float64 and "overflow" in str(error):
        return "its code adds a mask that float64 cannot be put into; load it in float32 (--dtype float32)"
    return _unasked(target, f"a forward with a 4-D mask and a cache of ours failed ({error})")


def _not_finite(weight: torch.Tensor) -> bool:
    return weight.is_floating_point() and weight.dtype.itemsize >= 2 and not bool(weight.isfinite().all())
