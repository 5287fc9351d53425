"""Code that a chapter builds in front of the reader, run on another model: it must agree with the package there as well."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import torch
from transformers import DynamicCache

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.drafters import NgramDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.request import Limits

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PROMPTS = ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 1], [7, 7, 7, 7], [2, 8])


def functions(chapter: str, *cells: str) -> dict[str, Any]:
    """What these cells define. What stands below their functions, which belongs to the real model, is left out."""
    notebook = nbformat.read(NOTEBOOKS / chapter, 4)
    sources = {cell.id: cell.source for cell in notebook.cells}
    found: dict[str, Any] = {"torch": torch, "DynamicCache": DynamicCache}
    for cell in cells:
        exec(sources[cell].partition("\n\n\n")[0], found)
    return found


@pytest.fixture(scope="module")
def chapter() -> dict[str, Any]:
    return functions("00_start_here.ipynb", "00-003", "00-draft", "00-decoder")


@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
@pytest.mark.parametrize("eos", [frozenset[int](), frozenset({4, 9})], ids=["no-eos", "eos"])
def test_the_decoder_of_chapter_00_agrees_with_the_package(
    chapter: dict[str, Any], prompt: list[int], eos: frozenset[int]
) -> None:
    target = Target(tiny_llama(0, vocab=12, dtype=torch.float64))
    chapter |= {"model": target.model, "lab": SimpleNamespace(eos=eos)}
    limits = Limits(60, eos)
    (wanted,) = plain_generate(target, [prompt], limits=limits)
    plain, forwards = chapter["plain_decode"](prompt, 60)
    text, rounds = chapter["speculative_decode"](prompt, chapter["draft"], 60)
    assert wanted.tokens == plain == text
    assert sum(accepted for _, accepted, _ in rounds) > 0 or len(plain) < 5
    assert len(rounds) <= forwards == len(plain)
    (ours,) = SpecEngine(target, NgramDrafter(2), budget=DraftBudget(6), limits=limits).generate([prompt])
    assert ours.tokens == text


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if accepted < len(guesses):", "if False:"),  # the cache keeps what was rejected
        ("-len(guesses) - 1 :", "-len(guesses) :"),  # each guess is compared with the next place's token
        ("own[accepted]]:", "own[accepted - 1]]:"),  # the wrong correction
    ],
)
def test_a_mistake_in_it_is_caught(chapter: dict[str, Any], right: str, wrong: str) -> None:
    cells = nbformat.read(NOTEBOOKS / "00_start_here.ipynb", 4).cells
    source = next(cell.source for cell in cells if cell.id == "00-decoder")
    assert source.count(right) == 1
    model = Target(tiny_llama(0, vocab=12, dtype=torch.float64)).model
    broken = dict(chapter) | {"model": model, "lab": SimpleNamespace(eos=frozenset())}
    exec(source.replace(right, wrong), broken)
    plain = [broken["plain_decode"](prompt, 40)[0] for prompt in PROMPTS]
    try:
        texts = [broken["speculative_decode"](prompt, chapter["draft"], 40)[0] for prompt in PROMPTS]
    except (RuntimeError, IndexError):  # it may also end in an error, and mostly does
        return
    assert texts != plain
