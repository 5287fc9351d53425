"""Self-speculation: the target with some of its layers left out drafts for the whole target.

The shallow model shares every weight; its layers are renumbered, so that its own KV cache has no gaps. No training and
no second model, but on a model not trained for it a skipped layer costs much acceptance. It then drafts like any small
model (`draft_model.py`), lossless for the same reasons.
Source: Zhang et al. 2024, Draft & Verify, §3.
"""

import copy
from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.models.target import Target

__all__ = ["default_layers", "layer_skip_drafter", "shallow_copy"]


def default_layers(count: int) -> list[int]:
    """Which layers stay by default: all but the middle fifth, where neighbours are most alike.

    On SmolLM2-135M (30 layers) dropping 12..17 keeps the target's greedy choice at 65 % of its own tokens; dropping
    every other layer from 6 to 23 keeps it at 18 %.
    """
    return [*range(count * 2 // 5), *range(count * 3 // 5, count)]


def shallow_copy(model: nn.Module, layers: Sequence[int]) -> nn.Module:
    """A model of these layers only, sharing every weight with `model`, which is not changed.

    Raises ValueError if a layer does not exist, one is named twice, or the stack of layers cannot be told.
    """
    count = int(cast("Any", model.config).num_hidden_layers)
    if not layers or len(set(layers)) < len(layers) or any(not 0 <= layer < count for layer in layers):
        raise ValueError(f"name distinct layers between 0 and {count - 1} to keep, got {list(layers)}")
    tensors = [*model.parameters(), *model.buffers()]
    shallow = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})  # new modules around the same tensors
    stacks = [m for m in shallow.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(stacks) != 1:
        raise ValueError(f"cannot tell which of {len(stacks)} module lists of length {count} holds the decoder layers")
    kept = [stacks[0][old] for old in layers]
    stacks[0]._modules = nn.ModuleList(kept)._modules
    for new, layer in enumerate(kept):
        for module in layer.modules():
            for name in ("layer_idx", "layer_id"):  # the latter: GPT-Neo
                if hasattr(module, name):
                    setattr(module, name, new)
    config = cast("Any", shallow.config)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[old] for old in layers]
    config.num_hidden_layers = len(layers)
    return shallow


def layer_skip_drafter(target: Target, layers: Sequence[int] | None = None) -> DraftModelDrafter:
    """A drafter made of the target's own layers (`default_layers` if none are named)."""
    kept = default_layers(target.config.num_hidden_layers) if layers is None else list(layers)
    shallow = shallow_copy(target.model, kept)
    try:
        draft = Target(shallow)
    except ValueError as error:
        raise ValueError(f"layer-skip cannot leave layers out of this model: {error}") from error
    return DraftModelDrafter(draft, target.vocab_size)
