"""The evaluation on held-out prompts: its figures are those of the rounds, and a wrong text is found."""

import json
from pathlib import Path

import pytest
from chat_models import save_byte_model

from benchmarks import acceptance, speed
from specdec_ref.config import DraftBudget
from specdec_ref.drafters.ngram import NgramDrafter
from specdec_ref.metrics import RunStats
from specdec_ref.session import Session
from specdec_ref.workloads import HELD_OUT, load_prompts


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_model(tmp_path_factory.mktemp("models") / "bytes")


def test_rows_are_the_rounds_figures(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--target", str(target), "--drafter", "layer-skip", "--task", "code", "chat", "--prompts", "3"]
    assert acceptance.main([*argv, "--tokens", "12", "--dtype", "float64", "--depth", "3", "--identity"]) == 0
    captured = capsys.readouterr()
    about, code, chat, mean = map(json.loads, captured.out.splitlines())
    assert about["dtype"] == "torch.float64"
    lab = Session.open(str(target), dtype="float64")
    engine = lab.engine("layer-skip", budget=DraftBudget(3), limits=lab.limits(12))
    prompts = [p.prompt for p in load_prompts(["code"], "test", file=HELD_OUT)][:3]
    alone = [engine.generate([lab.encode(text)])[0] for text in prompts]  # one at a time: batches change no token
    stats = RunStats.from_records([record for answer in alone for record in answer.records])
    assert (code["rounds"], code["tokens"], code["tau"]) == (stats.rounds, stats.tokens, round(stats.tau, 4))
    assert stats.accepted > 0, "no draft was ever accepted: the test is empty"
    assert code["identical"] == 3
    assert mean["tau"] == pytest.approx((code["tau"] + chat["tau"]) / 2, abs=1e-4)
    assert mean["tau_worst"] == min(code["tau"], chat["tau"])
    assert "by position" in captured.err


def test_a_wrong_text_is_found(target: Path) -> None:
    lab = Session.open(str(target), dtype="float64")
    prompts = [p.prompt for p in load_prompts(["chat"], "dev", file=HELD_OUT)][:2]
    answers = acceptance.decode(lab, NgramDrafter(), prompts, tokens=8)
    encoded = [lab.encode(text) for text in prompts]
    plain = [answer.tokens for answer in lab.plain(encoded, limits=lab.limits(8))]
    assert acceptance.identity(lab, encoded, plain, answers)["wrong"] == 0
    answers[1].tokens[3] += 1
    found = acceptance.identity(lab, encoded, plain, answers)
    assert (found["identical"], found["wrong"]) == (1, 1)


def test_speed_compares_every_side_with_plain(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--target", str(target), "--drafter", "ngram", "--task", "chat", "--prompts", "2", "--tokens", "6"]
    assert speed.main([*argv, "--dtype", "float64"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:]
    assert [row["side"] for row in rows] == ["plain", "transformers", "ngram"] * 2
    assert all(row["identical"] == row["calls"] == 2 for row in rows[:3])
    assert rows[0]["over_plain"] == 1.0
    assert rows[2]["over_plain"] > 0


def test_speed_divides_by_a_drafter_too(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--target", str(target), "--task", "chat", "--prompts", "2", "--tokens", "6", "--dtype", "float64",
            "--drafter", "ngram", "--drafter", "suffix", "--depth", "0", "--no-hf"]  # fmt: skip
    assert speed.main([*argv, "--against", "ngram"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:]
    assert [row["side"] for row in rows] == ["plain", "ngram", "suffix"] * 2
    assert (rows[1]["over_ngram"], rows[1]["over_ngram_ci"]) == (1.0, [1.0, 1.0])
    assert rows[2]["over_ngram"] != 1.0
    assert not any(key.startswith("over_transformers") for row in rows for key in row)
    with pytest.raises(SystemExit):
        speed.main([*argv, "--against", "trie"])
