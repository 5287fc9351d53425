"""Which drafts may be tested against which q: the condition for an exact output, in rational numbers.

A draft x_i is accepted with probability min(1, p(x_i) / q_i(x_i)); after a rejection the token comes from max(p - q_i, 0).
Let F be all that was used before position i is tested: the text, the drafts before x_i, earlier coins, and whatever
decided how long the draft is or which draft was kept.

    If P(x_i | F) = q_i for every F that can occur, and the coin is independent of it, the output distribution is p.

It is not enough that q_i is the distribution of x_i on its own. A one-hot q at the proposed token always satisfies
the condition, because x_i is part of F then. The first half of this file computes a toy with three tokens and two
positions by `exact.chain_output`; the second half plants the same mistakes in drafters, and the exact-distribution
oracle, which runs `SpecEngine.step()`, finds them.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product

import pytest
import torch
from drafting import FunctionDrafter

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import chain_output, engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.request import Limits

Row = list[Fraction]
Text = tuple[int, ...]
Drafts = dict[Text, Fraction]  # (x_1, x_2) -> how likely they are proposed
Tested = tuple[Callable[[int], Row], Callable[[int, int], Row]]  # the q of position 1, given x_1; of 2, given both
TOKENS = range(3)


def row(text: str) -> Row:
    return [Fraction(number) for number in text.split()]


P1, P2 = row(".5 .3 .2"), [row(".7 .2 .1"), row(".1 .8 .1"), row(".2 .2 .6")]  # the target; P2 given y_1
M1, M2 = row(".4 .4 .2"), row(".4 .3 .3")  # how x_1 and x_2 are distributed, each on its own
JOINT = [row(".3 .1 0"), row("0 .2 .2"), row(".1 0 .1")]  # x_1 and x_2 together, with those very marginals

INDEPENDENT: Drafts = {(a, b): M1[a] * M2[b] for a, b in product(TOKENS, TOKENS)}
CORRELATED: Drafts = {(a, b): JOINT[a][b] for a, b in product(TOKENS, TOKENS)}
ARGMAX: Drafts = {(0, 0): Fraction(1)}

MARGINALS: Tested = (lambda _: M1, lambda *_: M2)
CONDITIONALS: Tested = (lambda _: M1, lambda a, _: [share / sum(JOINT[a]) for share in JOINT[a]])
POINT: Tested = (lambda a: one_hot(a), lambda _, b: one_hot(b))


def one_hot(token: int) -> Row:
    return [Fraction(token == other) for other in TOKENS]


def best_of_two() -> Drafts:
    """Two independent drafts; the one that its own rows find likelier is kept."""
    kept: Drafts = defaultdict(Fraction)
    for first, second in product(INDEPENDENT, INDEPENDENT):
        kept[max(first, second, key=INDEPENDENT.__getitem__)] += INDEPENDENT[first] * INDEPENDENT[second]
    return kept


def target(text: Text) -> Row:
    return P2[text[0]] if text else P1


WANTED: Drafts = {(a, b): P1[a] * P2[a][b] for a, b in product(TOKENS, TOKENS)}


def run(drafts: Drafts, rows: Tested) -> tuple[Fraction, Fraction]:
    """(total variation between output and target over two tokens, mean number of accepted drafts)."""
    emitted, accepted = chain_output(drafts, lambda x: [rows[0](x[0]), rows[1](*x)], target, 2)
    assert sum(emitted.values()) == 1
    return total_variation(emitted, WANTED), accepted


def test_toy_has_these_marginals() -> None:
    assert [sum(shares) for shares in JOINT] == M1
    assert [sum(column) for column in zip(*JOINT, strict=True)] == M2
    assert sum(best_of_two().values()) == 1


@pytest.mark.parametrize(
    ("drafts", "rows", "variation", "accepted"),
    [
        (INDEPENDENT, MARGINALS, "0", "147/100"),
        (CORRELATED, MARGINALS, "37/300", "97/60"),
        (CORRELATED, CONDITIONALS, "0", "79/50"),
        (CORRELATED, POINT, "0", "109/200"),
        (INDEPENDENT, POINT, "0", "121/250"),
        (ARGMAX, POINT, "0", "17/20"),
        (ARGMAX, MARGINALS, "13/20", "2"),
        (best_of_two(), MARGINALS, "43/250", "897/625"),
        (best_of_two(), POINT, "0", "8448/15625"),
    ],
    ids=["independent, marginals", "correlated, marginals", "correlated, conditionals", "correlated, point",
         "independent, point", "argmax, point", "argmax, softmax rows", "best of two, marginals", "best of two, point"],
)  # fmt: skip
def test_output_is_exact_where_the_tested_rows_are_conditional(
    drafts: Drafts, rows: Tested, variation: str, accepted: str
) -> None:
    assert run(drafts, rows) == (Fraction(variation), Fraction(accepted))


COINS: Drafts = {(0,): Fraction(1, 2), (1,): Fraction(1, 2)}  # a draft of one token


def coin(_: Text) -> Row:
    return row(".7 .3")


def cut_by_its_own_token(x: Text) -> Sequence[Row]:
    """Planted: the draft is verified only where it turned out to be token 0."""
    return [row(".5 .5")] if x[0] == 0 else []


def test_length_may_not_depend_on_the_token_it_cuts() -> None:
    """DSpark's appendix A: the first token becomes 0 with .85 instead of .70. Tested as a point draft, it is exact."""
    assert chain_output(COINS, cut_by_its_own_token, coin, 1)[0] == {(0,): Fraction("0.85"), (1,): Fraction("0.15")}
    as_point = chain_output(COINS, lambda x: [row("1 0")] if x[0] == 0 else [], coin, 1)
    assert as_point[0] == {(0,): Fraction("0.7"), (1,): Fraction("0.3")}


def test_length_decided_from_earlier_tokens_keeps_the_distribution() -> None:
    """Position 2 is verified only after token 0 at position 1: it depends on x_1, which is before the cut."""
    emitted, accepted = chain_output(INDEPENDENT, lambda x: [M1, M2] if x[0] == 0 else [M1], target, 2)
    assert (emitted, accepted) == (WANTED, Fraction("1.18"))


def cut_by_the_second_token(x: Text) -> Sequence[Row]:
    """Planted: both positions are verified only where the second draft is token 1. That decides about position 1 too."""
    return [M1, JOINT_ROWS[x[0]]] if x[1] == 1 else []


JOINT_ROWS = [CONDITIONALS[1](first, 0) for first in TOKENS]


def test_length_decided_from_a_later_token_changes_an_earlier_one() -> None:
    emitted, _ = chain_output(CORRELATED, cut_by_the_second_token, target, 2)
    first = [sum(share for text, share in emitted.items() if text[0] == token) for token in TOKENS]
    assert first != P1


@pytest.mark.parametrize(
    ("tested", "what"),
    [
        (lambda x: [row("0 .5 .5"), M2], "probability 0 at position 1"),
        (lambda x: [row(".9 .9 .9"), M2], "a distribution sums to 1"),
    ],
)
def test_rows_that_cannot_have_drawn_the_draft_are_refused(tested: Callable[[Text], list[Row]], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        chain_output(INDEPENDENT, tested, target, 2)


def test_floats_give_the_same_as_fractions_up_to_rounding() -> None:
    def row_of(text: Text) -> list[float]:
        return [float(share) for share in target(text)]

    drafts = {text: float(share) for text, share in CORRELATED.items()}
    emitted, accepted = chain_output(drafts, lambda x: floats([M1, M2]), row_of, 2)
    exact, mean = chain_output(CORRELATED, lambda x: [M1, M2], target, 2)
    assert emitted == pytest.approx({text: float(share) for text, share in exact.items()})
    assert accepted == pytest.approx(float(mean))


# The same in drafters, under the engine

Propose = Callable[[Randomness], tuple[list[int], list[list[float]] | None]]  # two drafts, and the q that they claim


def floats(rows: list[Row]) -> list[list[float]]:
    return [[float(share) for share in each] for each in rows]


def draw(rng: Randomness, weights: Row) -> int:
    return rng.draw(torch.tensor(floats([weights])[0], dtype=torch.float64))


def independent(rng: Randomness) -> tuple[list[int], list[list[float]] | None]:
    return [draw(rng, M1), draw(rng, M2)], floats([M1, M2])


def conditional(rng: Randomness) -> tuple[list[int], list[list[float]] | None]:
    first = draw(rng, M1)
    return [first, draw(rng, JOINT[first])], floats([M1, CONDITIONALS[1](first, 0)])


def correlated(rng: Randomness) -> tuple[list[int], list[list[float]] | None]:
    """Planted: the drafts come from one joint draw, the rows are marginals."""
    first = draw(rng, M1)
    return [first, draw(rng, JOINT[first])], floats([M1, M2])


def argmax(rng: Randomness) -> tuple[list[int], list[list[float]] | None]:
    """Planted: the likeliest tokens, tested as if they had been drawn from the softmax."""
    return [0, 0], floats([M1, M2])


def best(rng: Randomness) -> tuple[list[int], list[list[float]] | None]:
    """Planted: of two draws the likelier one, tested against the rows of a single draw."""
    two = [(draw(rng, M1), draw(rng, M2)) for _ in range(2)]
    kept: tuple[int, int] = max(two, key=INDEPENDENT.__getitem__)
    return list(kept), floats([M1, M2])


def distance(propose: Propose, *, point: bool = False) -> float:
    """Total variation between what the engine emits, by enumeration through step(), and a target table."""

    def tree(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        drafts, rows = propose(rng)
        tokens, parents = torch.tensor([text[-1], *drafts]), torch.tensor([-1, 0, 1])
        if point or rows is None:
            return DraftTree(tokens, parents)
        return DraftTree(tokens, parents, "iid", torch.tensor([*rows, [0.0] * 3], dtype=torch.float64))

    table, prompt, sampling = TableLM(3, seed=1), [0, 1, 2], SamplingParams(1.0)
    engine = SpecEngine(
        Target(table), FunctionDrafter(tree), budget=DraftBudget(2), sampling=sampling, limits=Limits(max_new_tokens=50)
    )
    return total_variation(engine_distribution(engine, prompt, 2, 2), table_distribution(table, prompt, 2, sampling))


@pytest.mark.parametrize("propose", [independent, conditional])
def test_oracle_passes_what_satisfies_the_condition(propose: Propose) -> None:
    assert distance(propose) < 1e-12


@pytest.mark.parametrize("propose", [correlated, argmax, best])
def test_oracle_catches_the_planted_combination(propose: Propose) -> None:
    assert distance(propose) > 0.01


@pytest.mark.parametrize("propose", [independent, correlated, argmax, best])
def test_point_drafts_are_exact_however_they_were_made(propose: Propose) -> None:
    assert distance(propose, point=True) < 1e-12
