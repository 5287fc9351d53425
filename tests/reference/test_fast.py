"""The fast forward gives what transformers' forward gives, takes exactly the models it knows, and steps aside."""

from collections.abc import Sequence

import pytest
import torch
from drafting import chain, tree
from helpers import VOCAB, tiny_model
from torch import Tensor, nn

from specdec_ref.core import DraftTree
from specdec_ref.drafters.layer_skip import shallow_copy
from specdec_ref.models import packing
from specdec_ref.models.packing import can_pack
from specdec_ref.models.target import Target

LLAMAS: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, tied head, wide heads": ("llama", {"tie_word_embeddings": True, "head_dim": 16}),
    "llama, one key head": ("llama", {"num_key_value_heads": 1}),
    "llama, all key heads": ("llama", {"num_key_value_heads": 4}),
    "llama, scaled rotation": ("llama", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}),
    "llama, gelu": ("llama", {"hidden_act": "gelu"}),
    "qwen2, biases": ("qwen2", {}),
    "qwen3, q and k norms": ("qwen3", {}),
    "mistral": ("mistral", {"sliding_window": None, "hidden_size": 32, "num_hidden_layers": 3, "head_dim": 8,
                            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}),
}  # fmt: skip
OTHERS = ("gpt2", "gpt_neox", "olmo2", "phi3", "granite")
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}  # the order of sums, and what 3 layers make of it
PROMPTS = [[3, 5, 7, 9, 11, 2, 8, 8, 1, 4], [6], [1, 2, 3]]
TREES = [tree([1, 2, 3, 4, 5], [-1, 0, 0, 1, 2]), chain([7, 8, 9]), chain([4])]


def tiny(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The model of that name, with norms whose weights are not all one."""
    architecture, changes = LLAMAS[name]
    model = tiny_model(architecture, dtype=dtype, **changes)
    generator = torch.Generator().manual_seed(1)
    for where, weight in model.named_parameters():
        if "norm" in where or "bias" in where:
            weight += torch.rand(weight.shape, generator=generator).to(dtype)
    return model


def scored(target: Target, prompts: Sequence[Sequence[int]], rounds: Sequence[Sequence[DraftTree]]) -> list[Tensor]:
    """Logits and features of the prefill and of rounds that keep each tree's first branch."""
    first = target.start(prompts, capacity=40)
    assert first is not None
    assert first.features is not None
    found = [first.logits, *(row[: len(prompt)] for row, prompt in zip(first.features, prompts, strict=True))]
    for trees in rounds:
        output = target.forward(trees)
        assert output.features is not None
        for row, one in enumerate(trees):
            found += [output.logits[row, : len(one)], output.features[row, : len(one)]]
        target.commit([[0, *one.children(0)[-1:]] for one in trees])
    return found


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", LLAMAS)
def test_it_gives_what_transformers_gives(name: str, dtype: torch.dtype) -> None:
    """A ragged batch, trees and chains, two rounds, features of all kinds of layers."""
    model = tiny(name, dtype)
    fast, slow = Target(model, (0, 2, 3), check=False, fast=True), Target(model, (0, 2, 3), check=False, fast=False)
    assert fast.fast is not None, fast.forward_note
    assert slow.fast is None
    for ours, theirs in zip(scored(fast, PROMPTS, [TREES] * 2), scored(slow, PROMPTS, [TREES] * 2), strict=True):
        assert ours.dtype == theirs.dtype == dtype
        assert (ours - theirs).double().abs().max() <= TOLERANCE[dtype] * theirs.double().abs().max()


@pytest.mark.parametrize("name", LLAMAS)
def test_in_bfloat16_it_is_no_further_from_the_truth(name: str) -> None:
    """Two forwards that round differently: both are held to float64, over all logits and features."""
    model = tiny(name, torch.bfloat16)
    errors = []
    truth = scored(Target(tiny(name, torch.bfloat16).double(), (0, 2, 3), check=False, fast=False), PROMPTS, [TREES])
    for fast in (True, False):
        target = Target(model, (0, 2, 3), check=False, fast=fast)
        assert (target.fast is not None) == fast
        found = scored(target, PROMPTS, [TREES])
        off = [((one.double() - two) / two.std()).square().sum() for one, two in zip(found, truth, strict=True)]
        errors.append(float(sum(off)) ** 0.5)
    assert errors[0] < 1.25 * errors[1]


@pytest.mark.parametrize("name", OTHERS)
def test_another_structure_keeps_its_own_forward(name: str) -> None:
    """The reason is kept, for `specdec doctor`."""
    target = Target(tiny_model(name), check=False, fast=True)
    assert target.fast is None
    assert target.forward_note.startswith("off: it")


def test_a_model_that_only_looks_alike_is_found_out_by_measurement() -> None:
    """Ernie turns neighbouring pairs where Llama turns halves; nothing in its structure says so."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "ernie4_5",
        vocab_size=VOCAB,
        intermediate_size=64,
        initializer_range=0.3,
        head_dim=8,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **sizes,
    )
    torch.manual_seed(0)
    target = Target(AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(), check=False, fast=True)
    assert target.forward_note == "off: its logits differ from the model's own"


def test_a_hook_a_patch_and_training_get_the_modules() -> None:
    """Whoever listens to the model, now or later, hears it run."""
    model, heard = tiny("llama"), list[int]()
    target = Target(model, check=False, fast=True)
    target.start([[1, 2]], capacity=16)
    hook = model.model.layers[1].register_forward_hook(lambda *_: heard.append(1))
    with_hook = target.forward([chain([3])]).logits
    hook.remove()
    assert heard == [1]
    target.commit([[]])
    torch.testing.assert_close(target.forward([chain([3])]).logits, with_hook)
    assert heard == [1]
    patched = model.lm_head.forward
    model.lm_head.forward = lambda x: heard.append(2) or patched(x)
    target.start([[1, 2]], capacity=16)
    assert heard == [1, 2]
    assert "patched" in target.forward_note


@pytest.mark.skipif(not can_pack(nn.Linear(2, 2)), reason="this torch has no oneDNN: nothing is packed")
@pytest.mark.parametrize("change", ["in place", "replaced", "module"])
def test_changed_weights_are_packed_again(change: str) -> None:
    """The next batch is decoded with them."""
    model = tiny("llama", torch.float32)
    fast, slow = Target(model, check=False, fast=True), Target(model, check=False, fast=False)
    projection = model.model.layers[0].mlp.up_proj
    if change == "in place":
        projection.weight.mul_(1.5)
    elif change == "replaced":
        projection.weight = nn.Parameter(projection.weight * 1.5, requires_grad=False)
    else:
        model.model.layers[0].mlp.up_proj = nn.Linear(32, 64, bias=False).requires_grad_(False)
    before = fast.fast
    ours, theirs = fast.start([[1, 2, 3]], capacity=8), slow.start([[1, 2, 3]], capacity=8)
    assert ours is not None
    assert theirs is not None
    assert fast.fast is not before
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not can_pack(nn.Linear(2, 2)), reason="this torch has no oneDNN: nothing is packed")
def test_targets_and_layer_skip_share_what_is_packed() -> None:
    """Weights are packed once a model, whoever decodes with them."""
    model = tiny("llama", torch.float32)
    one, two = Target(model, check=False, fast=True).fast, Target(model, check=False, fast=True).fast
    skipped = Target(shallow_copy(model, [0, 2]), check=False, fast=True).fast
    assert one is not None
    assert two is not None
    assert skipped is not None
    assert one.layers[2].qkv.packed is two.layers[2].qkv.packed is skipped.layers[1].qkv.packed
    assert one.lm_head.packed is skipped.lm_head.packed


@pytest.mark.skipif(not can_pack(nn.Linear(2, 2)), reason="this torch has no oneDNN: nothing is packed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lean_target_holds_its_layers_once_and_gives_them_back(dtype: torch.dtype) -> None:
    """Same bits as with both copies; whoever runs the modules, or a layer-skip copy of them, has the weights again."""
    if dtype == torch.bfloat16 and not can_pack(nn.Linear(2, 2, dtype=dtype)):
        pytest.skip("this processor has no bfloat16 products: nothing is packed")
    model = tiny("llama", dtype)
    before, whole = {n: t.clone() for n, t in model.state_dict().items()}, Target(model, fast=True)
    ids = torch.arange(6)[None]
    want, own = whole.score(ids, ids), model(input_ids=ids).logits
    lean = Target(model, fast=True, lean=True)
    freed = [name for name, tensor in model.state_dict().items() if not tensor.numel()]
    assert len(freed) == 7 * model.config.num_hidden_layers
    assert torch.equal(lean.score(ids, ids), want)
    assert len([name for name, tensor in model.state_dict().items() if not tensor.numel()]) == len(freed)
    with torch.inference_mode():
        skipped = Target(shallow_copy(model, [0, 2]), fast=True)
        assert torch.equal(skipped.score(ids, ids), Target(shallow_copy(tiny("llama", dtype), [0, 2])).score(ids, ids))
        assert torch.equal(model(input_ids=ids).logits, own)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    model.model.layers[1].mlp.down_proj.weight.mul_(2)
    lean.start([[1, 2]], capacity=4)
    assert not torch.equal(lean.score(ids, ids), want)


@pytest.mark.skipif(not can_pack(nn.Linear(2, 2)), reason="this torch has no oneDNN: nothing is packed")
def test_a_lean_target_whose_packed_products_are_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a product that doubles. The weights come back, and decoding goes on without it."""
    right = packing._product
    monkeypatch.setattr(packing, "_product", lambda x, packed, bias: 2 * right(x, packed, bias))
    model, ids = tiny("llama", torch.float32), torch.arange(6)[None]
    own = model(input_ids=ids).logits
    target = Target(model, fast=True, lean=True)
    assert target.forward_note == "on, not packed: packed products differ"
    assert all(tensor.numel() for tensor in model.state_dict().values())
    torch.testing.assert_close(target.score(ids, ids), own, rtol=1e-3, atol=1e-3)


def test_the_environment_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDEC_FAST", "0")
    model = tiny("llama")
    assert Target(model, check=False).forward_note == "off: switched off"
    assert Target(model, check=False, fast=True).fast is not None
