"""Greedy chains whose tokens nobody has read yet, as on a GPU: here every tensor counts as one that is not at hand.

`tests/interpreted/test_sync.py` counts the waits; this file holds that text, error and recovery stay the same.
"""

import pytest
import torch
from eagle_heads import random_drafter
from helpers import VOCAB, perturbed, tiny_model
from torch import Tensor, nn

from specdec_ref import core, engine
from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.core import Drafter, DraftTree
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.trees import masks
from specdec_ref.verifiers import verify_batch
from specdec_ref.verifiers.fused import fused_verify

PROMPTS = [[3, 5, 7, 3, 5, 7, 3, 5], [42], [11, 2, 9, 14, 8, 1, 30, 2, 9]]
LIMITS = Limits(max_new_tokens=12)


def fused(verifier: object, trees: object, logits: object, sampling: object, rngs: object, *, backend: str) -> object:
    """What runs on a GPU, with the kernels' twins."""
    return fused_verify(verifier, trees, logits, sampling, rngs, "torch")  # type: ignore[arg-type]


@pytest.fixture(params=[verify_batch, fused], ids=["readable", "fused"])
def unread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (core, masks):
        monkeypatch.setattr(user, "at_hand", lambda tensor: False)
    monkeypatch.setattr(engine, "verify_batch", request.param)


@pytest.fixture
def model() -> nn.Module:
    return tiny_model(seed=5)


def drafting(kind: str, model: nn.Module) -> tuple[Drafter, Tensor]:
    """A drafter, and the weight whose NaN comes out of it at once."""
    if kind == "eagle":
        drafter = random_drafter(model)
        return drafter, drafter.head.lm_head.weight
    lm = Target(perturbed(model, 0.1), check=False)
    return DraftModelDrafter(lm, VOCAB), lm.model.lm_head.weight


kinds = pytest.mark.parametrize("kind", ["draft model", "eagle"])


@kinds
@pytest.mark.usefixtures("unread")
def test_same_text(model: nn.Module, kind: str) -> None:
    target = Target(model, check=False)
    plain = [generation.tokens for generation in plain_generate(target, PROMPTS, limits=LIMITS)]
    engine = SpecEngine(target, drafting(kind, model)[0], budget=DraftBudget(depth=3), limits=LIMITS)
    requests = engine.start(PROMPTS)
    engine.step()
    drafted = [tree for tree, _ in engine.last_round]
    assert max(map(len, drafted)) == 4
    while engine.requests:
        engine.step()
    assert [request.new_tokens for request in requests] == plain


@kinds
@pytest.mark.usefixtures("unread")
def test_nan_is_reported_and_forgotten(model: nn.Module, kind: str) -> None:
    """The step raises and changes no request; with sound weights the same batch goes on to the text it would have had."""
    target = Target(model, check=False)
    plain = [generation.tokens for generation in plain_generate(target, PROMPTS, limits=LIMITS)]
    drafter, weight = drafting(kind, model)
    engine = SpecEngine(target, drafter, budget=DraftBudget(depth=3), limits=LIMITS)
    requests = engine.start(PROMPTS)
    for _ in range(3):
        engine.step()
        before, good = [list(request.tokens) for request in requests], weight.clone()
        weight.data.fill_(float("nan"))
        for _ in range(2):
            with pytest.raises(ValueError, match="NaN or infinite logits"):
                engine.step()
        weight.data.copy_(good)
        assert [request.tokens for request in requests] == before
    while engine.requests:
        engine.step()
    assert [request.new_tokens for request in requests] == plain


def test_tokens_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "at_hand", lambda tensor: False)
    reads, plain = [], Tensor.tolist
    tree = DraftTree(torch.tensor([7, 8, 9]), torch.tensor([-1, 0, 1]))
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: reads.append(tensor) or plain(tensor))  # type: ignore[func-returns-value]
    assert (len(tree), tree.is_chain, tree.depths) == (3, True, [0, 1, 2])
    assert reads == [], "shape alone needs no tokens"
    assert [tree.token_list for _ in range(2)] == [(7, 8, 9)] * 2
    assert len(reads) == 1


def test_told_tokens_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "at_hand", lambda tensor: False)
    tree = DraftTree(torch.empty(2, dtype=torch.long, device="meta"), torch.tensor([-1, 0]))
    tree.tell([4, 6])
    assert tree.token_list == (4, 6)
    with pytest.raises(ValueError, match="NaN"):
        DraftTree(torch.tensor([3, -1]), torch.tensor([-1, 0])).token_list  # noqa: B018
