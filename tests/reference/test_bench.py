"""The benchmark: its rows say what its calls did, its settings come from the dev split, its costs from a cache."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_models import save_byte_model

from specdec_ref import calibrate
from specdec_ref.adaptive import CONTROLS
from specdec_ref.bench.llamacpp import answer_of
from specdec_ref.bench.report import markdown
from specdec_ref.bench.run import Plan, bench, environment
from specdec_ref.bench.sides import CHAINS, Answer, Setting, Side, ours, usable_drafters
from specdec_ref.bench.table import Timing, best_settings, overall, rows_of, run_sides
from specdec_ref.cli import main
from specdec_ref.cli.bench import _remark
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.metrics import RunStats
from specdec_ref.session import Session
from specdec_ref.workloads import HELD_OUT, load_prompts

KEYS = {
    "task", "method", "setting", "dtype", "batch", "temperature", "context", "clock", "calls", "tokens_per_s", "tau", "alpha",
    "speedup_vs_plain", "speedup_vs_hf", "ci_low", "ci_high", "identical", "texts",
}  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session.open(str(save_byte_model(tmp_path_factory.mktemp("models") / "bytes")), dtype="float64")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path))
    return tmp_path / "calibration"


@pytest.fixture
def quick_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "FINE_WIDTHS", (1, 2, 5, 16))
    monkeypatch.setattr(calibrate, "SECONDS", 0.1)


def prompts(tasks: Sequence[str], split: str, count: int) -> list[Any]:
    return [p for task in tasks for p in load_prompts([task], split, file=HELD_OUT)[:count]]


@pytest.mark.usefixtures("quick_calibration")
def test_every_method_writes_the_plain_text_and_gets_a_row(lab: Session) -> None:
    drafters, _ = usable_drafters(lab, ["ngram", "layer-skip"])
    plan = Plan(prompts(["chat", "code"], "test", 2), prompts(["chat"], "dev", 1), tokens=8)
    rows = list(bench(lab, drafters, plan))
    wanted = {
        "plain", "ngram", "ngram adaptive", "layer-skip", "layer-skip tree", "layer-skip adaptive", "hf",
        "hf prompt lookup", "hf assisted layer-skip",
    }  # fmt: skip
    cells = {(row["task"], row["method"]): row for row in rows}
    assert {task for task, _ in cells} == {"chat", "code", "all"}
    assert {method for _, method in cells} == wanted
    for (task, method), row in cells.items():
        if task != "all":
            assert set(row) == KEYS
            assert row["identical"] == row["texts"] == 2, (task, method)
            assert row["ci_low"] <= row["speedup_vs_plain"] <= row["ci_high"]
    assert cells["chat", "plain"]["speedup_vs_plain"] == cells["chat", "hf"]["speedup_vs_hf"] == 1.0
    assert cells["chat", "hf assisted layer-skip"]["tau"] > 1.0
    for name in ("ngram", "hf prompt lookup"):
        product = cells["chat", name]["speedup_vs_plain"] * cells["code", name]["speedup_vs_plain"]
        assert cells["all", name]["speedup_vs_plain"] == pytest.approx(product**0.5)
    text = markdown(environment(lab), rows)
    assert text.count("| plain |") == 1
    assert "| layer-skip tree | depth" in text


@pytest.mark.parametrize("server", [(), ("--endpoint", "http://127.0.0.1:9", "--load", "1")])
def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    server: Sequence[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--quick", "--plot", str(tmp_path / "a.png"), *server]) == 1
    found = capsys.readouterr()
    assert found.err == "specdec: error: pictures need matplotlib: pip install 'specdec-ref[notebooks]'\n"


def test_a_single_call_has_no_interval(lab: Session) -> None:
    drafters, _ = usable_drafters(lab, ["ngram"])
    plan = Plan(prompts(["chat", "code"], "test", 1), [], tokens=4, methods=["plain", "ngram"], hf=False)
    rows = list(bench(lab, drafters, plan))
    assert {row["task"] for row in rows} == {"chat", "code", "all"}
    assert all(row["ci_low"] is row["ci_high"] is None for row in rows)
    table = markdown(environment(lab), rows)
    assert all(line.split(" | ")[5] == "" for line in table.splitlines() if line.startswith(("| plain", "| ngram")))


def test_greedy_texts_that_differ_are_counted_by_method(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"task": "chat", "method": "ngram", "texts": 3, "identical": 3}
    _remark([row, row | {"method": "hf", "identical": 1}, row | {"method": "hf", "identical": 2}], "bfloat16")
    assert "3 greedy texts not plain's (hf 3; hf is transformers' own decoding): " in capsys.readouterr().err
    _remark([row, row | {"task": "all", "identical": None}], "bfloat16")
    assert capsys.readouterr().err == ""


def test_every_setting_can_have_a_row(lab: Session) -> None:
    """What the best fixed length would have been is known in hindsight only."""
    drafters, _ = usable_drafters(lab, ["ngram"])
    tests, dev = prompts(["chat"], "test", 1), prompts(["chat"], "dev", 1)
    rows = list(bench(lab, drafters, Plan(tests, dev, tokens=8, methods=["ngram"], hf=False, every=True)))
    wanted = ["plain", *(f"ngram, gamma {gamma}" for gamma in CHAINS["ngram"])]
    assert [row["method"] for row in rows if row["task"] == "chat"] == wanted
    assert [row["method"] for row in rows if row["task"] == "all"] == wanted


def test_batches_and_temperature(lab: Session) -> None:
    drafters, _ = usable_drafters(lab, ["ngram"])
    plan = Plan(prompts(["chat"], "test", 3), (), tokens=5, temperatures=(0.0, 1.0), batches=(2,), methods=["ngram"])
    rows = [row for row in bench(lab, drafters, plan) if row["task"] != "all"]
    assert [(r["temperature"], r["method"]) for r in rows] == [(t, m) for t in (0, 1) for m in ("plain", "ngram", "hf")]
    assert [row["identical"] for row in rows] == [3, 3, 3, None, None, None]
    assert all(row["calls"] == 2 and row["texts"] == 3 for row in rows)


@pytest.mark.parametrize("name", ["trie", "suffix"])
def test_no_side_copies_the_answer_of_another(lab: Session, name: str) -> None:
    """The sides of a trie share it and are asked the same: a warm one would guess whole answers."""
    drafters, _ = usable_drafters(lab, [name])
    setting = Setting(lab, SamplingParams(), lab.limits(40, ignore_eos=True), 1)
    sides = [each for each in ours(setting, drafters) if each.method == name]
    batch = ([lab.encode("Name three colours.", raw=True)], [0])
    together = run_sides(sides, [batch, batch])
    for each in sides:
        (alone,) = run_sides([each], [batch])[each]
        assert [call.answers[0].stats for call in together[each]] == [alone.answers[0].stats] * 2


def side(
    method: str, setting: str, seconds: float, tokens: Sequence[int] = (1, 2), log: list[str] | None = None
) -> Any:
    """A side and its timing, without running anything."""

    def begin() -> Callable[..., list[Answer]]:
        def call(batch: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
            if log is not None:
                log.append(f"{method}{seeds[0]}")
            return [Answer(list(tokens)) for _ in batch]

        return call

    return Side(method, setting, begin), [Timing(seconds, [Answer(list(tokens), RunStats(1, 2, 3, 2, 1))])]


def test_the_fastest_setting_of_each_method_is_kept() -> None:
    slow, quick, other = side("a", "1", 2.0), side("a", "2", 1.0), side("b", "1", 5.0)
    assert [(s.method, s.setting) for s in best_settings([dict([slow, quick, other])])] == [("a", "2"), ("b", "1")]


def test_a_wrong_text_is_counted_and_ratios_are_of_seconds_a_token() -> None:
    plain, wrong = side("plain", "", 4.0), side("ngram", "g", 3.0, (1, 2, 9))
    rows = {row["method"]: row for row in rows_of("chat", dict([plain, wrong]), greedy=True)}
    assert rows["ngram"]["identical"] == 0
    assert rows["ngram"]["speedup_vs_plain"] == 2.0  # 2 s a token against 1
    assert rows["ngram"]["tokens_per_s"] == 1.0
    assert (rows["ngram"]["tau"], rows["ngram"]["alpha"], rows["ngram"]["speedup_vs_hf"]) == (2.0, 0.5, None)
    (_, mean) = overall({"chat": dict([plain, wrong])})
    assert (mean["speedup_vs_plain"], mean["ci_low"], mean["ci_high"]) == (pytest.approx(2.0), None, None)


def test_sides_take_turns_in_going_first() -> None:
    log: list[str] = []
    sides = [side(name, "", 1.0, log=log)[0] for name in "abc"]
    run_sides(sides, [([[1]], [0]), ([[1]], [1])], repeats=2)
    assert log == ["a0", "b0", "c0", "b1", "c1", "a1", "b0", "c0", "a0", "c1", "a1", "b1"]


@pytest.mark.usefixtures("quick_calibration")
def test_costs_are_measured_once_and_a_damaged_file_again(
    lab: Session, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafters, _ = usable_drafters(lab, ["layer-skip", "ngram"])
    rows = [(name, drafter, DraftBudget(8)) for name, drafter in drafters.items()]
    first = calibrate.calibrate(lab, rows)
    assert set(first) == {"layer-skip", "ngram"}
    assert set(first["ngram"].verify) == {1, 2, 5, 16}
    assert first["layer-skip"].c(4) >= first["layer-skip"].c(1) > first["ngram"].c(1) > 0
    assert 0 < first["ngram"].overhead < first["ngram"].verify[1]
    (file,) = cache.iterdir()
    with monkeypatch.context() as frozen:
        frozen.setattr(calibrate, "measure_verify_curve", None)
        frozen.setattr(calibrate, "measure_drafting", None)
        assert calibrate.calibrate(lab, rows) == first
        with pytest.raises(TypeError):
            calibrate.calibrate(lab, rows, fresh=True)
    known = json.loads(file.read_text())
    known["drafters"]["ngram"]["draft"] = "?"
    file.write_text(json.dumps(known))
    assert calibrate.costs_of(lab, "ngram", drafters["ngram"], DraftBudget(8)).overhead > 0


def test_noise_is_pooled_until_more_work_takes_no_less_time() -> None:
    measured = {1: 2.0, 2: 3.0, 3: 1.0, 4: 2.5, 8: 6.0, 16: 5.0}
    assert calibrate.rising(measured) == {1: 2.0, 2: 2.0, 3: 2.0, 4: 2.5, 8: 5.5, 16: 5.5}
    assert calibrate.rising({8: 3.0, 1: 1.0}) == {1: 1.0, 8: 3.0}


@pytest.mark.usefixtures("quick_calibration")
def test_doctor_calibrates_and_says_what_pays(lab: Session, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["doctor", "--target", lab.name, "--dtype", "float64", "--calibrate", "--drafter", "layer-skip"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["costs"]["layer-skip"]
    (file,) = cache.iterdir()
    assert found["draft"] == json.loads(file.read_text())["drafters"]["layer-skip"]["draft"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "c, 4 guesses" in out
    assert "layer-skip" in out.partition("drafting")[2]


def test_the_command(lab: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(
        "".join(json.dumps({"id": i, "task": "greetings", "prompt": f"Hello {i}!"}) + "\n" for i in range(6))
    )
    argv = ["bench", "--target", lab.name, "--dtype", "float64", "--drafter", "ngram", "--method", "ngram", "--no-hf"]
    work = ["--tokens", "4", "--prompts-file", str(file)]
    assert main([*argv, *work, "--json", "--plot", str(tmp_path / "bars.png")]) == 0
    about, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert about["environment"]["dtype"] == "float64"
    assert [(r["task"], r["method"], r.get("texts")) for r in rows] == [
        ("greetings", "plain", 4),
        ("greetings", "ngram", 4),
        ("all", "plain", None),
        ("all", "ngram", None),
    ]
    assert rows[1]["setting"].startswith("gamma")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    assert main([*argv, *work, "--json", "--cpu-clock"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["clock"] == "cpu"
    for wrong, why in (
        (["--task", "poems"], "no prompts for 'poems'; there are code"), (["--batch", "0"], "--batch must be >= 1"),
        (["--prompts-file", str(tmp_path / "none")], "cannot read"), (["--method", "magic"], "unknown method 'magic'"),
    ):  # fmt: skip
        assert main([*argv, *wrong]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.usefixtures("quick_calibration")
def test_generate_and_demo_adapt_their_lengths(lab: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """The same text under every controller; the optimal one measures its costs first."""
    argv = ["generate", "--target", lab.name, "--dtype", "float64", "--drafter", "layer-skip", "--json"]
    texts, rounds = {}, {}
    for name in ("", *CONTROLS):
        extra = ["--adaptive", name] if name else []
        assert main([*argv, "--max-new-tokens", "30", *extra, "Why is the sky blue?"]) == 0
        row = json.loads(capsys.readouterr().out)
        texts[name], rounds[name] = row["tokens"], row["rounds"]
    assert all(text == texts[""] for text in texts.values())
    assert len(set(rounds.values())) > 1, "no controller made a difference: the test is empty"
    for wrong, said in (
        (["--adaptive", "best"], "Choose from constant"),
        (["--adaptive", "ema", "--drafter", "none"], "drop one of the two"),
    ):
        assert main([*argv, *wrong, "Hello"]) == 2
        assert said in capsys.readouterr().err
    demo = ["demo", "--target", lab.name, "--dtype", "float64", "--max-new-tokens", "4", "--adaptive"]
    assert main([*demo, "best"]) == 2
    capsys.readouterr()
    assert main([*demo, "ema", "-v"]) == 0
    assert "gamma 12" in capsys.readouterr().out


def test_an_answer_of_llamacpp_has_its_end_and_its_passes() -> None:
    """It leaves the end-of-text token out of `tokens` but counts it; accepted drafts took no pass of their own."""
    timings = {"predicted_n": 6, "draft_n": 8, "draft_n_accepted": 3}
    ended = answer_of({"tokens": [4, 5, 6, 7, 8], "stop_type": "eos", "timings": timings}, frozenset({2}))
    assert ended.tokens == [4, 5, 6, 7, 8, 2]
    assert ended.stats is not None
    assert (ended.stats.rounds, ended.stats.tau) == (3, 2.0)
    cut = answer_of({"tokens": [4, 5], "stop_type": "limit", "timings": {"predicted_n": 2}}, frozenset({2}))
    assert cut.tokens == [4, 5]


@pytest.mark.parametrize(
    ("words", "reason"), [(["--target", "x/y"], "smollm2-135m only"), (["--cpu-clock"], "choose one")]
)
def test_llamacpp_beside_ours_is_refused_where_it_says_nothing(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other weights, and a clock that does not see its process."""
    assert main(["bench", "--llamacpp", *words]) == 2
    assert reason in capsys.readouterr().err
