"""EAGLE drafting with random heads: the engine's text is the target's, and no state is left over from wrong guesses."""

from collections.abc import Sequence

import pytest
import torch
from eagle_heads import random_drafter, random_head
from helpers import tiny_model
from torch import Tensor, nn

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, VerifyResult
from specdec_ref.drafters.eagle import EagleDrafter, default_layers
from specdec_ref.drafters.eagle_head import EagleHead, Version
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits

PROMPTS = [[5, 9, 3, 11, 7, 2], [1], [8, 8, 30, 4], [2, 17, 40, 6, 6, 1, 3, 50, 12]]
LIMITS = Limits(max_new_tokens=24)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(spread=0.15, num_hidden_layers=6)


@pytest.fixture(params=[0, 1, 3])
def drafter(model: nn.Module, request: pytest.FixtureRequest) -> EagleDrafter:
    return random_drafter(model, request.param, draft_vocab=None if request.param == 1 else 40)


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS[1:2], PROMPTS])
@pytest.mark.parametrize("depth", [1, 4])
def test_greedy_text_is_the_target_s(
    model: nn.Module, drafter: EagleDrafter, prompts: list[list[int]], depth: int
) -> None:
    expected = [g.tokens for g in plain_generate(Target(model, check=False), prompts, limits=LIMITS)]
    engine = SpecEngine(Target(model, check=False), drafter, budget=DraftBudget(depth=depth), limits=LIMITS)
    found = engine.generate(prompts)
    assert [g.tokens for g in found] == expected
    if depth == 4 and drafter.head.version:  # a random plain model is hardly ever right
        assert sum(r.accepted for g in found for r in g.records) > 0, "no draft was ever accepted: the test is empty"


class Recorder:
    """Wraps a drafter and keeps the verified text and features of one row, to draft again from scratch."""

    def __init__(self, inner: EagleDrafter) -> None:
        self.inner, self.feature_layers = inner, inner.feature_layers
        self.text: dict[int, list[int]] = {}
        self.features: dict[int, list[Tensor]] = {}
        self.proposals: list[tuple[list[int], Tensor, DraftTree]] = []

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]], features: Sequence[Tensor] | None) -> None:
        for i, row in enumerate(rows):
            self.text[row] = list(prompts[i])
            self.features[row] = [torch.zeros(len(prompts[i]) - 1, 0) if features is None else features[i]]
        self.inner.start(rows, prompts, features)

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[KeyedRandomness]
    ) -> list[DraftTree]:
        trees = self.inner.propose(rows, budget, sampling, rngs)
        for row, tree in zip(rows, trees, strict=True):
            if len(tree) > 1:
                self.proposals.append((list(self.text[row]), torch.cat(self.features[row]), tree))
        return trees

    def commit(
        self,
        rows: Sequence[int],
        trees: Sequence[DraftTree],
        results: Sequence[VerifyResult],
        features: Sequence[Tensor] | None,
    ) -> None:
        for row, tree, result, new in zip(
            rows, trees, results, features or [torch.zeros(0, 0)] * len(rows), strict=True
        ):
            self.text[row] += [*(tree.token_list[node] for node in result.path), result.next_token]
            self.features[row].append(torch.zeros(len(result.path) + 1, 0) if features is None else new)
        self.inner.commit(rows, trees, results, features)

    def finish(self, rows: Sequence[int]) -> None:
        self.inner.finish(rows)


@torch.inference_mode()
def from_scratch(head: EagleHead, text: list[int], features: Tensor, draft: Sequence[int]) -> Tensor:
    """Logits of every draft step, by the definition: the whole sequence anew each time, no cache."""
    blank = torch.zeros(1, len(features), head.config.hidden_size, dtype=torch.float64)
    g, rows = (head.fuse(features[None]) if head.version else blank), []
    tokens = text[1:]
    for token in [*draft, None]:
        positions = torch.arange(len(tokens))[None]
        new = head.project(g, torch.tensor([tokens]), positions)
        attended = torch.nn.functional.scaled_dot_product_attention(
            new.q, new.k, new.v, is_causal=True, enable_gqa=True
        )
        after = head.finish(new.residual, attended)[:, -1:]
        rows.append(head.logits(after)[0, 0])
        if token is not None:
            g, tokens = torch.cat([g, after], 1), [*tokens, token]
    return torch.stack(rows[:-1])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_draft_is_what_a_fresh_head_would_write(
    model: nn.Module, drafter: EagleDrafter, temperature: float
) -> None:
    recorder, sampling = Recorder(drafter), SamplingParams(temperature=temperature)
    SpecEngine(Target(model, check=False), recorder, sampling=sampling, limits=LIMITS).generate(PROMPTS)
    assert len(recorder.proposals) > 20
    q_vocab = drafter.head.q_vocab
    for text, features, tree in recorder.proposals:
        logits = from_scratch(drafter.head, text, features, tree.token_list[1:])
        if temperature == 0.0:
            best = logits.argmax(-1)
            assert tree.token_list[1:] == tuple((best if q_vocab is None else q_vocab[best]).tolist())
        else:
            assert tree.q is not None
            torch.testing.assert_close(tree.q[:-1], logits.softmax(-1), rtol=0, atol=1e-9)


def test_a_round_without_drafts_loses_nothing(model: nn.Module, drafter: EagleDrafter) -> None:
    """The controller may say depth 0 now and then: the pairs of those rounds are read later."""
    recorder = Recorder(drafter)
    engine = SpecEngine(Target(model, check=False), recorder, limits=LIMITS)
    engine.start(PROMPTS)
    for depth in [0, 3, 0, 0, 2, 4, 0, 3]:
        engine.budget = DraftBudget(depth=depth)
        engine.step()
    engine.close()
    assert recorder.proposals
    for text, features, tree in recorder.proposals:
        best = from_scratch(drafter.head, text, features, tree.token_list[1:]).argmax(-1)
        expected = best if drafter.head.q_vocab is None else drafter.head.q_vocab[best]
        assert tree.token_list[1:] == tuple(expected.tolist())


def test_an_abandoned_draft_leaves_no_trace(model: nn.Module, drafter: EagleDrafter) -> None:
    engine = SpecEngine(Target(model, check=False), drafter, limits=LIMITS)
    engine.start(PROMPTS)
    engine.step()
    rows = [request.row for request in engine.requests]
    rngs = [KeyedRandomness(0, 0, "draft") for _ in rows]
    first, again = (drafter.propose(rows, DraftBudget(), SamplingParams(), rngs) for _ in range(2))
    assert [tree.token_list for tree in first] == [tree.token_list for tree in again]
    engine.close()


def test_an_unsure_draft_is_the_last(model: nn.Module) -> None:
    drafter = random_drafter(model)
    budget = DraftBudget(depth=4, min_confidence=1.0)
    engine = SpecEngine(Target(model, check=False), drafter, budget=budget, limits=LIMITS)
    assert all(r.drafted <= 1 for g in engine.generate(PROMPTS) for r in g.records)


def test_published_layers() -> None:
    assert default_layers(3, 30) == (2, 15, 27)
    assert default_layers(3, 32) == (2, 16, 29)
    assert default_layers(1, 32) == (32,)
    assert default_layers(0, 32) == ()


def test_a_plain_model_has_as_many_trained_weights_as_eagle_3(model: nn.Module) -> None:
    """Or two models could not be compared."""
    plain, eagle = (
        sum(p.numel() for p in random_head(model, version).parameters() if p.requires_grad) for version in (0, 3)
    )
    assert abs(plain - eagle) / eagle < 0.02


def test_a_plain_model_reads_the_committed_text_alone(model: nn.Module) -> None:
    head = random_head(model, 0)
    tokens, positions = torch.tensor([[3, 5, 8]]), torch.arange(3)[None]
    one, other = (head.project(g, tokens, positions) for g in (torch.zeros(1, 3, 0), torch.ones(1, 3, 32)))
    assert torch.equal(one.q, other.q)
    assert torch.equal(one.residual, other.residual)


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_wrong_number_of_layers_is_refused(model: nn.Module, version: Version) -> None:
    with pytest.raises(ValueError, match="layer"):
        EagleDrafter(random_head(model, version), (2, 3))
