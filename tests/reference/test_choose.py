"""Choosing: the numbers decide, "do not speculate" is among the answers, and every answer says why."""

import json
import math
import re
from pathlib import Path

import pytest
from cli_helpers import Specdec, folder, specdec
from hypothesis import given
from hypothesis import strategies as st

from specdec_ref import calibrate
from specdec_ref.bench.known import known
from specdec_ref.choose import METHODS, SCENARIOS, SHAPES, Option, choose, measured_cost, roofline_cost
from specdec_ref.cost_model import GPUS, RoundCosts, expected_tau, speedup
from specdec_ref.workloads import TASKS

__all__ = ["folder", "specdec"]  # fixtures

COSTS = RoundCosts({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.6, 16: 2.4, 32: 4.4, 64: 8.4}, {1: 0.1, 4: 0.4, 8: 0.8}, 0.05)


def geometric(alpha: float, gamma: int = 8) -> tuple[float, ...]:
    """Shares of a chain in which every draft is accepted alike."""
    return tuple(alpha ** (j + 1) for j in range(gamma))


@given(alpha=st.floats(0, 0.99), c=st.floats(0, 1), slope=st.floats(0, 1), gamma=st.integers(1, 8))
def test_an_option_is_weighed_by_the_cost_model(alpha: float, c: float, slope: float, gamma: int) -> None:
    """tau and speed-up are those of cost_model, whose formulas have tests of their own."""

    def v(k: int) -> float:
        return 1 + slope * (k - 1)

    way = Option("draft", geometric(alpha), lambda g: g * c + v(g + 1)).weigh(gamma)
    assert math.isclose(way.tau, expected_tau(alpha, gamma))
    assert math.isclose(way.speedup, speedup(way.tau, gamma, c, v))


@given(
    shares=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=4),
    c=st.floats(0, 1), slope=st.floats(0, 1), drafts=st.floats(0, 1), margin=st.floats(1, 2),
)  # fmt: skip
def test_no_option_and_no_length_beats_the_choice(
    shares: list[list[float]], c: float, slope: float, drafts: float, margin: float
) -> None:
    options = [
        Option(f"method {i}", tuple(sorted(row, reverse=True)), lambda g: g * c + 1 + slope * g, drafts)
        for i, row in enumerate(shares)
    ]
    choice = choose(options, lambda k: 1 + slope * (k - 1), margin=margin)
    every = [option.weigh(g) for option in options for g in range(1, len(option.alive) + 1)]
    best = max(way.speedup for way in every)
    assert choice.method == "none" or choice.speedup == best
    assert (choice.method == "none") == (best < margin)
    assert choice.speedup >= 1.0
    assert len(choice.weighed) == len(options)


def test_large_batches_decode_plainly_and_say_so() -> None:
    """The same acceptance pays at batch 1 and loses where the machine computes anyway."""
    small, large = (
        choose([Option("eagle", geometric(0.5), cost)], v, batch=batch)
        for batch in (1, 16)
        for cost, v in [measured_cost(COSTS, batch)]
    )
    assert small.method == "eagle"
    assert small.speedup > 1.2
    assert large.method == "none"
    assert "Do not speculate" in large.reasons[-1]
    assert "expensive" in large.reasons[0]
    assert "cheap" in small.reasons[0]


def test_rounds_without_a_draft_cost_a_plain_step() -> None:
    cost, v = measured_cost(COSTS)
    always, seldom = (Option("ngram", (0.1, 0.1), cost, drafts).weigh(2) for drafts in (1.0, 0.15))
    assert seldom.tau == always.tau
    assert math.isclose(seldom.cost, 0.15 * always.cost + 0.85)
    assert "drafts in 15% of rounds" in choose([Option("ngram", (0.1, 0.1), cost, 0.15)], v).reasons[1]


def test_the_reasons_hold_the_numbers_of_the_choice() -> None:
    cost, v = measured_cost(COSTS)
    choice = choose([Option("eagle", geometric(0.7), cost), Option("ngram", (0.2, 0.1), cost)], v)
    text = " ".join(choice.reasons)
    assert f"Use eagle with {choice.gamma} drafts" in text
    assert METHODS["eagle"] in text
    for way in choice.weighed:
        assert f"{way.tau:.2f} tokens for {way.cost:.2f} plain steps, {way.speedup:.2f} times plain" in text


@pytest.mark.parametrize(("share", "named"), [(0.58, True), (0.4, False)])
def test_a_second_that_is_as_good_is_named(share: float, named: bool) -> None:
    options = [Option(name, (alive,), lambda g: 1 + 0.1 * g) for name, alive in (("eagle", 0.6), ("draft", share))]
    assert ("draft is as good" in choose(options, lambda k: 1.0).reasons[-1]) == named


def test_why_the_draft_is_not_longer() -> None:
    choice = choose([Option("eagle", (0.7, 0.1), lambda g: 1 + 0.2 * g)], lambda k: 1.0)
    assert choice.gamma == 1
    assert "One more draft would add 0.10 tokens and 0.20 steps" in choice.reasons[1]


def test_measured_costs_are_those_of_the_cost_model() -> None:
    cost, v = measured_cost(COSTS, batch=4)
    assert cost(3) == COSTS.round(3, 4, 4)
    assert v(1) == pytest.approx(1.0)
    assert v(4) == pytest.approx(COSTS.verify[16] / COSTS.verify[4])


def test_a_gpu_from_its_data_sheet() -> None:
    """8 B in bfloat16 on an H100: large batches lose, unless the cache of long texts is what takes the time."""
    found = {}
    for batch, context in ((1, 1024), (1024, 64), (1024, 8192)):
        cost, v = roofline_cost(SHAPES["8b"], GPUS["H100"], 0.05, batch, context)
        found[batch, context] = choose([Option("eagle", (0.73, 0.52, 0.35), cost)], v, batch=batch)
    assert [choice.method for choice in found.values()] == ["eagle", "none", "eagle"]
    assert found[1, 1024].speedup > 2


@pytest.mark.parametrize("alive", [(0.5, 0.6), (1.2,), (-0.1,)])
def test_shares_that_cannot_be(alive: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="never rise"):
        Option("eagle", alive, lambda g: 1.0)


def test_nothing_to_choose_from() -> None:
    assert choose([], lambda k: 1.0).method == "none"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_known_covers_every_task_and_is_consistent(temperature: float) -> None:
    """tau is 1 + the shares, but for rounds that a text's end cut short."""
    for task in (*TASKS, "mean"):
        found = known(task, temperature)
        assert {"eagle", "ngram"} <= set(found)
        for row in found.values():
            assert row.tau == pytest.approx(1 + sum(row.alive), abs=0.05)
            assert 0 < row.drafts <= 1
        assert found["ngram"].drafts < found["eagle"].drafts
    with pytest.raises(ValueError, match="nothing was measured"):
        known("poetry")


def test_scenarios_name_tasks_that_were_measured() -> None:
    assert {task for task, _ in SCENARIOS.values()} <= set(TASKS)


def test_cli_with_a_gpu_loads_no_model(specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    from specdec_ref.session import Session

    monkeypatch.setattr(Session, "open", lambda *_, **__: pytest.fail("a model was loaded"))
    argv = ["choose", "--gpu", "H100", "--acceptance", "eagle=0.73,0.52,0.35"]
    assert specdec(*argv) == 0
    assert re.match(
        r"eagle, gamma 3: 2\.\d\d times plain, predicted \(your acceptance; H100, from its data sheet", specdec.out
    )
    assert specdec(*argv, "--batch", "1024", "--context", "64", "--json") == 0
    assert json.loads(specdec.out)["method"] == "none"
    assert specdec("choose", "--gpu", "H100", "--task", "editing") == 0
    shares = ["--acceptance", "ngram=0.5", "--acceptance", "eagle=0.5", "--draft-share", "0.1", "--context", "512"]
    assert specdec("choose", "--gpu", "H100", *shares, "--json") == 0
    price = roofline_cost(SHAPES["8b"], GPUS["H100"], 0.0, 1, 512)[1](2)
    costs = {way["name"]: way["cost"] for way in json.loads(specdec.out)["weighed"]}
    assert costs == {"ngram": pytest.approx(price), "eagle": pytest.approx(price + 0.1)}, "looking up costs nothing"
    for wrong in (["--gpu", "Z80"], ["--gpu", "H100", "--size", "1t"], [*argv[1:], "--batch", "0"],
                  ["--gpu", "H100", "--acceptance", "eagle=much"], ["--gpu", "H100", "--task", "poetry"]):  # fmt: skip
        specdec.error(2, "choose", *wrong)


def test_cli_weighs_what_rounds_cost_here(
    specdec: Specdec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs are measured and kept; the answer is `choose` on them; a drafter that cannot be had is left out, and said."""
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "FINE_WIDTHS", (1, 2, 5, 16))
    monkeypatch.setattr(calibrate, "SECONDS", 0.1)
    argv = ["choose", "--target", folder, "--dtype", "float64", "--json", "--acceptance", "layer-skip=0.9,0.8,0.7"]
    assert specdec(*argv, "--acceptance", "ngram=0.5,0.4", "--acceptance", "draft=0.9") == 0, specdec.err
    told = json.loads(specdec.out)
    assert "draft is left out" in specdec.err
    (file,) = (tmp_path / "calibration").iterdir()
    kept = json.loads(file.read_text())
    alive = {"layer-skip": (0.9, 0.8, 0.7), "ngram": (0.5, 0.4)}
    costs = {name: RoundCosts.from_dict(kept | kept["drafters"][name]) for name in alive}
    options = [Option(name, shares, measured_cost(costs[name])[0]) for name, shares in alive.items()]
    wanted = choose(options, measured_cost(costs["ngram"])[1])
    assert (told["method"], told["gamma"]) == (wanted.method, wanted.gamma)
    assert [(way["name"], way["gamma"], way["speedup"]) for way in told["weighed"]] == [
        (way.name, way.gamma, pytest.approx(way.speedup)) for way in wanted.weighed
    ]
    with monkeypatch.context() as frozen:
        frozen.setattr(calibrate, "measure_verify_curve", None)  # nothing is measured twice
        assert specdec(*argv) == 0
        assert specdec(*argv[:6], "--task", "editing", "--batch", "4") == 0
    row, (cost, v) = known("editing", 0.0)["ngram"], measured_cost(costs["ngram"], 4)
    assert row.drafts < 1
    assert json.loads(specdec.out)["reasons"] == list(
        choose([Option("ngram", row.alive, cost, row.drafts)], v, batch=4).reasons
    )
    specdec.error(2, *argv[:-1], "draft=0.9")


def test_a_faster_machine_for_drafts_chooses_longer_ones() -> None:
    """The same acceptance, a drafter a hundredth as dear."""
    dear, cheap = (
        choose(
            [Option("draft", geometric(0.8), measured_cost(RoundCosts(COSTS.verify, {1: c}, 0.05))[0])], lambda k: 1.0
        )
        for c in (0.5, 0.005)
    )
    assert 0 < dear.gamma < cheap.gamma
    assert dear.speedup < cheap.speedup


def test_the_fastest_is_chosen_and_not_the_one_with_the_most_tokens_a_round() -> None:
    dear = Option("draft", (0.9, 0.8), lambda gamma: 1 + 0.6 * gamma)  # 2.7 tokens for 2.2 steps
    cheap = Option("ngram", (0.6,), lambda gamma: 1 + 0.01 * gamma)  # 1.6 for 1.01
    best = choose([dear, cheap], lambda k: 1.0)
    assert [way.name for way in best.weighed] == ["ngram", "draft"]
    assert best.weighed[0].tau < best.weighed[1].tau
    assert best.method == "ngram"
