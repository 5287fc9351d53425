"""Paired timing: order, ratios, the interval, and the early end."""

import statistics

import pytest

from specdec_ref.bench.harness import Paired, median_interval, paired


def test_pairs_alternate_after_a_warm_up_and_keep_their_sides() -> None:
    calls: list[str] = []

    def side(name: str, seconds: float) -> float:
        calls.append(name)
        return seconds * len(calls)

    pairs = paired(lambda: side("a", 2.0), lambda: side("b", 1.0), 3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert pairs == Paired((6.0, 12.0, 14.0), (4.0, 5.0, 8.0))
    assert pairs.ratios == [1.5, 2.4, 1.75]
    assert pairs.ratio == 1.75


def test_time_ends_it_but_three_pairs_there_are() -> None:
    assert len(paired(lambda: 1.0, lambda: 1.0, 50, seconds=0.0).ratios) == 3
    assert len(paired(lambda: 1.0, lambda: 1.0, 5).ratios) == 5


def test_the_interval_holds_the_median_and_shrinks_with_more_values() -> None:
    values = [1 + i / 10 for i in range(9)]
    low, high = median_interval(values)
    assert low < statistics.median(values) < high
    few, many = median_interval(values), median_interval(values * 16)
    assert many[1] - many[0] < few[1] - few[0]
    assert median_interval([2.0] * 5) == (2.0, 2.0)
    assert median_interval(values, seed=1) == pytest.approx(median_interval(values, seed=1))
