"""Predictions: the formula by hand, a row's words taken apart, the whole way on a tiny model."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from chat_models import save_byte_model

from benchmarks import predict
from benchmarks.predict import Clock, Line, Method, predicted, reason, with_tau
from specdec_ref import calibrate
from specdec_ref.bench.run import Plan, bench, environment
from specdec_ref.bench.sides import Setting, ours, usable_drafters
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.cost_model import RoundCosts
from specdec_ref.metrics import StepRecord
from specdec_ref.request import Generation
from specdec_ref.session import Session
from specdec_ref.workloads import HELD_OUT, load_prompts

COSTS = RoundCosts({1: 0.010, 4: 0.016}, {3: 0.003}, 0.001)
CLOCK = Clock(0.011, Line(0.001, 0.0), Line(0.001, 0.002), COSTS)


def answer(*rounds: tuple[int, int, int]) -> Generation:
    """Rounds of (depth, drafted, emitted)."""
    records = tuple(StepRecord(0, n, n, emitted - 1, emitted, depth) for depth, n, emitted in rounds)
    return Generation([0] * sum(emitted for *_, emitted in rounds), "length", records)


def test_the_formula_by_hand() -> None:
    """Ten tokens in four rounds, one without a draft: 0.1 + 9 * 0.011 against 0.102 + 3 * 0.020 + 0.011."""
    ten = answer((3, 3, 4), (3, 3, 4), (0, 0, 1), (3, 3, 1))
    speedup, share = predicted(CLOCK, [100], [ten])
    assert speedup == pytest.approx(0.199 / 0.173)
    assert share == pytest.approx(0.102 / 0.173)
    assert predicted(CLOCK, [10], [ten])[0] == pytest.approx(
        (0.01 + 0.099) / (0.012 + 0.071)
    )  # a short prompt hides less


def test_a_first_round_without_a_draft_needs_no_forward() -> None:
    late, early = answer((3, 3, 4), (0, 0, 1)), answer((0, 0, 1), (3, 3, 4))
    assert 1 / predicted(CLOCK, [10], [late])[0] == pytest.approx(0.043 / 0.054)  # 0.012 + 0.020 + 0.011
    assert 1 / predicted(CLOCK, [10], [early])[0] == pytest.approx(0.033 / 0.054)


def test_prompts_count_alike() -> None:
    quick, slow = answer((3, 3, 4)), answer(*[(3, 3, 1)] * 4)
    both = [predicted(CLOCK, [10], [one])[0] for one in (quick, slow)]
    assert predicted(CLOCK, [10, 10], [quick, slow])[0] == pytest.approx(sum(both) / 2)


@pytest.mark.parametrize(
    ("changes", "why"),
    [({}, ""), ({"predicted": 1.64}, ""), ({"predicted": 1.7}, "noise"), ({"predicted": 1.9}, "costs"),
     ({"predicted": 1.3}, "costs"), ({"predicted": 1.9, "with_test_tau": 1.6}, "acceptance")],
)  # fmt: skip
def test_a_miss_has_a_reason(changes: dict[str, float], why: str) -> None:
    row = {"predicted": 1.5, "measured": 1.5, "with_test_tau": 1.9, "ci_low": 1.4, "ci_high": 1.8}
    assert reason(row | changes) == why


def test_another_tau_changes_the_rounds_and_not_the_prefill() -> None:
    """Of 1 s, 0.2 s are prefill; 2.4 tokens a round where 2 were counted leave 0.8 * 2 / 2.4 s of rounds."""
    assert with_tau(1.5, 0.2, 2.0, 2.4) == pytest.approx(1.5 / (0.2 + 0.8 * 2 / 2.4))
    assert with_tau(1.5, 0.2, 2.0, 2.0) == 1.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_model(tmp_path_factory.mktemp("models") / "bytes")


@pytest.fixture(autouse=True)
def quick_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "FINE_WIDTHS", (1, 2, 5, 16))
    monkeypatch.setattr(calibrate, "SECONDS", 0.1)
    monkeypatch.setattr(predict, "LENGTHS", (32, 64))


def test_every_setting_that_bench_has_can_be_read(folder: Path) -> None:
    lab = Session.open(str(folder), dtype="float64")
    drafters, _ = usable_drafters(lab, ["ngram", "trie", "layer-skip"])
    sides = list(ours(Setting(lab, SamplingParams(), lab.limits(4), 1), drafters))
    read = {(side.method, side.setting): Method.of({"method": side.method, "setting": side.setting}) for side in sides}
    assert read["plain", ""] is None
    assert read["ngram", "gamma 8"] == Method("ngram", DraftBudget(8), False)
    assert read["trie tree", "depth 4, topk 2, nodes 8"] == Method("trie", DraftBudget(4, 2, 8), False)
    assert read["layer-skip adaptive", "up to 12"] == Method("layer-skip", DraftBudget(12), True)
    assert len(set(read.values())) == len(sides)
    assert Method.of({"method": "ngram, gamma 8", "setting": "gamma 8"}) == read["ngram", "gamma 8"]
    assert Method.of({"method": "hf prompt lookup", "setting": "10 tokens, n <= 2"}) is None


def test_rows_are_joined_with_what_the_dev_split_did(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Session.open(str(folder), dtype="float64")
    drafters, _ = usable_drafters(lab, ["layer-skip", "ngram"])
    test = load_prompts(["chat"], "test", file=HELD_OUT)[:2]
    rows = list(bench(lab, drafters, Plan(test, (), tokens=8, hf=False)))
    monkeypatch.setattr(predict, "runs", lambda name: [(environment(lab), rows)])
    argv = ["--target", str(folder), "--dtype", "float64", "--prompts", "2", "--tokens", "12"]
    assert predict.main(argv) == 0
    captured = capsys.readouterr()
    about, *found = map(json.loads, captured.out.splitlines())
    assert about["environment"]["step_ms"] > 0
    wanted = {(row["task"], row["method"]) for row in rows if row["task"] != "all" and row["method"] != "plain"}
    assert {(row["task"], row["method"]) for row in found} == wanted
    cells: dict[str, Any] = {row["method"]: row for row in found}
    engine = lab.engine("layer-skip", budget=DraftBudget(1), limits=lab.limits(12))
    texts = [p.prompt for p in load_prompts(["chat"], "dev", file=HELD_OUT)][:2]
    done = [engine.generate([lab.encode(text)])[0] for text in texts]
    rounds = sum(len(one.records) for one in done)
    assert cells["layer-skip"]["tau_dev"] == pytest.approx(sum(len(one.tokens) for one in done) / rounds, abs=1e-3)
    for row in found:
        assert row["predicted"] > 0
        assert 0 < row["prefill"] < 1
        assert row["reason"] in ("", "acceptance", "noise", "costs")
    assert f"of {len(wanted)} within 10%" in captured.err


def test_nothing_to_predict_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "runs", lambda name: [])
    with pytest.raises(SystemExit, match="no committed rows in float64"):
        predict.main(["--target", os.fspath(folder), "--dtype", "float64"])
