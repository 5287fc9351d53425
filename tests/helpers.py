"""Tiny models and drafters shared by the tests."""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 61
_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
_NO_SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
ARCHITECTURES: dict[str, dict[str, object]] = {
    "llama": {**_SIZES, "intermediate_size": 64},
    "qwen2": {**_SIZES, "intermediate_size": 64},
    "qwen3": {**_SIZES, "intermediate_size": 64, "head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4},
    "gpt_neox": {**_SIZES, "intermediate_size": 64},
    "olmo2": {**_SIZES, "intermediate_size": 64},
    "phi3": {**_SIZES, "intermediate_size": 64, "sliding_window": None},
    "granite": {**_SIZES, "intermediate_size": 64},
}


def tiny_model(
    architecture: str = "llama",
    *,
    attention: str = "sdpa",
    seed: int = 0,
    spread: float = 0.3,
    positions: int = 256,
    dtype: torch.dtype = torch.float64,
    **changes: object,
) -> nn.Module:
    """A random model of that architecture. `spread`: deviation of its weights, chosen so that text repeats at times."""
    known = ARCHITECTURES.get(architecture, {})
    settings = {"vocab_size": VOCAB, "max_position_embeddings": positions, **_NO_SPECIAL, **known}
    config = AutoConfig.for_model(architecture, initializer_range=spread, **(settings | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    return model.eval().requires_grad_(False)


def perturbed(model: nn.Module, noise: float, seed: int = 0) -> nn.Module:
    """Another model, near enough to agree at times: every weight off by `noise` of its tensor's deviation."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for weight in other.parameters():
        if weight.numel() > 1:
            weight += noise * weight.std() * torch.randn(weight.shape, dtype=weight.dtype, generator=generator)
    return other


def transformers_greedy(model: nn.Module, prompt: Sequence[int], new: int, eos: Sequence[int] = ()) -> list[int]:
    """New tokens of transformers' own greedy decoding."""
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=list(eos) or None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()
