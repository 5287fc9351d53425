"""KeyedRandomness: replayable, independent across every part of its key, exact at the edges.

Every chi-square below is compared with the quantile of a stated false-alarm rate, FALSE_ALARM: the chance that a perfect
generator would fail a fresh draw of that one test. The seeds are fixed, so a run cannot flicker.
"""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from strategies import quick

from specdec_ref.randomness import KeyedRandomness, Purpose

FALSE_ALARM = 1e-6
SAMPLES = 10_000
SIDE = 8  # pairs of coins are counted on a SIDE x SIDE grid


class Fixed(KeyedRandomness):
    """Always the same coin."""

    def __init__(self, coin: float) -> None:
        super().__init__(0, 0, "verify")
        self._coin = coin

    def uniform(self) -> float:
        return self._coin


def excess(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Chi-square statistic over its quantile at FALSE_ALARM: above 1 is a failure. No fitted parameters."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic / float(chi2.ppf(1 - FALSE_ALARM, counts.numel() - 1))


def pair_excess(pairs: list[tuple[float, float]]) -> float:
    """Are the pairs uniform on the unit square, i.e. both coins uniform and independent of one another?"""
    cells = torch.tensor([int(a * SIDE) * SIDE + int(b * SIDE) for a, b in pairs])
    counts = torch.bincount(cells, minlength=SIDE * SIDE).double()
    return excess(counts, torch.full_like(counts, len(pairs) / SIDE**2))


def first(seed: int, position: int, purpose: Purpose = "verify") -> float:
    return KeyedRandomness(seed, position, purpose).uniform()


def test_the_same_key_gives_the_same_coins_whatever_torch_does() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = KeyedRandomness(7, 12, "draft")
    coins = [one.uniform() for _ in range(50)]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    two = KeyedRandomness(7, 12, "draft")
    assert coins == [two.uniform() for _ in range(50)]
    assert len(set(coins)) == 50


def test_every_part_of_the_key_matters() -> None:
    keys = list(product([0, 1, -1, 2**63, 2**64 + 5], [0, 1, 2, 1000], ["draft", "verify", "plain"]))
    assert len({first(*key) for key in keys}) == len(keys)
    with pytest.raises((KeyError, TypeError)):  # TypeError: the shape checker of the tests is faster
        KeyedRandomness(0, 0, "typo")  # type: ignore[arg-type]


@quick(300)
@given(st.integers(-(2**70), 2**70), st.integers(0, 2**40))
def test_coins_lie_in_the_half_open_unit_interval(seed: int, position: int) -> None:
    rng = KeyedRandomness(seed, position, "plain")
    assert all(0.0 <= rng.uniform() < 1.0 for _ in range(20))


PAIRS = {
    "two coins of one stream": lambda n: (lambda r: (r.uniform(), r.uniform()))(KeyedRandomness(3, n, "verify")),
    "neighbouring positions": lambda n: (first(3, 2 * n), first(3, 2 * n + 1)),
    "neighbouring seeds": lambda n: (first(2 * n, 9), first(2 * n + 1, 9)),
    "drafting and verifying": lambda n: (first(3, n, "draft"), first(3, n, "verify")),
    "verifying and plain decoding": lambda n: (first(3, n, "verify"), first(3, n, "plain")),
    "seed and position exchanged": lambda n: (first(n, n + 1), first(n + 1, n)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_coins_are_uniform_and_independent(name: str) -> None:
    assert pair_excess([PAIRS[name](n) for n in range(SAMPLES)]) < 1.0


def test_a_long_stream_is_uniform() -> None:
    rng = KeyedRandomness(11, 0, "draft")
    counts = torch.bincount(torch.tensor([int(rng.uniform() * 256) for _ in range(SAMPLES)]), minlength=256).double()
    assert excess(counts, torch.full_like(counts, SAMPLES / 256)) < 1.0


def test_the_chi_square_sees_streams_that_are_shared_or_shifted() -> None:
    """Negative controls: one stream for two purposes, and keys that overlap by one counter step."""
    shared = [(first(3, n, "verify"), first(3, n, "verify")) for n in range(SAMPLES)]
    assert pair_excess(shared) > 10
    stream = KeyedRandomness(3, 0, "verify")
    coins = [stream.uniform() for _ in range(SAMPLES + 1)]
    averaged = [((a + b) % 1.0, a) for a, b in pairwise(coins)]
    assert pair_excess(averaged) < 1.0  # a sum modulo 1 with a fresh coin is fresh: no false alarm
    smoothed = [((a + b) / 2, a) for a, b in pairwise(coins)]
    assert pair_excess(smoothed) > 10


def test_draw_follows_its_weights() -> None:
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 0.5, 0.0, 2.0, 0.25])
    drawn = torch.tensor([KeyedRandomness(5, n, "draft").draw(weights) for n in range(SAMPLES)])
    counts = torch.bincount(drawn, minlength=8).double()
    assert counts[weights == 0].sum() == 0
    support = weights > 0
    assert excess(counts[support], SAMPLES * weights[support].double() / weights.sum()) < 1.0


@quick(300)
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1e3)), min_size=1, max_size=12).filter(any),
    st.one_of(st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53]), st.floats(0, 1, exclude_max=True)),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_draw_never_hits_a_zero_weight(weights: list[float], coin: float, dtype: torch.dtype) -> None:
    values = torch.tensor(weights, dtype=dtype)
    if values.any():
        assert values[Fixed(coin).draw(values)] > 0


def test_the_edges_of_a_draw() -> None:
    ends = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])
    assert Fixed(0.0).draw(ends) == 2  # u = 0 skips the leading zeros
    assert Fixed(1 - 2.0**-53).draw(ends) == 3  # u just below 1 skips the trailing ones
    assert Fixed(0.5).draw(ends) == 3  # an interval is closed at its left end
    assert Fixed(1 - 2.0**-53).draw(torch.tensor([5e-324, 0.0], dtype=torch.float64)) == 0  # u * total rounds to total


@pytest.mark.parametrize("weights", [[0.0, 0.0], [float("nan"), 1.0]])
def test_a_draw_from_nothing_is_an_error(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="no outcome has positive weight"):
        KeyedRandomness(0, 0, "verify").draw(torch.tensor(weights))


def test_the_edges_of_an_acceptance() -> None:
    """Strict: u can be 0, and a draft that the target gives probability 0 must never pass."""
    assert not Fixed(0.0).accept(0.0)
    assert Fixed(0.0).accept(5e-324)
    assert Fixed(1 - 2.0**-53).accept(1.0)
    assert Fixed(1 - 2.0**-53).accept(7.5)
    assert not Fixed(1 - 2.0**-53).accept(1 - 2.0**-53)


def test_acceptance_happens_as_often_as_it_should() -> None:
    """Binomial: 5.33 standard deviations is a two-sided false-alarm rate of 1e-7."""
    for prob in (0.1, 0.5, 0.93):
        hits = sum(KeyedRandomness(8, n, "verify").accept(prob) for n in range(SAMPLES))
        assert abs(hits - SAMPLES * prob) < 5.33 * (SAMPLES * prob * (1 - prob)) ** 0.5
