"""Exported heads: they load back the same, and each engine's loader finds every one of its parameters in them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from eagle_heads import random_head
from helpers import tiny_model
from safetensors.torch import load_file
from test_eagle_weights import said
from torch import nn

from specdec_ref.drafters.eagle import default_layers
from specdec_ref.drafters.eagle_head import EagleHead, Variant, Version
from specdec_ref.training.export import export, save_target
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import LoadedHead, build_head


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(num_hidden_layers=8)


def loaded(model: nn.Module, version: Version = 3) -> LoadedHead:
    head = random_head(model, version, draft_vocab=40 if version == 3 else None)
    return LoadedHead(head, default_layers(version, 8))


@pytest.mark.parametrize(("kind", "version"), [("engine", 3), ("speculators", 3), ("eagle1", 1)])
def test_round_trip(model: nn.Module, kind: str, version: Version, tmp_path: Path) -> None:
    written = loaded(model, version)
    folders = export(written, model, tmp_path, kind)
    assert len(folders) == (2 if kind == "eagle1" else 1)
    for folder in folders:
        back = build_head(read_head(folder), model)
        assert back.layers == written.layers
        torch.testing.assert_close(said(back.head), said(written.head), rtol=0, atol=1e-4)  # float32 in `new_head`
        if version == 3:
            assert back.head.q_vocab is not None
            assert torch.equal(back.head.q_vocab, written.head.q_vocab)  # type: ignore[arg-type]


# What the engines' modules hold, transcribed from their constructors (SGLang 0.5.23, llama_eagle3.py, llama_eagle.py;
# vLLM, the same file names): parameter -> shape. h hidden, q and k rows of the query and key heads, i the MLP's width,
# d and v the draft's and target's vocabulary. Embeddings, which both share with the target, are left out.
LAYER = {
    "layers.0.self_attn.o_proj.weight": "h q", "layers.0.mlp.gate_up_proj.weight": "2i h",
    "layers.0.mlp.down_proj.weight": "h i", "layers.0.post_attention_layernorm.weight": "h",
}  # fmt: skip
EAGLE3 = {
    **LAYER, "layers.0.self_attn.qkv_proj.weight": "q+2k 2h", "layers.0.hidden_norm.weight": "h",
    "layers.0.input_layernorm.weight": "h", "fc.weight": "h 3h", "norm.weight": "h", "lm_head.weight": "d h",
}  # fmt: skip
PARAMETERS: dict[tuple[str, Version], dict[str, str]] = {
    ("sglang", 3): EAGLE3,
    ("vllm", 3): EAGLE3 | {"draft_id_to_target_id": "d"},
    ("sglang", 1): {**LAYER, "layers.0.self_attn.qkv_proj.weight": "q+2k h", "fc.weight": "h 2h", "fc.bias": "h"},
    ("vllm", 1): {**LAYER, "layers.0.self_attn.qkv_proj.weight": "q+2k h", "fc.weight": "h 2h"},
}
RENAMED = {  # in this order, on names; both loaders have these
    "sglang": (("midlayer", "layers.0"), ("aux_norm_low", "fc_norm.0")),
    "vllm": (("midlayer.", "layers.0."), ("d2t", "draft_id_to_target_id")),
}
STACKED = (("q_proj", "qkv_proj"), ("k_proj", "qkv_proj"), ("v_proj", "qkv_proj"), ("gate_proj", "gate_up_proj"),
           ("up_proj", "gate_up_proj"))  # fmt: skip
SKIPPED = {"sglang": ("d2t", "t2d"), "vllm": ("t2d",)}  # SGLang reads d2t aside: hot ids = d2t + arange


def shape(spelled: str, config: dict[str, Any]) -> tuple[int, ...]:
    head_dim = config["head_dim"]
    sizes = {
        "h": config["hidden_size"], "q": config["num_attention_heads"] * head_dim,
        "k": config["num_key_value_heads"] * head_dim, "i": config["intermediate_size"],
        "d": config["draft_vocab_size"],
    }  # fmt: skip

    def size(word: str) -> int:
        return sum(int(part[:-1] or 1) * sizes[part[-1]] for part in word.split("+"))

    return tuple(size(word) for word in spelled.split())


def as_loaded(folder: Path, engine: str) -> dict[str, list[tuple[int, ...]]]:
    """Engine parameter -> shapes of the tensors that its loader would put there, in order."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name in SKIPPED[engine]:
            continue
        for old, new in RENAMED[engine]:
            name = name.replace(old, new)
        for part, whole in STACKED:
            if f".{part}." in name:
                name = name.replace(part, whole)
                break
        found.setdefault(name, []).append(tuple(tensor.shape))
    return found


@pytest.mark.parametrize(("engine", "version"), PARAMETERS)
def test_every_parameter_of_the_engines_is_filled(
    model: nn.Module, engine: str, version: Version, tmp_path: Path
) -> None:
    export(loaded(model, version), model, tmp_path, "engine" if version == 3 else "eagle1")
    folder = tmp_path if version == 3 else tmp_path / engine
    config = json.loads((folder / "config.json").read_text())
    found = as_loaded(folder, engine)
    assert found.keys() == PARAMETERS[engine, version].keys()
    for name, shapes in found.items():
        wanted = shape(PARAMETERS[engine, version][name], config)
        assert (sum(s[0] for s in shapes), *shapes[0][1:]) == wanted, name


def test_the_config_that_both_engines_read(model: nn.Module, tmp_path: Path) -> None:
    export(loaded(model), model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLMEagle3"]  # SGLang's class; vLLM keeps names that end so
    assert config["tie_word_embeddings"] is False  # true would make SGLang use the embeddings as LM head
    assert config["draft_vocab_size"] == 40
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0
    assert not any("layer_ids" in key for key in config)  # which the engines count differently
    assert "eagle_config" not in config


def test_what_does_not_fit_is_refused(model: nn.Module, tmp_path: Path) -> None:
    good = loaded(model)
    odd = EagleHead(good.head.config, 3, q_vocab=good.head.q_vocab, variant=Variant(norm_before_residual=True))
    biased = loaded(model, 1)
    with_fc_bias = EagleHead(good.head.config, 3, q_vocab=good.head.q_vocab, variant=Variant(bias=True))
    config = copy.deepcopy(good.head.config)
    config.attention_bias = True
    attention = EagleHead(config, 3, q_vocab=good.head.q_vocab)
    for case, kind, complaint in (
        (LoadedHead(attention, good.layers), "speculators", "q, k and v have biases"),
        (LoadedHead(with_fc_bias, good.layers), "speculators", "fc.bias cannot be exported"),
        (good, "onnx", "unknown format"), (good, "eagle1", "not for EAGLE-3"), (biased, "engine", "not for EAGLE-1"),
        (LoadedHead(good.head, (1, 3, 4)), "engine", "cannot be exported for both"),
        (LoadedHead(odd, good.layers), "engine", "norm_before_residual"),
        (LoadedHead(random_head(model, 1), (8,)), "eagle1", "reduced"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=complaint):
            export(case, model, tmp_path / "x", kind)
    assert not (tmp_path / "x").exists()


def test_the_target_goes_with_it(model: nn.Module, tmp_path: Path) -> None:
    class Tokenizer:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("{}")

    save_target(model, Tokenizer(), tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in tmp_path.iterdir()}
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
