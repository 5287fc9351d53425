"""The output distribution with block drafts: exactly, by enumeration through step(), and by sampling; and planted bugs.

The head drafts two of three tokens, so the target must be able to emit what no draft contains.
"""

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from block_heads import random_drafter, table_block
from helpers import tiny_model
from scipy.stats import chi2
from second_token import second_token
from torch import Tensor, nn

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Draw, Randomness
from specdec_ref.drafters.block import BlockDrafter
from specdec_ref.drafters.rows import chain_tree
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.request import Limits
from specdec_ref.sampling import warp
from specdec_ref.trees.growth import static

PROMPT = [0, 1, 2, 0, 1]
T1 = SamplingParams(1.0)


def distance(
    drafter: BlockDrafter, sampling: SamplingParams = T1, budget: DraftBudget = DraftBudget(2), tokens: int = 2
) -> float:
    """Total variation between what the engine emits and what the table defines."""
    model = TableLM(3, seed=1)
    engine = SpecEngine(Target(model), drafter, budget=budget, sampling=sampling, limits=Limits(max_new_tokens=50))
    emitted = engine_distribution(engine, PROMPT, tokens, tokens)
    assert sum(emitted.values()) == pytest.approx(1.0, abs=1e-12)
    return total_variation(emitted, table_distribution(model, PROMPT, tokens, sampling))


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("sampling", [T1, SamplingParams(0.7, top_k=2), SamplingParams()])
def test_chains_keep_the_distribution(rank: int, sampling: SamplingParams) -> None:
    assert distance(table_block(rank), sampling, tokens=3 if rank and sampling == T1 else 2) < 1e-12


def test_two_layers_keep_the_distribution() -> None:
    assert distance(table_block(2, layers=2)) < 1e-12


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("sampling", [T1, SamplingParams()])
def test_best_first_trees_keep_the_distribution(rank: int, sampling: SamplingParams) -> None:
    assert distance(table_block(rank), sampling, DraftBudget(2, 2, 5)) < 1e-12


@pytest.mark.parametrize("how", ["iid", "without_replacement"])
def test_trees_of_drawn_children_keep_the_distribution(how: Draw) -> None:
    drafter = table_block(2)
    drafter.grow = static([-1, 0, 0, 1], how)
    assert distance(drafter, T1, DraftBudget(2, 2, 4)) < 1e-12


class Measured(BlockDrafter):
    """Notes how many tokens its drafts have."""

    lengths: ClassVar[set[int]] = set()

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        trees = super().propose(rows, budget, sampling, rngs)
        self.lengths.update(len(tree) - 1 for tree in trees)
        return trees


def of(kind: type[BlockDrafter], rank: int) -> BlockDrafter:
    """A drafter of this class around the usual head."""
    usual = table_block(rank)
    return kind(usual.head, usual.feature_layers)


@pytest.mark.parametrize(("rank", "least", "sampling"), [(0, 0.4, SamplingParams()), (2, 0.2, T1)])
def test_cut_off_keeps_the_distribution(rank: int, least: float, sampling: SamplingParams) -> None:
    Measured.lengths.clear()
    assert distance(of(Measured, rank), sampling, DraftBudget(2, min_confidence=least), tokens=3) < 1e-12
    assert len(Measured.lengths) > 1, "the cut-off changed nothing: the test is empty"


# Planted bugs: each is a drafter whose declaration of how it drew is wrong


def claimed(tree: DraftTree, q: Tensor, drafter: BlockDrafter) -> DraftTree:
    """The same drafts, said to come from other rows."""
    return DraftTree(tree.tokens, tree.parents, "iid", torch.cat([q, torch.zeros_like(q[:1])]), drafter.head.q_vocab)


class Marginals(BlockDrafter):
    """Draws from the rows of the Markov head and claims the rows without it."""

    def _chains(self, h: Tensor, least: float, sampling: SamplingParams, rngs: Sequence[Randomness]) -> list[DraftTree]:
        trees = super()._chains(h, least, sampling, rngs)
        return [
            claimed(tree, warp(self.head.lm_head(rows[: len(tree) - 1]), sampling), self)
            for tree, rows in zip(trees, h, strict=True)
        ]


class Coupled(BlockDrafter):
    """Rank 0: draws x_2 together with x_1, equal as often as possible. Each is still distributed like its own row."""

    def _chains(self, h: Tensor, least: float, sampling: SamplingParams, rngs: Sequence[Randomness]) -> list[DraftTree]:
        chains = []
        for root, rows, rng in zip(self._last, h, rngs, strict=True):
            q = warp(self.head.lm_head(rows), sampling)
            columns = [rng.draw(q[0])]
            for row in q[1:]:
                same = float(torch.minimum(q[0], row)[columns[0]] / q[0][columns[0]])
                columns.append(columns[0] if rng.accept(same) else rng.draw((row - q[0]).clamp_min(0.0)))
            ids = [int(self.head.q_vocab[column]) for column in columns]  # type: ignore[index]
            chains.append(chain_tree([root, *ids], list(q), sampling, self.head.q_vocab))
        return chains


class Argmax(BlockDrafter):
    """Takes the likeliest tokens and claims that they were drawn."""

    def _chains(self, h: Tensor, least: float, sampling: SamplingParams, rngs: Sequence[Randomness]) -> list[DraftTree]:
        trees = super()._chains(h, least, SamplingParams(), rngs)
        return [
            claimed(tree, warp(self.head.logits(self.head.joined(rows, tree.tokens[:-1])), sampling), self)
            for tree, rows in zip(trees, h, strict=True)
        ]


class Even(BlockDrafter):
    """Claims that all tokens of the draft vocabulary were equally likely."""

    def _chains(self, h: Tensor, least: float, sampling: SamplingParams, rngs: Sequence[Randomness]) -> list[DraftTree]:
        trees = super()._chains(h, least, sampling, rngs)
        return [claimed(tree, torch.full_like(tree.q[:-1], 1 / tree.q.shape[1]), self) for tree in trees]  # type: ignore[index, union-attr]


class Kept(BlockDrafter):
    """Draws a first token again, drafts on from the new one, and keeps the rows that were computed for the old one."""

    def _chains(self, h: Tensor, least: float, sampling: SamplingParams, rngs: Sequence[Randomness]) -> list[DraftTree]:
        old = super()._chains(h, least, sampling, rngs)
        new = super()._chains(h, least, sampling, rngs)
        return [claimed(tree, other.q[:-1], self) for tree, other in zip(new, old, strict=True)]  # type: ignore[index]


class Peeking(BlockDrafter):
    """Drops a token for being unlikely, after it was drawn."""

    def _chains(self, h: Tensor, least: float, sampling: SamplingParams, rngs: Sequence[Randomness]) -> list[DraftTree]:
        ids, cut = self.head.q_vocab.tolist(), []  # type: ignore[union-attr]
        for tree in super()._chains(h, 0.0, sampling, rngs):
            shares = [float(tree.q[i, ids.index(token)]) for i, token in enumerate(tree.token_list[1:])]  # type: ignore[index]
            cut.append(tree.cut(next((i for i, share in enumerate(shares) if share < least), len(shares))))
        return cut


@pytest.mark.parametrize(
    ("kind", "rank", "least"), [(Marginals, 2, 0.0), (Coupled, 0, 0.0), (Argmax, 2, 0.0), (Kept, 2, 0.0), (Peeking, 0, 0.5)]
)  # fmt: skip
def test_oracle_catches_the_planted_bug(kind: type[BlockDrafter], rank: int, least: float) -> None:
    assert distance(of(kind, rank), budget=DraftBudget(2, min_confidence=least)) > 1e-3


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(spread=0.25, num_hidden_layers=6)


def test_sampled_text_has_the_target_s_distribution(model: nn.Module) -> None:
    """Seeds are fixed, so this passes always or never; 1e-4 is how often it would fail for other seeds."""
    statistic, freedom = second_token(model, random_drafter(model), SamplingParams(0.7, top_p=0.9), 1000)
    assert statistic < chi2.isf(1e-4, freedom)


def test_the_sample_would_show_a_wrong_distribution(model: nn.Module) -> None:
    good = random_drafter(model)
    statistic, freedom = second_token(model, Even(good.head, good.feature_layers), T1, 1000)
    assert statistic > chi2.isf(1e-9, freedom)
