"""Writes a head as the engines read it, together with the target it belongs to.

    engine        SGLang (--speculative-algorithm EAGLE3) and vLLM (method eagle3): one folder serves both
    speculators   the format of the package of that name, which vLLM serves as it is
    eagle1        EAGLE-1, two folders: SGLang's class always has an fc.bias, vLLM's never

Engines skip tensors that they do not know, so a wrong name would be silent: `tests/reference/test_engine_loaders.py`
runs their own loaders on what is written here. The target is saved beside the head because the embedded one exists
nowhere else: it was de-quantised here, and a head fits only the weights whose hidden states it was trained on. Not
tried on a GPU yet.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from specdec_ref.drafters.eagle import default_layers
from specdec_ref.drafters.eagle_head import EagleHead, Variant
from specdec_ref.weights.heads import LoadedHead

__all__ = ["FORMATS", "engine_tensors", "export"]

FORMATS = ("engine", "speculators", "eagle1")
LAYER_IDS = "eagle_aux_hidden_state_layer_ids"


def export(
    loaded: LoadedHead, target: nn.Module, folder: Path, kind: str = "engine", *, target_path: str | None = None
) -> list[Path]:
    """Write the head in that format; returns the folders. `target_path`: the folder of its target.

    Raises ValueError for an unknown format or a head that it cannot hold, before anything is written.
    """
    head, model = loaded.head, target
    if kind not in FORMATS:
        raise ValueError(f"unknown format {kind!r}; choose from {', '.join(FORMATS)}")
    if head.version != (1 if kind == "eagle1" else 3):
        raise ValueError(f"format {kind!r} is not for EAGLE-{head.version} heads")
    if head.config.attention_bias:
        raise ValueError(
            "a head whose q, k and v have biases cannot be exported: vLLM's and speculators' classes give o_proj one, "
            "too, and SGLang's EAGLE-3 class has none at all"
        )
    if kind == "eagle1":
        return _eagle1(head, folder)
    if kind == "engine":
        _refuse_what_engines_read_differently(loaded, model)
        settings = _layer_settings(head) | {"architectures": ["LlamaForCausalLMEagle3"]}
        return [_write(folder, engine_tensors(head), settings)]
    if head.variant.bias:
        raise ValueError("an EAGLE-3 head with fc.bias cannot be exported: vLLM and speculators have no such parameter")
    tensors = {name.replace("midlayer.", "layers.0."): tensor for name, tensor in engine_tensors(head).items()}
    tensors["embed_tokens.weight"] = head.embed_tokens.weight  # speculators' loader would leave it uninitialised
    verifier = None if target_path is None else str(Path(target_path).expanduser().absolute())
    return [_write(folder, tensors, _speculators_settings(loaded, model, verifier))]


def engine_tensors(head: EagleHead) -> dict[str, Tensor]:
    """An EAGLE-3 head's tensors under their published names; embeddings are left to the target.

    A head that drafts from the whole vocabulary has no d2t and t2d: vLLM refuses them there.
    """
    tensors = {name: t for name, t in head.state_dict().items() if name != "embed_tokens.weight"}
    vocab, device, q_vocab = head.config.vocab_size, head.lm_head.weight.device, head.q_vocab
    if q_vocab is None:
        return tensors
    if len(q_vocab) == vocab:  # the whole vocabulary in another order
        return tensors | {"lm_head.weight": head.lm_head.weight[q_vocab.argsort()]}
    tensors["d2t"] = q_vocab - torch.arange(len(q_vocab), device=device)  # offsets, not an index map
    tensors["t2d"] = torch.zeros(vocab, dtype=torch.bool, device=device).scatter_(0, q_vocab, True)
    return tensors


def save_target(target: Any, tokenizer: Any, folder: Path) -> None:
    """The target, de-quantised as it is in memory, and its tokenizer: an ordinary transformers folder."""
    target.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _refuse_what_engines_read_differently(loaded: LoadedHead, target: Any) -> None:
    layers, variant = loaded.layers, loaded.head.variant
    if layers != default_layers(3, target.config.num_hidden_layers):
        raise ValueError(
            f"layers {list(layers)} cannot be exported for both engines: SGLang adds one to the ids of a config, vLLM "
            "does not. Only the default layers need no ids; use format 'speculators' for vLLM alone"
        )
    if variant != Variant():
        raise ValueError(f"{variant}: SGLang and vLLM know different variants, so no one folder serves both")


def _layer_settings(head: EagleHead) -> dict[str, Any]:
    """config.json of the head's one layer, with RoPE spelled for transformers 4 and 5."""
    config, variant = head.config, head.variant
    copied = (
        "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
        "rms_norm_eps", "max_position_embeddings", "hidden_act", "attention_bias", "draft_vocab_size",
    )  # fmt: skip
    rope = dict(config.rope_parameters)
    scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
    return {
        **{name: getattr(config, name) for name in copied}, "model_type": "llama", "num_hidden_layers": 1,
        "tie_word_embeddings": False, "rope_theta": rope["rope_theta"], "rope_parameters": rope,
        "rope_scaling": None if scaling.get("rope_type", "default") == "default" else scaling,
        "torch_dtype": str(head.lm_head.weight.dtype).removeprefix("torch."), "bias": variant.bias,
        "norm_before_residual": variant.norm_before_residual, "norm_before_fc": variant.norm_before_fc,
        "fc_norm": variant.fc_norm, "norm_output": variant.norm_output, "pad_token_id": 0,
    }  # fmt: skip


def _speculators_settings(loaded: LoadedHead, target: Any, target_path: str | None) -> dict[str, Any]:
    own = ("norm_before_residual", "norm_before_fc", "fc_norm", "norm_output", "draft_vocab_size", "torch_dtype")
    flat = _layer_settings(loaded.head)
    proposal = {"proposal_type": "greedy", "speculative_tokens": 4, "verifier_accept_k": 1, "accept_tolerance": 0.0}
    return {
        "architectures": ["Eagle3DraftModel"], "model_type": "speculator_model", "speculators_model_type": "eagle3",
        **{name: flat[name] for name in own}, "target_hidden_size": None, LAYER_IDS: list(loaded.layers),
        "transformer_layer_config": {name: value for name, value in flat.items() if name not in own},
        "speculators_config": {
            "algorithm": "eagle3", "default_proposal_method": "greedy", "proposal_methods": [proposal],
            "verifier": {"name_or_path": target_path, "architectures": list(target.config.architectures or ())},
        },
        "tie_word_embeddings": False,
    }  # fmt: skip


def _eagle1(head: EagleHead, folder: Path) -> list[Path]:
    if head.q_vocab is not None:
        raise ValueError("EAGLE-1 in the engines drafts from the whole vocabulary: this head has a reduced one")
    tensors = {
        name: t for name, t in head.state_dict().items() if name not in ("lm_head.weight", "embed_tokens.weight")
    }
    bias = tensors.pop("fc.bias", None)
    if bias is not None and bool(bias.any()):
        raise ValueError("vLLM's EAGLE-1 class has no fc.bias: this head does not fit both engines")
    settings = _layer_settings(head) | {"bias": False}  # true would give the attention biases, which no file has
    padded = {**tensors, "fc.bias": head.fc.weight.new_zeros(head.config.hidden_size)}
    return [
        _write(folder / "vllm", tensors, settings | {"architectures": ["LlamaForCausalLM"]}),
        _write(folder / "sglang", padded, settings | {"architectures": ["LlamaForCausalLMEagle"]}),
    ]


def _write(folder: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: t.contiguous().cpu() for k, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder
