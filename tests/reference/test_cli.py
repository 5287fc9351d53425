"""`specdec generate`, `fetch`, `doctor` and the frame around them, on a tiny random chat model."""

import io
import json
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from cli_helpers import ROOT, Specdec, folder, specdec, start, write_lines

from specdec_ref.cli import COMMANDS
from specdec_ref.cli.curve import falls
from specdec_ref.cli.prompts import RESULT_KEYS
from specdec_ref.config import DraftBudget
from specdec_ref.drafters import DRAFTERS
from specdec_ref.engine import SpecEngine
from specdec_ref.metrics import StepRecord
from specdec_ref.models import hub
from specdec_ref.session import Session
from specdec_ref.verifiers import VERIFIERS
from specdec_ref.weights import TRAINED

if TYPE_CHECKING:
    import subprocess

__all__ = ["folder", "specdec"]  # fixtures

PROMPTS = ["The keeper", "Why is the sky blue?", "Name three colours: red, green,", "The lamp lights the sky.", "red"]


def drafting(name: str, folder: Path) -> list[str]:
    """The arguments that choose this drafter."""
    models = {"draft": folder, "hybrid": folder / "eagle"} | {
        kind: folder / kind for kind in ("eagle", "block", *TRAINED)
    }
    return ["--drafter", name, *(["--draft-model", str(models[name])] if name in models else [])]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "p.jsonl", *({"id": i, "prompt": text} for i, text in enumerate(PROMPTS)))


# One object a prompt


@pytest.mark.parametrize("name", ["none", *DRAFTERS])
def test_json_has_the_promised_keys_and_the_plain_decoders_tokens(name: str, folder: Path, specdec: Specdec) -> None:
    lab = Session.open(str(folder), dtype="float64")
    (plain,) = lab.plain([lab.encode("The keeper")], limits=lab.limits(30))
    (row,) = specdec.rows("--target", folder, *drafting(name, folder), "--max-new-tokens", "30", "The keeper")
    assert set(row) == set(RESULT_KEYS)
    assert row["tokens"] == plain.tokens
    assert row["text"] == lab.decode(plain.tokens)
    assert (row["id"], row["drafter"], row["finish_reason"]) == (0, name, plain.finish_reason)
    assert row["seconds"] > 0
    assert row["prefill_seconds"] > 0


def test_plain_decoding_counts_one_round_a_token(folder: Path, specdec: Specdec) -> None:
    (row,) = specdec.rows("--target", folder, "--drafter", "none", "--max-new-tokens", "7", "--ignore-eos", "red")
    assert (row["rounds"], row["tau"], row["alpha"], row["accepted_per_position"]) == (7, 1.0, 0.0, [])


def test_figures_are_those_of_the_rounds(folder: Path, specdec: Specdec) -> None:
    """The target drafting for itself: all guesses are right, so every figure is known."""
    argv = [*drafting("draft", folder), "--max-new-tokens", "10", "--depth", "3", "--ignore-eos"]
    (row,) = specdec.rows("--target", folder, *argv, "The keeper")
    assert (row["rounds"], row["tau"], row["alpha"]) == (3, 10 / 3, 1.0)  # 4 + 4 + 2 tokens
    assert row["accepted_per_position"] == [3, 2, 2]


SHARED = {
    "trie",
    "suffix",
    "hybrid",
}  # their guesses depend on what others asked: above T = 0 the distribution stays, not the draw


@pytest.mark.parametrize(
    ("name", "temperature"), [(n, t) for n in ["none", *DRAFTERS] for t in ["0", "1.5"] if t == "0" or n not in SHARED]
)
def test_batch_size_changes_no_token(
    name: str, temperature: str, folder: Path, specdec: Specdec, prompts: Path
) -> None:
    argv = ["--target", folder, *drafting(name, folder), "--temperature", temperature, "--max-new-tokens", "12"]
    runs = [specdec.rows(*argv, "--prompts-file", prompts, "--seed", "5", "--batch-size", size) for size in "125"]
    texts = [[(row["id"], row["tokens"]) for row in rows] for rows in runs]
    assert texts[0] == texts[1] == texts[2]
    assert [row["id"] for row in runs[0]] == list(range(len(PROMPTS)))
    (alone,) = specdec.rows(*argv, "--seed", "8", PROMPTS[3])  # prompt i draws with seed + i
    assert alone["tokens"] == runs[0][3]["tokens"]


def test_a_trie_learns_a_corpus_beforehand(folder: Path, specdec: Specdec, tmp_path: Path) -> None:
    """It then knows the answer: the same text in fewer rounds."""
    argv = ["--target", folder, "--drafter", "trie", "--max-new-tokens", "30", "--ignore-eos", "--depth", "5"]
    (cold,) = specdec.rows(*argv, "The keeper")
    lab = Session.open(str(folder), dtype="float64")
    prompt = lab.tokenizer.decode(lab.encode("The keeper"))
    (tmp_path / "corpus.txt").write_text(prompt + cold["text"], encoding="utf-8")
    for match in ("bfs", "prob"):
        warm = [*argv, "--corpus", tmp_path / "corpus.txt", "--trie-match", match, "--trie-depth", "9"]
        (row,) = specdec.rows(*warm, "The keeper")
        assert row["tokens"] == cold["tokens"]
        assert row["rounds"] < cold["rounds"]


def test_seed_changes_what_is_drawn(folder: Path, specdec: Specdec) -> None:
    argv = ["--target", folder, "--temperature", "1.5", "--max-new-tokens", "20", "--ignore-eos", "red"]
    one, again, other = (specdec.rows(*argv, "--seed", seed)[0]["tokens"] for seed in "112")
    assert one == again != other


def test_other_keys_are_kept_and_blank_lines_skipped(folder: Path, specdec: Specdec, tmp_path: Path) -> None:
    lines = {"id": "a", "prompt": "red", "lang": "en", "n": [1]}, "", {"id": 7, "prompt": "a"}
    file = write_lines(tmp_path / "p", *lines)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as some editors begin a file
    first, second = specdec.rows("--target", folder, "--prompts-file", file, "--max-new-tokens", "2")
    assert (first["id"], first["lang"], first["n"]) == ("a", "en", [1])
    assert second["id"] == 7
    assert set(second) == set(RESULT_KEYS)


def test_raw_goes_on_from_the_text_and_chat_uses_the_template(folder: Path, specdec: Specdec) -> None:
    lab = Session.open(str(folder), dtype="float64")
    for flags, tokens in ((["--raw"], lab.encode("The keeper", raw=True)), ([], lab.encode("The keeper"))):
        (row,) = specdec.rows("--target", folder, *flags, "--max-new-tokens", "8", "The keeper")
        assert row["tokens"] == lab.plain([tokens], limits=lab.limits(8))[0].tokens
    assert lab.encode("red")[0] == lab.tokenizer.convert_tokens_to_ids("<user>")


# When it ends


def test_stop_text_ends_the_answer_and_is_cut_off(folder: Path, specdec: Specdec) -> None:
    argv = ["--target", folder, *drafting("layer-skip", folder), "--max-new-tokens", "30", "--ignore-eos", "The keeper"]
    (whole,) = specdec.rows(*argv)
    stop = whole["text"][20:24]
    (row,) = specdec.rows(*argv, "--stop", "never said", "--stop", stop)
    assert row["finish_reason"] == "stop"
    assert row["text"] == whole["text"][: whole["text"].index(stop)]
    assert row["tokens"] == whole["tokens"][: len(row["tokens"])]
    assert specdec("generate", "--dtype", "float64", *argv, "--stop", stop) == 0
    assert specdec.out == row["text"] + "\n"


@pytest.mark.parametrize("ending", ["<end>", "<over>"])
def test_the_tokenizers_and_the_models_ends_of_text_both_count(
    ending: str, folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Session.open(str(folder), dtype="float64")
    assert lab.eos == {1, 2}
    end = lab.tokenizer.convert_tokens_to_ids(ending)
    weights = lab.target.model.lm_head.weight
    weights[end] = 3 * weights.abs().max()  # from some token on, nothing is likelier
    monkeypatch.setattr(Session, "open", lambda *_, **__: lab)
    argv = ["--target", folder, *drafting("layer-skip", folder), "--max-new-tokens", "30", "The keeper"]
    (row,) = specdec.rows(*argv)
    assert row["finish_reason"] == "eos"
    assert row["tokens"].index(end) == len(row["tokens"]) - 1 < 29
    assert ending not in row["text"]
    assert len(specdec.rows(*argv, "--ignore-eos")[0]["tokens"]) == 30


def test_a_budget_beyond_the_rest_is_cut_exactly_and_gamma_0_is_plain(folder: Path, specdec: Specdec) -> None:
    argv = ["--target", folder, *drafting("layer-skip", folder), "--max-new-tokens", "3", "--ignore-eos", "red"]
    (plain,) = specdec.rows(*argv[:2], "--drafter", "none", *argv[4:])
    (long,), (none,) = specdec.rows(*argv, "--depth", "50"), specdec.rows(*argv, "--depth", "0")
    assert long["tokens"] == none["tokens"] == plain["tokens"]
    assert (len(long["tokens"]), long["rounds"]) == (3, 1)
    assert (none["rounds"], none["tau"], none["alpha"]) == (3, 1.0, 0.0)


# Where text comes from and goes to


@pytest.mark.parametrize("name", ["none", "ngram", "layer-skip"])
def test_streamed_text_is_the_text(name: str, folder: Path, specdec: Specdec) -> None:
    argv = ["--target", folder, "--drafter", name, "--temperature", "0.9", "--seed", "3", "--max-new-tokens", "40"]
    (row,) = specdec.rows(*argv, "The keeper")
    assert specdec("generate", "--dtype", "float64", *argv, "The keeper") == 0
    assert specdec.out == row["text"] + "\n"
    assert "tokens/s" in specdec.err


def test_prompts_come_from_stdin_and_stdout_holds_results_alone(folder: Path) -> None:
    process = start("generate", "--target", folder, "--json", "--max-new-tokens", "3")
    out, err = process.communicate("The keeper\n", timeout=120)
    assert process.returncode == 0, err
    (row,) = map(json.loads, out.splitlines())
    assert row["finish_reason"] in ("length", "eos")
    assert "specdec: " in err


@pytest.mark.parametrize("typed", ["The keeper", "The keeper\n", "The keeper\r\n"])
def test_the_newline_that_ends_stdin_is_no_part_of_the_prompt(
    typed: str, folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--target", folder, "--raw", "--max-new-tokens", "3"]
    wanted = specdec.rows(*argv, "The keeper")[0]["tokens"]
    for dash in (["-"], []):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert specdec.rows(*argv, *dash)[0]["tokens"] == wanted


def test_what_libraries_print_does_not_reach_stdout(
    folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Session.open

    def chatty(*args: Any, **kwargs: Any) -> Session:
        sys.stdout.write("a library has something to say")
        return real(*args, **kwargs)

    monkeypatch.setattr(Session, "open", chatty)
    assert len(specdec.rows("--target", folder, "--max-new-tokens", "2", "red")) == 1
    assert "a library has something to say" in specdec.err


def test_people_get_texts_under_their_ids(folder: Path, specdec: Specdec, prompts: Path) -> None:
    argv = ["--target", folder, "--prompts-file", prompts, "--max-new-tokens", "5"]
    rows = specdec.rows(*argv)
    assert specdec("generate", "--dtype", "float64", *argv) == 0
    assert specdec.out == "".join(f"== {row['id']} ==\n{row['text']}\n\n" for row in rows)


def test_a_reader_that_goes_away_ends_it_quietly(folder: Path, prompts: Path) -> None:
    process = start("generate", "--target", folder, "--prompts-file", prompts, "--json", "--max-new-tokens", "3")
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 141
    assert "Traceback" not in err
    assert "error" not in err


# Interrupted


def read_on(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """(stdout, stderr) to the end. `communicate` would lose what a `readline` before it has read ahead."""
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        return process.stdout.read(), process.stderr.read()


def test_interrupt_leaves_whole_lines_and_code_130(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "p", *({"id": i, "prompt": "The keeper"} for i in range(500)))
    process = start("generate", "--target", folder, "--prompts-file", file, "--json", "--ignore-eos", "--batch-size", 2)
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, err = read_on(process)
    rows = [json.loads(line) for line in (first + rest).splitlines()]
    assert process.returncode == 130
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert len(rows) < 500
    said = int(err.split("interrupted: ")[1].split()[0])
    assert len(rows) - 1 <= said <= len(rows)  # the signal may come between a line and its count
    assert "Traceback" not in err


def test_interrupt_in_mid_stream_ends_the_line(folder: Path) -> None:
    argv = ["--ignore-eos", "--max-new-tokens", "900", "--drafter", "none", "red"]
    process = start("generate", "--target", folder, *argv)
    assert process.stdout is not None
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    rest, err = read_on(process)
    assert process.returncode == 130
    assert (first + rest).endswith("\n")
    assert err.endswith("specdec: interrupted\n")
    assert "Traceback" not in err


def test_interrupt_writes_what_is_finished_even_out_of_order(
    folder: Path, specdec: Specdec, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--target", folder, "--prompts-file", prompts, "--ignore-eos", "--max-new-tokens", "60", "--depth", "0"]
    texts = [row["text"] for row in specdec.rows(*argv)]
    stop = next(piece for at in range(8) if (piece := texts[1][at : at + 5]) not in texts[0][:40])
    real = SpecEngine.step

    def step(engine: SpecEngine) -> list[StepRecord]:
        if 1 not in {request.row for request in engine.requests}:
            raise KeyboardInterrupt
        return real(engine)

    monkeypatch.setattr(SpecEngine, "step", step)
    assert specdec("generate", "--json", "--dtype", "float64", *argv, "--batch-size", "5", "--stop", stop) == 130
    rows = {row["id"]: row for row in map(json.loads, specdec.out.splitlines())}
    assert rows[1]["finish_reason"] == "stop"
    assert 0 not in rows
    assert f"interrupted: {len(rows)} of 5" in specdec.err


# The other commands


def test_help_names_every_drafter_verifier_and_spelling(specdec: Specdec) -> None:
    assert specdec("--help") == 0
    assert specdec.err == ""
    spelled = [part.strip() for part in DraftBudget(4).describe().split(" = ")]
    assert all(word in specdec.out for word in [*COMMANDS, "gamma", "alpha", "tau", "lossless", "bonus", *spelled])
    for command in COMMANDS:
        assert specdec(command, "--help") == 0
        assert max(map(len, specdec.out.splitlines())) <= 80
        if command == "generate":
            assert all(f"{name}:" in specdec.out or f"{name} (default):" in specdec.out for name in [*DRAFTERS, "none"])
            assert all(f"{name}:" in specdec.out for name in VERIFIERS)


def test_version_is_the_packages(specdec: Specdec) -> None:
    assert specdec("--version") == 0
    wanted = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert specdec.out.strip() in (f"specdec {wanted.split(chr(34))[1]}", "specdec (source tree, not installed)")


def test_fetch_prints_the_folder_alone(specdec: Specdec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def report(name: str, **flags: Any) -> hub.Fetched:
        asked.append({"name": name} | flags)
        return hub.Fetched(tmp_path, 270_000_000, 21.0, from_cache=len(asked) > 1)

    monkeypatch.setattr(hub, "fetch_report", report)
    assert specdec("fetch", "--force") == 0
    assert (specdec.out, "built in 21 s" in specdec.err) == (f"{tmp_path}\n", True)
    assert specdec("fetch", "--verify", hub.EMBEDDED) == 0
    assert (specdec.out, "every sha256 compared" in specdec.err) == (f"{tmp_path}\n", True)
    assert asked == [
        {"name": hub.EMBEDDED, "force": True, "verify": False},
        {"name": hub.EMBEDDED, "force": False, "verify": True},
    ]


def test_doctor_measures_and_reports(folder: Path, specdec: Specdec) -> None:
    specdec("doctor", "--target", folder, "--json")
    report = json.loads(specdec.out)
    curve = {row["k"]: row for row in report["verify_curve"]}
    assert list(curve) == [1, 2, 3, 4, 5, 6, 8, 12, 16, 32]
    assert curve[1]["v"] == 1.0
    assert all(row["v"] == pytest.approx(row["seconds"] / curve[1]["seconds"], rel=0.01) for row in curve.values())
    specdec("doctor", "--target", folder)
    assert "[OK]" in specdec.out
    block = specdec.out.split("```")[1]
    assert all(f"{name}: {value}" in block for name, value in report["facts"].items())
    assert "v(k): 1:1.00 2:" in block
    assert "llamacpp, for `specdec serve`: xllamacpp" in " ".join(specdec.out.split())


def test_doctor_writes_down_the_threads_that_it_measures_with(
    folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("specdec_ref.machine.thread_advice", lambda: "busy")
    try:
        torch.set_num_threads(2)
        specdec("doctor", "--target", folder, "--no-measure", "--json")
        assert "one thread, not 2" in specdec.err
        assert re.search(r"\b1 threads?$", json.loads(specdec.out)["facts"]["runs on"])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("always", [True, False])
def test_doctor_measures_a_falling_curve_again_and_flags_it(
    always: bool, folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising = {k: 1.0 + k / 10 for k in (1, 2, 3, 4, 5)}
    falling = rising | {4: 1.2}
    planted = [falling, falling if always else rising]
    monkeypatch.setattr("specdec_ref.calibrate.measure_verify_curve", lambda *_, **__: planted.pop(0))
    specdec("doctor", "--target", folder)
    assert planted == []
    assert ("falls from k = 3 to k = 4" in " ".join(specdec.out.split())) == always
    assert ("v(k) falls from k = 3 to k = 4" in specdec.out.split("```")[1]) == always
    planted += [rising]
    specdec("doctor", "--target", folder, "--json")
    assert json.loads(specdec.out)["verify_curve_falls"] is None


def test_a_curve_falls_only_by_more_than_noise() -> None:
    assert falls({1: 1.0, 2: 0.97, 4: 1.5}) is None
    assert falls({1: 1.0, 4: 1.2, 2: 1.5}) == (2, 4)
    assert falls({}) is None


def test_doctor_says_what_is_missing_and_how_to_get_it(
    specdec: Specdec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path))
    assert specdec("doctor") == 1
    at = specdec.out.index("[MISSING]  embedded model smollm2-135m: it is not there yet")
    assert "-> specdec fetch" in specdec.out[at : at + 120]
    assert specdec.out.count("[MISSING]") == 1
    assert "[OPTIONAL] GPU that PyTorch can use, not found" in specdec.out
    assert "v(k)" not in specdec.out
    assert list(tmp_path.iterdir()) == []  # it only looks
    assert specdec("doctor", "--target", str(tmp_path)) == 1
    assert "holds no config.json" in " ".join(specdec.out.split())
