"""Cards by loosely written names, and that their figures are of the right size."""

import json

import pytest
from cli_helpers import Specdec, folder, specdec

from specdec_ref.cost_model import GPUS
from specdec_ref.gpus import CARDS, find_card

__all__ = ["folder", "specdec"]  # fixtures


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("4090", "RTX 4090"), ("rtx4090", "RTX 4090"), ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("t4", "T4"),
        ("Tesla T4", "T4"), ("m1 max", "M1 Max"), ("Apple M1", "M1"), ("NVIDIA L4", "L4"), ("h100", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"), ("RTX_3060", "RTX 3060"),
    ],
)  # fmt: skip
def test_loose_names(name: str, card: str) -> None:
    assert find_card(name) is CARDS[card]


@pytest.mark.parametrize(("name", "offered"), [("40", "RTX 4060, RTX 4070"), ("Voodoo 2", "L4, L40S"), ("", "T4")])
def test_unknown_names_are_answered_with_a_list(name: str, offered: str) -> None:
    with pytest.raises(ValueError, match=offered):
        find_card(name)


def test_every_card_is_found_by_its_own_names() -> None:
    for key, card in CARDS.items():
        assert find_card(key) is find_card(key.lower().replace(" ", "")) is card
    assert set(GPUS) < set(CARDS)


def test_figures_are_bytes_and_flop_per_second() -> None:
    """A slipped power of ten moves the ridge, in FLOP per byte, out of this range."""
    assert all(30e9 < card.bandwidth < 10e12 and 20 < card.ridge < 600 for card in CARDS.values())


def test_choose_takes_a_card_by_its_loose_name(specdec: Specdec) -> None:
    found = []
    for name in ("4090", "NVIDIA GeForce RTX 4090"):
        assert specdec("choose", "--gpu", name, "--json") == 0
        found.append(json.loads(specdec.out))
    assert found[0] == found[1]
    assert specdec("choose", "--gpu", "Voodoo 2") == 2
    assert "unknown card 'Voodoo 2'; choose from L4" in specdec.err
