"""GGUF to a Hugging Face folder: the same model, rounded once; and what is said on a terminal meanwhile."""

import io
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_wheel import tiny_llama, write_gguf
from transformers import AutoModelForCausalLM

from specdec_ref.models import progress
from specdec_ref.models.convert import convert_gguf, quiet


@torch.inference_mode()
def test_converted_model_is_the_original_rounded_once(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_gguf(tmp_path / "x.gguf", tiny_llama())
    convert_gguf(tmp_path / "x.gguf", folder)
    found = load_file(folder / "model.safetensors")
    expected = tiny_llama()
    for name, weight in expected.named_parameters():
        assert torch.equal(found[name], weight.to(torch.bfloat16)), name
        weight.copy_(found[name])
    ids = torch.arange(40)[None]
    with quiet():
        logits = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    assert torch.equal(logits, expected(ids).logits)  # the same numbers in the same order: exactly equal
    if os.name == "posix":
        assert all(file.stat().st_mode & 0o444 == 0o444 for file in folder.iterdir())  # a class may share one cache


def test_a_gguf_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", tiny_llama(), pre="qwen2")
    with pytest.raises(ValueError, match="qwen2"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_gets_a_bar_if_rich_is_there(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    with progress.stage("working"):
        pass
    assert ("\x1b[" in screen.getvalue()) == rich
    assert "specdec: working: done in" in screen.getvalue()
