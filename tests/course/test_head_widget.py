"""The head explorer and what it shows: committed rows that are whole, a head for every position, a bar of one line."""

import sys
from itertools import pairwise, product

import pytest
import torch

pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the explorers need the extra `notebooks`")

from helpers import tiny_model
from IPython.display import HTML
from promptness import answers_at_once
from tqdm import tqdm

from benchmarks.heads import STEPS, VOCABS, cut_vocabulary, small_corpus
from specdec_course.plots import pattern
from specdec_course.widgets import head_explorer, head_view, progress
from specdec_course.widgets.heads import FILES, KNOBS, WORDS
from specdec_course.widgets.progress import bar_line
from specdec_ref.bench.rows import committed
from specdec_ref.drafters.eagle_head import EagleHead, head_config
from specdec_ref.training.shards import load_corpus


def test_every_slider_changes_numbers_and_picture() -> None:
    for i, knob in enumerate(KNOBS):
        explorer = head_explorer()
        numbers, picture = explorer.numbers.value, bytes(explorer.picture.value)
        assert len(picture) < 60_000
        explorer.sliders[i].value = knob.low if knob.value > knob.low else knob.high
        assert explorer.numbers.value != numbers, f"{knob.name}: the numbers stand still"
        assert bytes(explorer.picture.value) != picture, f"{knob.name}: the picture stands still"


def test_every_position_of_the_sliders_has_a_head() -> None:
    places = [range(int(knob.low), int(knob.high) + 1) for knob in KNOBS]
    for which, deep, size, training in product(*places):
        html = head_view(which, 2.0**deep, 2.0**size, training).html
        assert f"drafts from {2**size:,} tokens" in html
        assert f"<b>{WORDS[which]}</b>" in html
        tried = {0: (0,), 1: (2,), 2: (0, 1, 2)}[which] if training == 0 else {0: (0,)}.get(which, (2,))
        assert ("was not trained; the deepest is shown" in html) == (which > 0 and deep not in tried)


def test_the_words_are_those_of_the_row() -> None:
    for training, (file, deep) in enumerate((("heads", 2), ("heads-shipped", 4))):
        _, rows = committed(file)
        (row,) = (r for r in rows if (r["reads"], r["steps"], r["vocab"]) == ("three layers", deep, 4096))
        html = head_view(2, deep, 4096, training).html
        assert f"<b>{row['single'][0]:.0%}</b>" in html
        assert f"tau = {1 + sum(row['chain']):.2f}" in html


def test_what_the_chapter_says_of_the_rows() -> None:
    """Its sentences about the explorer: features beat tokens, unrolling saves the second token, tokens are needed."""
    small, ready = ({(r["reads"], r["steps"], r["vocab"]): r for r in committed(f)[1]} for f in FILES)
    one, two = small["three layers", 1, 4096]["single"], small["three layers", 2, 4096]["single"]
    assert one[0] > small["tokens", 1, 4096]["single"][0] + 0.05
    assert one[1] < 0.5 * two[1]
    assert one[0] > two[0]
    assert small["features", 4, 4096]["single"][0] < one[0]
    assert ready["three layers", 4, 4096]["single"][0] > ready["tokens", 1, 4096]["single"][0] + 0.1
    assert ready["three layers", 4, 256]["single"][0] < ready["three layers", 4, 4096]["single"][0] - 0.03
    assert ready["features", 4, 4096]["single"][0] < 0.7 * ready["three layers", 4, 4096]["single"][0]


def test_rows_are_whole_and_say_where_they_come_from() -> None:
    for file, depths in (("heads", STEPS), ("heads-shipped", {reads: deep[-1:] for reads, deep in STEPS.items()})):
        about, rows = committed(file)
        assert {"target", "dtype", "machine", "torch"} <= about.keys()
        heads = {(row["reads"], row["steps"]) for row in rows}
        assert heads == {(reads, steps) for reads, deep in depths.items() for steps in deep}
        assert len(rows) == len(heads) * len(VOCABS)
        for row in rows:
            assert all(0 <= deeper <= share <= 1 for share, deeper in pairwise(row["chain"]))
            assert all(chain <= single + 1e-9 for chain, single in zip(row["chain"], row["single"], strict=True))


def test_a_slider_answers_at_once() -> None:
    slider = head_explorer().sliders[2]
    assert answers_at_once(lambda position: setattr(slider, "value", position), (8, 12, 9, 12, 10))


def test_parts_of_the_small_corpus_do_not_overlap() -> None:
    train, heldout, minute = (list(load_corpus([small_corpus(part)])) for part in ("train", "heldout", "minute"))
    assert (len(train), len(heldout), len(minute)) == (428, 64, 75)
    assert not {c.number for c in train} & {c.number for c in heldout}
    assert {c.number for c in minute} <= {c.number for c in train + heldout}
    assert {c.temperature for c in heldout} == {0.0}, "chains are exact on greedy text alone"


def test_a_vocabulary_is_cut_out() -> None:
    model = tiny_model()
    ids = torch.tensor([3, 8, 21, 40])
    head = EagleHead(head_config(model.config, 3, len(ids)), 3, q_vocab=ids).double()
    g = torch.randn(2, 32, dtype=torch.float64)
    whole = head.logits(g)
    cut_vocabulary(head, torch.tensor([40, 8]))
    assert head.q_vocab is not None
    assert head.q_vocab.tolist() == [8, 40]
    torch.testing.assert_close(head.logits(g), whole[:, [1, 3]])


def test_a_bar_is_one_line_of_the_cell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, html: HTML) -> None:
            shown.append(html.data)

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Handle())
    with progress():
        for _ in tqdm(range(3), desc="feature<s>"):
            assert sys.stderr.isatty()
    assert "feature&lt;s&gt;: 100%" in shown[-1]
    assert not any("\r" in line for line in shown)
    assert capsys.readouterr().err == ""
    assert bar_line("\r\n") is None


def test_a_mask_is_drawn_small() -> None:
    blocks = {"first": [[True, False], [True, True]], "own": [[True, False], [False, True]]}
    picture = pattern(blocks, x="x", y="y", alt="A", colours=("target", "draft"))
    assert picture.alt == "A"
    assert 1000 < len(picture.png) < 60_000
    assert (
        picture.png
        != pattern({**blocks, "own": blocks["first"]}, x="x", y="y", alt="A", colours=("target", "draft")).png
    )
