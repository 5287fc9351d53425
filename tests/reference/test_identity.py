"""Greedy output is token-identical to plain decoding and to transformers' own, float64, every drafter (DESIGN §2, Identity).

Six full-attention architectures, both attention implementations, draft lengths 0 to 7, alone and in ragged batches, with
ends of text and budgets that fall into the middle of a round.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
from drafting import FunctionDrafter, oracle_trees, random_shapes, tree
from helpers import VOCAB, perturbed, tiny_model, transformers_greedy
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick, tree_parents
from torch import nn

from specdec_ref.baseline import plain_generate, plain_stream
from specdec_ref.config import DraftBudget
from specdec_ref.core import Drafter, DraftTree
from specdec_ref.drafters import NgramDrafter, SuffixDrafter
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.drafters.layer_skip import layer_skip_drafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

PROMPTS = [[3, 5, 7, 3, 5, 7, 3, 5], [42], [11, 2, 9, 14, 8, 1, 30, 2, 9, 14], [7] * 6, [60, 0, 33, 21]]
NEW = 18  # no multiple of 5 or 8: the budget cuts the last round short
GAMMAS = {"sdpa": (0, 1, 4, 7), "eager": (4,)}  # the attention implementation meets the mask only, not the drafter
ARCHITECTURES = ["llama", "qwen3", "gpt2", "gpt_neox", "olmo2", "phi3"]


@dataclass(frozen=True)
class Case:
    """A target, what plain decoding makes of the prompts, and the same with tokens that end the text early."""

    model: nn.Module
    target: Target
    plain: list[list[int]]
    eos: frozenset[int]
    ended: list[list[int]]

    @property
    def answers(self) -> list[list[int]]:
        """Prompts with their greedy continuations."""
        return [prompt + tokens for prompt, tokens in zip(PROMPTS, self.plain, strict=True)]


@cache
def case(architecture: str, attention: str) -> Case:
    model = tiny_model(architecture, attention=attention, seed=5)
    target = Target(model)
    plain = [g.tokens for g in plain_generate(target, PROMPTS, limits=Limits(max_new_tokens=NEW))]
    rows = [[token for token in plain[row] if token not in plain[4]] for row in (0, 2, 3)]  # row 4 runs to its budget
    eos = frozenset(max(row, key=plain[at].index) for row, at in zip(rows, (0, 2, 3), strict=True) if row)
    ended = [g.tokens for g in plain_generate(target, PROMPTS, limits=Limits(max_new_tokens=NEW, eos=eos))]
    return Case(model, target, plain, eos, ended)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_decoding_equals_transformers(architecture: str, attention: str) -> None:
    """Alone, in a ragged batch, streamed; with and without an end of text."""
    it = case(architecture, attention)
    assert it.plain == [transformers_greedy(it.model, prompt, NEW) for prompt in PROMPTS]
    assert it.ended[2:4] == [transformers_greedy(it.model, prompt, NEW, sorted(it.eos)) for prompt in PROMPTS[2:4]]
    limits = Limits(max_new_tokens=NEW)
    assert it.plain == [plain_generate(it.target, [prompt], limits=limits)[0].tokens for prompt in PROMPTS]
    assert it.plain[2] == list(plain_stream(it.target, PROMPTS[2], limits=limits))
    assert len({tuple(tokens) for tokens in it.plain}) == len(PROMPTS)  # five different texts ...
    assert max(len(set(tokens)) for tokens in it.plain) > 3  # ... that do not just repeat one token
    assert len({len(tokens) for tokens in it.ended}) > 2  # rows end at different times


DRAFTERS: dict[str, Callable[[Case], Drafter]] = {
    "ngram": lambda it: NgramDrafter(1, 3),
    "suffix": lambda it: SuffixDrafter(),
    "draft model": lambda it: DraftModelDrafter(Target(perturbed(it.model, 0.1), check=False), VOCAB),
    "itself": lambda it: DraftModelDrafter(Target(it.model, check=False), VOCAB),
    "layer-skip": lambda it: layer_skip_drafter(it.target, [0, 2]),
    "trees": lambda it: oracle_trees(it.answers, VOCAB, random_shapes(8)),
}


@pytest.mark.parametrize("name", DRAFTERS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_drafter_keeps_the_greedy_text(architecture: str, attention: str, name: str) -> None:
    """A ragged batch with ends of text for every draft length; without them alone and streamed."""
    it = case(architecture, attention)
    drafter = DRAFTERS[name](it)
    records = []
    for gamma in GAMMAS[attention]:
        budget = DraftBudget(gamma, nodes=2 * gamma + 1 if name == "trees" else 0)
        limits = Limits(max_new_tokens=NEW, eos=it.eos)
        batch = SpecEngine(it.target, drafter, budget=budget, limits=limits).generate(PROMPTS)
        assert [run.tokens for run in batch] == it.ended
        assert {run.finish_reason for run in batch} == {"eos", "length"}
        records += [record for run in batch for record in run.records]
        assert all(record.emitted <= gamma + 1 and record.depth <= gamma for record in records)
    engine = SpecEngine(it.target, drafter, budget=DraftBudget(4, nodes=9), limits=Limits(max_new_tokens=NEW))
    assert engine.generate([PROMPTS[1]])[0].tokens == it.plain[1]
    assert [token for part in engine.stream(PROMPTS[2]) for token in part] == it.plain[2]
    accepted, tested = sum(r.accepted for r in records), sum(r.tested for r in records)
    assert accepted >= 5  # not vacuous: guesses did pass ...
    assert (accepted == tested) == (name == "itself")  # ... and, unless the target guesses for itself, others did not


@pytest.mark.parametrize("name", DRAFTERS)
def test_rounds_that_are_cut_short(name: str) -> None:
    """An end of text at every token, and every budget: each place within a round is cut at some time."""
    it = case("llama", "sdpa")
    drafter, cut_short = DRAFTERS[name](it), 0
    prompt, plain = (
        PROMPTS[4] + it.plain[4][:3],
        it.plain[4][3:],
    )  # it has begun to repeat itself: n-grams match at once
    for count in range(1, 12):
        (run,) = SpecEngine(it.target, drafter, limits=Limits(max_new_tokens=count)).generate([prompt])
        assert (run.tokens, run.finish_reason) == (plain[:count], "length")
        end = plain[count - 1]
        limits = Limits(max_new_tokens=len(plain), eos=frozenset({end}))
        (run,) = SpecEngine(it.target, drafter, limits=limits).generate([prompt])
        assert (run.tokens, run.finish_reason) == (plain[: plain.index(end) + 1], "eos")
        cut_short += run.records[-1].emitted == run.records[-1].accepted  # it fell on an accepted draft: no bonus then
    assert cut_short > 0


@quick(25)
@given(
    shapes=st.lists(tree_parents(9), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    hit=st.floats(0.3, 1.0),
    architecture=st.sampled_from(["llama", "gpt2"]),
)
def test_any_tree_keeps_the_greedy_text(shapes: list[list[int]], seed: int, hit: float, architecture: str) -> None:
    it = case(architecture, "sdpa")
    drafter = oracle_trees(it.answers, VOCAB, shapes, seed=seed, hit=hit)
    engine = SpecEngine(it.target, drafter, budget=DraftBudget(8, nodes=9), limits=Limits(max_new_tokens=NEW))
    assert [run.tokens for run in engine.generate(PROMPTS[:3])] == it.plain[:3]


def test_trees_are_walked_through_every_sibling() -> None:
    """The first child that matches need not be the first child: all guesses right but for decoys drawn before them."""
    it = case("llama", "sdpa")

    def propose(text: list[int], *_: object) -> DraftTree:
        answer = next(whole for whole in it.answers if whole[: len(text)] == text)
        ahead = [*answer[len(text) :], 0, 0, 0]
        wrong = [(ahead[level] + 1 + i) % VOCAB for level in range(3) for i in range(2)]
        tokens = [text[-1], wrong[0], wrong[1], ahead[0], wrong[2], wrong[3], ahead[1], wrong[4], ahead[2]]
        return tree(tokens, [-1, 0, 0, 0, 3, 3, 3, 6, 6])  # the path goes through the last sibling of each level

    drafter = FunctionDrafter(propose)
    engine = SpecEngine(it.target, drafter, budget=DraftBudget(3, nodes=9), limits=Limits(max_new_tokens=NEW))
    runs = engine.generate(PROMPTS)
    assert [run.tokens for run in runs] == it.plain
    assert all(run.stats.alpha == 1.0 for run in runs)
