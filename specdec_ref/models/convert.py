r"""Turn the embedded target's GGUF file into an ordinary Hugging Face folder, once.

    GGUF (Q4_1) ─de-quantise─► float32 ─round once─► bfloat16 safetensors + config + tokenizer + chat template

The weights are saved in bfloat16, so a float32 run and a bfloat16 run use the *same* numbers: what differs between
them is the arithmetic alone. `gguf`, the format's own package, parses and de-quantises; this file renames.
transformers has a GGUF reader as well. Its weights are bit for bit the same, but it parses the file three times
(28 s of CPU time against 9 s) and its tokenizer is wrong: up to 5.23 it does not know the splitting rule that the file
names (below), so "\n\n1" or an indented number become tokens the model never met in training, and 5.17 takes
`<|im_start|>` for the end of a turn.
"""

import io
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    from gguf import ReaderTensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["convert_gguf", "quiet"]

_PARTS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(gguf: Path, out: Path) -> None:
    """Write the Llama in `gguf` to the new folder `out`: safetensors, config, generation_config, tokenizer, template.

    Raises ImportError if the package `gguf` is missing, ValueError if the file is no Llama with a byte-level tokenizer
    split as SmolLM's, OSError if `out` cannot be written.
    """
    from gguf import GGUFReader
    from safetensors import SafetensorError

    reader = GGUFReader(gguf)
    entries = {name: field.contents() for name, field in reader.fields.items()}
    kind = tuple(entries.get(name) for name in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"))
    if kind != ("llama", "gpt2", "smollm"):
        raise ValueError(f"{gguf.name} holds {kind}, expected a llama with the gpt2 tokenizer split as smollm")
    out.mkdir(parents=True)
    every = 0.5 if sys.stderr.isatty() else 10.0
    bar = tqdm(reader.tensors, desc="converting", unit="tensor", file=sys.stderr, mininterval=every)
    try:
        with bar, quiet():
            _model(bar, entries).save_pretrained(out)
            _tokenizer(entries).save_pretrained(out)
    except SafetensorError as error:
        raise OSError(f"cannot write the weights to {out}: {error}") from error
    for file in out.iterdir():
        file.chmod(0o644)  # safetensors are written for their owner alone; a class may share one cache


def _model(tensors: "Iterable[ReaderTensor]", entries: dict[str, Any]) -> "PreTrainedModel":
    """The de-quantised model in bfloat16."""
    from gguf import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = {"attn_q": entries["llama.attention.head_count"], "attn_k": entries["llama.attention.head_count_kv"]}
    weights: dict[str, Tensor] = {}
    for tensor in tensors:
        *block, part, _ = tensor.name.split(".")  # blk.<layer>.<part>.weight or <part>.weight
        weight = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        if part in heads:
            weight = _halves_from_pairs(weight, heads[part])
        layer = f"model.layers.{block[1]}." if block else ""
        weights[f"{layer}{_PARTS[part]}.weight"] = weight.to(torch.bfloat16)
    config = LlamaConfig(
        vocab_size=len(entries["tokenizer.ggml.tokens"]),
        hidden_size=entries["llama.embedding_length"],
        intermediate_size=entries["llama.feed_forward_length"],
        num_hidden_layers=entries["llama.block_count"],
        num_attention_heads=heads["attn_q"],
        num_key_value_heads=heads["attn_k"],
        max_position_embeddings=entries["llama.context_length"],
        rms_norm_eps=entries["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": entries["llama.rope.freq_base"]},
        tie_word_embeddings="lm_head.weight" not in weights,
        bos_token_id=entries["tokenizer.ggml.bos_token_id"],
        eos_token_id=entries["tokenizer.ggml.eos_token_id"],
        pad_token_id=entries["tokenizer.ggml.padding_token_id"],
    )
    return LlamaForCausalLM.from_pretrained(None, config=config, state_dict=weights, dtype=torch.bfloat16)


def _halves_from_pairs(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a query or key matrix from GGUF's rotary embedding to Hugging Face's.

    GGUF rotates neighbours (0, 1), (2, 3), ... of a head; Hugging Face row i of the first half with i of the second.
    """
    return weight.reshape(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _tokenizer(entries: dict[str, Any]) -> "PreTrainedTokenizerBase":
    """Byte-level BPE; text is split as the merges were learned: digit by digit first, then by GPT-2's rule."""
    from gguf import TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, kinds = entries["tokenizer.ggml.tokens"], entries["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in entries["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    backend.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokens[entries["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[entries["tokenizer.ggml.eos_token_id"]],
        pad_token=tokens[entries["tokenizer.ggml.padding_token_id"]],
        unk_token=tokens[entries["tokenizer.ggml.unknown_token_id"]],
        chat_template=entries["tokenizer.chat_template"],
        model_max_length=entries["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings and progress bars inside the block; every switch is put back after it."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    verbosity, bars, hub_bars = logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # switches the hub's bars off as well
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # some bars ask no switch
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            disable_progress_bars()
