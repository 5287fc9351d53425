"""Tiny random models of many architectures, and what the load check says of each: `docs/MODELS.md`.

`python tests/many_models.py > docs/MODELS.md` writes the page. Sizes are tiny; what decides (kinds of layers, windows,
RoPE, experts, latent attention) is set as in published checkpoints of that architecture.
"""

import sys
import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
from drafting import oracle_trees
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, logging
from transformers import __version__ as installed

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

__all__ = ["MODELS", "Verdict", "build", "judge", "own_text", "page", "text_is_its_own"]

VOCAB = 61
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
PROMPTS, NEW = ([3, 4, 5, 6, 3, 4, 5, 6, 3, 4], [7, 9, 2]), 10

# One name of a size for each spelling of it; a configuration takes those that it has.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("attention_heads", "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "n_inner", "dff"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "num_key_value_heads", "state_size"), 2),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace", "moe_layer_start_index"), 1),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), None),
    "vocab_size": VOCAB, "initializer_range": 0.3, "is_decoder": True, "sliding_window": None, "init_std": 0.3,
}  # fmt: skip
LATENT = {"num_key_value_heads": 4}  # multi-head latent attention has one key head for each query head
WINDOW = {"sliding_window": 16}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32, "short_factor": [1.0] * 4,
        "long_factor": [3.0] * 4}  # fmt: skip
ROBERTA = {"pad_token_id": 1}

# row -> (model type, what differs from SIZES)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {})
    for name in (
        "apertus arcee aria_text biogpt bitnet bloom codegen cohere cohere2 ctrl diffllama dots1 electra ernie4_5 "
        "ernie4_5_moe flex_olmo gemma gemma2 gemma3_text glm glm4 glm4_moe gpt2 gpt_bigcode gpt_neox "
        "gpt_neox_japanese gpt_oss gptj granite granitemoe granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe "
        "jetmoe llama llama4_text mamba mixtral mpt nemotron olmo olmo2 olmo3 olmoe openai-gpt opt persimmon phi phimoe "
        "qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next roformer rwkv seed_oss smollm3 stablelm starcoder2 whisper xglm xlnet"
    ).split()
} | {
    "bert, as decoder": ("bert", {}),
    "bert, as encoder": ("bert", {"is_decoder": False}),
    "big_bird": ("big_bird", {}),
    "deepseek_v2": ("deepseek_v2", LATENT),
    "deepseek_v3": ("deepseek_v3", LATENT),
    "falcon": ("falcon", {"alibi": False}),
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "gpt_neo, all layers global": ("gpt_neo", {"attention_types": [[["global"], 2]]}),
    "gpt_neo, local layers": ("gpt_neo", {"attention_types": [[["global", "local"], 1]]}),
    "llama, dynamic RoPE": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}),
    "llama, LongRoPE": ("llama", {"rope_parameters": LONG}),
    "llama, YaRN": ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "minicpm3": ("minicpm3", LATENT),
    "mistral": ("mistral", {}),
    "mistral, window": ("mistral", WINDOW),
    "mistral, window as long as its positions": ("mistral", {"sliding_window": 128}),
    "phi3": ("phi3", {}),
    "phi3, LongRoPE": (
        "phi3",
        {"rope_parameters": LONG | {"partial_rotary_factor": 1.0}, "original_max_position_embeddings": 32},
    ),
    "phi3, window": ("phi3", WINDOW),
    "qwen2, window": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    "roberta, as decoder": ("roberta", ROBERTA),
    "xlm-roberta, as decoder": ("xlm-roberta", ROBERTA),
    "youtu": ("youtu", LATENT),
}


class Verdict(NamedTuple):
    """`word`: "works", "works in float32" or "refused"; `why`: the check's own reason, or the limit of positions."""

    word: str
    why: str
    model: nn.Module


def build(name: str) -> nn.Module:
    """A random model in float32."""
    kind, changes = MODELS[name]
    fields = type(AutoConfig.for_model(kind))().to_dict()
    known = set(fields) | set(getattr(type(AutoConfig.for_model(kind)), "attribute_map", {}))
    config = AutoConfig.for_model(kind, **({key: value for key, value in SIZES.items() if key in known} | changes))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)


@cache
def judge(name: str) -> Verdict:
    """What the load check says in each number format."""
    model, reasons, notes = build(name), dict[str, str](), set[str]()
    for label, dtype in DTYPES.items():
        try:
            limit = Target(model.to(dtype)).position_limit
            notes |= {f"up to {limit} positions, where its RoPE begins to follow the longest row"} if limit else set()
        except ValueError as error:
            reasons[label] = str(error).partition("draft model: ")[2].partition("; use a full-attention")[0]
    model.to(torch.float32)
    if "float32" in reasons:
        return Verdict("refused", reasons["float32"], model)
    if reasons:
        return Verdict("works in float32", "; ".join(f"{label}: {why}" for label, why in reasons.items()), model)
    return Verdict("works", "; ".join(notes), model)


def own_text(model: nn.Module, prompt: list[int]) -> list[int]:
    """New tokens of greedy decoding by the model's own forward: no cache, mask or positions given."""
    text = list(prompt)
    with torch.inference_mode():
        for _ in range(NEW):
            text.append(int(model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1].argmax()))
    return text[len(prompt) :]


def text_is_its_own(model: nn.Module) -> bool:
    """Plain decoding and trees that are accepted on all kinds of paths, in a batch with padding, as `own_text`."""
    target, limits = Target(model, check=False), Limits(NEW)
    wanted = [own_text(model, prompt) for prompt in PROMPTS]
    answers = [prompt + text for prompt, text in zip(PROMPTS, wanted, strict=True)]
    drafter = oracle_trees(answers, VOCAB, [[-1, 0, 0, 1, 2, 2], [-1, 0, 1, 1, 2]])
    speculative = SpecEngine(target, drafter, budget=DraftBudget(4, 2, 9), limits=limits).generate(PROMPTS)
    plain = plain_generate(target, PROMPTS, limits=limits)
    return wanted == [run.tokens for run in speculative] == [run.tokens for run in plain]


INTRODUCTION = """# Models that can be targets or draft models

When a model is loaded, small forwards check what a row's logits depend on ([`probe.py`](../specdec_ref/models/probe.py)). The
logits must not depend on an unrelated sibling in the tree, on how the prompt is split, on a longer neighbour in the batch or on
a position further on, and they must match those of the model's own forward. A model that fails is refused with the reason. The
table shows the verdicts for {count} tiny random models under transformers {transformers} on a CPU, in float64, float32 and
bfloat16: {works} work, {some} work in float32, and {refused} are refused. The sizes are tiny, but the settings that decide the
verdict are those of published checkpoints. For each model that works, a test also compares greedy outputs, plain and with
trees, with those of the model's own forward.

`python tests/many_models.py > docs/MODELS.md` writes this page, and a test checks that it is current.

| architecture | verdict | reason or limit |
|---|---|---|
"""


def page() -> str:
    """All verdicts as Markdown."""
    verdicts = {name: judge(name) for name in sorted(MODELS)}
    words = [verdict.word for verdict in verdicts.values()]
    head = INTRODUCTION.format(
        count=len(words),
        transformers=installed,
        works=words.count("works"),
        some=words.count("works in float32"),
        refused=words.count("refused"),
    )
    return head + "".join(f"| {name} | {v.word} | {' '.join(v.why.split())} |\n" for name, v in verdicts.items())


if __name__ == "__main__":
    logging.set_verbosity_error()
    sys.stdout.write(page())
