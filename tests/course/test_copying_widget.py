"""The copy explorer: its numbers recounted by a plain search, each slider and the text field wired."""

import re

import pytest

pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the explorers need the extra `notebooks`")

from promptness import answers_at_once

from specdec_course.widgets import copy_explorer, copy_view
from specdec_course.widgets.copying import SAMPLE, replay, words_of
from specdec_ref.drafters.ngram import NgramIndex


def search(text: list[str], longest: int, shortest: int, gamma: int, latest: bool) -> list[str]:
    """What followed the longest suffix that stood there before, by trying every place."""
    for n in range(min(longest, len(text) - 1), shortest - 1, -1):
        ends = [end for end in range(n, len(text)) if text[end - n : end] == text[-n:]]
        if ends:
            guess = list(text)
            for i in range(ends[-1] if latest else ends[0], (ends[-1] if latest else ends[0]) + gamma):
                guess.append(guess[i])
            return guess[len(text) :]
    return []


@pytest.mark.parametrize(
    ("longest", "shortest", "gamma", "policy"), [(4, 1, 4, 1), (4, 1, 4, 0), (3, 2, 7, 1), (1, 4, 2, 0)]
)
def test_rounds_and_hits_are_those_of_a_plain_search(longest: int, shortest: int, gamma: int, policy: int) -> None:
    words, at, rounds, held, tested = words_of(SAMPLE), 1, 0, 0, 0
    while at < len(words):
        guess = search(words[:at], longest, min(shortest, longest), gamma, policy == 1)
        good = 0
        while good < len(guess) and at + good < len(words) and guess[good] == words[at + good]:
            good += 1
        tested += good + (good < len(guess) and at + good < len(words))
        held, rounds, at = held + good, rounds + 1, at + good + 1
    html = copy_view(SAMPLE, longest, shortest, gamma, policy).html
    assert f"{len(words) - 1} words follow in {rounds} rounds" in html
    assert f"{held} of {tested} tested guesses were accepted" in html


@pytest.mark.parametrize("policy", range(4))
def test_the_text_comes_out_as_it_was(policy: int) -> None:
    view = copy_view(SAMPLE, 4, 1, 4, policy)
    kept = re.sub(r"<span style='[^']*line-through'>[^<]*</span>", "", view.html.partition("pre-wrap'>")[2])
    text = re.sub(r"<[^>]+>", "", kept.partition("</div>")[0])
    assert text == SAMPLE


def test_every_slider_and_the_field_change_numbers_and_picture() -> None:
    for i in range(4):
        explorer = copy_explorer()
        before = explorer.numbers.value, bytes(explorer.picture.value)
        slider = explorer.sliders[i]
        slider.value = slider.max if slider.value < slider.max else slider.min
        assert explorer.numbers.value != before[0], slider.description
        assert bytes(explorer.picture.value) != before[1], slider.description
    explorer = copy_explorer()
    field = explorer.root.children[4]
    texts = [f"to {word} or not to be, to be or not to be" for word in ("go", "do", "have", "see", "be")]
    assert answers_at_once(lambda text: setattr(field, "value", text), texts)
    assert "not</span>" in explorer.numbers.value
    field.value = ""
    assert "at least two words" in explorer.numbers.value


def test_the_policy_is_shown_by_its_name() -> None:
    explorer = copy_explorer()
    (label,) = [
        row.children[1] for row in explorer.root.children if explorer.sliders[3] in getattr(row, "children", ())
    ]
    assert "<b>latest match</b>" in label.value
    explorer.sliders[3].value = 3
    assert "<b>trie, frequency</b>" in label.value


def test_markup_in_a_text_is_escaped() -> None:
    assert "<b>x" not in copy_view("<b>x <b>x <b>x", 4, 1, 4, 1).html


def test_nothing_matches_nothing_is_guessed() -> None:
    rounds = replay([1, 2, 3, 4], NgramIndex(1, 4), 4)
    assert [(r.tokens, r.rejected, r.untested) for r in rounds] == [((t,), (), ()) for t in (2, 3, 4)]
