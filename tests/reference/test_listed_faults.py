"""Faults that were found from outside and have no place of their own elsewhere; and docs/FAULTS.md, which lists all."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import save_byte_model
from cli_helpers import Specdec, folder, specdec
from eagle_heads import random_head
from helpers import tiny_model
from many_models import build

from specdec_ref.baseline import plain_generate
from specdec_ref.bench.peers import peers
from specdec_ref.bench.sides import Setting
from specdec_ref.config import SamplingParams
from specdec_ref.drafters.eagle import default_layers
from specdec_ref.session import Session
from specdec_ref.training.export import export
from specdec_ref.training.rows import RowDecoder
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import LoadedHead

__all__ = ["folder", "specdec"]  # fixtures
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("draft_vocab", [None, 61])
def test_a_head_of_the_whole_vocabulary_is_exported_without_maps(draft_vocab: int | None, tmp_path: Path) -> None:
    """vLLM refuses d2t where draft and target vocabulary are equal."""
    model = tiny_model(num_hidden_layers=8)
    head = LoadedHead(random_head(model, 3, draft_vocab=draft_vocab), default_layers(3, 8))
    (written,) = export(head, model, tmp_path, "engine")
    assert {"d2t", "t2d"}.isdisjoint(read_head(written).tensors)


def test_speculators_get_embeddings_and_an_absolute_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(num_hidden_layers=8)
    head = LoadedHead(random_head(model, 3, draft_vocab=40), default_layers(3, 8))
    monkeypatch.chdir(tmp_path)
    (written,) = export(head, model, tmp_path / "out", "speculators", target_path="target")
    files = read_head(written)
    assert torch.equal(files.tensors["embed_tokens.weight"], head.head.embed_tokens.weight)
    assert str(tmp_path / "target") in (written / "config.json").read_text()


def test_a_card_without_a_log_writes_nothing(folder: Path, specdec: Specdec, tmp_path: Path) -> None:
    argv = ["train", "export", folder / "eagle", "--format", "card", "--target", folder, "--out", tmp_path / "card"]
    assert "log.jsonl" in specdec.error(2, *argv)
    assert not (tmp_path / "card").exists()


def test_texts_side_by_side_need_a_model_that_passes_options_on() -> None:
    decoder = RowDecoder(build("stablelm"), rows=2, slots=8, cache_dtype=torch.float32)
    with pytest.raises(ValueError, match="hands no options to its attention function"):
        decoder.fill(0, 0, [1, 2, 3])


def test_peers_apply_no_settings_that_ours_does_not(tmp_path: Path) -> None:
    """transformers' side of a comparison decodes plainly, whatever generation_config.json asks for."""
    lab: Any = Session.open(str(save_byte_model(tmp_path / "bytes")), dtype="float64")
    settings = lab.target.model.generation_config
    settings.repetition_penalty, settings.suppress_tokens = 9.0, list(range(97, 110))
    limits = lab.limits(16)
    prompt = lab.encode("the lamp the lamp", raw=True)
    side = next(iter(peers(Setting(lab, SamplingParams(), limits, 1), {})))
    (answer,) = side.begin()([prompt], [0])
    assert answer.tokens == plain_generate(lab.target, [prompt], limits=limits)[0].tokens
    assert lab.target.model.generation_config is settings


@cache
def names(path: Path) -> frozenset[str]:
    """Functions of a test file."""
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


def test_page_of_faults_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "FAULTS.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|notebooks)/[\w/]+\.(?:py|ipynb))::([\w-]+)`", text)
    assert len(named) > 50
    for path, name in named:
        if path.endswith(".py"):
            assert name in names(ROOT / path), f"{path}::{name}"
        else:
            assert f'"id": "{name}"' in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"
    for row in re.findall(r"^\| [A-E]\d? \|.*", text, re.MULTILINE):
        assert "::" in row or "open" in row, row
