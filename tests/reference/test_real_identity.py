"""The embedded model, float32: greedy output of every drafter equals plain decoding, which equals transformers' own.

24 varied prompts, alone and in ragged batches, by the identity rule of `specdec_ref/identity.py`: a difference counts as
an error unless the plain decoder's two best logits lie closer than EPSILON there, and each is printed (`pytest -s`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from drafting import chain
from helpers import tiny_model

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.core import Drafter
from specdec_ref.drafters import NgramDrafter, SuffixDrafter
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.drafters.layer_skip import layer_skip_drafter, shallow_copy
from specdec_ref.engine import SpecEngine
from specdec_ref.identity import EPSILON, Difference, IdentityReport, check_identity, first_difference, top2_gap
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

if TYPE_CHECKING:
    from specdec_ref.session import Session

NEW = 10
BATCH = 6
CHAT = [
    "Name three colours.",
    "Why is the sky blue?",
    "Translate to French: The station is next to the museum.",
    "Write a haiku about rain.",
    "What is 17 + 25?",
    "List the planets of the solar system, one a line.",
    "Correct the spelling and return the sentence: I beleive the the train was laet becuase of the storm.",
    "Repeat this line three times: red lorry, yellow lorry, red lorry, yellow lorry.",
    "Summarize in one sentence: Bees live in colonies. A colony has one queen. Workers gather nectar and make honey.",
    "Write a Python function that reverses a string.",
    "Rename x to total and return the code:\n```python\nx = 0\nfor n in numbers:\n    x = x + n\nprint(x)\n```",
    "Give me a recipe for pancakes.",
    'Return this JSON with every number doubled: {"a": 1, "b": 2, "c": [3, 4]}',
    "Who wrote Hamlet? Answer in one word.",
    "ok",
    "Ein kurzer Satz auf Deutsch, bitte.",
]
RAW = [
    "Once upon a time",
    "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over",
    "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return",
    "1, 2, 3, 4, 5, 6,",
    "name,age\nAnn,31\nBob,27\nCy,",
    "A",
    "<html>\n<body>\n<h1>Title</h1>\n<p>",
    "Dear Sir or Madam,\n\nI am writing to",
]


@pytest.fixture(scope="module")
def prompts(embedded: "Session") -> list[list[int]]:
    chat = [embedded.encode(text) for text in CHAT]
    raw = [embedded.encode(text, raw=True) for text in RAW]
    mixed = [*chat, *raw]
    return [mixed[i * 5 % len(mixed)] for i in range(len(mixed))]  # long and short ones side by side in each batch


@pytest.fixture(scope="module")
def plain(embedded: "Session", prompts: list[list[int]]) -> list[list[int]]:
    """One prompt at a time: what everything else is compared with."""
    limits = Limits(max_new_tokens=NEW, eos=embedded.eos)
    return [plain_generate(embedded.target, [prompt], limits=limits)[0].tokens for prompt in prompts]


def show(what: str, report: IdentityReport) -> None:
    print(f"\n{what}: {report}")  # noqa: T201 - every difference is to be seen, excused or not
    assert report.ok, str(report)


def in_batches(prompts: Sequence[list[int]]) -> list[list[list[int]]]:
    return [list(prompts[begin : begin + BATCH]) for begin in range(0, len(prompts), BATCH)]


def make_drafter(name: str, target: Target) -> Drafter:
    if name == "ngram":
        return NgramDrafter(1, 3)
    if name == "suffix":
        return SuffixDrafter()
    if name == "layer-skip":
        return layer_skip_drafter(target)
    # Another model of the same vocabulary: the target without two of its layers, as a draft model in its own right.
    count = target.config.num_hidden_layers
    shallow = shallow_copy(target.model, [layer for layer in range(count) if layer not in (count // 2, count // 2 + 1)])
    return DraftModelDrafter(Target(shallow, check=False), target.vocab_size)


def test_there_are_enough_prompts_and_they_differ(prompts: list[list[int]], plain: list[list[int]]) -> None:
    assert len(prompts) >= 20
    lengths = [len(prompt) for prompt in prompts]
    assert min(lengths) == 1
    assert max(lengths) > 60
    assert all(len(set(map(len, batch))) == BATCH or len(set(map(len, batch))) > 3 for batch in in_batches(prompts))
    assert len({tuple(tokens) for tokens in plain}) >= 20


def test_plain_decoding_equals_transformers(
    embedded: "Session", prompts: list[list[int]], plain: list[list[int]]
) -> None:
    theirs = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = embedded.target.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=sorted(embedded.eos),
            pad_token_id=min(embedded.eos),
        )
        theirs.append(out[0, len(prompt) :].tolist())
    show("transformers", check_identity(embedded.target, prompts, plain, theirs))


def test_plain_decoding_in_ragged_batches(
    embedded: "Session", prompts: list[list[int]], plain: list[list[int]]
) -> None:
    limits = Limits(max_new_tokens=NEW, eos=embedded.eos)
    runs = [run for batch in in_batches(prompts) for run in plain_generate(embedded.target, batch, limits=limits)]
    show("plain, batches", check_identity(embedded.target, prompts, plain, [run.tokens for run in runs]))


@pytest.mark.parametrize("batched", [False, True], ids=["alone", "ragged batches"])
@pytest.mark.parametrize("name", ["ngram", "suffix", "layer-skip", "draft"])
def test_every_drafter_keeps_the_greedy_text(
    name: str, batched: bool, embedded: "Session", prompts: list[list[int]], plain: list[list[int]]
) -> None:
    target = embedded.target
    limits = Limits(max_new_tokens=NEW, eos=embedded.eos)
    engine = SpecEngine(target, make_drafter(name, target), budget=DraftBudget(3), limits=limits)
    groups = in_batches(prompts) if batched else [[prompt] for prompt in prompts]
    runs = [run for group in groups for run in engine.generate(group)]
    accepted = sum(run.stats.accepted for run in runs)
    tau = sum(run.stats.tokens for run in runs) / sum(run.stats.rounds for run in runs)
    what = f"{name}, {'batches' if batched else 'alone'}, {accepted} drafts accepted, tau {tau:.2f}"
    show(what, check_identity(target, prompts, plain, [run.tokens for run in runs]))
    assert accepted > 30  # the drafts did something
    assert tau < 3.9  # and were rejected at times


@pytest.mark.parametrize("fast", [False, True], ids=["the model's own forward", "the short forward"])
def test_what_epsilon_stands_on(fast: bool, embedded: "Session", prompts: list[list[int]]) -> None:
    """A logit moves by d when its row is computed beside others; a choice turns only at gaps up to 2 d. Epsilon is more.

    In the short forward it does not move.
    """
    target, worst = Target(embedded.target.model, check=False, fast=fast), 0.0
    for prompt in [prompt for prompt in prompts if len(prompt) > 30][:4]:
        body, tail = prompt[:-8], prompt[-8:]
        target.start([body], capacity=len(prompt) + 8)
        alone = []
        for token in tail:
            alone.append(target.forward([chain([token])]).logits[0, 0])
            target.commit([(0,)])
        for nodes in (2, 4, 8):
            target.start([body], capacity=len(prompt) + 8)
            for begin in range(0, len(tail), nodes):
                logits = target.forward([chain(tail[begin : begin + nodes])]).logits[0]
                target.commit([range(nodes)])
                worst = max(worst, float((logits - torch.stack(alone[begin : begin + nodes])).abs().max()))
    assert 2 * worst < EPSILON, f"a logit moves by up to {worst:.1e}"
    assert (worst == 0.0) == fast


# --- the rule itself, on tiny models -----------------------------------------------------------------------------------


def test_first_difference() -> None:
    cases: list[tuple[Any, Any, int | None]] = [
        ([1, 2], [1, 2], None), ([], [], None), ([1, 2], [1, 3], 1), ([1, 2], [1], 1), ([], [4], 0), ([5], [4], 0),
    ]  # fmt: skip
    for one, other, expected in cases:
        assert first_difference(one, other) == expected
        assert first_difference(other, one) == expected


def test_top2_gap_is_the_models_own() -> None:
    model = tiny_model()
    top = model(input_ids=torch.tensor([[3, 5, 7]])).logits[0, -1].topk(2).values
    assert top2_gap(Target(model), [3, 5, 7]) == pytest.approx(float(top[0] - top[1]), abs=1e-12)
    with pytest.raises(ValueError, match="at least one"):
        top2_gap(Target(model), [])


def test_a_wrong_token_is_an_error_and_a_near_tie_is_not() -> None:
    target = Target(tiny_model())
    prompts = [[3, 5, 7], [1]]
    runs = plain_generate(target, prompts, limits=Limits(max_new_tokens=6))
    plain = [run.tokens for run in runs]
    wrong = [plain[0], [*plain[1][:4], plain[1][4] + 1, 0]]
    assert check_identity(target, prompts, plain, plain) == IdentityReport(2, (), EPSILON)
    report = check_identity(target, prompts, plain, wrong)
    gap = top2_gap(target, [*prompts[1], *plain[1][:4]])
    assert report.differences == report.errors == (Difference(1, 4, plain[1][4], plain[1][4] + 1, gap),)
    assert not report.ok
    assert "prompt 1, token 4" in str(report)
    excused = check_identity(target, prompts, plain, wrong, epsilon=gap * 1.01)
    assert excused.ok
    assert excused.differences == report.differences  # excused, but listed
    assert "1 of 2 texts identical, 1 part at a top-2 gap" in str(excused)
    short = check_identity(target, prompts, plain, [plain[0][:2], plain[1]])
    assert short.errors[0].other is None
    nan = IdentityReport(1, (Difference(0, 0, 1, 2, float("nan")),), 1.0)
    assert not nan.ok
