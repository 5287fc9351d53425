"""The accept-rate explorer: its numbers recounted by hand and by chance, its curve fitted to what was measured."""

import random
import re

import pytest

pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the explorers need the extra `notebooks`")

from promptness import answers_at_once

from specdec_course.widgets import fitted, rate_explorer, rate_view
from specdec_course.widgets.rates import KNOBS, MOST

POINTS = {"eagle": ([1, 2, 4], [1.4, 1.6, 1.5]), "ngram": ([2, 8], [1.1, 1.2])}
PRICES = {1: 1.0, 2: 1.02, 4: 1.1, 8: 1.52, 12: 1.9, 64: 9.0}


def bold(html: str) -> list[float]:
    return [float(number) for number in re.findall(r"<b>[^<\d]*([\d.]+\d|\d+)</b>", html)]


def test_every_slider_changes_numbers_and_picture() -> None:
    flat = dict.fromkeys(PRICES, 1.0)  # a machine that checks for nothing: no slider is dead there either
    for measured in ((), (POINTS, PRICES), (POINTS, flat)):
        for i in range(len(KNOBS)):
            one = rate_explorer(*measured)
            slider, numbers, picture = one.sliders[i], one.numbers.value, bytes(one.picture.value)
            assert picture.startswith(b"\x89PNG")
            assert one.first.html in numbers
            step = 3 * KNOBS[i].step * (-1 if slider.value == slider.max else 1)  # as the browser's test does
            for position in (slider.value + step, *sorted({slider.min, slider.max} - {slider.value})):
                slider.value = position
                assert one.numbers.value != numbers, f"{slider.description}: the numbers stand still"
                assert bytes(one.picture.value) != picture, f"{slider.description}: the picture stands still"
                assert len(one.picture.value) < 60_000
                numbers, picture = one.numbers.value, bytes(one.picture.value)


def test_by_hand() -> None:
    """alpha 1/2, two drafts: 1 + 1/2 + 1/4 tokens for 2 * 0.1 + v(3), of which one token beyond two costs 0.3."""
    html = rate_view(0.5, 2, 0.1, 2, 0.3).html
    assert bold(html)[:4] == [1.75, 1.5, 1.17, 1.0]  # the best is one draft: 1.5 tokens for 1.1 steps
    assert "1</b>: 1.36." in html
    assert "50% of the drafts tested" in html
    assert "38% of those proposed" in html  # 0.75 of 2


@pytest.mark.parametrize(("alpha", "gamma"), [(0.3, 5), (0.8, 3), (0.95, 12)])
def test_tau_and_accept_rate_are_means_over_rounds(alpha: float, gamma: int) -> None:
    """20,000 rounds of coins, four standard errors."""
    rng, accepted = random.Random(1), []
    for _ in range(20_000):
        held = 0
        while held < gamma and rng.random() < alpha:
            held += 1
        accepted.append(held)
    mean = sum(accepted) / len(accepted)
    error = 4 * (sum((a - mean) ** 2 for a in accepted) / len(accepted)) ** 0.5 / len(accepted) ** 0.5
    html = rate_view(alpha, gamma, 0.1, 2, 0.1).html
    assert bold(html)[0] == pytest.approx(1 + mean, abs=error + 0.005)
    (rate,) = re.findall(r"(\d+)% of those proposed", html)
    assert int(rate) / 100 == pytest.approx(mean / gamma, abs=error / gamma + 0.005)


def test_nothing_gains_where_a_draft_costs_as_much_as_a_step() -> None:
    assert "do not speculate" in rate_view(0.9, 4, 1.0, 1, 0.1).html
    assert "do not speculate" not in rate_view(0.9, 4, 0.1, 4, 0.1).html
    assert "none is proposed" in rate_view(0.9, 0, 0.1, 4, 0.1).html


def test_the_curve_starts_at_what_was_measured() -> None:
    """Points that lie on two lines are found again; those behind the picture's end do not count."""
    for flat, slope in ((1, 0.25), (3, 0.1), (6, 0.02)):
        points = {k: 1 + slope * max(0, k - flat) for k in (1, 2, 3, 4, 5, 6, 8, 12)}
        assert fitted({**points, 64: 99.0}) == (flat, pytest.approx(slope))
    assert fitted({1: 1.0, 2: 0.9, 4: 0.8})[1] == 0.0  # noise below one is no discount
    sliders = rate_explorer(POINTS, PRICES, alpha=0.634, gamma=3, c=0.087).sliders
    assert [slider.value for slider in sliders[:3]] == pytest.approx([0.63, 3, 0.09])
    assert sliders[3].value == fitted(PRICES)[0]


def test_an_unlikely_start_stays_on_the_sliders() -> None:
    sliders = rate_explorer({}, {1: 1.0, 2: 4.0}, alpha=1.2, gamma=40, c=-1).sliders
    assert [slider.value for slider in sliders[:3]] == [1.0, MOST, 0.0]
    assert sliders[4].value == 1.0


def test_a_slider_answers_at_once() -> None:
    assert answers_at_once(lambda gamma: rate_view(0.7, gamma, 0.1, 2, 0.1, points=POINTS, prices=PRICES), range(5))


def test_the_picture_says_what_it_shows() -> None:
    assert "with 4 drafts" in rate_view(0.7, 4, 0.1, 2, 0.1).picture.alt
