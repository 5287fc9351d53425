"""Trees that a draft model grows: exact, greedy-identical in any batch, and no state left over from rejected branches."""

from collections.abc import Callable, Sequence
from typing import Literal

import pytest
import torch
from eagle_heads import random_drafter
from helpers import VOCAB, perturbed, tiny_model
from test_eagle_drafter import from_scratch
from test_kv_cache import TOLERANCE, cache_error
from test_tree_exact import PLAIN, PROMPT, TRUNCATED
from torch import Tensor, nn
from tree_drafters import COMB, DRAWS, FORK

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.drafters.eagle import EagleDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits
from specdec_ref.trees.growth import Grow, static
from specdec_ref.trees.static import budget_of, k_ary

PROMPTS = [[3, 5, 7, 3, 5, 7, 3, 5], [42], [11, 2, 9, 14, 8, 1, 30, 2, 9], [7] * 6]
NEW = 20
GROWTHS: dict[str, tuple[Grow | None, DraftBudget]] = {
    "dynamic": (None, DraftBudget(3, 2, 8)),
    "dynamic, wide": (None, DraftBudget(2, 4, 16)),
    "dynamic, unsure nodes stop": (None, DraftBudget(4, 3, 10, 0.2)),
    "static": (static([-1, 0, 0, 0, 1, 1, 2, 4]), budget_of([-1, 0, 0, 0, 1, 1, 2, 4])),
    "static, cut": (static(k_ary(2, 3)), DraftBudget(2, 2, 15)),
    "one level": (static(k_ary(3, 1)), budget_of(k_ary(3, 1))),
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(seed=1)


def drafting(model: nn.Module, name: str, noise: float = 0.1) -> tuple[DraftModelDrafter, DraftBudget]:
    grow, budget = GROWTHS[name]
    return DraftModelDrafter(Target(perturbed(model, noise), check=False), VOCAB, grow), budget


TABLE_GROWTHS: list[tuple[str, Callable[[], Grow | None]]] = [
    ("dynamic", lambda: None),
    *((f"{shape} {how}", lambda shape=shape, how=how: static(shape, how)) for shape in (FORK, COMB) for how in DRAWS),  # type: ignore[misc]
]


@pytest.mark.parametrize(("name", "grow"), TABLE_GROWTHS, ids=[name for name, _ in TABLE_GROWTHS])
@pytest.mark.parametrize("sampling", [PLAIN, TRUNCATED], ids=["T1", "T0.7-k2"])
def test_grown_trees_keep_the_distribution(
    name: str, grow: Callable[[], Grow | None], sampling: SamplingParams
) -> None:
    """Drawn from a table with a cache: a wrong mask, position or slot in the draft would give a q that is not the one."""
    target, draft = TableLM(3, seed=1), TableLM(3, seed=2)
    drafter = DraftModelDrafter(Target(draft), 3, grow())
    engine = SpecEngine(
        Target(target), drafter, budget=DraftBudget(2, 2, 5), sampling=sampling, limits=Limits(max_new_tokens=50)
    )
    dist, wanted = engine_distribution(engine, PROMPT, 2, 2), table_distribution(target, PROMPT, 2, sampling)
    assert sum(dist.values()) == pytest.approx(1.0, abs=1e-12)
    assert total_variation(dist, wanted) <= 1e-12


@pytest.mark.parametrize("name", GROWTHS)
def test_greedy_text_is_the_target_s_alone_and_in_a_ragged_batch(model: nn.Module, name: str) -> None:
    target = Target(model, check=False)
    plain = [g.tokens for g in plain_generate(target, PROMPTS, limits=Limits(max_new_tokens=NEW))]
    drafter, budget = drafting(model, name)
    engine = SpecEngine(target, drafter, budget=budget, limits=Limits(max_new_tokens=NEW))
    batch = engine.generate(PROMPTS)
    assert [run.tokens for run in batch] == plain
    alone = [engine.generate([prompt])[0] for prompt in PROMPTS]
    assert [run.tokens for run in alone] == plain
    records = [record for run in batch for record in run.records]
    assert sum(record.accepted for record in records) > 10
    assert max(record.drafted for record in records) > max(record.depth for record in records)  # trees, not chains
    assert all(record.drafted < budget.max_nodes and record.depth <= budget.depth for record in records)
    assert [r.accepted for run in alone for r in run.records] == [r.accepted for run in batch for r in run.records]


@pytest.mark.parametrize("name", GROWTHS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_both_caches_equal_ones_computed_from_scratch(model: nn.Module, name: str, temperature: float) -> None:
    """After every round of a ragged batch from which rows leave: the gather of the accepted path, in both caches."""
    drafter, budget = drafting(model, name)
    engine = SpecEngine(
        Target(model, check=False),
        drafter,
        budget=budget,
        sampling=SamplingParams(temperature, top_k=6),
        limits=Limits(max_new_tokens=NEW, eos=frozenset({5, 17})),
    )
    requests, worst = engine.start(PROMPTS), 0.0
    while engine.requests:
        engine.step()
        if engine.requests:
            worst = max(worst, cache_error(engine.target, [r.tokens[:-1] for r in engine.requests]))
            texts = [r.tokens[:n] for r, n in zip(engine.requests, drafter.lm.lengths, strict=True)]
            worst = max(worst, cache_error(drafter.lm, texts))
            unread = [len(r.tokens) - n for r, n in zip(engine.requests, drafter.lm.lengths, strict=True)]
            assert set(unread) <= {1, 2}  # the target's own token, and an accepted leaf at most
    assert worst <= TOLERANCE["sdpa"]
    paths = [record.accepted for request in requests for record in request.records]
    assert sum(paths) > 5
    if budget.depth > 1:
        assert max(paths) > 1


def test_a_path_that_is_moved_wrongly_is_caught(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: the accepted nodes are counted, and left where they are."""
    from specdec_ref.models.kv_cache import SlotCache

    commit = SlotCache.commit
    monkeypatch.setattr(SlotCache, "commit", lambda self, kept: commit(self, [range(len(nodes)) for nodes in kept]))
    with pytest.raises(AssertionError):
        test_both_caches_equal_ones_computed_from_scratch(model, "static", 0.0)


def test_an_abandoned_draft_leaves_no_trace(model: nn.Module) -> None:
    drafter, budget = drafting(model, "static")
    engine = SpecEngine(Target(model, check=False), drafter, budget=budget, limits=Limits(max_new_tokens=NEW))
    engine.start(PROMPTS)
    engine.step()
    rows = [request.row for request in engine.requests]
    rngs = [KeyedRandomness(0, 0, "draft") for _ in rows]
    first, again = (drafter.propose(rows, budget, SamplingParams(), rngs) for _ in range(2))
    assert [tree.token_list for tree in first] == [tree.token_list for tree in again]
    engine.close()


def test_trees_chains_and_rounds_without_drafts_mix(model: nn.Module) -> None:
    """A controller may change the budget between rounds."""
    target = Target(model, check=False)
    plain = [g.tokens for g in plain_generate(target, PROMPTS, limits=Limits(max_new_tokens=NEW))]
    drafter, _ = drafting(model, "dynamic")
    engine = SpecEngine(target, drafter, limits=Limits(max_new_tokens=NEW))
    requests = engine.start(PROMPTS)
    budgets = [DraftBudget(3, 2, 8), DraftBudget(0), DraftBudget(2), DraftBudget(2, 3, 6), DraftBudget(4)]
    turn = 0
    while engine.requests:
        engine.budget = budgets[turn % len(budgets)]
        engine.step()
        turn += 1
        if engine.requests:
            texts = [r.tokens[:n] for r, n in zip(engine.requests, drafter.lm.lengths, strict=True)]
            assert cache_error(drafter.lm, texts) <= TOLERANCE["sdpa"]
    assert [request.new_tokens for request in requests] == plain


def test_nan_in_a_tree_s_second_level_is_reported_and_forgotten(model: nn.Module) -> None:
    drafter, budget = drafting(model, "static")
    target = Target(model, check=False)
    plain = [g.tokens for g in plain_generate(target, PROMPTS[:2], limits=Limits(max_new_tokens=NEW))]
    engine = SpecEngine(target, drafter, budget=budget, limits=Limits(max_new_tokens=NEW))
    requests = engine.start(PROMPTS[:2])
    engine.step()
    forward, calls = drafter.lm.forward, []

    def broken(trees: object) -> object:
        calls.append(trees)
        output = forward(trees)  # type: ignore[arg-type]
        if len(calls) == 2:
            output.logits.fill_(float("nan"))
        return output

    drafter.lm.forward = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(ValueError, match="NaN"):
        engine.step()
    drafter.lm.forward = forward  # type: ignore[method-assign]
    while engine.requests:
        engine.step()
    assert [request.new_tokens for request in requests] == plain


# --- EAGLE ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eagle_model() -> nn.Module:
    return tiny_model(spread=0.15, num_hidden_layers=6)


def eagle(model: nn.Module, version: Literal[1, 3], name: str) -> tuple[EagleDrafter, DraftBudget]:
    drafter = random_drafter(model, version, draft_vocab=40 if version == 3 else None)
    drafter.grow, budget = GROWTHS[name]
    return drafter, budget


class Recorder:
    """Wraps an EAGLE drafter and keeps each proposal with the verified text and features behind it."""

    def __init__(self, inner: EagleDrafter) -> None:
        self.inner, self.feature_layers = inner, inner.feature_layers
        self.text: dict[int, list[int]] = {}
        self.features: dict[int, list[Tensor]] = {}
        self.seen: list[tuple[list[int], Tensor, DraftTree]] = []

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]], features: Sequence[Tensor] | None) -> None:
        for i, row in enumerate(rows):
            self.text[row], self.features[row] = list(prompts[i]), [] if features is None else [features[i]]
        self.inner.start(rows, prompts, features)

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        trees = self.inner.propose(rows, budget, sampling, rngs)
        known = [row for row, tree in zip(rows, trees, strict=True) if len(tree) > 1]
        self.seen += [
            (list(self.text[row]), torch.cat(self.features[row]), tree)
            for row, tree in zip(rows, trees, strict=True)
            if row in known
        ]
        return trees

    def commit(
        self,
        rows: Sequence[int],
        trees: Sequence[DraftTree],
        results: Sequence[VerifyResult],
        features: Sequence[Tensor] | None,
    ) -> None:
        assert features is not None
        for row, tree, result, new in zip(rows, trees, results, features, strict=True):
            self.text[row] += [*(tree.token_list[node] for node in result.path), result.next_token]
            self.features[row].append(new)
        self.inner.commit(rows, trees, results, features)

    def finish(self, rows: Sequence[int]) -> None:
        self.inner.finish(rows)


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("name", ["dynamic, unsure nodes stop", "static, cut", "static"])
def test_an_eagle_tree_is_what_a_fresh_head_would_grow(
    eagle_model: nn.Module, name: str, version: Literal[1, 3]
) -> None:
    """Along every path of every tree: each child is among the likeliest after it, or its distribution is the head's own."""
    for temperature in (0.0, 1.0):
        drafter, budget = eagle(eagle_model, version, name)
        recorder, sampling = Recorder(drafter), SamplingParams(temperature)
        engine = SpecEngine(
            Target(eagle_model, check=False),
            recorder,
            budget=budget,
            sampling=sampling,
            limits=Limits(max_new_tokens=12),
        )
        records = [record for run in engine.generate(PROMPTS) for record in run.records]
        assert max(record.drafted for record in records) > max(record.depth for record in records)
        ids = torch.arange(VOCAB) if drafter.head.q_vocab is None else drafter.head.q_vocab
        for text, features, tree in recorder.seen[::3]:
            for node in range(len(tree)):
                children = [tree.token_list[child] for child in tree.children(node)]
                if not children:
                    continue
                path = [tree.token_list[n] for n in tree.path(node)]
                logits = from_scratch(drafter.head, text, features, [*path, 0])[-1]
                if tree.drawn == "point":
                    assert set(children) <= set(ids[logits.topk(max(budget.topk, len(children))).indices].tolist())
                else:
                    assert tree.q is not None
                    torch.testing.assert_close(tree.q[node], logits.softmax(-1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("name", ["dynamic", "static"])
def test_eagle_trees_keep_the_greedy_text(eagle_model: nn.Module, name: str, version: Literal[1, 3]) -> None:
    target = Target(eagle_model, check=False)
    plain = [g.tokens for g in plain_generate(target, PROMPTS, limits=Limits(max_new_tokens=NEW))]
    drafter, budget = eagle(eagle_model, version, name)
    engine = SpecEngine(target, drafter, budget=budget, limits=Limits(max_new_tokens=NEW))
    batch = engine.generate(PROMPTS)
    assert [run.tokens for run in batch] == plain
    assert sum(record.accepted for run in batch for record in run.records) > 0
    assert [engine.generate([prompt])[0].tokens for prompt in PROMPTS] == plain
