"""The engine waits for the device once a round. Shown on torch's meta device, whose tensors hold nothing to wait for.

Whatever reads one (item, bool, tolist, nonzero, a copy to the host) raises, but for the one read that is answered here.
"""

from typing import Any

import pytest
import torch
from drafting import FunctionDrafter, tree
from helpers import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from specdec_ref import transfer
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.drafters.eagle import EagleDrafter
from specdec_ref.drafters.eagle_head import new_head
from specdec_ref.engine import SpecEngine
from specdec_ref.kernels.launch import LAUNCHER
from specdec_ref.models.target import Target
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits
from specdec_ref.verifiers import GreedyVerifier, verify_batch

META = torch.device("meta")


class HostCopies(TorchDispatchMode):
    """Counts copies from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in args if isinstance(x, torch.Tensor)}
        self.count += devices == {"cpu"} and isinstance(out, torch.Tensor) and out.device == META
        return out


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of the tensors that were read from the device; what is read says: the root's last child, then token 5.

    A row of the verdict holds the tree's tokens, the accepted nodes, and the target's own token.
    """
    seen: list[torch.Size] = []
    plain = torch.Tensor.tolist

    def tolist(tensor: torch.Tensor) -> Any:
        if tensor.device != META:
            return plain(tensor)
        seen.append(tensor.shape)
        nodes = tensor.shape[1] // 2
        return [[0] * nodes + [0, 2] + [-1] * (nodes - 2) + [5] for _ in range(tensor.shape[0])]

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    return seen


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of what went to the device through `upload`, which does not wait."""
    seen: list[torch.Size] = []
    plain = transfer.upload

    def upload(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
        if tensor.device.type == "cpu":
            seen.append(tensor.shape)
        return plain(tensor, device)

    users = (
        "models.kv_cache",
        "models.target",
        "verifiers.fused",
        "engine",
        "kernels.launch",
        "trees.masks",
        "drafters.eagle",
    )
    for user in users:
        monkeypatch.setattr(f"specdec_ref.{user}.upload", upload)
    return seen


@pytest.mark.parametrize(
    ("sampling", "parents"),
    [
        (SamplingParams(), [-1, 0, 0, 1]), (SamplingParams(1.0), [-1, 0, 0, 1]),
        (SamplingParams(0.9, top_k=5, top_p=0.9), [-1, 0, 0, 2]),
    ],
    ids=["greedy", "sampled", "cut"],
)  # fmt: skip
def test_one_read_a_round(
    sampling: SamplingParams, parents: list[int], reads: list[torch.Size], uploads: list[torch.Size]
) -> None:
    """Two rows of different lengths, features asked for, a path that has to be moved in the cache."""
    drafter = FunctionDrafter(lambda text, *_: tree([text[-1], 7, 8, 9], parents))
    drafter.feature_layers = (1, 2)
    target = Target(tiny_model(dtype=torch.float32).to(META), check=False, backend="triton")
    token = LAUNCHER.set(lambda *_: None)
    try:
        engine = SpecEngine(
            target,
            drafter,
            budget=DraftBudget(depth=2, nodes=4),
            sampling=sampling,
            limits=Limits(30),
            backend="triton",
        )
        engine.start([[1, 2, 3], [4]])
        reads.clear()
        uploads.clear()
        before = [len(request.tokens) for request in engine.requests]
        with HostCopies() as copies:
            for _ in range(3):
                engine.step()
    finally:
        LAUNCHER.reset(token)
    assert [len(request.tokens) for request in engine.requests] == [count + 6 for count in before]
    assert reads == [torch.Size([2, 9])] * 3
    assert copies.count == len(uploads) > 0, "a copy to the device went past `upload`, and would wait"


def test_the_torch_backend_reads_more() -> None:
    """What the meta device is for: the readable verifiers cannot run there at all."""
    guess = DraftTree(torch.tensor([1, 2]), torch.tensor([-1, 0]))
    logits, coins = torch.zeros(1, 2, 9, device=META), [KeyedRandomness(0, 0, "verify")]
    with pytest.raises((RuntimeError, NotImplementedError)):
        verify_batch(GreedyVerifier(), [guess], logits, SamplingParams(), coins, backend="torch")


@pytest.mark.parametrize("kind", ["draft model", "eagle"])
def test_greedy_draft_is_read_with_its_verdict(
    kind: str, uploads: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read per round with a chain of four: its tokens come with the verdict on them."""
    depth, seen, plain = 4, [], torch.Tensor.tolist

    def tolist(tensor: torch.Tensor) -> Any:
        if tensor.device != META:
            return plain(tensor)
        seen.append(tuple(tensor.shape))
        roots = [request.tokens[-1] for request in engine.requests]
        return [[root] + [7] * depth + [0, 1] + [-1] * (depth - 1) + [5] for root in roots]

    model = tiny_model(dtype=torch.float32)
    head = new_head(model, 1).to(META)
    target = Target(model.to(META), check=False, backend="triton")
    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    drafter: Any = (
        EagleDrafter(head, [3])
        if kind == "eagle"
        else DraftModelDrafter(
            Target(tiny_model(dtype=torch.float32).to(META), check=False, backend="triton"), target.vocab_size
        )
    )
    token = LAUNCHER.set(lambda *_: None)
    try:
        engine = SpecEngine(target, drafter, budget=DraftBudget(depth=depth), limits=Limits(30), backend="triton")
        requests = engine.start([[1, 2, 3], [4, 6]])
        seen.clear()
        uploads.clear()
        with HostCopies() as copies:
            for _ in range(2):
                engine.step()
    finally:
        LAUNCHER.reset(token)
    assert copies.count == len(uploads) > 0, "a copy to the device went past `upload`, and would wait"
    assert seen == [(2, 2 * (depth + 1) + 1)] * 2
    assert [request.tokens[-2:] for request in requests] == [[7, 5]] * 2
