"""8-bit weights: how far a product is off, what stays as it was, and whose greedy text a quantised target writes."""

import pytest
import torch
from torch import nn

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.drafters import build_drafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.quantised import Int8Linear, quantise_linears
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.request import Limits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [6, 90])
def test_a_product_uses_the_rounded_weights(dtype: torch.dtype, bias: bool, rows: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48, bias=bias).to(dtype)
    small = Int8Linear(linear)
    rounded = small.levels.float() * small.scale.float()[:, None]
    assert (rounded - linear.weight.float()).abs().max() <= linear.weight.float().abs().max() / 127
    x = torch.randn(2, rows // 2, 64, dtype=dtype)
    wanted = nn.functional.linear(x.float(), rounded, None if linear.bias is None else linear.bias.float())
    assert (small(x).float() - wanted).abs().max() < (1e-5 if dtype == torch.float32 else 0.05)


def test_a_row_of_zeros_stays_zero() -> None:
    linear = nn.Linear(32, 4, bias=False)
    linear.weight.data[1] = 0.0
    assert (Int8Linear(linear)(torch.randn(5, 32))[:, 1] == 0).all()


def test_everything_but_the_output_head_is_replaced() -> None:
    model = tiny_llama().float()
    count = sum(type(part) is nn.Linear for part in model.modules())
    assert quantise_linears(model) == count - 1
    assert type(model.lm_head) is nn.Linear
    with pytest.raises(ValueError, match="no linear layers"):
        quantise_linears(model)


def test_drafts_leave_the_quantised_models_text_as_it_is() -> None:
    model = tiny_llama().float()
    quantise_linears(model)
    target, limits = Target(model), Limits(max_new_tokens=24)
    prompts = [[3, 4, 5, 3, 4], [9, 8, 9, 8, 9, 8]]
    drafter = build_drafter("ngram", target)
    engine = SpecEngine(target, drafter, budget=DraftBudget(3), limits=limits)
    drafted = [engine.generate([prompt])[0].tokens for prompt in prompts]
    assert drafted == [plain_generate(target, [prompt], limits=limits)[0].tokens for prompt in prompts]
