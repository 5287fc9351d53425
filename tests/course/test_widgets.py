"""Explorers without a browser: each slider changes numbers and picture, every number is right, pictures stay small."""

from collections.abc import Callable, Sequence

import pytest
import torch

pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the explorers need the extra `notebooks`")

from promptness import answers_at_once

from specdec_course.plots import Box, bars, distributions, lines, roofline, stacked, strip
from specdec_course.tables import table
from specdec_course.widgets import Explorer, overlap_explorer, painted, roofline_explorer, step_view, trace_stepper
from specdec_course.widgets.overlap import bump, overlap_view, simulate
from specdec_course.widgets.roofline import roofline_view
from specdec_ref.metrics import StepRecord
from specdec_ref.trace import Round

WORDS = {1: " one", 2: " <two>", 3: "\n", 4: " four"}
RECORD = StepRecord(0, 2, 2, 1, 2, 2)
RUN = [
    Round((1,), (2,), (3,), 4, "correction", 0.1, RECORD),
    Round((1, 4), (), (), 2, "bonus", 0.1, RECORD),
    Round(added=1, seconds=0.1, record=RECORD),
]


def decode(tokens: Sequence[int]) -> str:
    return "".join(WORDS[token] for token in tokens)


@pytest.mark.parametrize("make", [overlap_explorer, roofline_explorer, lambda: trace_stepper(RUN, decode)])
def test_every_slider_changes_numbers_and_picture(make: Callable[[], Explorer]) -> None:
    for i in range(len(make().sliders)):
        explorer = make()
        slider, numbers, picture = explorer.sliders[i], explorer.numbers.value, bytes(explorer.picture.value)
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 60_000
        assert explorer.first.html in numbers
        slider.value = slider.max if slider.value < slider.max else slider.min
        assert explorer.numbers.value != numbers, f"{slider.description}: the numbers stand still"
        assert bytes(explorer.picture.value) != picture, f"{slider.description}: the picture stands still"
        label = explorer.root.children[i].children[1].value
        assert "<b>" in label, "the slider does not say its value"


@pytest.mark.parametrize("make", [overlap_explorer, roofline_explorer, lambda: trace_stepper(RUN, decode)])
def test_a_slider_answers_at_once(make: Callable[[], Explorer]) -> None:
    slider = make().sliders[0]
    start, other = slider.value, slider.max if slider.value < slider.max else slider.min
    assert answers_at_once(lambda value: setattr(slider, "value", value), [other, start, other, start, other])


def test_alpha_is_the_overlap_and_the_simulation_agrees() -> None:
    p, q = bump(4, 1.4), bump(5, 1.8)
    rate, emitted = simulate(p, q, 200_000)
    alpha = float(torch.minimum(p, q).sum())
    assert alpha == pytest.approx(1 - float((p - q).abs().sum()) / 2, abs=1e-12)
    assert rate == pytest.approx(alpha, abs=0.005)  # five standard deviations
    assert float((emitted - p).abs().max()) < 0.006
    assert f"{alpha:.3f}" in overlap_view(1.4, 1.8, 1.0, 1024).html


def test_equal_distributions_are_always_accepted() -> None:
    view = overlap_view(1.4, 1.4, 0.0, 512)
    assert "<b>1.000</b>" in view.html


def test_the_roofline_names_the_limit() -> None:
    assert "limited by <b>memory</b>" in roofline_view(8, 3000, 900, 1, 1024).html
    assert "limited by <b>arithmetic</b>" in roofline_view(8, 3000, 0.5, 256, 1).html
    half = roofline_view(8, 1500, 900, 1, 1024).html
    assert half != roofline_view(8, 3000, 900, 1, 1024).html


def test_a_step_shows_what_happened() -> None:
    first, second, third = (step_view(RUN, decode, n, [[0.9, 0.25], [1.0, 1.0], []]) for n in (1, 2, 3))
    assert "3 guessed, <b>1 accepted</b>, 2 emitted" in first.html
    assert "corrects a guess" in first.html
    assert "every guess held" in second.html
    assert "tau = 2.50" in second.html
    assert "a plain step" in third.html


def test_text_is_escaped_and_coloured_by_what_became_of_it() -> None:
    html = painted(RUN[:1], decode)
    assert "> one<" in html
    assert "line-through'> &lt;two&gt;<" in html
    assert "line-through'>⏎<" in html
    assert "<two>" not in html
    assert "line-through" not in painted(RUN[:1], decode, rejects=False)


def test_a_stepper_needs_rounds() -> None:
    with pytest.raises(ValueError, match="run an engine first"):
        trace_stepper([], decode)


def test_pictures_are_small_and_say_what_they_show() -> None:
    pictures = [
        lines({"a": ([1, 2, 4], [1, 1.5, 2])}, x="k", y="ms", alt="A", log="xy", guide=1.0, mark=(2, "here")),
        bars({"one": 1.0, "two": 2.0}, x="times", alt="A", guide=1.0),
        distributions([0.5, 0.5], {"wrong": [0.4, 0.6]}, ["a", "b"], alt="A"),
        stacked(
            {"kept": [0.3, 0.2], "replaced": [0.1, 0.4]},
            ["a", "b"],
            x="token",
            y="share",
            alt="A",
            colours=("accepted", "bonus"),
        ),
        roofline([1, 2, 4], [1, 2, 2], {"decode": (1, 0.5)}, 2.0, alt="A"),
        strip([("row", [Box("a$b", "rejected", "0.5"), Box(" ", "bonus")])], alt="A"),
    ]
    for picture in pictures:
        bundle, metadata = picture._repr_mimebundle_()
        assert bundle["text/plain"] == metadata["image/png"]["alt"] == "A"
        assert 1000 < len(picture.png) < 60_000


def test_a_table_aligns_its_columns_and_escapes() -> None:
    shown = table({"word": ["<yes>", "no"], "p": [0.625, 1.0], "n": [3, 12]})
    assert repr(shown) == "word      p   n\n<yes>  0.62   3\nno     1.00  12"
    assert "&lt;yes&gt;</td>" in shown._repr_html_()
    words = table({"n": [1], "so": ["a long answer in words"]})
    assert "left;padding:2px 14px 2px 4px'>a long answer" in words._repr_html_()
    assert "right;padding:2px 14px 2px 4px'>0.62" in shown._repr_html_()
    assert "<tbody></tbody>" in table({"n": []})._repr_html_()
    with pytest.raises(ValueError, match="argument 2"):
        table({"a": [1, 2], "b": [1]})
