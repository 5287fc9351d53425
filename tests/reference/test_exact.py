"""The emitted distribution, enumerated through `SpecEngine.step()`, equals the target's: every (distribution, verifier) that is claimed.

Tolerance 1e-12: sums of a few thousand float64 products of probabilities, each rounded at 1e-16. Every planted bug at
the end must move the distribution by far more than that.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from drafting import FunctionDrafter, chain
from planted import Broken
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, Draw, Randomness, Verifier, VerifyResult
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.drafters.ngram import NgramDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, outcomes, table_distribution, total_variation
from specdec_ref.models.kv_cache import SlotCache
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits
from specdec_ref.sampling import warp
from specdec_ref.verifiers import VERIFIERS, RejectionVerifier

PROMPT = [0, 1, 2, 0, 1]
PLAIN = SamplingParams(1.0)
TRUNCATED = SamplingParams(0.7, top_k=2)
NUCLEUS = SamplingParams(1.3, top_p=0.8)
MIN_P = SamplingParams(0.9, min_p=0.3)


def exact(
    drafter: Drafter,
    sampling: SamplingParams,
    gamma: int,
    verifier: Verifier | str = "auto",
    *,
    tokens: int = 3,
    rounds: int = 3,
    seed: int = 1,
    min_confidence: float = 0.0,
) -> float:
    """Largest |emitted - target| over texts of `tokens` tokens."""
    emitted, wanted = both_distributions(drafter, sampling, gamma, verifier, tokens, rounds, seed, min_confidence)
    assert sum(emitted.values()) == pytest.approx(1.0, abs=1e-12)
    return max(abs(emitted.get(text, 0.0) - wanted.get(text, 0.0)) for text in {*emitted, *wanted})


def both_distributions(
    drafter: Drafter,
    sampling: SamplingParams,
    gamma: int,
    verifier: Verifier | str = "auto",
    tokens: int = 3,
    rounds: int = 3,
    seed: int = 1,
    min_confidence: float = 0.0,
) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], float]]:
    """What the engine emits and what the target says, for the first `tokens` tokens."""
    model = TableLM(3, seed=seed)
    budget = DraftBudget(gamma, min_confidence=min_confidence)
    limits = Limits(max_new_tokens=50)
    engine = SpecEngine(Target(model), drafter, budget=budget, sampling=sampling, verifier=verifier, limits=limits)
    return engine_distribution(engine, PROMPT, tokens, rounds), table_distribution(model, PROMPT, tokens, sampling)


def table_drafter(seed: int = 2) -> DraftModelDrafter:
    """Another table as draft model: agrees with the target at times."""
    return DraftModelDrafter(Target(TableLM(3, seed=seed)), 3)


def fixed_guess(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
    """A deterministic, context-dependent chain: drawn as "point"."""
    return chain([text[-1], *((sum(text[-2:]) + i) % 3 for i in range(budget.chain_depth))])


def sampled(dist: Callable[[list[int]], Tensor], q_vocab: Tensor | None = None, drawn: Draw = "iid") -> FunctionDrafter:
    """A chain drawn token by token from `distribution(text)` (over `q_vocab`'s tokens, if given).

    One draw is "iid" and "without_replacement" alike, so the tree may say either.
    """

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        grown, rows = list(text), []
        for _ in range(budget.chain_depth):
            rows.append(dist(grown))
            index = rng.draw(rows[-1])
            grown.append(index if q_vocab is None else int(q_vocab[index]))
        tokens = torch.tensor(grown[len(text) - 1 :])
        if not rows:
            return chain(tokens.tolist())
        q = torch.stack([*rows, torch.zeros_like(rows[0])])
        return DraftTree(tokens, torch.arange(-1, len(tokens) - 1), drawn, q, q_vocab)

    return FunctionDrafter(propose)


@pytest.mark.parametrize(
    ("name", "how"), [(name, how) for name, make in VERIFIERS.items() for how in sorted(make().lossless_for)]
)
def test_every_distribution_that_a_verifier_claims_is_kept_on_chains(name: str, how: Draw) -> None:
    """What a verifier says of itself is what is tested, so none can be added without its proof."""
    table, verifier = TableLM(3, seed=5), VERIFIERS[name]()
    drafter = FunctionDrafter(fixed_guess)
    if how != "point":
        drafter = sampled(lambda text: warp(table.logits(tuple(text)), TRUNCATED), drawn=how)
    sampling = SamplingParams(0.0) if name == "greedy" else TRUNCATED
    assert exact(drafter, sampling, 2, verifier) <= 1e-12


@pytest.mark.parametrize(
    "sampling", [PLAIN, TRUNCATED, NUCLEUS, MIN_P], ids=["T1", "T0.7-k2", "T1.3-p0.8", "T0.9-min0.3"]
)
@pytest.mark.parametrize("gamma", [0, 1, 2])
def test_a_sampled_draft_model_keeps_the_distribution(gamma: int, sampling: SamplingParams) -> None:
    assert exact(table_drafter(), sampling, gamma) <= 1e-12


def test_longer_texts_and_drafts_keep_the_distribution() -> None:
    """Four tokens, three drafts a round: positions after a bonus token, a rejection and a rollback all occur."""
    assert exact(table_drafter(), TRUNCATED, 3, tokens=4, rounds=4) <= 1e-12


@pytest.mark.parametrize("sampling", [PLAIN, TRUNCATED, NUCLEUS], ids=["T1", "T0.7-k2", "T1.3-p0.8"])
@pytest.mark.parametrize("gamma", [1, 3])
def test_a_point_draft_keeps_the_distribution(gamma: int, sampling: SamplingParams) -> None:
    assert exact(FunctionDrafter(fixed_guess), sampling, gamma) <= 1e-12


@pytest.mark.parametrize("policy", ["latest", "first"])
def test_prompt_lookup_keeps_the_distribution(policy: str) -> None:
    assert exact(NgramDrafter(1, 2, policy), PLAIN, 3) <= 1e-12


def test_a_reduced_draft_vocabulary_keeps_the_distribution() -> None:
    """Token 1 can never be drafted; it must still come out as often as the target wants."""
    draft = TableLM(2, seed=5)
    drafter = sampled(lambda text: warp(draft.logits(tuple(text)), PLAIN), torch.tensor([2, 0]))
    assert exact(drafter, PLAIN, 2) <= 1e-12


@pytest.mark.parametrize("gamma", [1, 2])
@pytest.mark.parametrize("verifier", ["greedy", "rejection"])
def test_temperature_zero_emits_the_greedy_text(verifier: str, gamma: int) -> None:
    for drafter in (table_drafter(), FunctionDrafter(fixed_guess), NgramDrafter(1, 2)):
        assert exact(drafter, SamplingParams(0.0), gamma, verifier, tokens=4, rounds=4) == 0.0


def test_greedy_verification_of_sampled_drafts_at_temperature_zero_is_exact() -> None:
    """Chance in the draft must not reach the text."""
    draft = TableLM(3, seed=5)
    drafter = sampled(lambda text: warp(draft.logits(tuple(text)), PLAIN))
    assert exact(drafter, SamplingParams(0.0), 2, "greedy") <= 1e-12


def test_stopping_after_an_unsure_node_keeps_the_distribution() -> None:
    """The node of low confidence stays in the tree: only what would come after it is left out."""
    assert exact(table_drafter(), PLAIN, 2, min_confidence=0.45) <= 1e-12


# --- the oracle itself ------------------------------------------------------------------------------------------------


def test_outcomes_are_complete() -> None:
    """Every branch once, impossible ones never, probabilities of one in all."""

    def run(rng: Randomness) -> tuple[int, bool]:
        first = rng.draw(torch.tensor([1.0, 0.0, 3.0]))
        return first, rng.accept(0.25) if first else rng.accept(1.0)

    assert {result: prob for prob, result in outcomes(run)} == {(0, True): 0.25, (2, True): 0.1875, (2, False): 0.5625}


def test_table_distribution_by_hand() -> None:
    model = TableLM(2, seed=3)
    first = torch.softmax(model.logits((0,)), -1)
    second = torch.softmax(model.logits((0, 1)), -1)
    assert table_distribution(model, [0], 2, PLAIN)[1, 0] == pytest.approx(float(first[1] * second[0]), abs=1e-15)


def test_the_enumerated_distribution_is_what_seeds_produce() -> None:
    """600 seeded runs against the enumerated distribution: chi-square, 8 degrees of freedom, false alarm rate 1e-4 (31.8)."""
    drafter, model = table_drafter(), TableLM(3, seed=1)
    engine = SpecEngine(
        Target(model),
        drafter,
        budget=DraftBudget(2),
        sampling=PLAIN,
        limits=Limits(max_new_tokens=2),
        randomness=KeyedRandomness,
    )
    dist, counts, runs = (
        table_distribution(model, PROMPT, 2, PLAIN),
        dict.fromkeys(table_distribution(model, PROMPT, 2, PLAIN), 0),
        600,
    )
    for begin in range(0, runs, 50):
        for generation in engine.generate([PROMPT] * 50, range(begin, begin + 50)):
            counts[tuple(generation.tokens)] += 1
    statistic = sum((counts[text] - runs * prob) ** 2 / (runs * prob) for text, prob in dist.items())
    assert statistic < 31.8


# --- planted bugs: each must turn the oracle red ----------------------------------------------------------------------


def distance(
    drafter: Drafter, verifier: Verifier | str = "auto", sampling: SamplingParams = PLAIN, gamma: int = 2
) -> float:
    return total_variation(*both_distributions(drafter, sampling, gamma, verifier))


@pytest.mark.parametrize("bug", ["no residual", "one coin for all"])
def test_a_broken_verifier_is_caught(bug: str) -> None:
    assert distance(table_drafter(), Broken(bug)) > 1e-3


def test_the_broken_verifier_without_a_bug_is_right() -> None:
    """The control: what the planted bugs change is the bug alone."""
    assert distance(table_drafter(), Broken("none")) <= 1e-12


def test_losing_the_bonus_token_is_caught_by_the_rate_not_the_distribution() -> None:
    """Without its bonus a round is a token short, yet exact: tau gives it away. Two perfect drafts give 3 tokens."""
    model = TableLM(3, seed=1)
    for verifier, low, high in ((RejectionVerifier(), 3.0, 3.0), (Broken("no bonus"), 1.0, 2.0)):
        drafter = DraftModelDrafter(Target(model), 3)  # the target drafts for itself: nothing is ever rejected
        engine = SpecEngine(
            Target(model),
            drafter,
            budget=DraftBudget(2),
            sampling=PLAIN,
            verifier=verifier,
            limits=Limits(max_new_tokens=12),
        )
        assert low <= engine.generate([PROMPT])[0].stats.tau <= high


def test_a_bonus_from_the_wrong_row_is_caught() -> None:
    """The extra token must be drawn after the last accepted draft, not before it."""

    class StaleBonus(Broken):
        def __call__(self, tree: DraftTree, p: Tensor, rng: Randomness) -> VerifyResult:
            return super().__call__(tree, torch.cat([p[:-1], p[-2:-1]]), rng)

    assert distance(table_drafter(), StaleBonus("none")) > 1e-3


def test_an_unwarped_q_is_caught() -> None:
    """Drafts sampled at T = 0.7 from two tokens, while the verifier is told the distribution at T = 1 of all three."""
    draft = TableLM(3, seed=2)

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        logits = draft.logits(tuple(text))
        token = rng.draw(warp(logits, TRUNCATED))
        q = torch.stack([warp(logits, PLAIN), torch.zeros(3, dtype=torch.float64)])
        return DraftTree(torch.tensor([text[-1], token]), torch.tensor([-1, 0]), "iid", q)

    assert distance(FunctionDrafter(propose), sampling=TRUNCATED, gamma=1) > 1e-3


def test_dropping_a_sampled_node_by_its_own_score_is_caught() -> None:
    """The design's example: p = (.1, .3, .6), q = (.5, .3, .2), a draft kept only if q(x) >= .4 emits (.15, .15, .70)."""

    class OneRow(TableLM):
        def logits(self, context: tuple[int, ...]) -> Tensor:
            return torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64).log()

    q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        token = rng.draw(q)
        if q[token] < 0.4:
            return chain(text[-1:])
        dist = torch.stack([q, torch.zeros_like(q)])
        return DraftTree(torch.tensor([text[-1], token]), torch.tensor([-1, 0]), "iid", dist)

    engine = SpecEngine(
        Target(OneRow(3), check=False),
        FunctionDrafter(propose),
        budget=DraftBudget(1),
        sampling=PLAIN,
        limits=Limits(max_new_tokens=9),
    )
    dist = engine_distribution(engine, [0], 1, 1)
    assert [dist[(token,)] for token in range(3)] == pytest.approx([0.15, 0.15, 0.70], abs=1e-12)


def keep_everything(self: SlotCache, kept: Sequence[Sequence[int]]) -> None:
    """A commit that leaves rejected nodes in the cache."""
    self.window.lengths[:] = [length + self.window.nodes for length in self.window.lengths]
    self.window.pending = False


def test_a_cache_that_is_not_rolled_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own invariant stops it; with the invariant silenced, the distribution is wrong."""
    monkeypatch.setattr(SlotCache, "commit", keep_everything)
    with pytest.raises(RuntimeError, match="cached"):
        distance(FunctionDrafter(fixed_guess))

    def unchecked(self: SpecEngine, trees: Any, results: Any, output: Any) -> None:
        self.target.commit([(0, *result.path) for result in results])
        self.drafter.commit([r.row for r in self.requests], trees, results, None)

    monkeypatch.setattr(SpecEngine, "_commit", unchecked)
    assert distance(FunctionDrafter(fixed_guess)) > 1e-3


def test_a_mask_that_shows_siblings_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree scored under an ordinary causal mask: its second branch sees the first. Greedy text then differs."""
    model = TableLM(3, seed=1)
    wanted = table_distribution(model, PROMPT, 4, SamplingParams(0.0))

    def two_branches(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        best = int(model.logits(tuple(text)).argmax())
        tokens = [text[-1], (best + 1) % 3, best, int(model.logits((*text, best)).argmax())]
        return DraftTree(torch.tensor(tokens), torch.tensor([-1, 0, 0, 2]))

    def dist() -> dict[tuple[int, ...], float]:
        engine = SpecEngine(
            Target(model, check=False),
            FunctionDrafter(two_branches),
            budget=DraftBudget(2, 2, 4),
            limits=Limits(max_new_tokens=9),
        )
        return engine_distribution(engine, PROMPT, 4, 4)

    assert dist() == wanted
    causal = lambda parents: torch.ones(len(parents), len(parents), dtype=torch.bool).tril()  # noqa: E731
    monkeypatch.setattr("specdec_ref.models.target.ancestor_mask", causal)
    assert dist() != wanted


def test_wrong_positions_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that count down: a model is refused when it is wrapped, and past that check the distribution is wrong."""
    drafter = FunctionDrafter(fixed_guess)
    model, limits = TableLM(3, seed=1), Limits(max_new_tokens=9)
    monkeypatch.setattr(DraftTree, "depths", property(lambda self: [-node for node in range(len(self))]))
    with pytest.raises(ValueError, match="cannot be used"):
        Target(model)
    engine = SpecEngine(Target(model, check=False), drafter, budget=DraftBudget(2), sampling=PLAIN, limits=limits)
    assert (
        total_variation(engine_distribution(engine, PROMPT, 3, 3), table_distribution(model, PROMPT, 3, PLAIN)) > 1e-3
    )
