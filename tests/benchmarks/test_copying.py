"""Rounds counted on stored answers: they are those of the engine, and what was said before is forgotten in time."""

from random import Random

import pytest
from helpers import VOCAB, tiny_model

from benchmarks.copying import Text, copied, rows
from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SpecConfig
from specdec_ref.drafters import DRAFTERS, forget
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(tiny_model(), check=False)


@pytest.fixture(scope="module")
def texts(target: Target) -> list[Text]:
    """Five requests; the last one asks what the first one asked."""
    chance, limits = Random(2), Limits(max_new_tokens=30)
    prompts = [[chance.randrange(VOCAB) for _ in range(length)] for length in (4, 9, 3, 12)]
    prompts.append(prompts[0])
    return [(prompt, plain_generate(target, [prompt], limits=limits)[0].tokens) for prompt in prompts]


@pytest.mark.parametrize("cold", [False, True], ids=["remembers", "cold"])
@pytest.mark.parametrize("budget", [DraftBudget(5), DraftBudget(4, 2, 7)], ids=["chain", "tree"])
@pytest.mark.parametrize("name", ["ngram", "trie", "suffix"])
def test_counted_rounds_are_those_of_the_engine(
    name: str, budget: DraftBudget, cold: bool, target: Target, texts: list[Text]
) -> None:
    drafter, stats = DRAFTERS[name](target, None, SpecConfig()), []
    engine = SpecEngine(target, drafter, budget=budget, limits=Limits(max_new_tokens=30))
    for prompt, answer in texts:
        if cold:
            forget(drafter)
        (done,) = engine.generate([prompt])
        assert done.tokens == answer
        stats.append(done.stats)
    forget(drafter)
    expected = tuple(sum(getattr(each, name) for each in stats) for name in ("tokens", "rounds", "drafted"))
    assert copied(drafter, texts, budget, cold=cold) == expected


def test_memory_ends_with_the_task_or_the_episode(texts: list[Text]) -> None:
    """The same five requests as a task, as another one and as an episode, by a drafter that would know all answers."""
    work = {"code": texts, "chat": texts, "replay:a": texts, "replay:b": texts}

    def taus(remember: bool) -> dict[str, float]:
        return {row["of"]: row["tau"] for row in rows(work, "suffix", None, remember)}

    without, kept = taus(False), taus(True)
    assert without["code"] == without["chat"] == without["mean of tasks"]
    assert kept["code"] == kept["chat"] == kept["replay:a"] == kept["replay:b"] == without["replay:b"]
    assert without["code"] < without["replay:a"]
