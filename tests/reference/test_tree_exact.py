"""The emitted distribution of trees, enumerated through `SpecEngine.step()`: exact for every (distribution, verifier) pair that is claimed.

Tolerance as in test_exact.py: 1e-12, for sums of a few thousand float64 products. Trees come from a table of their own
whose distribution depends on the context, so siblings' subtrees differ. Every planted bug must move the distribution by far more.
"""

from collections import defaultdict

import pytest
import torch
from drafting import FunctionDrafter, tree
from torch import Tensor
from tree_drafters import CHAIN, COMB, DRAWS, FORK, TWIG, drawn_tree, random_shape, table_trees

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, Draw, Randomness, Verifier, VerifyResult
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.request import Limits
from specdec_ref.sampling import warp
from specdec_ref.trees.links import distinct_children
from specdec_ref.verifiers import VERIFIERS, AutoVerifier, MultiRoundVerifier, TargetOnlyVerifier, choose_verifier

PROMPT = [0, 1, 2, 0, 1]
PLAIN, TRUNCATED, NUCLEUS = SamplingParams(1.0), SamplingParams(0.7, top_k=2), SamplingParams(1.3, top_p=0.8)
CLAIMED = [
    *(("target_only", how) for how in DRAWS),
    *(("multi_round", how) for how in DRAWS if how != "point"),
]  # "auto" asks one of these two


def distance(
    drafter: Drafter,
    verifier: Verifier | str = "auto",
    sampling: SamplingParams = PLAIN,
    *,
    tokens: int = 3,
    rounds: int = 1,
    model: TableLM | None = None,
) -> float:
    """Total variation between the first `tokens` tokens that the engine emits and what the target says.

    Texts that are shorter after the last round are completed by the target itself.
    """
    model = TableLM(3, seed=1) if model is None else model
    engine = SpecEngine(
        Target(model, check=False),
        drafter,
        budget=DraftBudget(4, 3, 9),
        sampling=sampling,
        verifier=verifier,
        limits=Limits(max_new_tokens=50),
    )
    emitted: dict[tuple[int, ...], float] = defaultdict(float)
    for text, weight in engine_distribution(engine, PROMPT, tokens, rounds).items():
        for rest, prob in table_distribution(model, [*PROMPT, *text], tokens - len(text), sampling).items():
            emitted[*text, *rest] += weight * prob
    assert sum(emitted.values()) == pytest.approx(1.0, abs=1e-12)
    return total_variation(emitted, table_distribution(model, PROMPT, tokens, sampling))


@pytest.mark.parametrize("shape", [FORK, COMB, TWIG, random_shape(1, 4), random_shape(2, 4)], ids=str)
@pytest.mark.parametrize(("verifier", "how"), CLAIMED)
def test_every_claimed_pair_keeps_the_distribution(verifier: str, how: Draw, shape: list[int]) -> None:
    """One round from a fresh prompt: every tree that can be drawn, every way in which it can be verified."""
    assert distance(table_trees(shape, how), verifier) <= 1e-12


@pytest.mark.parametrize("how", DRAWS)
def test_two_rounds_keep_the_distribution(how: Draw) -> None:
    """The second round stands on a cache from which rejected branches were rolled back."""
    assert distance(table_trees(COMB, how), tokens=2, rounds=2) <= 1e-12


@pytest.mark.parametrize("sampling", [TRUNCATED, NUCLEUS], ids=["T0.7-k2", "T1.3-p0.8"])
@pytest.mark.parametrize(("verifier", "how"), CLAIMED)
def test_truncated_distributions_are_kept(verifier: str, how: Draw, sampling: SamplingParams) -> None:
    """Supports of target and draft differ, and q may run out before the shape is full."""
    assert distance(table_trees([-1, 0, 0, 0, 1], how), verifier, sampling) <= 1e-12


@pytest.mark.parametrize("how", DRAWS)
def test_temperature_zero_emits_the_greedy_text(how: Draw) -> None:
    """Whatever was drawn at T = 1, repeats among siblings included: no chance reaches the text."""
    draft = TableLM(3, seed=2)
    drafter = FunctionDrafter(lambda text, budget, sampling, rng: drawn_tree(TWIG, how, draft, text, PLAIN, rng))
    assert distance(drafter, "auto", SamplingParams(0.0), tokens=2, rounds=2) <= 1e-12


def test_a_draft_vocabulary_of_two_keeps_the_distribution() -> None:
    """Token 1 can never be drafted; siblings are drawn without replacement until the draft has nothing left."""
    two = TableLM(2, seed=5)

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        drawn = drawn_tree(COMB, "without_replacement", two, text, sampling, rng)
        ids = torch.tensor([2, 0])
        tokens = torch.cat([torch.tensor(text[-1:]), ids[drawn.tokens[1:]]])
        return DraftTree(tokens, drawn.parents, drawn.drawn, drawn.q, ids)

    assert distance(FunctionDrafter(propose)) <= 1e-12


def test_auto_asks_the_verifier_that_fits() -> None:
    p, q = torch.full((3, 3), 1 / 3), torch.full((3, 3), 1 / 3)
    fork = tree([0, 1, 2], [-1, 0, 0])
    drawn = DraftTree(torch.tensor([0, 1, 2]), torch.tensor([-1, 0, 0]), "without_replacement", q)
    chained = tree([0, 1, 2], [-1, 0, 1])

    class Counting:
        def __init__(self) -> None:
            self.tests, self.draws = 0, 0

        def accept(self, prob: float) -> bool:
            self.tests += 1
            return False

        def draw(self, weights: Tensor) -> int:
            self.draws += 1
            return len(weights) - 1

    asked = []
    for one in (fork, drawn, chained):
        rng = Counting()
        AutoVerifier()(one, p, rng)
        asked.append((rng.tests, rng.draws))
    assert asked == [
        (0, 2),
        (2, 1),
        (1, 1),
    ]  # one coin for the fork; a test a drawn child; a test for the chain's first
    assert isinstance(choose_verifier("auto", PLAIN), AutoVerifier)


@pytest.mark.parametrize("name", ["rejection", "block", "target_only", "multi_round"])
@pytest.mark.parametrize("how", DRAWS)
def test_pairs_that_are_not_claimed_are_refused(name: str, how: Draw) -> None:
    """By the distribution, or by the shape; a root alone and, where the distribution fits, a chain pass every verifier."""
    claims = VERIFIERS[name]().lossless_for
    refused = how not in claims or name in ("rejection", "block")
    if refused:
        with pytest.raises(ValueError, match=r"not lossless|chains"):
            distance(table_trees(FORK, how), name)
    assert distance(table_trees([-1], how), name) <= 1e-12
    if how in claims:
        assert distance(table_trees(CHAIN, how), name) <= 1e-12


# --- planted bugs: each must turn the oracle red ----------------------------------------------------------------------


class BrokenTargetOnly:
    """Target-only verification with one mistake."""

    lossless_for = TargetOnlyVerifier.lossless_for

    def __init__(self, bug: str = "none") -> None:
        self.bug = bug

    def __call__(self, tree: DraftTree, p: Tensor, rng: Randomness) -> VerifyResult:
        distinct = self.bug != "repeats counted each time"
        children = distinct_children(tree) if distinct else [tree.children(node) for node in range(len(tree))]
        node, low, high = 0, 0.0, 1.0  # where the coin is known to lie, when it is not tossed anew
        while children[node]:
            guesses = tree.tokens[children[node]]
            others = p[node].index_fill(0, guesses, 0.0)
            bounds = p[node, guesses].cumsum(0).clamp(max=1.0)
            edges = torch.cat([bounds.new_zeros(1), bounds, bounds.new_ones(1)]).clamp(low, high)
            taken = rng.draw(edges.diff())
            if taken == len(guesses):
                return VerifyResult(tree.path(node), rng.draw(p[node] if self.bug == "siblings not zeroed" else others))
            if self.bug == "one coin for two nodes":
                low, high = float(edges[taken]), float(edges[taken + 1])
            node = children[node][taken]
        return VerifyResult(tree.path(node), rng.draw(p[node]))


@pytest.mark.parametrize("bug", ["siblings not zeroed", "one coin for two nodes"])
def test_a_broken_target_only_verifier_is_caught(bug: str) -> None:
    assert distance(table_trees(COMB, "point"), BrokenTargetOnly(bug)) > 1e-3


def test_without_a_bug_it_is_right() -> None:
    """The control: what the planted bugs change is the bug alone."""
    assert distance(table_trees(COMB, "iid"), BrokenTargetOnly()) <= 1e-12


class OneRow(TableLM):
    """p = (.1, .3, .6) whatever came before."""

    def __init__(self) -> None:
        super().__init__(3)

    def logits(self, context: tuple[int, ...]) -> Tensor:
        return torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64).log()


def test_pads_hung_on_the_root_are_caught() -> None:
    """Seven pads of token 0 below the root, each counted: a token of probability .1 comes out in seven of ten rounds."""
    padded = FunctionDrafter(lambda text, *_: tree([text[-1]] + [0] * 7, [-1] + [0] * 7))
    assert distance(padded, BrokenTargetOnly("repeats counted each time"), tokens=1, model=OneRow()) == pytest.approx(
        0.6
    )
    assert distance(padded, TargetOnlyVerifier(), tokens=1, model=OneRow()) <= 1e-12  # counted once: a mere guess


@pytest.mark.parametrize("verifier", ["multi_round", "target_only"])
def test_repeats_removed_before_verification(verifier: str) -> None:
    """Multi-round tests every draw, so a repeat that was taken out is missing; target-only counts outcomes, not draws."""
    draft = TableLM(3, seed=2)

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        drawn = drawn_tree([-1, 0, 0, 0], "iid", draft, text, sampling, rng)
        assert drawn.q is not None
        kept = [0, *distinct_children(drawn)[0]]
        return DraftTree(drawn.tokens[kept], drawn.parents[kept], "iid", drawn.q[kept])

    wrong = distance(FunctionDrafter(propose), verifier, tokens=1)
    assert wrong > 1e-3 if verifier == "multi_round" else wrong <= 1e-12


def test_q_that_is_not_renormalised_after_a_draw_is_caught() -> None:
    """Siblings drawn without replacement, verified as if each had been drawn from the whole of q."""
    draft = TableLM(3, seed=2)

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        drawn = drawn_tree(FORK, "without_replacement", draft, text, sampling, rng)
        return DraftTree(drawn.tokens, drawn.parents, "iid", drawn.q)

    assert distance(FunctionDrafter(propose), "multi_round", tokens=1) > 1e-3


@pytest.mark.parametrize("how", ["iid", "without_replacement"])
def test_dropping_a_sampled_node_by_its_score_is_caught(how: Draw) -> None:
    """EAGLE-2's rerank on a sampled tree: of the drawn siblings only the likelier under q stays. Lossy, hence point only."""
    draft = TableLM(3, seed=2)

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        drawn = drawn_tree(FORK, how, draft, text, sampling, rng)
        assert drawn.q is not None
        kept = [0, max((1, 2), key=lambda node: float(drawn.q[0, drawn.token_list[node]]))]
        return DraftTree(drawn.tokens[kept], drawn.parents[kept], how, drawn.q[kept])

    assert distance(FunctionDrafter(propose), "multi_round", tokens=1) > 1e-3


@pytest.mark.parametrize("how", ["iid", "without_replacement"])
def test_an_unwarped_q_is_caught(how: Draw) -> None:
    """Drawn at T = 0.7 from two tokens, while the verifier is told the distribution at T = 1 of all three."""
    draft = TableLM(3, seed=2)

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        drawn = drawn_tree(FORK, how, draft, text, sampling, rng)
        q = torch.zeros(len(drawn), 3, dtype=torch.float64)
        q[0] = warp(draft.logits(tuple(text)), PLAIN)
        return DraftTree(drawn.tokens, drawn.parents, how, q)

    assert distance(FunctionDrafter(propose), "multi_round", TRUNCATED, tokens=1) > 1e-3


@pytest.mark.parametrize("mistake", ["q of the wrong node", "rows shifted"])
def test_mixed_up_rows_are_caught(mistake: str) -> None:
    """q row i belongs to node i's children, p row i to what follows node i."""

    class Shifted(MultiRoundVerifier):
        def __call__(self, tree: DraftTree, p: Tensor, rng: Randomness) -> VerifyResult:
            return super().__call__(tree, p.roll(1, 0), rng)

    def mixed(drawn: DraftTree) -> DraftTree:
        assert drawn.q is not None
        q = torch.where((drawn.q.sum(-1, keepdim=True) > 0), drawn.q[:1], drawn.q)
        return DraftTree(drawn.tokens, drawn.parents, drawn.drawn, q)

    inner = table_trees(COMB, "iid")
    if mistake == "rows shifted":
        assert distance(inner, Shifted()) > 1e-3
    else:
        drafter = FunctionDrafter(lambda *arguments: mixed(inner.function(*arguments)))
        assert distance(drafter, "multi_round") > 1e-3
