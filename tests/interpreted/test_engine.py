"""The whole engine on the kernels: attention, positions, verification and cache moves; token for token as on torch."""

import copy
from collections.abc import Callable
from random import Random

import pytest
import torch
from drafting import FunctionDrafter, oracle_trees, random_shapes, tree
from helpers import VOCAB, perturbed, tiny_model, transformers_greedy
from many_models import build
from torch import nn

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, Randomness
from specdec_ref.drafters import NgramDrafter
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

PROMPTS = [[3, 5, 7, 3, 5, 7, 3, 5], [42], [11, 2, 9, 14, 8, 1, 30, 2, 9]]
NEW = 6


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(dtype=torch.float32, num_hidden_layers=2)


@pytest.fixture(scope="module")
def targets(model: nn.Module) -> tuple[Target, Target]:
    """The same weights under torch and under the kernels; the check proves that siblings do not see each other."""
    kernels = Target(copy.deepcopy(model), check=True, backend="triton")
    assert kernels.packed_mask
    return Target(model, check=False, backend="torch"), kernels


def chains(model: nn.Module, sampling: SamplingParams) -> Drafter:
    """A noisy copy of the target: drafts with q at T > 0, often accepted."""
    return DraftModelDrafter(Target(perturbed(model, 0.1), check=False, backend="torch"), VOCAB)


def prompt_lookup(model: nn.Module, sampling: SamplingParams) -> Drafter:
    return NgramDrafter()


def bushes(model: nn.Module, sampling: SamplingParams) -> Drafter:
    """Trees whose right child is on the greedy path; at T > 0 trees over likely tokens, as the text decides."""
    target = Target(model, check=False, backend="torch")
    if sampling.greedy:
        plain = plain_generate(target, PROMPTS, limits=Limits(NEW))
        return oracle_trees([[*p, *g.tokens] for p, g in zip(PROMPTS, plain, strict=True)], VOCAB, random_shapes(1))

    def propose(text: list[int], budget: DraftBudget, how: SamplingParams, rng: Randomness) -> DraftTree:
        chance = Random(str(text))
        return tree([text[-1], *chance.choices(range(VOCAB), k=12)], [-1] + [0] * 9 + [1, 1, 2]).cut(budget.depth)

    return FunctionDrafter(propose)


def test_values_may_be_narrower_than_keys() -> None:
    """Multi-head latent attention: keys of 16 dimensions, values of 8."""
    model = build("youtu")
    kernels, torch_ops = Target(copy.deepcopy(model), check=False, backend="triton"), Target(model, backend="torch")
    prompts = [[3, 5, 7, 3], [42]]
    for target in (kernels, torch_ops):
        target.start(prompts, capacity=16)
    one, other = (target.forward([tree([1, 4, 6, 9], [-1, 0, 0, 2])] * 2) for target in (kernels, torch_ops))
    torch.testing.assert_close(one.logits, other.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [prompt_lookup, chains, bushes])
@pytest.mark.parametrize(
    "sampling", [SamplingParams(), SamplingParams(1.0), SamplingParams(0.8, top_k=30, top_p=0.95)],
    ids=["greedy", "sampled", "cut"],
)  # fmt: skip
def test_same_tokens(
    model: nn.Module,
    targets: tuple[Target, Target],
    make: Callable[[nn.Module, SamplingParams], Drafter],
    sampling: SamplingParams,
) -> None:
    """A ragged batch of three, one prompt of a single token."""
    texts = []
    for target, backend in zip(targets, ("torch", "triton"), strict=True):
        engine = SpecEngine(
            target,
            make(model, sampling),
            budget=DraftBudget(depth=3, nodes=13),
            sampling=sampling,
            limits=Limits(NEW),
            backend=backend,
        )
        done = engine.generate(PROMPTS)
        texts.append([generation.tokens for generation in done])
        accepted = sum(generation.stats.accepted for generation in done)
    assert texts[0] == texts[1]
    if make is not prompt_lookup:
        assert accepted > 0, "nothing was accepted: the test shows little"


def test_one_row_equals_a_batch(targets: tuple[Target, Target]) -> None:
    """A batch's layout never changes a token: request 2 alone, with its seed."""
    engine = SpecEngine(targets[1], NgramDrafter(), sampling=SamplingParams(1.0), limits=Limits(5), backend="triton")
    together = engine.generate(PROMPTS)[2].tokens
    assert engine.generate(PROMPTS[2:], seeds=[2])[0].tokens == together


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_other_architectures(architecture: str) -> None:
    """No GQA, no rotary positions; and a head of 8, padded to 16. `check` compares siblings on the way in."""
    model = tiny_model(architecture, dtype=torch.float32)
    guess = tree([5, 7, 9, 7], [-1, 0, 0, 1])
    outputs = []
    for backend in ("torch", "triton"):
        target = Target(copy.deepcopy(model), backend=backend)
        target.start([[3, 4, 5], [8]], 16)
        outputs.append(target.forward([guess, guess.cut(1)]).logits)
    real = torch.tensor([[True] * 4, [True] * 3 + [False]])
    torch.testing.assert_close(outputs[0][real], outputs[1][real], rtol=1e-4, atol=1e-4)  # float32, three layers


def test_the_model_stays_usable(model: nn.Module, targets: tuple[Target, Target]) -> None:
    """transformers' own generate on the switched model, and a target without kernels around it."""
    switched = targets[1].model
    assert transformers_greedy(switched, PROMPTS[0], 5) == transformers_greedy(model, PROMPTS[0], 5)
    plain = Target(switched, check=False, backend="torch")
    assert not plain.packed_mask
    texts = [plain_generate(target, PROMPTS, limits=Limits(3))[0].tokens for target in (plain, targets[0])]
    assert texts[0] == texts[1]


def test_bad_logits_are_refused_as_on_torch(model: nn.Module) -> None:
    broken = copy.deepcopy(model)
    broken.lm_head.weight.fill_(float("nan"))
    for sampling in (SamplingParams(), SamplingParams(1.0)):
        target = Target(broken, check=False, backend="triton")
        engine = SpecEngine(target, NgramDrafter(), sampling=sampling, limits=Limits(5), backend="triton")
        engine.start([[1, 2, 3]])
        with pytest.raises(ValueError, match="NaN or infinite logits"):
            engine.step()
