"""The cost model against worked numbers."""

from types import SimpleNamespace

import pytest
from torch import nn

from specdec_ref.cost_model import Machine, ModelShape, VerifyCurve, expected_tau, ideal_curve, speedup
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
        parameters=tiny_llama().parameters, dtype=tiny_weights.dtype,
    )  # fmt: skip
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
