"""The traffic explorer: its closed forms against bytes counted in the package, and its sliders."""

import pytest
import torch

pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the explorers need the extra `notebooks`")

from specdec_ref.kernels.cases import Shape, make_case
from specdec_ref.widgets import traffic_explorer, traffic_view
from specdec_ref.widgets.traffic import verify_bytes


def test_every_slider_changes_numbers_and_picture() -> None:
    for i in range(len(traffic_explorer().sliders)):
        explorer = traffic_explorer()
        slider, numbers, picture = explorer.sliders[i], explorer.numbers.value, bytes(explorer.picture.value)
        slider.value = slider.max if slider.value < slider.max else slider.min
        assert explorer.numbers.value != numbers, f"{slider.description}: the numbers stand still"
        assert bytes(explorer.picture.value) != picture, f"{slider.description}: the picture stands still"


@pytest.mark.parametrize("drafts", [1, 4, 7])
def test_the_race_is_the_closed_form_of_the_kernels(drafts: int) -> None:
    """One read of each row with a draft, one of the row drawn from; the count itself is held in tests/interpreted."""
    case = make_case("chain", Shape(batch=1, nodes=drafts + 1, vocab=49152), torch.bfloat16)
    assert verify_bytes(49152, drafts, 1, 0.5)["race"] == case.least_bytes


def test_block_sums_never_ask_for_more_than_a_race() -> None:
    for bonus in (0.0, 0.3, 1.0):
        moved = verify_bytes(131072, 4, 2, bonus)
        assert moved["blocks"] <= 1.02 * moved["race"] < moved["stored"]
    assert "<b>8.65 MB" not in traffic_view(131072, 4, 1, 0.3, 3000).html  # that is what stored probabilities move
