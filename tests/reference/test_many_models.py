"""The load check on tiny models of many architectures: docs/MODELS.md holds, and what works decodes the model's own text."""

from pathlib import Path

import pytest
from many_models import MODELS, installed, judge, page, text_is_its_own
from transformers import AutoConfig

from specdec_ref.models.support import reason_unsupported
from specdec_ref.models.target import Target

PAGE = Path(__file__).parents[2] / "docs" / "MODELS.md"


@pytest.mark.parametrize("name", MODELS)
def test_models_that_work_decode_their_own_text(name: str) -> None:
    verdict = judge(name)
    if verdict.word == "refused":
        with pytest.raises(ValueError, match="cannot be used as target or draft model"):
            Target(verdict.model)
    else:
        assert text_is_its_own(verdict.model)


def test_page_of_models_is_current() -> None:
    """The rows hold under any release; the introduction names the one that wrote the page."""
    written, now = PAGE.read_text(encoding="utf-8"), page()
    assert len(MODELS) >= 45
    assert written.partition("|---")[2] == now.partition("|---")[2], "python tests/many_models.py > docs/MODELS.md"
    if f"transformers {installed} " in written:
        assert written == now


def test_positions_counted_otherwise_are_refused() -> None:
    """RoBERTa's own forward begins at the padding token's number + 1; ours at 0 would decode another model's text."""
    with pytest.raises(ValueError, match="counts positions or masks in another way"):
        Target(judge("roberta, as decoder").model)


@pytest.mark.parametrize("name", ["minicpm3", "youtu", "deepseek_v3"])
def test_values_may_be_narrower_than_keys(name: str) -> None:
    model = judge(name).model
    assert model.config.v_head_dim < model.config.qk_nope_head_dim + model.config.qk_rope_head_dim
    assert text_is_its_own(model)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bloom", "ALiBi"),
        ("rwkv", "keeps no cache of keys and values"),
        ("whisper", "takes no positions"),
        ("bert, as encoder", "both directions"),
        ("mixtral", "kernel without float64"),
    ],
)
def test_reasons_name_the_cause(name: str, reason: str) -> None:
    assert reason in judge(name).why


@pytest.mark.parametrize("kind", ["gemma3", "llama4", "qwen3_5", "fuyu"])
def test_a_multimodal_configuration_is_refused_by_name(kind: str) -> None:
    assert "multimodal" in (reason_unsupported(AutoConfig.for_model(kind)) or "")
