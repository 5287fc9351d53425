"""Published layouts of EAGLE heads: each loads to the same head, and whatever does not fit is refused by name."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from eagle_heads import random_head
from helpers import tiny_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from specdec_ref.drafters.eagle_head import EagleHead, Variant
from specdec_ref.weights.files import HeadFiles, read_head
from specdec_ref.weights.heads import LoadedHead, build_head

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(num_hidden_layers=6)


def tensors_of(head: EagleHead) -> Tensors:
    """Everything, under the EAGLE repository's names."""
    tensors = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    if head.q_vocab is not None:
        tensors["d2t"] = head.q_vocab - torch.arange(len(head.q_vocab))
        tensors["t2d"] = torch.zeros(head.config.vocab_size, dtype=torch.bool).scatter(0, head.q_vocab, True)
    return tensors


def settings_of(head: EagleHead) -> dict[str, Any]:
    """A config.json as the EAGLE repository writes it."""
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size",
             "rms_norm_eps", "max_position_embeddings")  # fmt: skip
    copied = {name: getattr(head.config, name) for name in names}
    theta = head.config.rope_parameters["rope_theta"]
    return {**copied, "rope_theta": theta, "num_hidden_layers": 1, "model_type": "llama", "bias": head.variant.bias,
            "architectures": ["LlamaForCausalLM"], "draft_vocab_size": head.config.draft_vocab_size}  # fmt: skip


def eagle_repository(head: EagleHead, folder: Path) -> None:
    tensors = tensors_of(head)
    if head.version == 1:
        del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings_of(head)))


def pickled(head: EagleHead, folder: Path) -> None:
    eagle_repository(head, folder)
    (folder / "model.safetensors").unlink()
    torch.save(
        {k: v for k, v in tensors_of(head).items() if head.version == 3 or k != "lm_head.weight"},
        folder / "pytorch_model.bin",
    )


def sglang(head: EagleHead, folder: Path) -> None:
    tensors, settings = tensors_of(head), settings_of(head)
    tensors.pop("embed_tokens.weight")
    if head.version == 1:
        del tensors["lm_head.weight"]
    settings["architectures"] = [f"LlamaForCausalLMEagle{'3' if head.version == 3 else ''}"]
    settings["eagle_config"] = {"eagle_aux_hidden_state_layer_ids": [1, 2, 4]} if head.version == 3 else {}
    inside = {n if n.startswith(("lm_head", "d2t", "t2d")) else f"model.{n}": t for n, t in tensors.items()}
    save_file(inside, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))


def speculators(head: EagleHead, folder: Path) -> None:
    tensors = {name.replace("midlayer.", "layers.0."): tensor for name, tensor in tensors_of(head).items()}
    tensors["verifier_norm.weight"] = torch.ones(head.config.hidden_size)
    save_file(tensors, folder / "model.safetensors")
    config = {"speculators_model_type": "eagle3", "draft_vocab_size": head.config.draft_vocab_size,
              "eagle_aux_hidden_state_layer_ids": [2, 3, 5], "transformer_layer_config": settings_of(head)}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


LAYOUTS = {"eagle": eagle_repository, "pickled": pickled, "sglang": sglang, "speculators": speculators}


def load(folder: Path, model: nn.Module) -> LoadedHead:
    return build_head(read_head(folder), model)


@torch.inference_mode()
def said(head: EagleHead) -> Tensor:
    """Logits of a head for fixed features and tokens, two draft steps deep."""
    generator = torch.Generator().manual_seed(5)
    hidden = head.config.hidden_size
    features = torch.randn(1, 7, 3 * hidden if head.version == 3 else hidden, dtype=torch.float64, generator=generator)
    tokens, positions = torch.randint(61, (1, 8), generator=generator), torch.arange(8)[None]
    g = head.fuse(features)
    for length in (7, 8):
        new = head.project(g[:, :length], tokens[:, :length], positions[:, :length])
        attended = F.scaled_dot_product_attention(new.q, new.k, new.v, is_causal=True, enable_gqa=True)
        out = head.finish(new.residual, attended)
        g = torch.cat([g, out[:, -1:]], 1)
    return head.logits(out)


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_head(
    model: nn.Module, layout: str, version: Literal[1, 3], tmp_path: Path
) -> None:
    if (layout, version) == ("speculators", 1):
        pytest.skip("the speculators package writes no EAGLE-1 heads in this layout")
    head = random_head(model, version, draft_vocab=40 if version == 3 else None)
    LAYOUTS[layout](head, tmp_path)
    found = load(tmp_path, model)
    assert found.layers == ((2, 3, 5) if layout in ("sglang", "speculators") else (2, 3, 3)) or version == 1
    assert found.layers == (6,) or version == 3
    if version == 3:
        assert head.q_vocab is not None
        assert found.head.q_vocab is not None
        assert torch.equal(found.head.q_vocab, head.q_vocab)
    # `new_head` keeps the target's weights in float32, the target itself has them in float64
    torch.testing.assert_close(said(found.head), said(head), rtol=0, atol=1e-4)
    assert not any(p.requires_grad for p in found.head.parameters())


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("layout", ["eagle", "sglang", "speculators"])
def test_each_corruption_is_refused_by_name(
    model: nn.Module, layout: str, version: Literal[1, 3], tmp_path: Path
) -> None:
    if (layout, version) == ("speculators", 1):
        pytest.skip("the speculators package writes no EAGLE-1 heads in this layout")
    LAYOUTS[layout](random_head(model, version, draft_vocab=40 if version == 3 else None), tmp_path)
    good = read_head(tmp_path)
    build_head(good, model)

    def refused(tensors: Tensors, name: str) -> None:
        plain = re.escape(
            name.removeprefix("model.").replace("layers.0.", "" if layout == "speculators" else "layers.0.")
        )
        with pytest.raises(ValueError, match=plain):
            build_head(HeadFiles(good.source, tensors, {}, good.config), model)

    for name, tensor in good.tensors.items():
        if name.startswith("verifier_") or name == "t2d":
            continue
        if name != "embed_tokens.weight":  # which the target has as well
            refused({k: t for k, t in good.tensors.items() if k != name}, name)
        if name != "d2t":
            refused({**{k: t for k, t in good.tensors.items() if k != name}, f"{name}_": tensor}, f"{name}_")
            refused({**good.tensors, name: tensor[1:]}, name)
    refused({**good.tensors, "fc.scale": torch.ones(1)}, "fc.scale")


def test_d2t_are_offsets(model: nn.Module, tmp_path: Path) -> None:
    """An index map in its place leads elsewhere; so does a map that says what t2d does not."""
    head = random_head(model)
    eagle_repository(head, tmp_path)
    good = read_head(tmp_path)
    assert head.q_vocab is not None
    for wrong, complaint in (
        (head.q_vocab, "are they offsets"),
        (good.tensors["d2t"].flip(0), "d2t"),
        (torch.zeros(40, dtype=torch.long), "t2d and d2t name different tokens"),
        (good.tensors["d2t"][:-1], "d2t has 39 entries"),
    ):
        with pytest.raises(ValueError, match=complaint):
            build_head(HeadFiles(tmp_path, {**good.tensors, "d2t": wrong}, {}, good.config), model)


def test_layer_ids_of_the_engines(model: nn.Module, tmp_path: Path) -> None:
    """The same three layers: vLLM counts inputs, as transformers does, SGLang outputs; the default needs no ids."""
    head = random_head(model)
    eagle_repository(head, tmp_path)
    good = read_head(tmp_path)
    assert good.config is not None
    key = "eagle_aux_hidden_state_layer_ids"
    for extra, layers in (
        ({key: [1, 3, 4]}, (1, 3, 4)),
        ({"eagle_config": {key: [1, 3, 4]}}, (2, 4, 5)),
        ({}, (2, 3, 3)),
    ):
        found = build_head(HeadFiles(tmp_path, good.tensors, {}, good.config | extra), model)
        assert found.layers == layers


def test_fc_bias(model: nn.Module, tmp_path: Path) -> None:
    """Part of the head if the config says so, or if it is SGLang's EAGLE-1 class, which always has one."""
    head = random_head(model, 1, draft_vocab=None)
    eagle_repository(head, tmp_path)
    good = read_head(tmp_path)
    assert good.config is not None
    bias = torch.linspace(-1, 1, 32, dtype=torch.float64)
    biased = {**good.tensors, "fc.bias": bias}
    with pytest.raises(ValueError, match=r"unexpected fc\.bias"):
        build_head(HeadFiles(tmp_path, biased, {}, good.config), model)
    with pytest.raises(ValueError, match=r"missing fc\.bias"):
        build_head(HeadFiles(tmp_path, good.tensors, {}, good.config | {"bias": True}), model)
    for config in ({"bias": True}, {"architectures": ["LlamaForCausalLMEagle"]}):
        found = build_head(HeadFiles(tmp_path, biased, {}, good.config | config), model).head
        assert torch.equal(found.fc.bias, bias)
        assert not torch.allclose(said(found), said(head))


def by_hand(head: EagleHead, flags: set[str]) -> Tensor:
    """`said`, written out from the published descriptions of the norm variants."""
    state, eps, hidden = head.state_dict(), head.config.rms_norm_eps, head.config.hidden_size

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt() * state[f"{name}.weight"]

    generator = torch.Generator().manual_seed(5)
    features = torch.randn(1, 7, 3 * hidden, dtype=torch.float64, generator=generator)
    tokens, positions = torch.randint(61, (1, 8), generator=generator), torch.arange(8)[None]
    if "norm_before_fc" in flags:
        features = norm(features, "input_norm")
    if "fc_norm" in flags:
        features = torch.cat([norm(part, f"fc_norm.{i}") for i, part in enumerate(features.split(hidden, -1))], -1)
    g = features @ state["fc.weight"].T
    for length in (7, 8):
        new = head.project(g[:, :length], tokens[:, :length], positions[:, :length])
        attended = F.scaled_dot_product_attention(new.q, new.k, new.v, is_causal=True, enable_gqa=True)
        mixed = attended.transpose(1, 2).flatten(2) @ state["midlayer.self_attn.o_proj.weight"].T
        residual = norm(g[:, :length], "midlayer.hidden_norm") if "norm_before_residual" in flags else g[:, :length]
        x = residual + mixed
        inner = norm(x, "midlayer.post_attention_layernorm")
        gate, up, down = (state[f"midlayer.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        x = x + (F.silu(inner @ gate.T) * (inner @ up.T)) @ down.T
        fed = norm(x, "norm") if "norm_output" in flags else x
        g = torch.cat([g, fed[:, -1:]], 1)
    return norm(x, "norm") @ state["lm_head.weight"].T


@pytest.mark.parametrize("flags", [set(), {"norm_before_residual"}, {"norm_before_fc"}, {"fc_norm"}, {"norm_output"},
                                   {"fc_norm", "norm_output", "norm_before_residual"}])  # fmt: skip
@torch.inference_mode()
def test_norm_variants(model: nn.Module, flags: set[str], tmp_path: Path) -> None:
    plain = random_head(model)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        head = EagleHead(plain.config, 3, variant=Variant(**dict.fromkeys(flags, True)), q_vocab=plain.q_vocab).double()
        for weight in head.parameters():
            weight.copy_(0.3 * torch.randn_like(weight) + (weight.ndim == 1))
    for write in (eagle_repository, speculators):
        write(head, tmp_path)
        config = json.loads((tmp_path / "config.json").read_text()) | dict.fromkeys(flags, True)
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = load(tmp_path, model).head
        # the norms of transformers compute in float32, whatever the weights are
        torch.testing.assert_close(said(found), by_hand(head, flags), rtol=0, atol=1e-4)
        assert found.variant == head.variant


# The tensors of the EAGLE-3 head published for Llama-3.1-8B-Instruct, with their shapes.
LLAMA_8B: dict[str, tuple[int, ...]] = {
    "d2t": (32000,), "t2d": (128256,), "fc.weight": (4096, 12288), "lm_head.weight": (32000, 4096),
    "midlayer.hidden_norm.weight": (4096,), "midlayer.input_layernorm.weight": (4096,),
    "midlayer.mlp.down_proj.weight": (4096, 14336), "midlayer.mlp.gate_proj.weight": (14336, 4096),
    "midlayer.mlp.up_proj.weight": (14336, 4096), "midlayer.post_attention_layernorm.weight": (4096,),
    "midlayer.self_attn.k_proj.weight": (1024, 8192), "midlayer.self_attn.o_proj.weight": (4096, 4096),
    "midlayer.self_attn.q_proj.weight": (4096, 8192), "midlayer.self_attn.v_proj.weight": (1024, 8192),
    "norm.weight": (4096,),
}  # fmt: skip


def test_the_head_of_llama_8b_on_the_meta_device() -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    }  # fmt: skip
    with torch.device("meta"):
        target = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, num_hidden_layers=32), dtype=torch.bfloat16)
    config = {**sizes, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "bias": False,
              "draft_vocab_size": 32000, "num_hidden_layers": 1, "tie_word_embeddings": False}  # fmt: skip
    tensors = {name: torch.empty(shape, device="meta") for name, shape in LLAMA_8B.items()}
    found = build_head(HeadFiles(Path("head"), tensors, {}, config), target)
    assert found.layers == (2, 16, 29)
    assert {p.device.type for p in found.head.parameters()} == {"meta"}
    for name in LLAMA_8B.keys() - {"t2d", "d2t"}:
        with pytest.raises(ValueError, match=re.escape(name)):
            build_head(HeadFiles(Path("head"), {k: t for k, t in tensors.items() if k != name}, {}, config), target)


def broken(folder: Path, breaking: str) -> None:
    if breaking == "no config":
        (folder / "config.json").unlink()
    elif breaking == "no weights":
        (folder / "model.safetensors").unlink()
    elif breaking == "truncated":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    elif breaking == "pickled code":
        (folder / "model.safetensors").unlink()
        torch.save({"fc.weight": Path()}, folder / "pytorch_model.bin")
    elif breaking == "two layers":
        tensors = read_head(folder).tensors
        save_file({**tensors, "layers.1.mlp.up_proj.weight": torch.ones(1)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("breaking", "complaint"),
    [("no config", "holds neither"), ("no weights", "holds no weights"), ("truncated", "not a safetensors file"),
     ("pickled code", "more than tensors, which is refused"), ("two layers", "has 2 layers")],
)  # fmt: skip
def test_unusable_folders_say_why(model: nn.Module, breaking: str, complaint: str, tmp_path: Path) -> None:
    eagle_repository(random_head(model), tmp_path)
    load(tmp_path, model)
    broken(tmp_path, breaking)
    with pytest.raises(ValueError, match=complaint):
        load(tmp_path, model)
    with pytest.raises(ValueError, match="no head at"):
        load(tmp_path / "absent", model)


def test_the_target_s_embeddings_are_shared(model: nn.Module, tmp_path: Path) -> None:
    sglang(random_head(model), tmp_path)  # which leaves them out
    shared = model.get_input_embeddings().weight  # type: ignore[operator]
    assert load(tmp_path, model).head.embed_tokens.weight.data_ptr() == shared.data_ptr()


def changed(model: nn.Module, folder: Path, version: Literal[1, 3], change: Any) -> HeadFiles:
    """A published head whose config went through `change`."""
    eagle_repository(random_head(model, version, draft_vocab=40 if version == 3 else None), folder)
    good = read_head(folder)
    return HeadFiles(folder, good.tensors, {}, change(dict(good.config or {})))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: {k: v for k, v in c.items() if k != "num_attention_heads"}, "needs num_attention_heads"),
        (lambda c: c | {"hidden_size": "wide"}, "needs hidden_size, a positive whole number, got 'wide'"),
        (lambda c: c | {"eagle_config": [1]}, "eagle_config in config.json must be an object"),
        (lambda c: c | {"eagle_aux_hidden_state_layer_ids": [2, 18, 33]}, "this target has 6 layers"),
        (lambda c: c | {"eagle_aux_hidden_state_layer_ids": [-1, 2, 3]}, "ids go from 0 to 6"),
        (lambda c: c | {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 2, 6]}}, "ids go from -1 to 5"),
        (lambda c: c | {"eagle_aux_hidden_state_layer_ids": "2"}, "list of whole numbers"),
    ],
)
def test_bad_settings_of_a_head_are_named(model: nn.Module, change: Any, complaint: str, tmp_path: Path) -> None:
    files = changed(model, tmp_path, 3, change)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        build_head(files, model)


def test_settings_that_published_heads_have_are_read(model: nn.Module, tmp_path: Path) -> None:
    """No architectures, and the target's number of layers beside one layer in the file."""
    change = {"architectures": None, "num_hidden_layers": 40}
    for version in (1, 3):
        build_head(changed(model, tmp_path, version, lambda config: config | change), model)  # type: ignore[arg-type]


def test_an_fc_bias_in_the_file_is_enough(model: nn.Module, tmp_path: Path) -> None:
    files = changed(model, tmp_path, 1, lambda c: {k: v for k, v in c.items() if k != "bias"})
    bias = torch.linspace(-1, 1, 32, dtype=torch.float64)
    found = build_head(HeadFiles(files.source, {**files.tensors, "fc.bias": bias}, {}, files.config), model)
    assert torch.equal(found.head.fc.bias, bias)


def test_a_list_or_a_git_lfs_pointer_is_no_head(model: nn.Module, tmp_path: Path) -> None:
    eagle_repository(random_head(model), tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="holds a list"):
        load(tmp_path, model)
    (tmp_path / "config.json").write_text(config)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(ValueError, match="git-lfs pointer"):
        load(tmp_path, model)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_targets_without_a_llama_layer_are_refused(kind: str) -> None:
    from helpers import tiny_model

    from specdec_ref.drafters.eagle_head import head_config

    with pytest.raises(ValueError, match=f"no head can be made for a {kind} target"):
        head_config(tiny_model(kind).config, 3)


def test_layer_skip_on_gpt_neo() -> None:
    """Its layers carry `layer_id`: the shallow copy's have to be renumbered, too."""
    from helpers import VOCAB
    from transformers import AutoConfig

    from specdec_ref.baseline import plain_generate
    from specdec_ref.drafters.layer_skip import layer_skip_drafter
    from specdec_ref.engine import SpecEngine
    from specdec_ref.models.target import Target
    from specdec_ref.request import Limits

    config = AutoConfig.for_model(
        "gpt_neo",
        vocab_size=VOCAB,
        hidden_size=32,
        num_layers=5,
        num_heads=4,
        max_position_embeddings=64,
        attention_types=[[["global"], 5]],
    )
    target, limits = Target(AutoModelForCausalLM.from_config(config).double().eval()), Limits(12)
    engine = SpecEngine(target, layer_skip_drafter(target), limits=limits)
    assert engine.generate([[3, 4]])[0].tokens == plain_generate(target, [[3, 4]], limits=limits)[0].tokens
