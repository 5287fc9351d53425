"""The cost model against worked numbers."""

import json
from dataclasses import asdict, replace
from itertools import product
from types import SimpleNamespace

import pytest
from torch import nn

from specdec_ref.cost_model import (
    GPUS,
    ExpertShape,
    Machine,
    ModelShape,
    RoundCosts,
    VerifyCurve,
    best_gamma,
    distinct_experts,
    expected_chain,
    expected_tau,
    ideal_curve,
    speedup,
)
from specdec_ref.models.toy import tiny_llama

SHAPE = ModelShape(weights=1000, layers=2, heads=4, kv_heads=2, head_dim=8, bytes_per_weight=2.0, bytes_per_cached=2.0)


def test_bytes_and_flops_of_a_step() -> None:
    assert SHAPE.kv_bytes_per_token == 2 * 2 * 2 * 8 * 2
    assert SHAPE.step_bytes(batch=3, k=5, context=10) == 2000 + 3 * 15 * 128
    # one token: 2 FLOP a weight, and 4 * layers * heads * head_dim for each of the 10 cached tokens and itself
    assert SHAPE.step_flops(k=1, context=10) == 2000 + 4 * 2 * 4 * 8 * 11
    # five tokens see 11, 12, 13, 14, 15 tokens
    assert SHAPE.step_flops(k=5, context=10) == 5 * 2000 + 4 * 2 * 4 * 8 * (11 + 12 + 13 + 14 + 15)
    assert SHAPE.step_flops(batch=3, k=5) == 3 * SHAPE.step_flops(k=5)


def test_distinct_experts_by_counting_every_choice() -> None:
    """Three tokens, each with one of four experts: the mean size of the set, over all 64 choices."""
    counted = sum(len(set(choice)) for choice in product(range(4), repeat=3)) / 4**3
    assert distinct_experts(4, 1, 3) == pytest.approx(counted)
    assert distinct_experts(128, 8, 1) == pytest.approx(8)
    assert distinct_experts(128, 8, 4) == pytest.approx(29.1, abs=0.05)
    assert (distinct_experts(6, 6, 2), distinct_experts(6, 2, 0)) == (6, 0)
    for given in ((4, 5, 1), (4, 0, 1), (4, 2, -1)):
        with pytest.raises(ValueError, match="chosen"):
            distinct_experts(*given)


def test_a_mixture_of_experts_reads_what_its_tokens_use() -> None:
    numbers = {**asdict(SHAPE), "weights": 1000}
    whole = ExpertShape(**numbers, experts=4, chosen=4, expert_weights=800)
    for given in ({"k": 5, "context": 10}, {"batch": 3}):
        assert whole.step_bytes(**given) == SHAPE.step_bytes(**given)
        assert whole.step_flops(**given) == SHAPE.step_flops(**given)
    some = ExpertShape(**numbers, experts=4, chosen=1, expert_weights=800)
    cached = SHAPE.kv_bytes_per_token
    assert some.step_bytes() == (200 + 200) * 2 + cached
    assert some.step_bytes(k=2) == pytest.approx((200 + 200 * 1.75) * 2 + 2 * cached)
    assert SHAPE.step_flops(batch=2, k=3) - some.step_flops(batch=2, k=3) == 6 * 2 * 600
    slow, large = Machine("a", bandwidth=1e3, peak=1e12), {**numbers, "weights": 1_000_000}
    many = ExpertShape(**large, experts=4, chosen=1, expert_weights=800_000)
    assert ideal_curve(many, slow)(4) > 1.8 > 1.01 > ideal_curve(ModelShape(**large), slow)(4)
    assert ideal_curve(many, slow, batch=16)(4) < 1.1
    with pytest.raises(ValueError, match="expert_weights"):
        ExpertShape(**numbers, expert_weights=1001)


def test_the_slower_of_memory_and_arithmetic_sets_the_time() -> None:
    slow_memory, slow_maths = Machine("a", bandwidth=1e3, peak=1e9), Machine("b", bandwidth=1e9, peak=1e3)
    assert SHAPE.step_seconds(slow_memory) == SHAPE.step_bytes() / 1e3
    assert SHAPE.step_seconds(slow_maths) == SHAPE.step_flops() / 1e3
    assert slow_memory.ridge == 1e6
    assert ideal_curve(SHAPE, slow_maths)(4) == pytest.approx(4, rel=0.5)
    assert ideal_curve(SHAPE, slow_memory)(4) < 1.2


def test_weights_are_counted_once_and_an_untied_embedding_not_at_all(tiny_weights: nn.Module) -> None:
    shape = ModelShape.of(tiny_weights)
    config = tiny_weights.config
    total = sum(weight.numel() for weight in tiny_weights.parameters())
    assert not config.tie_word_embeddings
    assert shape.weights == total - config.vocab_size * config.hidden_size
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (3, 4, 2, 16)
    assert shape.bytes_per_weight == 8
    tied = SimpleNamespace(
        config=SimpleNamespace(**{**config.to_dict(), "tie_word_embeddings": True, "head_dim": None}),
        parameters=tiny_llama().parameters,
        dtype=tiny_weights.dtype,
    )
    assert ModelShape.of(tied).weights == total
    assert ModelShape.of(tied).head_dim == 16


@pytest.mark.parametrize(("bandwidth", "peak"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_a_machine_needs_positive_speeds(bandwidth: float, peak: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Machine("m", bandwidth, peak)


def test_a_measured_curve_is_straight_between_points_and_unknown_beyond() -> None:
    v = VerifyCurve({1: 2.0, 3: 4.0, 7: 4.4})
    assert [v(k) for k in (1, 2, 3, 5, 7)] == pytest.approx([1.0, 1.5, 2.0, 2.1, 2.2])
    for k in (0, 8):
        with pytest.raises(ValueError, match=f"not for {k}"):
            v(k)
    for points in ({2: 1.0}, {1: 0.0}, {1: 1.0, -1: 2.0}):
        with pytest.raises(ValueError, match="positive seconds"):
            VerifyCurve(points)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 0.999])
@pytest.mark.parametrize("gamma", [0, 1, 5])
def test_expected_tau_is_the_closed_form(alpha: float, gamma: int) -> None:
    assert expected_tau(alpha, gamma) == pytest.approx((1 - alpha ** (gamma + 1)) / (1 - alpha))


def test_expected_tau_at_its_ends() -> None:
    assert expected_tau(1.0, 4) == 5.0
    for alpha, gamma in ((-0.1, 1), (1.1, 1), (0.5, -1)):
        with pytest.raises(ValueError, match="alpha must be"):
            expected_tau(alpha, gamma)


def test_speedup_with_v_one_is_leviathans_theorem() -> None:
    alpha, gamma, c = 0.8, 5, 0.05
    wanted = (1 - alpha ** (gamma + 1)) / ((1 - alpha) * (gamma * c + 1))
    assert speedup(expected_tau(alpha, gamma), gamma, c, lambda k: 1.0) == pytest.approx(wanted)


def test_tau_of_a_chain_whose_positions_differ() -> None:
    assert expected_chain([0.5, 0.4, 0.0, 1.0]) == pytest.approx(1 + 0.5 + 0.2)
    assert expected_chain([]) == 1.0
    assert expected_tau(0.7, 3) == pytest.approx((1 - 0.7**4) / (1 - 0.7))


def test_the_best_gamma_is_the_one_that_no_other_beats_and_may_be_zero() -> None:
    curve = VerifyCurve({1: 1.0, 9: 1.8})
    gamma, gain = best_gamma([0.8] * 8, 0.1, curve, overhead=0.05)
    ways = [speedup(expected_tau(0.8, g), g, 0.1, curve, 0.05 if g else 0.0) for g in range(9)]
    assert gain == max(ways)
    assert 0 < gamma == ways.index(gain) < 8
    assert best_gamma([0.1] * 8, 0.1, curve) == (0, 1.0), "a draft that is rarely right does not pay"


def test_a_round_costs_its_draft_its_verification_and_the_rest() -> None:
    costs = RoundCosts({1: 0.02, 4: 0.03, 8: 0.05}, {1: 0.004, 3: 0.010}, overhead=0.001)
    assert costs.c(1) == pytest.approx(0.2)
    assert costs.c(2) == pytest.approx(0.35)  # half-way
    assert costs.c(6) == pytest.approx(1.0)  # twice the longest that was measured
    assert costs.round(0, 1) == pytest.approx(1.05)
    assert costs.round(3, 4) == pytest.approx(0.5 + 1.5 + 0.05)
    # four rows: a plain step checks 4 tokens, this round 16, twice as many as were measured; the draft keeps its share
    assert costs.round(3, 4, batch=4) == pytest.approx(0.5 + (0.10 + 0.001) / 0.03)
    crowd = replace(costs, per_row={1: 0.001, 3: 0.002})  # unless it is known what the other three add to it
    assert crowd.c(3) == costs.c(3)
    assert crowd.round(3, 4, batch=4) == pytest.approx((0.010 + 3 * 0.002 + 0.10 + 0.001) / 0.03)
    rows = replace(costs, row=0.002, cached=1e-5, cached_node=2e-6)  # rows beside each other, and long caches
    assert rows.forward(1, 4) == pytest.approx(0.03 + 3 * 0.002)
    assert rows.forward(2, 4, 100) == pytest.approx(0.05 + 3 * 0.002)  # no longer than what `verify` was measured at
    assert rows.forward(2, 4, 1128) == pytest.approx(0.05 + 3 * 0.002 + 4 * 1000 * 1.4e-5)
    assert rows.round(1, 2, context=1128) == pytest.approx((0.004 + 0.02 + 0.01 / 3 + 0.014 + 0.001) / (0.02 + 0.012))
    for each in (costs, crowd, rows):
        assert RoundCosts.from_dict(json.loads(json.dumps(each.to_dict()))) == each


SOUND = {
    "verify": {1: 1.0},
    "draft": {1: 1.0},
    "overhead": 0.0,
    "per_row": {1: 0.5},
    "row": 0,
    "cached": 0.0,
    "cached_node": 0.0,
}
FAULTS = (
    {"draft": 3},
    {"row": -1},
    {"cached": None},
    {"cached_node": -1e-9},
    {"verify": {2: 1.0}},
    {"draft": {}},
    {"overhead": -1},
    {"per_row": {1: -1}},
    {"per_row": 3},
)


@pytest.mark.parametrize("values", [{}, *(SOUND | fault for fault in FAULTS)])
def test_costs_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    RoundCosts.from_dict(SOUND)
    with pytest.raises(ValueError, match=r"costs|verify curve"):
        RoundCosts.from_dict(values)


def test_on_a_named_gpu_a_larger_batch_leaves_less_for_speculation() -> None:
    """The roofline as a model: an 8B model in bfloat16, four guesses, next to no context."""
    llama = ModelShape(8_030_000_000, 32, 32, 8, 128)
    gains = [speedup(3.0, 4, 0.05, ideal_curve(llama, GPUS["H100"], batch)) for batch in (1, 64, 256)]
    assert gains[0] > 2.4 > gains[1] > 1 > gains[2], "arithmetic is the limit there: five tokens cost five steps"
    long = [speedup(3.0, 4, 0.05, ideal_curve(llama, GPUS["H100"], 256, context)) for context in (0, 32_000)]
    assert long[1] > long[0], "a long context is read once for all five tokens"
