"""The smallest chat model: every byte a token, a template whose turns end with the EOS token, and random weights."""

from pathlib import Path
from typing import Any

import torch

from specdec_ref.models.toy import tiny_llama

TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nBe brief<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> Any:
    """Every byte a token, and two special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", chat_template=TEMPLATE)


def byte_llama(tokenizer: Any, layers: int = 2) -> Any:
    """A random Llama in float32 whose turns end now and then: the end token's logit is raised."""
    llama: Any = tiny_llama(3, vocab=len(tokenizer), layers=layers, dtype=torch.float32)
    with torch.no_grad():
        llama.lm_head.weight[tokenizer.eos_token_id] *= 2.0
    return llama


def save_byte_model(folder: Path) -> Path:
    """Both in a folder, six layers deep so that an EAGLE head has three to read."""
    tokenizer = byte_tokenizer()
    byte_llama(tokenizer, layers=6).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
