"""Drafts along stored answers are those of the engine, and every method of the comparison trains and is measured."""

from typing import Any

import pytest
import torch
from helpers import tiny_model
from parallel_heads import KINDS, random_parallel

from benchmarks.after_eagle import METHODS
from benchmarks.along import along
from specdec_ref.config import DraftBudget
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.training.features import Example

PROMPTS = [[5, 9, 3, 11, 7, 2], [1, 4], [8, 8, 30, 4], [2, 17, 40, 6, 6, 1, 3, 50, 12]]


@pytest.mark.parametrize("kind", KINDS)
def test_counted_rounds_are_those_of_the_engine(kind: str) -> None:
    model: Any = tiny_model(spread=0.15, num_hidden_layers=6, dtype=torch.bfloat16)
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
    found = along(drafter, examples, slice(None), 3, batch=3)
    records = [record for one in done for record in one.records]
    assert (found.tokens, found.rounds) == (4 * 24, len(records))
    assert found.accepted == [sum(r.accepted > position for r in records) for position in range(3)]
    assert found.tested[0] == sum(r.drafted > 0 for r in records)


def test_every_method_starts_where_another_ends() -> None:
    for name, method in METHODS.items():
        assert not method.start or method.start in METHODS, name
    assert len({method.folder for method in METHODS.values() if method.curriculum}) == sum(
        bool(method.curriculum) for method in METHODS.values()
    )
