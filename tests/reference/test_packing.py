"""Packed linear layers compute what `nn.Linear` computes, stay tied, and are shared by a layer-skip copy."""

import pytest
import torch
from torch import nn

from specdec_ref.drafters.layer_skip import shallow_copy
from specdec_ref.models import packing
from specdec_ref.models.packing import PackedLinear, Product, can_pack, pack_linears
from specdec_ref.models.toy import tiny_llama

pytestmark = pytest.mark.skipif(
    not can_pack(nn.Linear(2, 2)), reason="this torch has no oneDNN: there is nothing to pack with"
)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 7, 48, 200])
def test_a_packed_linear_computes_what_linear_computes(rows: int, bias: bool) -> None:
    """float32, so equal up to the order of a sum of 96 products."""
    torch.manual_seed(0)
    linear = nn.Linear(96, 160, bias=bias).requires_grad_(False)
    x = torch.randn(1, rows, 96)
    torch.testing.assert_close(PackedLinear(linear)(x), linear(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pads", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1)])
def test_one_or_two_rows_by_a_large_weight_are_computed_alike(
    shape: tuple[int, int], pads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded or not. Which of them are rows of the batch and which are nodes does not matter; no zeros come back."""
    monkeypatch.setattr(packing, "_PADS", pads)
    torch.manual_seed(0)
    linear = nn.Linear(576, packing._LARGE // 576 + 1, bias=True).requires_grad_(False)
    x = torch.randn(*shape, 576)
    found = PackedLinear(linear)(x)
    assert found.shape == (*shape, linear.out_features)
    torch.testing.assert_close(found, linear(x), rtol=1e-4, atol=1e-5)


def test_a_row_has_the_same_bits_whatever_the_number_of_rows() -> None:
    """Of the sizes of our model's products, as this machine computes them: greedy texts must not depend on a draft."""
    torch.manual_seed(0)
    for outputs, inputs in ((960, 576), (576, 576), (3072, 576), (576, 1536)):
        packed, x = PackedLinear(nn.Linear(inputs, outputs, bias=False).requires_grad_(False)), torch.randn(32, inputs)
        whole = packed(x)
        for rows in range(1, 17):
            assert torch.equal(packed(x[:rows]), whole[:rows]), f"{outputs} x {inputs}, {rows} rows"


def test_packing_a_model_keeps_its_logits_weights_and_ties() -> None:
    """State dict, tied weights and logits survive."""
    model = tiny_llama(0, dtype=torch.float32)
    ids = torch.arange(8)[None]
    want, keys = model(input_ids=ids).logits, set(model.state_dict())
    weight = model.lm_head.weight
    assert pack_linears(model) == 3 * 7 + 1
    assert set(model.state_dict()) == keys
    assert model.lm_head.weight is weight
    torch.testing.assert_close(model(input_ids=ids).logits, want, rtol=1e-3, atol=1e-3)


def test_a_shallow_copy_shares_packed_weights() -> None:
    """Layer-skip must not pack, or copy, anything again."""
    model = tiny_llama(0, dtype=torch.float32)
    pack_linears(model)
    copy = shallow_copy(model, [0, 2])
    assert copy.lm_head.packed is model.lm_head.packed
    assert copy.model.layers[1].mlp.up_proj.packed is model.model.layers[2].mlp.up_proj.packed


def test_linear_layers_of_one_input_become_one_product() -> None:
    """With a bias of some of them, and in bfloat16, where the product is exact up to one rounding."""
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        linears = [
            nn.Linear(96, width, bias=bias, dtype=dtype) for width, bias in ((64, True), (32, False), (16, True))
        ]
        if not can_pack(linears[0]):
            continue
        x = torch.randn(1, 5, 96).to(dtype)
        with torch.inference_mode():
            want = torch.cat([linear(x) for linear in linears], -1)
            for pack in (True, False):
                found = Product(*linears, pack=pack)(x)
                torch.testing.assert_close(found, want, rtol=tolerance, atol=tolerance)


def test_what_cannot_be_packed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64, for which there is no packed product, and a model that would not fit twice."""
    model = tiny_llama(0, dtype=torch.float64)
    assert not can_pack(model)
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        pack_linears(model)
    assert can_pack(model.float())
    monkeypatch.setattr(packing, "memory_gb", lambda: 1e-3)
    assert not can_pack(model)
