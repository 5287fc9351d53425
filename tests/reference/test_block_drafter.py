"""Block drafting with random heads: the engine's text is the target's, and the cache holds verified tokens alone."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from block_heads import random_drafter
from helpers import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.drafters.block import BlockDrafter
from specdec_ref.drafters.block_head import BlockHead
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits
from specdec_ref.training.block import new_block
from specdec_ref.trees.best_first import BestFirstGrowth
from specdec_ref.trees.growth import confidence

PROMPTS = [[5, 9, 3, 11, 7, 2], [1], [8, 8, 30, 4], [2, 17, 40, 6, 6, 1, 3, 50, 12]]
LIMITS = Limits(max_new_tokens=16)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(spread=0.15, num_hidden_layers=6)


@pytest.mark.parametrize("budget", [DraftBudget(1), DraftBudget(4), DraftBudget(9, 3, 12), DraftBudget(4, 1, 0, 0.3)])
@pytest.mark.parametrize("rank", [0, 3])
def test_greedy_text_is_the_target_s(rank: int, budget: DraftBudget) -> None:
    model = tiny_model(spread=0.15, num_hidden_layers=6, dtype=torch.float32)
    drafter = random_drafter(model, rank)
    drafter.head.float()
    expected = [g.tokens for g in plain_generate(Target(model, check=False), PROMPTS, limits=LIMITS)]
    engine = SpecEngine(Target(model, check=False), drafter, budget=budget, limits=LIMITS)
    assert [g.tokens for g in engine.generate(PROMPTS)] == expected


def test_streamed_text_is_the_target_s(model: nn.Module) -> None:
    (expected,) = plain_generate(Target(model, check=False), PROMPTS[1:2], limits=LIMITS)
    engine = SpecEngine(Target(model, check=False), random_drafter(model), limits=LIMITS)
    assert list(itertools.chain(*engine.stream(PROMPTS[1]))) == expected.tokens


class Recorder(BlockDrafter):
    """Keeps the verified text and features of every row, to draft again from scratch."""

    def __init__(self, inner: BlockDrafter) -> None:
        super().__init__(inner.head, inner.feature_layers)
        self.text: dict[int, list[int]] = {}
        self.features: dict[int, list[Tensor]] = {}
        self.proposals: list[tuple[list[int], Tensor, DraftTree]] = []

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]], features: Sequence[Tensor] | None) -> None:
        assert features is not None
        self.text = {row: list(prompt) for row, prompt in zip(rows, prompts, strict=True)}
        self.features = {row: [new] for row, new in zip(rows, features, strict=True)}
        super().start(rows, prompts, features)

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        trees = super().propose(rows, budget, sampling, rngs)
        for row, tree in zip(rows, trees, strict=True):
            if len(tree) > 1:
                self.proposals.append((list(self.text[row]), torch.cat(self.features[row]), tree))
        return trees

    def commit(
        self, rows: Sequence[int], trees: Sequence[DraftTree], results: Sequence[VerifyResult],
        features: Sequence[Tensor] | None,
    ) -> None:  # fmt: skip
        assert features is not None
        for row, tree, result, new in zip(rows, trees, results, features, strict=True):
            self.text[row] += [*(tree.token_list[node] for node in result.path), result.next_token]
            self.features[row].append(new)
        super().commit(rows, trees, results, features)


@torch.inference_mode()
def from_scratch(head: BlockHead, text: Sequence[int], features: Tensor, drafts: Sequence[int]) -> Tensor:
    """Logits of every row by the definition: one text, no cache, no mask, no batch."""
    assert len(features) == len(text) - 1, "features of verified tokens alone"
    context = head.keys(features[None], torch.arange(len(features))[None])

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = context[layer]
        both = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        return F.scaled_dot_product_attention(q, *both)

    positions = torch.arange(len(text) - 1, len(text) - 1 + head.block)[None]
    h = head.rows(torch.tensor(text[-1:]), positions, attend)[0, : len(drafts)]
    return head.logits(head.joined(h, torch.tensor([text[-1], *drafts[:-1]])))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("rank", "layers"), [(0, 1), (3, 2)])
def test_every_draft_is_what_a_fresh_head_would_write(
    model: nn.Module, rank: int, layers: int, temperature: float
) -> None:
    recorder = Recorder(random_drafter(model, rank, layers=layers))
    sampling = SamplingParams(temperature)
    engine = SpecEngine(Target(model, check=False), recorder, sampling=sampling, limits=LIMITS)
    engine.start(PROMPTS)
    for depth in [4, 3, 0, 0, 2, *[4] * 11]:  # the controller may ask for no drafts now and then
        engine.budget = DraftBudget(depth)
        engine.step()
    engine.close()
    assert len(recorder.proposals) > 15
    ids = recorder.head.q_vocab
    for text, features, tree in recorder.proposals:
        logits = from_scratch(recorder.head, text, features, tree.token_list[1:])
        if temperature == 0.0:
            assert tree.token_list[1:] == tuple(ids[logits.argmax(-1)].tolist())
        else:
            assert tree.q is not None
            torch.testing.assert_close(tree.q[:-1], logits.softmax(-1), rtol=0, atol=1e-9)


def test_rows_of_rank_0_do_not_depend_on_the_drafts(model: nn.Module) -> None:
    """Or they would be no marginals: the same text and features give the same rows, whatever was drawn."""
    for rank, alike in ((0, True), (3, False)):
        drafter = random_drafter(model, rank)
        engine = SpecEngine(Target(model, check=False), drafter, sampling=SamplingParams(1.0), limits=LIMITS)
        engine.start(PROMPTS[:1])
        trees = [
            drafter.propose([0], DraftBudget(4), SamplingParams(1.0), [KeyedRandomness(seed, 0, "draft")])[0]
            for seed in range(6)
        ]
        engine.close()
        assert len({tree.token_list for tree in trees}) > 1
        assert all(torch.equal(tree.q, trees[0].q) for tree in trees) is alike  # type: ignore[arg-type]


def test_a_draft_abandoned_or_proposed_twice_leaves_no_trace(model: nn.Module) -> None:
    drafter = random_drafter(model)
    engine = SpecEngine(Target(model, check=False), drafter, limits=LIMITS)
    engine.start(PROMPTS)
    engine.step()
    rows = [request.row for request in engine.requests]
    rngs = [KeyedRandomness(0, 0, "draft") for _ in rows]
    first, state = drafter.propose(rows, DraftBudget(), SamplingParams(), rngs), drafter.state()
    drafter.propose(rows, DraftBudget(4, 3, 9), SamplingParams(1.0), rngs)
    again = drafter.propose(rows, DraftBudget(), SamplingParams(), rngs)
    assert [tree.token_list for tree in first] == [tree.token_list for tree in again]
    assert drafter.state() == state
    assert drafter.cache.lengths == [len(request.tokens) - 1 for request in engine.requests]
    engine.close()


def test_rows_of_a_batch_do_not_see_each_other(model: nn.Module) -> None:
    """Rows end at different times, so the batch also shrinks."""
    limits = Limits(max_new_tokens=16)
    sampling = SamplingParams(1.0)

    def engine() -> SpecEngine:
        return SpecEngine(Target(model, check=False), random_drafter(model), sampling=sampling, limits=limits)

    together = engine().generate(PROMPTS, seeds=[3, 1, 4, 5])
    alone = [engine().generate([prompt], seeds=[seed])[0] for prompt, seed in zip(PROMPTS, [3, 1, 4, 5], strict=True)]
    assert [g.tokens for g in together] == [g.tokens for g in alone]


def test_confidence_decides_before_the_token_is_drawn(model: nn.Module) -> None:
    """Position k is left out or not, whatever the coin for x_k says."""
    drafter = random_drafter(model)
    engine = SpecEngine(Target(model, check=False), drafter, limits=LIMITS)
    engine.start(PROMPTS[:1])
    whole = drafter.propose([0], DraftBudget(4), SamplingParams(1.0), [KeyedRandomness(0, 0, "draft")])[0]
    with torch.inference_mode():
        h = drafter._block()[0]
    sure = drafter.head.sure(drafter.head.joined(h, whole.tokens[:-1])).tolist()
    for least in (0.0, *sure, 1.0):
        budget = DraftBudget(4, min_confidence=least)
        (cut,) = drafter.propose([0], budget, SamplingParams(1.0), [KeyedRandomness(0, 0, "draft")])
        kept = next((k for k, estimate in enumerate(sure) if estimate < least), 4)
        assert cut.token_list == whole.token_list[: kept + 1]
    engine.close()


def test_wrong_use_is_refused(model: nn.Module) -> None:
    drafter = random_drafter(model)
    with pytest.raises(ValueError, match="reads 3 layers"):
        BlockDrafter(drafter.head, (1, 2))
    features = [torch.zeros(2, 96, dtype=torch.float64)]
    drafter.start([0], [[1, 2, 3]], features)
    with pytest.raises(RuntimeError, match="still open"):
        drafter.start([1], [[1, 2, 3]], features)
    with pytest.raises(RuntimeError, match="asked to draft for"):
        drafter.propose([7], DraftBudget(), SamplingParams(), [])
    with pytest.raises(ValueError, match="needs the target's features"):
        drafter.commit([0], [], [], None)
    drafter.finish([0])


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 12), st.integers(1, 4))
def test_best_first_tree_has_the_most_valuable_nodes(seed: int, topk: int, nodes: int, depth: int) -> None:
    """Of all nodes that any tree of these rows can have, none that was left out is worth more than one that is in."""
    rows = torch.randn(depth, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    budget, sampling = DraftBudget(depth, topk, nodes), SamplingParams(1.0)
    growth: Any = BestFirstGrowth(7, budget, sampling)
    while growth.nodes.frontier:
        growth.extend(rows[[growth.nodes.depths[node] for node in growth.nodes.frontier]])
    tree = growth.tree()
    shares = confidence(rows, sampling).topk(topk)
    every = {(): 1.0}
    for level in range(depth):
        pairs = list(zip(shares.indices[level].tolist(), shares.values[level].tolist(), strict=True))
        every |= {
            (*path, x): worth * share for path, worth in every.items() if len(path) == level for x, share in pairs
        }
    kept = [tuple(tree.token_list[node] for node in tree.path(i)) for i in range(len(tree))]
    assert len(set(kept)) == len(kept) == min(nodes, len(every)), "children are distinct, and the budget is used"
    left = [worth for path, worth in every.items() if path not in kept]
    assert min(every[path] for path in kept) >= max(left, default=0.0) - 1e-15


def test_untrained_head_of_rank_r_starts_as_rank_0(model: nn.Module) -> None:
    with torch.random.fork_rng(devices=[]):
        heads = []
        for rank in (0, 3):
            torch.manual_seed(0)
            heads.append(new_block(model, rank=rank))
    h, tokens = torch.randn(2, 32), torch.tensor([3, 5])
    torch.testing.assert_close(*(head.logits(head.joined(h, tokens)) for head in heads))
