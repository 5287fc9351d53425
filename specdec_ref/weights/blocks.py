"""From a checkpoint of `specdec train eagle --kind dspark` or `dflash` to a block head for this target, strictly.

Rank, block size and number of layers follow from the shapes. Embeddings and LM head are sliced from the target.
"""

from typing import Any

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from specdec_ref.drafters.block_head import BlockHead, block_config
from specdec_ref.models.packing import can_pack, pack_linears
from specdec_ref.weights.files import HeadFiles
from specdec_ref.weights.heads import check_kind, check_shapes, check_target, q_vocab_of

__all__ = ["build_block"]


def build_block(
    files: HeadFiles, target: nn.Module, dtype: torch.dtype | None = None, *, fast: bool = True
) -> BlockHead:
    """The block head in these files; `dtype`: the target's, if None. `fast`: pack its weights on a CPU, where possible.

    Raises ValueError if the files hold another kind of head, or a tensor is missing, unexpected or of a wrong shape.
    """
    model: Any = target
    check_kind(files, "block")
    check_target(files, model)
    tensors, rows = dict(files.tensors), model.get_output_embeddings().weight
    q_vocab = q_vocab_of(tensors.pop("d2t")) if "d2t" in tensors else None
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    rank = tensors["after.weight"].shape[1] if "after.weight" in tensors else 0
    block = len(tensors.get("masks", ())) + 1
    with torch.device("meta"):  # no memory yet: every parameter is replaced by a tensor from the file
        head = BlockHead(block_config(model.config, len(layers)), block, rank, _like(q_vocab))
    tensors["embed_tokens.weight"] = model.get_input_embeddings().weight
    tensors["lm_head.weight"] = rows if q_vocab is None else rows[q_vocab]
    check_shapes(f"{files.source}", tensors, {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()})
    head.load_state_dict({name: tensor.to(dtype or model.dtype) for name, tensor in tensors.items()}, assign=True)
    head.rotary = LlamaRotaryEmbedding(head.config)  # its frequencies are computed, not stored
    head.set_vocabulary(q_vocab)
    head.requires_grad_(False).eval().to(rows.device)
    if fast and can_pack(head):
        pack_linears(head)
    return head


def _like(q_vocab: torch.Tensor | None) -> torch.Tensor | None:
    return None if q_vocab is None else q_vocab.to("meta")
