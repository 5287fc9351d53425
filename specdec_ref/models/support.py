"""Refuse, when a model is wrapped, whatever a 4-D mask and a slot cache cannot run; say why and what to use instead.

First the configuration is read (a clear reason), then two tiny forwards prove the model itself: the logits after a
token must not change when an unrelated sibling stands beside it in the tree.
"""

from typing import TYPE_CHECKING, Any

import torch

from specdec_ref.core import DraftTree
from specdec_ref.models.attention import TREE_ATTENTION

if TYPE_CHECKING:
    from specdec_ref.models.target import Target

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
    layers = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)  # the latter: GPT-Neo
    kinds = set(layers or ()) - {"full_attention", "attention", "global"}
    if kinds:
        return f"it has layers of kind {', '.join(sorted(kinds))}"
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and not getattr(config, "layer_types", None):
        return f"it attends through a sliding window of {window} tokens"
    if config._attn_implementation not in {"sdpa", "eager", TREE_ATTENTION}:
        return f"its attention implementation is {config._attn_implementation!r}; load it with 'sdpa' or 'eager'"
    return None


@torch.inference_mode()
def check_supported(target: "Target") -> None:
    """Raises ValueError that names the reason. Leaves the target's cache untouched for the caller to replace."""
    name = getattr(target.config, "model_type", type(target.model).__name__)
    reason = reason_unsupported(target.config)
    try:
        if reason is None and not _ignores_siblings(target):
            reason = "a token's logits change when an unrelated sibling stands beside it, so its 4-D mask is not obeyed"
    except _TRIPS as error:
        reason = f"a forward with a 4-D mask and a cache of ours failed ({error})"
    if reason:
        raise ValueError(f"{name} cannot be used as target or draft model: {reason}; {_ADVICE}")


def _ignores_siblings(target: "Target") -> bool:
    """Is a chain scored alike with and without a sibling in between?

    "Alike" is measured in units of the change that the sibling makes where it may be seen. Half precision is chaotic on
    some tokens, hence a wide limit there, and two of three attempts are enough.
    """
    limit = 0.25 if target.dtype.itemsize < 4 else 0.01
    samples = [torch.arange(first, 90, 13) * target.vocab_size // 100 for first in (11, 3, 7)]
    return sum(_unmoved(target, tokens, limit) for tokens in samples) > 1


def _unmoved(target: "Target", tokens: torch.Tensor, limit: float) -> bool:
    prompt, a, b, c, sibling = tokens[:2].tolist(), *tokens[2:6].tolist()
    alone = _last_logits(target, prompt, [a, b, c], [-1, 0, 1])
    beside = _last_logits(target, prompt, [a, sibling, b, c], [-1, 0, 0, 2])
    seen = _last_logits(target, prompt, [a, sibling, b, c], [-1, 0, 1, 2])
    if bool(alone.isnan().any()):
        raise RuntimeError("its logits are NaN: are its weights complete, and its dtype one it can run in?")
    return bool((alone - beside).std() <= limit * (alone - seen).std())


def _last_logits(target: "Target", prompt: list[int], tokens: list[int], parents: list[int]) -> torch.Tensor:
    target.start([prompt], capacity=8)
    return target.forward([DraftTree(torch.tensor(tokens), torch.tensor(parents))]).logits[0, -1].double()
