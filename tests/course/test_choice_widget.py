"""The choice explorer: every slider moves numbers and picture, and the answers are those of `choose`."""

import re

import pytest

pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the explorers need the extra `notebooks`")

from specdec_course.widgets import choice_explorer, choice_view


def test_every_slider_changes_numbers_and_picture() -> None:
    for i in range(4):
        explorer = choice_explorer()
        slider, numbers, picture = explorer.sliders[i], explorer.numbers.value, bytes(explorer.picture.value)
        assert len(picture) < 60_000
        slider.value = slider.max
        assert explorer.numbers.value != numbers, slider.description
        assert bytes(explorer.picture.value) != picture, slider.description


def test_batch_ends_it_and_context_brings_it_back() -> None:
    small, large, long = (choice_view(*place, 0.7, 0.05).html for place in ((1, 1024), (1024, 64), (1024, 65536)))
    assert "Draft <b>" in small
    assert "Do not speculate" in large
    assert "Draft <b>" in long


def test_a_free_perfect_draft_is_worth_its_length() -> None:
    """gamma = 10, all accepted, nothing to pay but the check: eleven tokens for v(11)."""
    html = choice_view(1, 1024, 1.0, 0.0).html
    found = re.search(r"Draft <b>10</b>: ([\d.]+) times", html)
    assert found is not None
    assert 10.5 < float(found.group(1)) <= 11.0
