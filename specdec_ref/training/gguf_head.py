"""Write an EAGLE-3 head as GGUF for llama.cpp, which loads it beside its target (`--spec-type draft-eagle3`).

llama.cpp loads most wrong heads without a word and then drafts badly, and it aborts the process on two mistakes. So
everything is checked here, and the finished file is read back strictly (`gguf_read.py`). Three conventions differ:

    d2t             holds absolute target ids (int64); published checkpoints hold offsets
    target_layers   indices into `hidden_states`, unchanged: llama.cpp reads the *input* of the layer with that number
    attn_q, attn_k  rows in GGUF's rotary order, neighbours instead of halves

Names and sizes as build 11549 reads them (the wheel xllamacpp 2026.10.11549). Later sources call `target_layers`
`extract_layers`; both are written, since unread keys do no harm.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from specdec_ref.drafters.eagle_head import EagleHead
from specdec_ref.training.gguf_target import as_stored, new_writer, pairs_from_halves, save
from specdec_ref.weights.heads import LoadedHead

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from specdec_ref.training.gguf_file import GGUFFile

__all__ = ["ARCHITECTURE", "TENSORS", "check_head", "write_head"]

ARCHITECTURE = "eagle3"
TENSORS = {
    "fc.weight": "fc.weight",
    "midlayer.input_layernorm.weight": "blk.0.attn_norm.weight",
    "midlayer.hidden_norm.weight": "blk.0.attn_norm_2.weight",
    "midlayer.self_attn.q_proj.weight": "blk.0.attn_q.weight",
    "midlayer.self_attn.k_proj.weight": "blk.0.attn_k.weight",
    "midlayer.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    "midlayer.self_attn.o_proj.weight": "blk.0.attn_output.weight",
    "midlayer.post_attention_layernorm.weight": "blk.0.ffn_norm.weight",
    "midlayer.mlp.gate_proj.weight": "blk.0.ffn_gate.weight",
    "midlayer.mlp.up_proj.weight": "blk.0.ffn_up.weight",
    "midlayer.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # an EAGLE-3 head's parameters -> llama.cpp's names; embeddings are the target's


def write_head(loaded: LoadedHead, target: "GGUFFile", out: Path) -> Path:
    """Write `out`, the head for the target in this file, whose tokenizer is copied. Matrices in float16.

    Raises ValueError, before anything is written, for a head that llama.cpp would refuse, abort on or misread.
    """
    check_head(loaded, target)
    head, config = loaded.head, loaded.head.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    writer = new_writer(out, ARCHITECTURE, config)
    writer.add_float32(f"{ARCHITECTURE}.rope.freq_base", config.rope_parameters["rope_theta"])
    for name in ("target_layers", "extract_layers"):
        writer.add_array(f"{ARCHITECTURE}.{name}", list(loaded.layers))
    writer.add_uint32(f"{ARCHITECTURE}.target_hidden_size", head.fc.in_features // 3)
    writer.add_bool(f"{ARCHITECTURE}.norm_before_residual", head.variant.norm_before_residual)
    _copy_tokenizer(target, writer)
    for name, tensor in head.state_dict().items():
        if name in TENSORS:
            part = name.split(".")[-2]
            rows = pairs_from_halves(tensor, heads[part]) if part in heads else tensor
            writer.add_tensor(TENSORS[name], as_stored(rows, "f16")[0])
    writer.add_tensor("d2t", _draft_ids(head).cpu().numpy())
    save(writer)
    return out


def check_head(loaded: LoadedHead, target: "GGUFFile") -> None:
    """Raises ValueError that names what llama.cpp would refuse, abort on or misread in this head."""
    _refuse_variant(loaded.head)
    _refuse_tensors(loaded.head)
    _refuse_target(loaded, target)


def _draft_ids(head: EagleHead) -> torch.Tensor:
    """Absolute target ids of the draft vocabulary, int64."""
    return (torch.arange(head.config.vocab_size) if head.q_vocab is None else head.q_vocab).long()


def _refuse_variant(head: EagleHead) -> None:
    config, variant = head.config, head.variant
    rope = config.rope_parameters.get("rope_type", "default")
    other = [name for name in ("norm_before_fc", "fc_norm", "norm_output") if getattr(variant, name)]
    checks = (
        (head.version != 3, f"this is an EAGLE-{head.version} head, llama.cpp drafts with EAGLE-3 heads only"),
        (variant.bias, "fc has a bias, llama.cpp's EAGLE-3 has no tensor for it"),
        (bool(other), f"the variant {', '.join(other)} is not one that llama.cpp's EAGLE-3 was seen to compute"),
        (config.num_hidden_layers != 1, f"the head has {config.num_hidden_layers} layers, llama.cpp's EAGLE-3 has one"),
        (rope != "default", f"the head scales its rotary embedding ({rope!r}), this exporter writes none"),
        (config.hidden_act != "silu", f"activation {config.hidden_act!r}, llama.cpp's EAGLE-3 has silu"),
    )
    _raise_first(checks)


def _refuse_tensors(head: EagleHead) -> None:
    """A head has exactly the tensors that llama.cpp counts: one more and the file is refused, one less as well."""
    found = set(head.state_dict()) - {"embed_tokens.weight"}
    extra, missing = sorted(found - set(TENSORS)), sorted(set(TENSORS) - found)
    _raise_first(
        (
            (bool(extra), f"llama.cpp's EAGLE-3 has no place for {', '.join(extra)}"),
            (bool(missing), f"llama.cpp's EAGLE-3 needs {', '.join(missing)}, which the head lacks"),
        )
    )


def _refuse_target(loaded: LoadedHead, target: "GGUFFile") -> None:
    """The head's numbers against those of the target's file."""
    kind, head, source = target.told("general.architecture"), loaded.head, target.path
    layers, width = target.told(f"{kind}.block_count"), target.told(f"{kind}.embedding_length")
    tokens = target.told("tokenizer.ggml.tokens")
    if layers is None or width is None or tokens is None:
        raise ValueError(f"{source} declares no layers, width or tokenizer: it is no target model in GGUF")
    ids = _draft_ids(head)
    checks = (
        (len(loaded.layers) != 3, f"the head reads {len(loaded.layers)} layers, llama.cpp's EAGLE-3 reads three"),
        (any(not 0 <= layer <= layers for layer in loaded.layers),
         f"layers {list(loaded.layers)} are outside 0 to {layers} of {source}: llama.cpp aborts on them"),
        (sorted(set(loaded.layers)) != list(loaded.layers), f"layers {list(loaded.layers)} are not in rising order"),
        (head.fc.in_features != 3 * width,
         f"fc reads {head.fc.in_features} numbers, {source} offers 3 times {width}: another target"),
        (head.config.vocab_size != len(tokens),
         f"the head's vocabulary has {head.config.vocab_size} tokens, that of {source} {len(tokens)}"),
        (head.config.hidden_size != width, f"the head is {head.config.hidden_size} wide, the embeddings {width}"),
        (len(ids) != head.lm_head.out_features or len(ids.unique()) != len(ids)
         or not 0 <= int(ids.min()) <= int(ids.max()) < len(tokens),
         f"d2t does not name {head.lm_head.out_features} different tokens below {len(tokens)}"),
    )  # fmt: skip
    _raise_first(checks)


def _raise_first(checks: tuple[tuple[bool, str], ...]) -> None:
    for wrong, why in checks:
        if wrong:
            raise ValueError(f"this head cannot be exported as GGUF: {why}")


def _copy_tokenizer(target: "GGUFFile", writer: "GGUFWriter") -> None:
    """Every `tokenizer.*` field of the target, with its type."""
    for name, field in target.fields.items():
        if name.startswith("tokenizer."):
            writer.add_key_value(name, field.value, field.kind, field.inner)
