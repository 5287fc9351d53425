"""Copies and a head's guesses in one tree: the merge against brute force, what is trusted, and that nothing is lost."""

import math
from random import Random
from typing import Any

import pytest
from eagle_heads import random_drafter
from helpers import VOCAB, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_eagle_exact import table_head
from torch import nn

from specdec_ref.adaptive import Constant
from specdec_ref.config import DraftBudget, SamplingParams, TrieOptions
from specdec_ref.core import DraftTree, VerifyResult
from specdec_ref.drafters.hybrid import HybridDrafter, Trust, merged
from specdec_ref.drafters.trie import NgramTrie, TrieDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits
from specdec_ref.trees.growth import Nodes

Path = tuple[int, ...]


def random_guesses(chance: Random) -> tuple[Nodes, list[float]]:
    """A random tree without repeated siblings; a child is worth no more than its parent, and often as much."""
    nodes, values = Nodes(0), [0.0]
    for _ in range(chance.randrange(12)):
        parent = chance.randrange(len(values))
        taken = {nodes.tokens[i] for i, up in enumerate(nodes.parents) if up == parent}
        token = chance.choice([t for t in range(5) if t not in taken] or [9])
        if token != 9:
            nodes.add(token, parent)
            values.append(values[parent] - chance.choice([0.0, 0.1, 0.5, 1.0]))
    return nodes, values


def by_path(nodes: Nodes, values: list[float]) -> dict[Path, float]:
    tree = nodes.select(range(len(values)))
    return {tuple(tree.token_list[i] for i in tree.path(n)): values[n] for n in range(1, len(tree))}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 3))
def test_the_merge_keeps_the_most_valuable_paths(seed: int, nodes: int, topk: int) -> None:
    """Brute force: again and again the most valuable path whose parent is in and has room."""
    chance = Random(seed)
    first, second = random_guesses(chance), random_guesses(chance)
    tree = merged([first, second], DraftBudget(20, topk, nodes))
    got = {tuple(tree.token_list[i] for i in tree.path(n)) for n in range(1, len(tree))}
    one, other = by_path(*first), by_path(*second)
    worth = {path: max(one.get(path, -math.inf), other.get(path, -math.inf)) for path in [*one, *other]}
    kept: set[Path] = set()
    while len(kept) < nodes - 1:
        width = {path: sum(k[:-1] == path for k in kept) for path in [(), *kept]}
        open_ones = [p for p in worth if p not in kept and p[:-1] in width and width[p[:-1]] < topk]
        if not open_ones:
            break
        kept.add(max(open_ones, key=lambda p: worth[p]))
    assert len(got) == len(tree) - 1, "a path stands there twice"
    assert sorted(worth[p] for p in got) == pytest.approx(sorted(worth[p] for p in kept))
    assert all(p[:-1] in got for p in got if len(p) > 1)


def test_trust_follows_what_held_and_shares_are_of_what_followed() -> None:
    trie, trust = NgramTrie(TrieOptions(max_depth=4)), Trust(rate=0.5)
    trie.insert([1, 2, 1, 2, 1, 3, 1])
    one = trie.root.children[1]
    assert trust(one.children[2]) == pytest.approx(Trust.PRIOR[0] * 2 / 3)
    trust.learn(1, True)
    assert trust(one.children[2]) == pytest.approx((Trust.PRIOR[0] + 1) / 2 * 2 / 3)
    trust.learn(50, False)
    assert trust.held[-1] == Trust.PRIOR[-1] / 2
    for _ in range(5000):
        trust.learn(1, False)
    assert trust(one.children[2]) > 0, "its logarithm is taken"


@pytest.mark.parametrize("sampling", [SamplingParams(1.0), SamplingParams(0.7, top_k=2), SamplingParams()])
@pytest.mark.parametrize("budget", [DraftBudget(2), DraftBudget(2, 2, 5)])
def test_the_distribution_is_the_target_s(
    sampling: SamplingParams, budget: DraftBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By enumeration through step(). The head drafts from two of three tokens, the trie knows a text beforehand."""
    table, prompt = TableLM(3, seed=1), [0, 1, 2, 0, 1]
    drafter = HybridDrafter(table_head(3), TrieDrafter(TrieOptions(max_depth=4)), head_depth=2, sure=0.25)
    drawn, propose = set[str](), HybridDrafter.propose

    def noted(*asked: Any) -> list[DraftTree]:
        trees = propose(*asked)
        drawn.update(tree.drawn for tree in trees if len(tree) > 1)
        return trees

    monkeypatch.setattr(HybridDrafter, "propose", noted)
    drafter.warm([0, 1, 1, 2, 0, 2, 1, 0, 1, 2, 2, 0])
    engine = SpecEngine(Target(table), drafter, budget=budget, sampling=sampling, limits=Limits(max_new_tokens=50))
    emitted = engine_distribution(engine, prompt, 3, 3)
    assert total_variation(emitted, table_distribution(table, prompt, 3, sampling)) < 1e-12
    assert drawn == ({"point", "iid"} if budget.topk == 1 and not sampling.greedy else {"point"})


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(spread=0.25, num_hidden_layers=6)


def hybrid(model: nn.Module, sure: float = 0.5) -> HybridDrafter:
    return HybridDrafter(random_drafter(model), TrieDrafter(), head_depth=3, sure=sure)


@pytest.mark.parametrize("budget", [DraftBudget(5), DraftBudget(5, 3, 10)])
def test_greedy_text_is_plain_alone_and_in_batches(model: nn.Module, budget: DraftBudget) -> None:
    target, limits, chance = Target(model, check=False), Limits(max_new_tokens=20), Random(2)
    prompts = [[chance.randrange(VOCAB) for _ in range(n)] for n in (1, 12, 5)]
    plain = SpecEngine(target, TrieDrafter(), budget=DraftBudget(0), limits=limits).generate(prompts)
    engine = SpecEngine(target, hybrid(model), budget=budget, limits=limits)
    first, again = engine.generate(prompts), engine.generate(prompts)
    for found in (first, again, [engine.generate([prompt])[0] for prompt in prompts]):
        assert [done.tokens for done in found] == [done.tokens for done in plain]
    assert sum(d.stats.rounds for d in again) < sum(d.stats.rounds for d in first), "copies are not used"


def test_the_head_is_asked_unless_the_copy_is_sure(model: nn.Module) -> None:
    """Row 0 repeats itself, row 1 does not: only row 1 gets the head's guesses, alone or beside the other."""
    target, rngs = Target(model, check=False), [KeyedRandomness(0, 0, "draft")] * 2
    prompts = [[5, 9, 3, 11] * 6, [7, 20, 41, 2]]
    proposals = []
    for sure in (0.5, 2.0):
        drafter = hybrid(model, sure)
        target.feature_layers = drafter.feature_layers
        output = target.start([prompt[:-1] for prompt in prompts], capacity=64)
        assert output.features is not None
        drafter.start([0, 1], prompts, [row[: len(p) - 1] for row, p in zip(output.features, prompts, strict=True)])
        proposals.append(drafter.propose([0, 1], DraftBudget(4, 2, 9), SamplingParams(), rngs))
        assert drafter._silent == ([True, False] if sure == 0.5 else [False, False])
    (copied, headed), (both, same) = proposals
    assert copied.is_chain
    assert copied.token_list == (11, 5, 9, 3, 11)
    assert len(both) > len(copied)
    assert headed.token_list == same.token_list
    assert len(headed) == 9


def test_a_controller_is_told_what_the_head_would_have_to_read(model: nn.Module) -> None:
    drafter, told = hybrid(model), []
    engine = SpecEngine(Target(model, check=False), drafter, limits=Limits(max_new_tokens=9), control=Constant(0))
    engine.start([[7, 20, 41, 2]])
    for _ in range(3):
        engine.step()
        told.append(drafter.unread())
    assert told == [1, 2, 3]


def test_what_was_tested_is_learnt(model: nn.Module) -> None:
    drafter = hybrid(model)
    drafter.copier.start([0], [[1, 2, 3, 1, 2]], None)
    drafter._trust[0] = Trust()
    nodes, _ = drafter._copies(0, DraftBudget(3))
    tree = nodes.select(range(len(nodes.tokens)))
    assert tree.token_list == (2, 3, 1, 2)
    drafter.eagle = type("Deaf", (), {"commit": lambda *_: None})()  # type: ignore[assignment]
    drafter.commit([0], [tree], [VerifyResult((1,), 9)], None)
    held, prior = drafter._trust[0].held, Trust.PRIOR
    assert held[1] > prior[1]  # 3 after (1, 2) held
    assert held[2] < prior[2]  # 1 after (1, 2, 3) did not
    assert held[3:] == list(prior[3:])  # what came after was not tested
    assert isinstance(tree, DraftTree)
