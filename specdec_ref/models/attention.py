"""Tree attention as one of transformers' attention implementations, and the mask it reads.

    mask[b, 0, i] = [ length of row b | ancestor bits of node i, 64 a word ]    int64, batch x 1 x nodes x (1 + words)

transformers hands a 4-D mask through untouched, so a tree's mask travels as bits: 16 bytes for a node of a tree of up
to 64 nodes, whatever the length of the text. A model takes it up by its public switch, `set_attn_implementation`;
asked with any other mask, or none, it attends as before ("sdpa"): `generate`, training and targets without kernels
notice nothing.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from specdec_ref.kernels import ops

__all__ = ["TREE_ATTENTION", "packed_mask", "use_tree_attention"]

TREE_ATTENTION = "specdec_tree"
_UNKNOWN = ("softcap", "sliding_window", "position_bias", "s_aux")  # what other models may ask of an attention function


def packed_mask(
    lengths: Int[Tensor, " batch"], bits: Int[Tensor, "batch nodes words"]
) -> Int[Tensor, "batch 1 nodes columns"]:
    """The mask that `TREE_ATTENTION` reads."""
    return torch.cat([lengths[:, None, None].expand(-1, bits.shape[1], 1), bits], -1)[:, None]


def use_tree_attention(model: Any) -> None:
    """Register the implementation and switch the model to it."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(TREE_ATTENTION, _tree_attention)
    AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)  # for masks that transformers makes itself
    model.set_attn_implementation(TREE_ATTENTION)


def _tree_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads nodes head_dim"],
    key: Float[Tensor, "batch kv_heads slots head_dim"],
    value: Float[Tensor, "batch kv_heads slots head_dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch nodes heads head_dim"], None]:
    """transformers' signature. Raises ValueError for a tree in a model that asks for what the kernel does not know."""
    if attention_mask is None or attention_mask.dtype != torch.long:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return plain
    asked = [name for name in _UNKNOWN if kwargs.get(name) is not None]
    if asked:
        raise ValueError(f"tree attention does not know {', '.join(asked)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    lengths, bits = attention_mask[:, 0, 0, 0], attention_mask[:, 0, :, 1:]
    return ops("triton").tree_attention(query, key, value, lengths, bits, scale), None
