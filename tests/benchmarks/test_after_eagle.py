"""Drafts along stored answers are those of the engine, and every method of the comparison trains and is measured."""

from typing import Any

import pytest
import torch
from helpers import tiny_model
from parallel_heads import KINDS, random_parallel

from benchmarks import page_after
from benchmarks.after_eagle import METHODS
from benchmarks.along import along
from specdec_ref.config import DraftBudget
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.training.features import Example

PROMPTS = [[5, 9, 3, 11, 7, 2], [1, 4], [8, 8, 30, 4], [2, 17, 40, 6, 6, 1, 3, 50, 12]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_counted_rounds_are_those_of_the_engine(kind: str, dtype: torch.dtype) -> None:
    model: Any = tiny_model(spread=0.15, num_hidden_layers=6, dtype=dtype)
    drafter = random_parallel(kind, model)
    engine = SpecEngine(Target(model, check=False), drafter, budget=DraftBudget(3), limits=Limits(max_new_tokens=24))
    done = engine.generate(PROMPTS)
    examples = []
    for prompt, answer in zip(PROMPTS, done, strict=True):
        target = Target(model, drafter.feature_layers, check=False)
        text = [*prompt, *answer.tokens]
        output = target.start([text], capacity=64)
        assert output is not None
        assert output.features is not None
        examples.append(
            Example("chat", 0, torch.tensor(text), len(prompt), output.features[0, :-2], torch.zeros(24, 1))
        )
    found = along(drafter, examples, slice(None), 3, dtype, batch=3)
    records = [record for one in done for record in one.records]
    assert (found.tokens, found.rounds) == (4 * 24, len(records))
    assert found.accepted == [sum(r.accepted > position for r in records) for position in range(3)]
    assert found.tested[0] == sum(r.drafted > 0 for r in records)


def made(method: str, tau: float, draft: float) -> list[dict[str, Any]]:
    """Two rows of a method as the command writes them."""
    return [
        {"method": method, "split": "test", "task": "mean", "tau": tau, "tau_worst": 1.1, "conditional": [0.5, 0.4]},
        {"method": method, "costs": {"draft": draft, "check": 1.1}, "weights": 5_000_000, "tokens_trained": 300_000},
    ]


def test_break_even_compares_whole_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four drafts cost 0.4 plain steps one by one and 0.1 together; checking five rows costs 1.1."""
    about = {"target": "tiny", "dtype": "torch.bfloat16", "machine": "a machine", "torch": "2", "command": "run",
             "depth": 4, "tokens": 1000, "distinct": 900}  # fmt: skip
    rows = [*made("eagle, longer", 2.0, 0.4), *made("p-eagle", 1.6, 0.1), *made("shipped", 2.5, 0.4),
            *made("p-eagle, shipped", 2.0, 0.1)]  # fmt: skip
    monkeypatch.setattr(page_after, "committed", lambda name: (about, rows))
    found = page_after.break_even(rows)
    assert found["parallel"] == pytest.approx(0.1)
    assert found["needed"] == pytest.approx((1.1 + 0.1) / (1.1 + 0.4))
    assert (found["kept"], found["shipped"]) == (pytest.approx(0.8), pytest.approx(0.8))
    text = "\n".join(page_after.after_eagle())
    assert "| p-eagle | 0.30 M | 5.0 M | 0.50 0.40 | 1.60 | 1.10 | 0.100 | 1.33 |" in text
    assert f"**{found['needed']:.2f}** of\nEAGLE's tau" in text


def test_every_method_starts_where_another_ends() -> None:
    for name, method in METHODS.items():
        assert not method.start or method.start in METHODS, name
    assert len({method.folder for method in METHODS.values() if method.curriculum}) == sum(
        bool(method.curriculum) for method in METHODS.values()
    )
