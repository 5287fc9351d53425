"""The distribution of what comes out with a tiny random EAGLE head: exactly, by enumeration through step(), and by sampling.

The head drafts from two of three tokens, so the target must be able to say what the draft never does.
"""

from collections.abc import Sequence

import pytest
import torch
from eagle_heads import random_drafter
from helpers import VOCAB, tiny_model
from scipy.stats import chi2
from second_token import second_token
from torch import Tensor, nn
from transformers import LlamaConfig

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.drafters.eagle import EagleDrafter
from specdec_ref.drafters.eagle_head import EagleHead, Version
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.request import Limits

PROMPT = [0, 1, 2, 0, 1]


def table_head(version: Version, seed: int = 0) -> EagleDrafter:
    """A random head that reads a TableLM: its features are the table's rows."""
    config = LlamaConfig(
        vocab_size=3,
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        num_hidden_layers=1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    config.target_hidden_size = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = EagleHead(config, version, q_vocab=torch.tensor([0, 2])).double()
        for weight in head.parameters():
            weight.data.add_(torch.randn_like(weight), alpha=0.5)
    return EagleDrafter(head.requires_grad_(False), (0, 1, 1) if version == 3 else ())


def distance(
    drafter: EagleDrafter, sampling: SamplingParams, depth: int, tokens: int = 3, min_confidence: float = 0.0
) -> float:
    """Total variation between what the engine emits and what the table says."""
    model, budget = TableLM(3, seed=1), DraftBudget(depth, min_confidence=min_confidence)
    limits = Limits(max_new_tokens=50)
    engine = SpecEngine(Target(model), drafter, budget=budget, sampling=sampling, limits=limits)
    emitted = engine_distribution(engine, PROMPT, tokens, tokens)
    assert sum(emitted.values()) == pytest.approx(1.0, abs=1e-12)
    return total_variation(emitted, table_distribution(model, PROMPT, tokens, sampling))


@pytest.mark.parametrize("version", [0, 3])
@pytest.mark.parametrize("sampling", [SamplingParams(1.0), SamplingParams(0.7, top_k=2), SamplingParams()])
@pytest.mark.parametrize(("depth", "tokens"), [(1, 3), (2, 3)])
def test_the_distribution_is_the_target_s(version: Version, sampling: SamplingParams, depth: int, tokens: int) -> None:
    # sums of a few thousand float64 products of probabilities
    assert distance(table_head(version), sampling, depth, tokens) < 1e-12


def test_stopping_after_an_unsure_draft_keeps_the_distribution() -> None:
    assert distance(table_head(3), SamplingParams(1.0), 2, 2, min_confidence=0.6) < 1e-12


class Misreported(EagleDrafter):
    """Planted bug: forgets that its vocabulary is reduced, and says that it drew from all tokens alike."""

    vocab = 3

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        trees = super().propose(rows, budget, sampling, rngs)
        return [
            tree if tree.q is None else DraftTree(tree.tokens, tree.parents, tree.drawn, self._even(len(tree)))
            for tree in trees
        ]

    def _even(self, nodes: int) -> Tensor:
        return torch.full((nodes, self.vocab), 1 / self.vocab, dtype=torch.float64)


def test_a_wrong_q_moves_the_distribution() -> None:
    good = table_head(3)
    assert distance(Misreported(good.head, good.feature_layers), SamplingParams(1.0), 1, 2) > 1e-3


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(spread=0.25, num_hidden_layers=6)


@pytest.mark.parametrize("sampling", [SamplingParams(1.0), SamplingParams(0.7, top_p=0.9)])
def test_sampled_text_has_the_target_s_distribution(model: nn.Module, sampling: SamplingParams) -> None:
    """Seeds are fixed, so this passes always or never; 1e-4 is how often it would fail for other seeds."""
    statistic, freedom = second_token(model, random_drafter(model), sampling, 4000)
    assert statistic < chi2.isf(1e-4, freedom)


def test_the_sample_would_show_a_wrong_distribution(model: nn.Module) -> None:
    good = random_drafter(model)
    broken = Misreported(good.head, good.feature_layers)
    broken.vocab = VOCAB
    statistic, freedom = second_token(model, broken, SamplingParams(1.0), 4000)
    assert statistic > chi2.isf(1e-9, freedom)
