"""The block explorer: its numbers recounted by chance and by hand, each slider wired."""

import random
import re

import pytest

pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the explorers need the extra `notebooks`")

from promptness import answers_at_once

from specdec_course.widgets import block_explorer, block_view
from specdec_course.widgets.blocks import KNOBS, MOST


def said(html: str) -> tuple[int, float, int, float, int]:
    """(drafts and speed-up of the chain, of the block, percent that a block must keep)."""
    found = re.search(r"chain: <b>(\d)</b>, ([\d.]+) .* block: <b>(\d)</b>, ([\d.]+) .*<b>(\d+)%</b>", html)
    assert found is not None
    one, gain, other, block_gain, enough = found.groups()
    return int(one), float(gain), int(other), float(block_gain), int(enough)


def test_every_slider_changes_numbers_and_picture() -> None:
    for i in range(len(KNOBS)):
        explorer = block_explorer()
        slider, numbers, picture = explorer.sliders[i], explorer.numbers.value, bytes(explorer.picture.value)
        assert explorer.first.html in numbers
        for position in (slider.value + 3 * KNOBS[i].step, slider.min, slider.max):
            slider.value = position
            assert explorer.numbers.value != numbers, slider.description
            assert bytes(explorer.picture.value) != picture, slider.description
            assert len(explorer.picture.value) < 60_000
            numbers, picture = explorer.numbers.value, bytes(explorer.picture.value)


@pytest.mark.parametrize(("acceptance", "kept", "c", "slope"), [(0.6, 0.8, 0.1, 0.05), (0.9, 0.6, 0.3, 0.0)])
def test_the_best_of_both_by_rounds_of_coins(acceptance: float, kept: float, c: float, slope: float) -> None:
    """20,000 rounds per length, four standard errors."""
    rng = random.Random(1)

    def gain(gamma: int, share: float, passes: int) -> tuple[float, float]:
        held = []
        for _ in range(20_000):
            j = 0
            while j < gamma and rng.random() < acceptance * share**j:
                j += 1
            held.append(1 + j)
        mean = sum(held) / len(held)
        error = 4 * (sum((n - mean) ** 2 for n in held) / len(held)) ** 0.5 / len(held) ** 0.5
        cost = passes * c + 1 + slope * gamma
        return mean / cost, error / cost

    one, best, other, block_best, _ = said(block_view(acceptance, kept, c, slope).html)
    for chosen, promised, share, passes in ((one, best, 1.0, None), (other, block_best, kept, 1)):
        for gamma in range(1, MOST + 1):
            found, error = gain(gamma, share, gamma if passes is None else passes)
            assert found <= promised + error + 0.005
            if gamma == chosen:
                assert found == pytest.approx(promised, abs=error + 0.005)


def test_by_hand() -> None:
    """Checks and passes cost nothing: all eight drafts, and a block needs all of the acceptance."""
    one, gain, other, block_gain, enough = said(block_view(0.5, 0.5, 0.0, 0.0).html)
    assert (one, other, enough) == (MOST, MOST, 100)
    assert gain == pytest.approx(2 - 0.5**MOST, abs=0.005)
    assert block_gain == pytest.approx(1 + 1 / 2 + 1 / 8 + 1 / 64 + 1 / 1024 + 1 / 2**15, abs=0.005)


def test_costly_passes_favour_the_block() -> None:
    assert "<b>The chain</b> is faster" in block_view(0.7, 0.7, 0.02, 0.02).html
    assert "<b>The block</b> is faster" in block_view(0.7, 0.7, 0.3, 0.02).html
    assert "Neither gains" in block_view(0.2, 0.7, 0.5, 0.5).html


def test_starts_stay_on_the_sliders() -> None:
    sliders = block_explorer(0.634, 1.7, -1, 0.2).sliders
    assert [slider.value for slider in sliders] == pytest.approx([0.63, 1.0, 0.0, 0.2])


def test_a_slider_answers_at_once() -> None:
    assert answers_at_once(lambda c: block_view(0.7, 0.8, c, 0.02), [0.1, 0.2, 0.3, 0.4, 0.5])
