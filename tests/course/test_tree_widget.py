"""The tree explorer and the picture below it: every number recounted in another way."""

from collections.abc import Sequence

import pytest
import torch

pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the explorers need the extra `notebooks`")

from drafting import tree as drafted
from hypothesis import given
from promptness import answers_at_once
from strategies import quick, tree_parents

from specdec_course.plots import Box, _places, tree
from specdec_course.widgets import tree_explorer, tree_view
from specdec_course.widgets.tree import KNOBS, MOST, followed, judged, ranks_taken
from specdec_ref.core import VerifyResult
from specdec_ref.cost_model import VerifyCurve
from specdec_ref.trees.sequoia import optimal_tree

RATES = (0.55, 0.14, 0.07, 0.04, 0.02)
CURVE = VerifyCurve({1: 0.05, 4: 0.06, 8: 0.07, 16: 0.08, 32: 0.12})


def letters(tokens: Sequence[int]) -> str:
    return "".join("abcdefgh"[token] for token in tokens)


def test_every_slider_changes_numbers_and_picture() -> None:
    for i in range(len(KNOBS)):
        one = tree_explorer(RATES, CURVE, 0.1)
        slider, numbers, picture = one.sliders[i], one.numbers.value, bytes(one.picture.value)
        assert picture.startswith(b"\x89PNG")
        assert one.first.html in numbers
        for position in {slider.min, slider.max} - {slider.value}:
            slider.value = position
            assert one.numbers.value != numbers, f"{slider.description}: the numbers stand still"
            assert bytes(one.picture.value) != picture, f"{slider.description}: the picture stands still"
            assert len(one.picture.value) < 60_000
            numbers, picture = one.numbers.value, bytes(one.picture.value)


def test_the_largest_tree_is_drawn_at_once() -> None:
    most = KNOBS[0].high, KNOBS[1].high, MOST
    assert answers_at_once(lambda number: tree_view(RATES, CURVE, 0.1, *most, number), range(1, 6))


@pytest.mark.parametrize(("depth", "topk", "nodes"), [(4, 3, 10), (2, 1, 3), (8, 5, 24), (1, 5, 4)])
def test_tau_is_the_mean_over_many_rounds(depth: int, topk: int, nodes: int) -> None:
    """What the picture shows round by round is, on average, the number above it: four standard errors of 1200 rounds."""
    parents, tau = optimal_tree([RATES[:topk]], nodes, depth)
    shape = drafted([0] * len(parents), parents)
    emitted = [len(followed(shape, ranks_taken(RATES, number, depth))) + 1.0 for number in range(1, 1201)]
    spread = float(torch.tensor(emitted).std()) / 1200**0.5
    assert sum(emitted) / len(emitted) == pytest.approx(tau, abs=4 * spread)
    assert f"tau <b>{tau:.2f}</b>" in tree_view(RATES, CURVE, 0.1, depth, topk, nodes, 1).html


def test_time_is_levels_of_drafting_and_one_check() -> None:
    """By hand: 10 nodes, v(10) = 1.45 between v(8) = 1.4 and v(16) = 1.6; four levels at 0.1."""
    html = tree_view(RATES, CURVE, 0.1, 4, 3, 10, 1).html
    assert "v(10) = 1.45" in html
    assert "takes 1.85 plain steps" in html
    tau = optimal_tree([RATES[:3]], 10, 4)[1]
    assert f"<b>{tau / 1.85:.2f}</b> times plain" in html
    assert "The best chain, of 2: <b>1.39</b> times" in html  # (1 + .55 + .55^2) / (0.2 + v(3))


def test_the_same_round_meets_every_tree() -> None:
    """A larger tree never accepts less of it, and a chain is the part that is of rank one throughout."""
    chain, bushy = drafted([0] * 4, [-1, 0, 1, 2]), drafted([0] * 7, [-1, 0, 0, 1, 1, 3, 2])
    more = 0
    for number in range(1, 60):
        taken = ranks_taken(RATES, number, 8)
        first = next((i for i, rank in enumerate(taken) if rank != 0), len(taken))
        assert len(followed(chain, taken)) == min(first, 3)
        more += len(followed(bushy, taken)) > len(followed(chain, taken))
    assert more > 5


def test_what_became_of_each_guess() -> None:
    """a is accepted, b beside it was asked about, c and d below it were, e below b was not; then the target's own f."""
    boxes, parents = judged(drafted([6, 0, 1, 2, 3, 4], [-1, 0, 0, 1, 1, 2]), VerifyResult((1,), 5), letters)
    assert [(box.text, box.kind) for box in boxes[1:]] == [
        ("a", "accepted"),
        ("b", "rejected"),
        ("c", "rejected"),
        ("d", "rejected"),
        ("e", "prompt"),
        ("f", "bonus"),
    ]
    assert parents == [-1, 0, 0, 1, 1, 2, 1]


@quick(60)
@given(tree_parents(12))
def test_branches_do_not_cross(parents: list[int]) -> None:
    """Leaves have whole rows of their own, and the rows below one node are those of no other branch."""
    one = drafted([0] * len(parents), parents)
    depths, rows, leaves = _places(parents)
    assert depths == one.depths
    ends = [node for node in range(len(one)) if not one.children(node)]
    assert sorted(rows[node] for node in ends) == list(range(leaves))
    for node in range(len(one)):
        below = sorted(rows[end] for end in ends if node in (0, end) or node in one.path(end))
        assert below == list(range(int(below[0]), int(below[0]) + len(below)))
        assert below[0] <= rows[node] <= below[-1]


def test_a_picture_of_a_tree_says_what_it_shows() -> None:
    picture = tree(
        [Box("text", "prompt"), Box(" a$", "accepted"), Box("\n", "rejected")], [-1, 0, 0], alt="A", title="T"
    )
    bundle, metadata = picture._repr_mimebundle_()
    assert bundle["text/plain"] == metadata["image/png"]["alt"] == "A"
    assert 1000 < len(picture.png) < 60_000


def test_a_curve_that_ends_too_soon_is_refused() -> None:
    with pytest.raises(ValueError, match="not for 20"):
        tree_explorer(RATES, VerifyCurve({1: 1.0, 8: 1.5}), 0.1)
