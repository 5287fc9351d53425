"""A row's text depends on its own tokens alone: RoPE that follows the longest row, shared scales, dropout, sliding windows."""

import copy
from typing import Any

import pytest
import torch
from helpers import VOCAB, tiny_model
from torch import nn

from specdec_ref.baseline import plain_generate
from specdec_ref.drafters.ngram import NgramDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

PROMPT = [3, 4, 5, 6, 3, 4, 5, 6, 3, 4]
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32, "short_factor": [1.0] * 4,
        "long_factor": [3.0] * 4}  # fmt: skip


def of_rope(rope: dict[str, Any], dtype: torch.dtype = torch.float64, positions: int = 128) -> nn.Module:
    return tiny_model(positions=positions, rope_parameters=rope, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_longrope_keeps_texts_below_the_change_of_its_frequencies(dtype: torch.dtype) -> None:
    target = Target(of_rope(LONG, dtype))
    assert target.max_positions == 32
    limits = Limits(22)
    alone = plain_generate(target, [PROMPT[:4]], limits=limits)[0].tokens
    assert plain_generate(target, [PROMPT, PROMPT[:4]], limits=limits)[1].tokens == alone
    assert SpecEngine(target, NgramDrafter(), limits=limits).generate([PROMPT[:4]])[0].tokens == alone
    for generate in (SpecEngine(target, NgramDrafter(), limits=Limits(60)).generate,
                     lambda prompts: plain_generate(target, prompts, limits=Limits(60))):  # fmt: skip
        with pytest.raises(ValueError, match=r"model's 32 positions.*follow the longest row of the batch"):
            generate([PROMPT])


def grow_late(model: nn.Module, at: int) -> nn.Module:
    """Dynamic RoPE grows where the model was first trained to, as older checkpoints' configurations have it."""
    rotary: Any = model.model.rotary_emb  # type: ignore[union-attr]
    rotary.config = copy.deepcopy(rotary.config)
    rotary.config.max_position_embeddings = rotary.max_seq_len_cached = rotary.original_max_seq_len = at
    return model


def test_dynamic_rope_is_limited_to_where_it_starts_to_grow() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    assert Target(of_rope(rope)).max_positions == 128  # it grows after all positions that it has
    model = grow_late(of_rope(rope), 40)
    assert Target(model).max_positions == 40
    assert Target(model).max_positions == 40  # the first check left nothing behind


def test_static_rope_has_no_limit() -> None:
    for kind, more in (("yarn", {"factor": 4.0}), ("linear", {"factor": 2.0}), ("default", {})):
        target = Target(of_rope({"rope_type": kind, "rope_theta": 1e4, **more}))
        assert (target.max_positions, target.position_limit, target.position_note) == (128, None, "")


def test_a_limit_far_from_the_start_is_found() -> None:
    assert Target(of_rope(LONG | {"original_max_position_embeddings": 4096}, positions=131072)).max_positions == 4096


class Scaled(nn.Linear):
    """A linear layer whose input is quantised to 8 bits with one scale for the whole batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = x.abs().max() / 127
        return super().forward((x / scale).round() * scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_activations_quantised_with_one_scale_for_the_batch_are_refused(dtype: torch.dtype) -> None:
    model: Any = tiny_model(dtype=dtype)
    Target(model)
    for layer in model.model.layers:
        layer.mlp.down_proj.__class__ = Scaled
    with pytest.raises(ValueError, match="change with the text of another row"):
        Target(model)


def test_dropout_is_refused() -> None:
    model = tiny_model("gpt2", embd_pdrop=0.3)
    Target(model)
    with pytest.raises(ValueError, match=r"other logits each time; is it in training mode\? Call model\.eval"):
        Target(model.train())


class Pieces(nn.Module):
    """Adds a number that depends on how many tokens a forward reads, or how many rows it has."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner, self.dim = tiny_model(), dim
        self.config = self.inner.config

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        output = self.inner(input_ids, **kwargs)
        output.logits = output.logits.roll(input_ids.shape[self.dim], -1)
        return output


@pytest.mark.parametrize(("dim", "reason"), [(1, "sibling|pieces that it is read in"), (0, "beside a longer row")])
def test_dependence_on_pieces_and_padding_is_refused(dim: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Target(Pieces(dim))


def test_a_window_that_no_text_can_leave_is_full_attention() -> None:
    Target(tiny_model("phi3", positions=128, sliding_window=128))
    with pytest.raises(ValueError, match="sliding window of 127"):
        Target(tiny_model("phi3", positions=128, sliding_window=127))


def test_attention_in_both_directions_is_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = BertLMHeadModel(BertConfig(**sizes, intermediate_size=48, is_decoder=False)).eval()
    with pytest.raises(ValueError, match="both directions"):
        Target(model)


def test_damaged_weights_are_named() -> None:
    model: Any = tiny_model()
    model.model.layers[1].mlp.up_proj.weight[3] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinity \(model\.layers\.1\.mlp\.up_proj\.weight\)"):
        Target(model)


def test_quantised_weights_are_named() -> None:
    model: Any = tiny_model(dtype=torch.float32)
    model.config.quantization_config = {"quant_method": "gptq"}
    weight = model.model.layers[0].mlp.up_proj.weight
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"quantised by gptq \(stored as int8\)"):
        Target(model)
