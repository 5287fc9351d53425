"""P-EAGLE, MTP and Medusa as drafters: exact distribution, the greedy text, and no state left over from wrong guesses."""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from helpers import tiny_model
from parallel_heads import KINDS, random_parallel, table_drafter
from test_eagle_drafter import Recorder
from torch import Tensor, nn

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, Randomness
from specdec_ref.drafters.medusa import MedusaDrafter
from specdec_ref.drafters.parallel_eagle import MASK, ParallelDrafter, add_masks
from specdec_ref.drafters.rows import chain_tree
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.request import Limits
from specdec_ref.sampling import warp

PROMPTS = [[5, 9, 3, 11, 7, 2], [1], [8, 8, 30, 4], [2, 17, 40, 6, 6, 1, 3, 50, 12]]
LIMITS = Limits(max_new_tokens=16)
TREE = DraftBudget(3, topk=2, nodes=7)


def distance(drafter: Drafter, sampling: SamplingParams, budget: DraftBudget, tokens: int) -> float:
    """Total variation between what the engine emits, by enumeration through step(), and the target's table."""
    table, prompt = TableLM(4, seed=1), [0, 1, 2, 3]
    limits = Limits(max_new_tokens=50)
    engine = SpecEngine(Target(table), drafter, budget=budget, sampling=sampling, limits=limits)
    emitted = engine_distribution(engine, prompt, tokens, tokens)
    assert sum(emitted.values()) == pytest.approx(1.0, abs=1e-12)
    return total_variation(emitted, table_distribution(table, prompt, tokens, sampling))


WARM, SHARP = SamplingParams(1.0), SamplingParams(0.7, top_k=2)
SMALL_TREE = DraftBudget(2, topk=2, nodes=5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sampling", "budget", "tokens"),
    [
        (WARM, DraftBudget(1), 2), (WARM, DraftBudget(2), 2), (WARM, SMALL_TREE, 2),
        (SHARP, DraftBudget(2), 3), (SHARP, SMALL_TREE, 2), (SamplingParams(), DraftBudget(2), 3),
    ],
)  # fmt: skip
def test_output_distribution_is_the_targets(
    kind: str, sampling: SamplingParams, budget: DraftBudget, tokens: int
) -> None:
    assert distance(table_drafter(kind), sampling, budget, tokens) < 1e-12


@pytest.mark.parametrize("kind", ["p-eagle", "medusa"])
def test_a_stop_after_an_unsure_draft_is_exact(kind: str) -> None:
    assert distance(table_drafter(kind), SamplingParams(1.0), DraftBudget(2, min_confidence=0.4), 2) < 1e-12


class FedBack(ParallelDrafter):
    """Planted bug: draft 2 is drawn after draft 1 was read in place of the mask, and tested with the mask's row."""

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        self._begin(rows)
        ids = self.head.q_vocab
        assert ids is not None
        q = warp(self.net.logits(self._ahead(2)), sampling)[0]
        first = rngs[0].draw(q[0])
        table = self.head.embed_tokens.mask
        kept = table.clone()
        table.copy_(self.head.embed_tokens.table.weight[int(ids[first])])
        self.cache.abandon(self._verified)
        fresh = warp(self.net.logits(self._ahead(2)), sampling)[0, 1]
        table.copy_(kept)
        second = rngs[0].draw(fresh)
        chain = [self._last[0], int(ids[first]), int(ids[second])]
        return [chain_tree(chain, q, sampling, ids)]


def test_a_drafted_token_that_is_fed_back_needs_new_rows() -> None:
    good = table_drafter("p-eagle")
    assert isinstance(good, ParallelDrafter)
    assert distance(FedBack(good.head, good.feature_layers), WARM, DraftBudget(2), 2) > 1e-3


class Correlated(MedusaDrafter):
    """Planted bug: one coin chooses both drafts. Each row is still its draft's distribution, but not given the other."""

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        (tree,) = super().propose(rows, budget, sampling, rngs)
        assert tree.q is not None
        assert tree.q_vocab is not None
        ends = [row.cumsum(0) for row in tree.q[:2]]
        cuts = torch.cat([torch.zeros(1, dtype=torch.float64), *ends]).clamp(max=1.0).sort().values
        middle = (cuts[1:] + cuts[:-1]) / 2
        part = middle[rngs[0].draw(cuts.diff())]
        columns = [int((end < part).sum().clamp(max=len(end) - 1)) for end in ends]
        chain = [tree.token_list[0], *(int(tree.q_vocab[column]) for column in columns)]
        return [chain_tree(chain, tree.q[:2], sampling, tree.q_vocab)]


def test_drafts_of_one_coin_may_not_be_tested_with_marginals() -> None:
    good = table_drafter("medusa")
    assert isinstance(good, MedusaDrafter)
    assert distance(Correlated(good.heads, good.feature_layers[0]), SamplingParams(1.0), DraftBudget(2), 2) > 1e-3


@cache
def target(dtype: torch.dtype) -> nn.Module:
    return tiny_model(spread=0.15, num_hidden_layers=6, dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [DraftBudget(1), DraftBudget(4), TREE])
def test_greedy_text_is_plain_decodings_in_float32(kind: str, budget: DraftBudget) -> None:
    model = target(torch.float32)
    expected = [g.tokens for g in plain_generate(Target(model), PROMPTS, limits=LIMITS)]
    engine = SpecEngine(Target(model), random_parallel(kind, model), budget=budget, limits=LIMITS)
    found = engine.generate(PROMPTS)
    assert [g.tokens for g in found] == expected
    assert engine.generate([PROMPTS[1]])[0].tokens == expected[1]
    if kind != "medusa":  # random Medusa heads are hardly ever right
        assert sum(r.accepted for g in found for r in g.records) > 0, "no draft was ever accepted: the test is empty"


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_in_the_batch_changes_no_sampled_text(kind: str) -> None:
    model, sampling = target(torch.float64), SamplingParams(1.0)
    engine = SpecEngine(
        Target(model, check=False), random_parallel(kind, model), budget=DraftBudget(3), sampling=sampling,
        limits=LIMITS,
    )  # fmt: skip
    together = [g.tokens for g in engine.generate(PROMPTS, seeds=range(4))]
    assert together == [engine.generate([p], seeds=[i])[0].tokens for i, p in enumerate(PROMPTS)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_draft_is_what_a_fresh_drafter_would_write(kind: str, temperature: float) -> None:
    """Whatever was drafted and rejected before: the same tokens at temperature 0, the same first row above."""
    model, sampling = target(torch.float64), SamplingParams(temperature)
    recorder = Recorder(random_parallel(kind, model))  # type: ignore[arg-type]
    engine = SpecEngine(
        Target(model, check=False), recorder, budget=DraftBudget(3), sampling=sampling, limits=Limits(max_new_tokens=8)
    )
    engine.generate(PROMPTS)
    assert len(recorder.proposals) > 12
    for text, features, tree in recorder.proposals:
        fresh = random_parallel(kind, model)
        fresh.start([0], [text], [features[: len(text) - 1]])
        (again,) = fresh.propose([0], DraftBudget(len(tree) - 1), sampling, [First()])
        if temperature == 0.0:
            assert again.token_list == tree.token_list
        else:
            assert again.q is not None
            assert tree.q is not None
            rows = slice(0, 1 if kind == "mtp" else len(tree) - 1)  # MTP's later rows depend on the drafts drawn
            torch.testing.assert_close(again.q[rows], tree.q[rows], rtol=0, atol=1e-9)


class First:
    """Coins that always choose the first possible token."""

    def accept(self, prob: float) -> bool:
        return prob > 0

    def draw(self, weights: Tensor) -> int:
        return int((weights > 0).nonzero()[0])


@torch.inference_mode()
def test_the_first_draft_is_eagles_and_the_others_come_from_the_masks() -> None:
    """Masks are read after the verified pairs, so adding them leaves the first row as it was."""
    model = target(torch.float64)
    parallel = random_parallel("p-eagle", model)
    assert isinstance(parallel, ParallelDrafter)
    text = PROMPTS[0]
    states = model.base_model(torch.tensor([text]), output_hidden_states=True).hidden_states  # type: ignore[operator]
    features = torch.cat([states[layer][0, :-1] for layer in (2, 3, 3)], -1)

    def rows() -> Tensor:
        parallel.start([0], [text], [features])
        g = parallel._ahead(3)[0]
        parallel.finish([0])
        return g

    before = rows()
    parallel.head.get_parameter("mask_hidden").add_(1.0)
    after = rows()
    assert torch.equal(before[0], after[0])
    assert not torch.isclose(before[1:], after[1:]).all(-1).any()
    parallel.start([0], [text], [features])
    torch.testing.assert_close(parallel._read(parallel._unread)[0], before[0], rtol=0, atol=1e-12)
    assert MASK < 0, "a mask's id must be no token of the target"


def test_masks_are_for_eagle_3_heads() -> None:
    drafter = table_drafter("mtp")
    with pytest.raises(ValueError, match="EAGLE-3"):
        add_masks(drafter.head)  # type: ignore[attr-defined]
