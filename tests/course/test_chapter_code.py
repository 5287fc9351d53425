"""Code that a chapter builds in front of the reader, run on another model: it must agree with the package there as well."""

import copy
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import torch
import torch.nn.functional as F
from transformers import DynamicCache

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.drafters import NgramDrafter
from specdec_ref.drafters.ngram import NgramIndex
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import outcomes, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.request import Limits
from specdec_ref.training.eagle import TrainConfig, _Run
from specdec_ref.training.features import Example
from specdec_ref.training.unroll import Batch, pack
from specdec_ref.verifiers import RejectionVerifier

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


VERIFY = functions("02_verification.ipynb", "02-verify")["verify"]


@pytest.mark.parametrize("guesses", [[0], [2, 1], [1, 1]], ids=str)
def test_the_verifier_of_chapter_02_has_the_outcomes_of_the_package(guesses: list[int]) -> None:
    rng = torch.Generator().manual_seed(len(guesses))
    q = torch.rand(len(guesses), 3, dtype=torch.float64, generator=rng).softmax(-1)
    p = (3 * torch.rand(len(guesses) + 1, 3, dtype=torch.float64, generator=rng)).softmax(-1)
    tree = DraftTree(
        torch.tensor([0, *guesses]), torch.arange(-1, len(guesses)), "iid", torch.cat([q, torch.zeros(1, 3)])
    )

    def packages(rng: Randomness) -> tuple[int, int]:
        result = RejectionVerifier()(tree, p, rng)
        return len(result.path), result.next_token

    def chapters(rng: Randomness) -> tuple[int, int]:
        return tuple(VERIFY(guesses, q, p, rng))

    assert total_variation(counted(chapters), counted(packages)) < 1e-12


def counted(run: Callable[[Randomness], tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    """The exact distribution of what `run` returns."""
    dist: dict[tuple[int, ...], float] = {}
    for chance, result in outcomes(run):
        dist[result] = dist.get(result, 0.0) + chance
    return dist


def distance_of_the_decoder(old: str, new: str) -> float:
    """How far chapter 02's decoder, with one text put in for another, is from the target's own distribution."""
    target, other = (tiny_llama(seed, vocab=2, layers=1) for seed in (0, 1))
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOKS / "02_verification.ipynb", 4).cells}
    source = "\n".join(cells[name].partition("\n\n\n")[0] for name in ("02-verify", "02-decoder"))
    assert source.count(old) == 1
    page: dict[str, Any] = {"torch": torch, "DynamicCache": DynamicCache, "model": target, "T": 0.7}
    page["lab"] = SimpleNamespace(eos=frozenset())
    exec(source.replace(old, new), page)

    @cache
    @torch.no_grad()
    def following(model: Any, *text: int) -> torch.Tensor:
        scores: torch.Tensor = model(torch.tensor([text])).logits[0, -1]
        return (scores / 0.7).softmax(-1)

    def draft(tokens: list[int], gamma: int, rng: Randomness) -> tuple[list[int], torch.Tensor]:
        text, q = list(tokens), []
        for _ in range(gamma):
            q.append(following(other, *text))
            text.append(rng.draw(q[-1]))
        return text[len(tokens) :], torch.stack(q)

    def plain(rng: Randomness) -> tuple[int, ...]:
        text = [0, 1]
        while len(text) < 5:
            text.append(rng.draw(following(target, *text)))
        return tuple(text[2:])

    got = counted(lambda rng: tuple(page["speculative_sample"]([0, 1], draft, rng, 3, 2)[0]))
    return total_variation(got, counted(plain))


def test_the_decoder_of_chapter_02_has_the_targets_distribution() -> None:
    assert distance_of_the_decoder("/ T)", "/ T)") < 1e-9


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(p[i] - q[i]).clamp_min(0)", "p[i]"),
        ("rng.draw(p[len(guesses)])", "rng.draw(p[len(guesses) - 1])"),
        ("float(p[i, x] / q[i, x])", "float(p[i, x])"),
        ("/ T)", "/ 1)"),
    ],
)
def test_a_mistake_in_it_changes_the_distribution(right: str, wrong: str) -> None:
    assert distance_of_the_decoder(right, wrong) > 1e-3


LESSON = ([3, 1, 4, 1, 5], [9, 2, 6, 5, 3, 5, 12, 7, 14])  # a prompt and its answer; token 2 is in no draft vocabulary
WORDS = torch.tensor([1, 3, 4, 5, 6, 7, 9, 12, 14, 18, 20])


@pytest.fixture(scope="module")
def training() -> dict[str, Any]:
    """Chapter 03's lesson, unrolled head, loss and training step, with a tiny target as the teacher."""
    found = functions("03_eagle.ipynb", "03-027", "03-unroll", "03-loss", "03-step")
    known = torch.isin(torch.arange(24), WORDS)
    teacher = tiny_llama(0, vocab=24, dtype=torch.float32)
    found |= {"F": F, "teacher": teacher, "layers": (0, 1, 2), "q_vocab": WORDS, "in_draft": known}
    return found


def packages(chapter: dict[str, Any], steps: int, folder: Path) -> tuple[_Run, Batch]:
    """The package's training run and the same lesson as its batch."""
    config = TrainConfig(curriculum=((0.0, steps),), rejected_share=1.0)
    run = _Run(config, chapter["teacher"], [], folder, WORDS, None)
    tokens, features, _, begin = chapter["lesson"](*LESSON)
    with torch.no_grad():
        states = chapter["teacher"].base_model(tokens[None], output_hidden_states=True).hidden_states[-1][0]
    return run, pack([Example("test", 0, tokens, begin, features[:-2], states[begin - 1 : -1])])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_training_step_of_chapter_03_agrees_with_the_package(
    training: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    run, batch = packages(training, steps, tmp_path)
    head, lesson = copy.deepcopy(run.head), training["lesson"](*LESSON)
    optimiser = torch.optim.AdamW(
        [weight for weight in head.parameters() if weight.requires_grad],
        lr=run.config.learning_rate(0), betas=(0.9, 0.95), weight_decay=run.config.weight_decay,
    )  # fmt: skip
    loss = float(training["loss_of"](head, lesson, steps).detach())
    assert loss == pytest.approx(float(run._loss(batch)[0].detach()), rel=1e-5)
    training["training_step"](head, optimiser, [lesson], steps)
    gradients = {name: weight.grad for name, weight in head.named_parameters() if weight.grad is not None}
    assert len(gradients) == 12
    run.step(batch)
    for (name, weight), other in zip(head.named_parameters(), run.head.parameters(), strict=True):
        if name in gradients:
            torch.testing.assert_close(gradients[name], other.grad, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(weight, other, rtol=1e-3, atol=1e-5)
    assert float(training["loss_of"](head, lesson, steps).detach()) < loss


@pytest.mark.parametrize(
    ("cell", "right", "wrong"),
    [
        ("03-loss", "p[pairs + 1 + step]", "p[pairs + step]"),  # the goal is a token too early
        ("03-loss", "torch.arange(begin - 2,", "torch.arange(begin,"),  # the answer's first tokens are not trained
        ("03-loss", "pairs = pairs[in_draft[tokens[pairs + 2 + step]]]", "pass"),  # goals outside of the vocabulary
        ("03-unroll", "[own_pairs] * step", "[true_pairs] * step"),  # a draft sees its neighbours' pairs
        ("03-unroll", "tokens[1 + step : 1 + step + n]", "tokens[step : step + n]"),  # feature i beside token i
    ],
)
def test_a_mistake_in_the_training_step_is_caught(
    training: dict[str, Any], cell: str, right: str, wrong: str, tmp_path: Path
) -> None:
    cells = nbformat.read(NOTEBOOKS / "03_eagle.ipynb", 4).cells
    source = next(each.source for each in cells if each.id == cell)
    assert source.count(right) == 1
    run, batch = packages(training, 3, tmp_path)
    broken = dict(training)
    exec(next(each.source for each in cells if each.id == "03-loss"), broken)
    exec(source.replace(right, wrong), broken)
    loss = float(broken["loss_of"](run.head, training["lesson"](*LESSON), 3).detach())
    assert loss != pytest.approx(float(run._loss(batch)[0].detach()), rel=1e-4)


def different_guesses(old: str, new: str) -> int:
    """How many guesses of chapter 04's index, with one text put in for another, differ from the package's."""
    cells = nbformat.read(NOTEBOOKS / "04_ngram.ipynb", 4).cells
    source = next(cell.source for cell in cells if cell.id == "ngram-index")
    assert source.count(old) == 1
    page: dict[str, Any] = {}
    exec(source.replace(old, new), page)
    ours, package, numbers, different = page["Index"](), NgramIndex(1, 4), random.Random(0), 0
    for _ in range(300):
        token = numbers.randrange(4)
        ours.append(token)
        package.extend([token])
        found = package.match()
        # At the end of the text the chapter's copy stops; the package's goes on with the tokens that it has copied.
        expected = package.tokens[found[1] : found[1] + 3] if found else []
        assert package.continuation(3)[: len(expected)] == expected
        different += ours.lookup(3) != expected
    return different


def test_the_index_of_chapter_04_agrees_with_the_package() -> None:
    assert different_guesses("after = longest, [], {}", "after = longest, [], {}") == 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("] = len(self.text)", "] = len(self.text) + 1"),  # the token after the one that followed
        ("len(self.text)) + 1)", "len(self.text)))"),  # the longest n-grams are left out
        ("len(self.text)), 0, -1)", "len(self.text)), 1, -1)"),  # no match of one token
        ("self.after[tuple(self.text[-n:])] =", "self.after[tuple(self.text[:n])] ="),  # the start, not the end
        ("place : place + gamma", "place - 1 : place + gamma - 1"),  # a token of the match itself
    ],
)
def test_a_mistake_in_the_index_changes_its_guesses(right: str, wrong: str) -> None:
    assert different_guesses(right, wrong) > 0
