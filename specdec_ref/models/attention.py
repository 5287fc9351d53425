"""Tree attention as one of transformers' attention implementations, and the mask it reads.

    mask[b, 0, i] = [ length of row b | ancestor bits of node i, 64 a word ]    int64, batch x 1 x nodes x (1 + words)

transformers hands a 4-D mask through untouched, so for the kernels a tree's mask travels as bits: 16 bytes for a node
of a tree of up to 64 nodes, whatever the length of the text. A model takes it up by its public switch,
`set_attn_implementation`.

A boolean mask is PyTorch's own attention. With grouped queries transformers copies every key and value once for each
query head that shares them, unless there is one query a row; here the few nodes of a tree are handled as it handles
one: the heads of a group become rows of one block. SmolLM2-135M in bfloat16, one core, a forward of 4 nodes: 2 % less
time after 150 tokens, 7 % after 600, 13 % after 1,200. Asked with anything else the model attends as before ("sdpa"):
`generate`, training and prefill notice nothing.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from specdec_ref.kernels import ops

__all__ = ["TREE_ATTENTION", "packed_mask", "use_tree_attention"]

TREE_ATTENTION = "specdec_tree"
_FEW = 32  # nodes up to which copying keys and values costs more than a mask that is repeated for each head of a group
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
    value: Float[Tensor, "batch kv_heads slots value_dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch nodes heads value_dim"], None]:
    """transformers' signature. Raises ValueError for a tree in a model that asks for what the kernel does not know."""
    asked = [name for name in _UNKNOWN if kwargs.get(name) is not None]
    if attention_mask is None or attention_mask.dtype != torch.long:
        of_a_tree = attention_mask is not None and attention_mask.shape[1] == 1 and 1 < query.shape[2] <= _FEW
        if attention_mask is not None and of_a_tree and not asked and not module.training:
            return _grouped(query, key, value, attention_mask, scaling), None
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return plain
    if asked:
        raise ValueError(f"tree attention does not know {', '.join(asked)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    lengths, bits = attention_mask[:, 0, 0, 0], attention_mask[:, 0, :, 1:]
    narrower = query.shape[-1] - value.shape[-1]  # multi-head latent attention: values of fewer dimensions than keys
    value = torch.nn.functional.pad(value, (0, narrower)) if narrower else value
    out = ops("triton").tree_attention(query, key, value, lengths, bits, scale)
    return out[..., : out.shape[-1] - narrower], None


def _grouped(
    query: Float[Tensor, "batch heads nodes head_dim"],
    key: Float[Tensor, "batch kv_heads slots head_dim"],
    value: Float[Tensor, "batch kv_heads slots value_dim"],
    mask: Tensor,
    scale: float | None,
) -> Float[Tensor, "batch nodes heads value_dim"]:
    """Every query head of a group as more rows of its one key head; `mask`: batch x 1 x nodes x slots."""
    group = query.shape[1] // key.shape[1]
    rows = query.reshape(query.shape[0], key.shape[1], group * query.shape[2], query.shape[3])
    out = scaled_dot_product_attention(rows, key, value, attn_mask=mask.repeat(1, 1, group, 1), scale=scale)
    return out.reshape(*query.shape[:3], value.shape[3]).transpose(1, 2).contiguous()
