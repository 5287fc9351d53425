"""What cannot run under a 4-D mask and a slot cache is refused when it is wrapped, with the reason in the message."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import ARCHITECTURES, VOCAB, tiny_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from specdec_ref.models.support import check_supported, reason_unsupported
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM

SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mistral window": ("mistral", {**SIZES, "sliding_window": 16}, "sliding window of 16"),
    "phi3 window": ("phi3", {**SIZES, "sliding_window": 16}, "sliding window of 16"),
    "starcoder2 window": ("starcoder2", {**SIZES, "sliding_window": 16}, "sliding window of 16"),
    "qwen2 window": (
        "qwen2",
        {**SIZES, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
        "kind sliding_attention",
    ),
    "gemma2 layers": ("gemma2", {**SIZES, "head_dim": 8, "sliding_window": 16}, "kind sliding_attention"),
    "gemma3 layers": ("gemma3_text", {**SIZES, "head_dim": 8, "sliding_window": 16}, "kind sliding_attention"),
    "gpt-neo local layers": (
        "gpt_neo",
        {
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
        },
        "kind local",
    ),
    "bloom": ("bloom", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "ALiBi"),
    "mpt": ("mpt", {"vocab_size": VOCAB, "d_model": 32, "n_layers": 2, "n_heads": 4}, "ALiBi"),
    "falcon": (
        "falcon",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
        "ALiBi",
    ),
    "mamba": (
        "mamba",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        "linear_attention",
    ),
    "rwkv": ("rwkv", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}, "no cache of keys"),
    "qwen3-next": ("qwen3_next", SIZES, "kind linear_attention"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_models_are_refused_with_the_reason(name: str) -> None:
    kind, settings, reason = REFUSED[name]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings), attn_implementation="eager").eval()
    with pytest.raises(ValueError, match=f"cannot be used as target or draft model: .*{reason}.*use a full-attention"):
        Target(model)


def test_encoder_decoder_is_refused() -> None:
    config = AutoConfig.for_model("t5", vocab_size=VOCAB, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4)
    with pytest.raises(ValueError, match="encoder-decoder"):
        Target(AutoModelForSeq2SeqLM.from_config(config))


def test_other_attention_implementations_are_refused() -> None:
    model = tiny_model()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="'flash_attention_2'; load it with 'sdpa' or 'eager'"):
        Target(model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_attention_models_pass(architecture: str, attention: str, dtype: torch.dtype) -> None:
    Target(tiny_model(architecture, attention=attention, dtype=dtype))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mistral", {**SIZES, "sliding_window": None}),
        ("qwen2", {**SIZES, "use_sliding_window": False, "sliding_window": 16}),
        (
            "falcon",
            {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False},
        ),
        (
            "gpt_neo",
            {
                "vocab_size": VOCAB,
                "hidden_size": 32,
                "num_layers": 2,
                "num_heads": 4,
                "attention_types": [[["global"], 2]],
            },
        ),
    ],
)
def test_the_full_attention_kin_of_refused_models_pass(kind: str, settings: dict[str, Any]) -> None:
    Target(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings), attn_implementation="eager").eval())


def test_table_models_pass_down_to_a_vocabulary_of_two() -> None:
    for vocab in (2, 3, 5):
        Target(TableLM(vocab))


class Wrapped(nn.Module):
    """A model whose configuration says nothing of what its forward does to the arguments."""

    def __init__(self, **replaced: Any) -> None:
        super().__init__()
        self.inner, self.replaced = tiny_model(), replaced
        self.config = self.inner.config

    def forward(self, **kwargs: Any) -> Any:
        return self.inner(**(kwargs | self.replaced))


@pytest.mark.parametrize(
    "replaced", [{"attention_mask": None}, {"position_ids": None}], ids=["ignores the mask", "ignores the positions"]
)
def test_a_model_that_ignores_what_it_is_given_is_caught_by_its_behaviour(replaced: dict[str, None]) -> None:
    assert reason_unsupported(Wrapped().config) is None
    Target(Wrapped())
    with pytest.raises(ValueError, match="logits change when an unrelated sibling"):
        Target(Wrapped(**replaced))


def test_a_mask_of_the_wrong_kind_is_caught_by_its_behaviour() -> None:
    target = Target(tiny_model(attention="eager"))
    check_supported(target)
    target.additive_mask = False
    with pytest.raises(ValueError, match="logits change when an unrelated sibling"):
        check_supported(target)


def test_whatever_else_fails_is_named() -> None:
    """ALiBi under a name we do not know: the 4-D mask breaks its forward."""
    settings = {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("bloom", **settings)).eval()
    model.config.model_type = "novel"
    with pytest.raises(ValueError, match="novel cannot be used"):
        Target(model)


def test_nan_weights_are_named_as_such() -> None:
    model = tiny_model()
    model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"NaN or infinity \(lm_head\.weight\)"):
        Target(model)


def test_the_check_can_be_skipped() -> None:
    Target(Wrapped(attention_mask=None), check=False)


def test_a_configuration_needs_few_fields() -> None:
    assert reason_unsupported(SimpleNamespace(model_type="x", _attn_implementation="sdpa")) is None
