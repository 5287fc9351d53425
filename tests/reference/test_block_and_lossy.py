"""Block verification accepts no fewer drafts than token by token, at the same distribution; lossy rules say how far off they are."""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import pytest
import torch
from drafting import FunctionDrafter, chain, tree
from test_tree_exact import NUCLEUS, PLAIN, PROMPT, TRUNCATED, OneRow, distance
from tree_drafters import CHAIN, COMB, DRAWS, drawn_tree, table_trees

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Draw, Randomness, Verifier, VerifyResult
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, outcomes, table_distribution, total_variation
from specdec_ref.metrics import RunStats
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits
from specdec_ref.sampling import warp
from specdec_ref.verifiers import BlockVerifier, RejectionVerifier, ThresholdVerifier, TypicalVerifier, verify_batch

# --- block verification -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [PLAIN, TRUNCATED, NUCLEUS], ids=["T1", "T0.7-k2", "T1.3-p0.8"])
@pytest.mark.parametrize("how", DRAWS)
def test_block_verification_keeps_the_distribution(how: Draw, sampling: SamplingParams) -> None:
    assert distance(table_trees([-1, 0, 1, 2], how), "block", sampling, tokens=4) <= 1e-12


def test_block_verification_of_a_draft_that_stops_when_unsure() -> None:
    """Where a chain ends may depend on its own tokens, and then gamma does too."""
    model = TableLM(3, seed=1)
    drafter = DraftModelDrafter(Target(TableLM(3, seed=2)), 3)
    engine = SpecEngine(
        Target(model),
        drafter,
        budget=DraftBudget(3, min_confidence=0.45),
        sampling=PLAIN,
        verifier="block",
        limits=Limits(max_new_tokens=50),
    )
    assert (
        total_variation(engine_distribution(engine, PROMPT, 3, 3), table_distribution(model, PROMPT, 3, PLAIN)) <= 1e-12
    )


def block_acceptance(p: Sequence[Fraction], q: Sequence[Fraction], gamma: int) -> tuple[Fraction, Fraction]:
    """Expected accepted drafts, token by token and by block, for distributions that ignore the context; from the formulas."""
    one, vocab = Fraction(1), range(len(p))
    alpha = sum((min(p[x], q[x]) for x in vocab), Fraction(0))
    token = sum((alpha**i for i in range(1, gamma + 1)), Fraction(0))
    block = Fraction(0)
    for text in product(vocab, repeat=gamma):
        weight, kept, chances = one, one, []
        for i, x in enumerate(text):
            weight, kept = weight * q[x], min(one, kept * p[x] / q[x])
            mass = sum((max(kept * p[y] - q[y], Fraction(0)) for y in vocab), Fraction(0))
            chances.append(kept if i + 1 == gamma or kept == 1 else mass / (mass + 1 - kept))
        missed = one
        for i in range(gamma, 0, -1):
            block += weight * missed * chances[i - 1] * i
            missed *= 1 - chances[i - 1]
    return token, block


class Recorder:
    """Gives every test of a verifier the same answer, and keeps the chances that were asked about."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.chances: list[float] = []

    def accept(self, prob: float) -> bool:
        self.chances.append(prob)
        return self.answer

    def draw(self, weights: torch.Tensor) -> int:
        return 0


def accepted_drafts(draft: TableLM, target: TableLM, gamma: int) -> tuple[float, float]:
    """Expected accepted drafts of one round from an empty text, token by token and by block; over every chain.

    Both verifiers toss independent coins, so their chances are read off one run: token by token the chain goes on while
    each says yes; by block the first yes counts, from the longest piece down.
    """
    token, block = 0.0, 0.0
    for text in product(range(draft.vocab), repeat=gamma):
        q = torch.stack(
            [*(warp(draft.logits(text[:i]), PLAIN) for i in range(gamma)), torch.zeros(draft.vocab).double()]
        )
        p = torch.stack([warp(target.logits(text[:i]), PLAIN) for i in range(gamma + 1)])
        drawn = DraftTree(torch.tensor([0, *text]), torch.arange(-1, gamma), "iid", q)
        weight = float(q[range(gamma), list(text)].prod())
        going, falling = Recorder(True), Recorder(False)
        RejectionVerifier()(drawn, p, going)
        BlockVerifier()(drawn, p, falling)
        passed, missed = 1.0, 1.0
        for i, (one, piece) in enumerate(zip(going.chances, falling.chances, strict=True)):
            passed *= min(1.0, one)
            token += weight * passed
            block += weight * missed * piece * (gamma - i)
            missed *= 1.0 - piece
    return token, block


class Constant(TableLM):
    """The same distribution in every context."""

    def __init__(self, dist: Sequence[float]) -> None:
        super().__init__(len(dist))
        self.drawn = torch.tensor(dist, dtype=torch.float64)

    def logits(self, context: tuple[int, ...]) -> torch.Tensor:
        return self.drawn.log()


def test_ten_ninths_against_eleven_ninths() -> None:
    """p = (1/3, 2/3), q = (2/3, 1/3), two drafts: the example of Sun et al. 2024; rationals, and the verifiers themselves."""
    third = Fraction(1, 3)
    assert block_acceptance([third, 2 * third], [2 * third, third], 2) == (Fraction(10, 9), Fraction(11, 9))
    draft, target = Constant([2 / 3, 1 / 3]), Constant([1 / 3, 2 / 3])
    for found, expected in zip(accepted_drafts(draft, target, 2), (Fraction(10, 9), Fraction(11, 9)), strict=True):
        assert found == pytest.approx(float(expected), abs=1e-14)
        assert Fraction(found).limit_denominator(1000) == expected


def test_block_accepts_no_fewer_on_200_random_pairs() -> None:
    """Distributions that depend on the context, vocabulary 3, three drafts. At times it accepts clearly more."""
    ratios = []
    for seed in range(200):
        draft, target = TableLM(3, seed=2 * seed), TableLM(3, seed=2 * seed + 1)
        token, block = accepted_drafts(draft, target, 3)
        assert block >= token - 1e-12
        ratios.append(block / token)
    assert max(ratios) > 1.05


class TwoRows(TableLM):
    """One distribution for the first token after PROMPT, another from then on."""

    def __init__(self, first: Sequence[float], then: Sequence[float]) -> None:
        super().__init__(3)
        self.distributions = torch.tensor([first, then], dtype=torch.float64)

    def logits(self, context: tuple[int, ...]) -> torch.Tensor:
        return self.distributions[int(len(context) > len(PROMPT))].log()


@pytest.mark.parametrize("bug", [False, True])
def test_a_block_verifier_that_draws_from_the_token_residual_is_caught(bug: bool) -> None:
    """max(p - q, 0) instead of max(p_1 p - q, 0): after a first draft that the target would keep at every other time."""

    class TokenResidual(BlockVerifier):
        def __call__(self, tree: DraftTree, p: torch.Tensor, rng: Randomness) -> VerifyResult:
            found = super().__call__(tree, p, rng)
            if len(found.path) != 1 or not bug:
                return found
            return VerifyResult(found.path, rng.draw((p[1] - tree.draft_distribution(1, 3)).clamp_min(0.0)))

    target, draft = TwoRows([0.5, 0.49, 0.01], [0.6, 0.39, 0.01]), TwoRows([0.98, 0.01, 0.01], [0.1, 0.1, 0.8])
    drafter = FunctionDrafter(lambda text, budget, sampling, rng: drawn_tree(CHAIN, "iid", draft, text, sampling, rng))
    off = distance(drafter, TokenResidual(), tokens=2, model=target)
    assert off > 1e-3 if bug else off <= 1e-12


# --- lossy rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["typical", "threshold"])
def test_a_lossy_verifier_must_be_asked_for(name: str) -> None:
    target, drafter = Target(TableLM(3)), table_trees(CHAIN, "point")
    for verifier in (name, TypicalVerifier() if name == "typical" else ThresholdVerifier()):
        with pytest.raises(ValueError, match=r"changes the distribution of the text: say lossy=True \(--lossy\)"):
            SpecEngine(target, drafter, verifier=verifier, sampling=PLAIN)
        assert SpecEngine(target, drafter, verifier=verifier, sampling=PLAIN, lossy=True).verifier.lossless_for == set()


def distribution_and_distortion(drafter: FunctionDrafter, verifier: Verifier, tokens: int) -> tuple[float, float]:
    """Total variation of the first `tokens` tokens of one round, and the expected distortion that was reported."""
    model, reported = TableLM(3, seed=1), 0.0
    engine = SpecEngine(
        Target(model),
        drafter,
        budget=DraftBudget(4, 3, 9),
        sampling=PLAIN,
        verifier=verifier,
        lossy=True,
        limits=Limits(max_new_tokens=50),
    )
    emitted: dict[tuple[int, ...], float] = defaultdict(float)

    def run(rng: Randomness) -> tuple[tuple[int, ...], float]:
        engine.randomness = lambda *key: rng
        (request,) = engine.start([PROMPT])
        (record,) = engine.step()
        return tuple(request.new_tokens), record.distortion

    for prob, (text, distortion) in outcomes(run):
        reported += prob * distortion
        for rest, share in table_distribution(model, [*PROMPT, *text], max(0, tokens - len(text)), PLAIN).items():
            emitted[(*text, *rest)[:tokens]] += prob * share
    return total_variation(emitted, table_distribution(model, PROMPT, tokens, PLAIN)), reported


LOSSY = {
    "typical": TypicalVerifier(),
    "single": ThresholdVerifier(single=0.3),
    "acc": ThresholdVerifier(single=1.0, total=0.6),
}


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("how", DRAWS)
def test_the_distance_of_a_lossy_verifier_is_bounded_by_what_it_reports(name: str, how: Draw) -> None:
    true, reported = distribution_and_distortion(table_trees(COMB, how), LOSSY[name], 3)
    assert 1e-3 < true <= reported + 1e-12


@pytest.mark.parametrize("name", LOSSY)
def test_for_one_guess_made_without_chance_the_report_is_exact(name: str) -> None:
    """One decision, nothing to average over: sum and total variation are the same number."""
    verifier = (
        LOSSY[name] if name == "acc" else {"typical": TypicalVerifier(0.01), "single": ThresholdVerifier(0.01)}[name]
    )
    true, reported = distribution_and_distortion(table_trees([-1, 0], "point"), verifier, 1)
    assert true == pytest.approx(reported, abs=1e-12)
    assert true > 1e-3


def test_thresholds_of_one_are_target_only() -> None:
    true, reported = distribution_and_distortion(table_trees(COMB, "iid"), ThresholdVerifier(1.0, 1.0), 3)
    assert true <= 1e-12
    assert reported == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("single", [0.01, 0.5, 1.0])
def test_a_token_of_probability_zero_is_never_taken(single: float) -> None:
    """The strict rule: neither a coin of 0 nor a low threshold lets it pass."""

    class Zero(KeyedRandomness):
        def uniform(self) -> float:
            return 0.0

    p = torch.tensor([[0.0, 0.4, 0.6], [1.0, 0.0, 0.0]])
    result = ThresholdVerifier(single, 0.5)(tree([2, 0], [-1, 0]), p, Zero(0, 0, "verify"))
    assert result.path == ()
    assert result.next_token == 1


def test_typical_acceptance_takes_the_deepest_then_the_likeliest() -> None:
    """Two plausible branches of two nodes, one of one, and an implausible one of three."""
    p = torch.full((8, 3), 1 / 3)
    p[0] = torch.tensor([0.3, 0.65, 0.05])
    p[2] = torch.tensor([0.5, 0.4, 0.1])  # after node 2, token 1
    p[1] = torch.tensor([0.2, 0.5, 0.3])  # after node 1, token 0
    branches = tree([2, 0, 1, 1, 0, 1, 2, 0], [-1, 0, 0, 1, 2, 2, 0, 6])
    result = TypicalVerifier(epsilon=0.09, delta=0.3)(branches, p, KeyedRandomness(0, 0, "verify"))
    assert result.path == (2, 4)  # .65 * .5 beats .3 * .5 and .65 * .4; node 6 (.05) is below .09
    assert result.distortion == pytest.approx(0.35 + 0.5)


def test_a_lossy_run_says_so_in_its_log_line() -> None:
    target = Target(OneRow(), check=False)
    drafter = FunctionDrafter(lambda text, *_: chain([text[-1], 2]))
    settings = {"sampling": PLAIN, "limits": Limits(max_new_tokens=6)}
    lossy = SpecEngine(target, drafter, verifier=ThresholdVerifier(0.5), lossy=True, **settings).generate([PROMPT])[0]
    exact = SpecEngine(target, drafter, **settings).generate([PROMPT])[0]
    assert lossy.stats.distortion == pytest.approx(0.4 * lossy.stats.accepted)  # p(2) = .6, taken every time
    assert "LOSSY: 0.2" in lossy.stats.log_line()  # one of two tokens
    assert "LOSSY" not in exact.stats.log_line()
    assert RunStats.from_records(lossy.records + exact.records).distortion == lossy.stats.distortion


def test_verify_batch_refuses_by_distribution_and_lets_the_lossy_ones_be() -> None:
    drawn = DraftTree(torch.tensor([0, 1, 2]), torch.tensor([-1, 0, 0]), "iid", torch.full((3, 3), 1 / 3))
    rngs = [KeyedRandomness(0, 0, "verify")]
    (result,) = verify_batch(TypicalVerifier(), [drawn], torch.zeros(1, 3, 3), PLAIN, rngs)
    assert len(result.path) <= 1
