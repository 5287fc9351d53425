"""Training P-EAGLE, MTP and Medusa: each learns the positions that it drafts, and what is saved drafts as it did."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from eagle_heads import random_head
from helpers import tiny_model
from parallel_heads import KINDS as NAMES
from parallel_heads import drafter_for, random_network
from safetensors.torch import save_file
from torch import Tensor, nn

from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig
from specdec_ref.drafters import build_drafter
from specdec_ref.drafters.eagle import default_layers
from specdec_ref.drafters.medusa import MedusaDrafter
from specdec_ref.drafters.parallel_eagle import MASKS, ParallelDrafter
from specdec_ref.models.target import Target
from specdec_ref.training.agreement import Agreement, measure, prepare
from specdec_ref.training.checkpoint import trained_tensors
from specdec_ref.training.eagle import TrainConfig, train
from specdec_ref.training.features import Example, Store, open_features
from specdec_ref.training.kinds import KINDS, unroll_masks, unroll_medusa
from specdec_ref.training.shards import Conversation
from specdec_ref.training.unroll import Batch, pack
from specdec_ref.training.unroll import unroll as unroll_tokens

STEPS = 3


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(spread=0.15, num_hidden_layers=6, dtype=torch.float32)


@pytest.fixture(scope="module")
def stores(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Features of texts that count up modulo 16, as EAGLE-1 and as EAGLE-3 read them: every answer is one token's own.

    A feature is a code of its token; the last hidden state makes the next number the target's choice. A head that is
    trained on answers one position off is wrong everywhere.
    """
    folder, coins = tmp_path_factory.mktemp("features"), torch.Generator().manual_seed(1)
    codes, rows = torch.randn(16, 32, generator=coins), model.get_output_embeddings().weight.detach()
    talks, states = [], []
    for number in range(120):
        text = [(number + i) % 16 for i in range(16)]
        talks.append(Conversation("chat", tuple(text[:4]), tuple(text[4:]), 0.0, number))
        final = 60.0 * torch.nn.functional.normalize(rows, dim=1)[text[4:]]
        states.append((number, (codes[text[:-2]].half(), final.half())))
    for version in (1, 3):
        store = Store(folder / str(version), model, default_layers(version, 6))
        wide = [(i, (torch.cat([code] * version, -1), final)) for i, (code, final) in states]
        store.write("counting", talks, wide)
    return {version: folder / str(version) for version in (1, 3)}


def examples(store: Path) -> list[Example]:
    return [example for block in open_features([store]) for example in block.examples()]


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_a_trained_row_is_the_drafted_row(name: str, stores: dict[int, Path]) -> None:
    """Step j of training is what the drafter computes for draft j + 1 at every column: shifts, positions, masks."""
    double: Any = tiny_model(spread=0.15, num_hidden_layers=6)
    network = random_network(name, double, draft_vocab=None)
    some = examples(stores[KINDS[name].reads])[:3]
    steps = [g for _, g in KINDS[name].unroll(network, pack(some, torch.float64), STEPS)]
    layers, row = default_layers(KINDS[name].reads, 6), 0  # type: ignore[arg-type]
    for example in some:
        text = example.tokens.tolist()
        for column in range(example.response):
            end = example.prompt + column  # tokens committed when this column drafts; the next one is text[end]
            drafter: Any = drafter_for(name, network, layers)
            drafter.start([0], [text[:end]], [example.fused[: end - 1].double()])
            wanted = torch.stack([step[row + column] for step in steps])
            if isinstance(drafter, ParallelDrafter):
                found = drafter._ahead(STEPS)[0]
            elif isinstance(drafter, MedusaDrafter):
                _, h = drafter._seen[0]
                assert h is not None
                found = torch.cat([network.after(h[None], step) for step in range(STEPS)])
            else:
                follow = text[end : end + STEPS - 1]
                outputs = [drafter._read(drafter._unread)[0]]
                outputs += [drafter._step(outputs[-1][None], [token])[0] for token in follow[:1]]
                found, wanted = torch.stack(outputs), wanted[: len(outputs)]
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
        row += example.response


@torch.inference_mode()
@pytest.mark.parametrize("name", ["p-eagle", "medusa"])
def test_a_column_left_out_changes_no_other(name: str, stores: dict[int, Path]) -> None:
    network = random_network(name, tiny_model(spread=0.15, num_hidden_layers=6), draft_vocab=None)
    batch = pack(examples(stores[KINDS[name].reads])[:3], torch.float64)
    everything = [g for _, g in KINDS[name].unroll(network, batch, STEPS)]
    coins, seen = torch.Generator().manual_seed(2), len(batch.query) + 1
    for step, (rows, g) in enumerate(
        KINDS[name].unroll(network, batch, STEPS, lambda _, r: torch.rand(len(r), generator=coins) < 0.6)
    ):
        torch.testing.assert_close(g, everything[step][rows], rtol=0, atol=1e-12)
        assert 3 < len(rows) < seen
        seen = len(rows)


def test_there_are_no_more_steps_than_medusa_heads(stores: dict[int, Path], model: nn.Module) -> None:
    batch = pack(examples(stores[1])[:1])
    with pytest.raises(ValueError, match="4 Medusa heads"):
        list(unroll_medusa(random_network("medusa", model), batch, 5))


def learned(name: str, model: nn.Module, store: Path, folder: Path) -> Agreement:
    """Agreement with the target after a short training run, by the kind's own unrolling."""
    settings = TrainConfig(
        version=KINDS[name].reads, kind=name, tokens=9_000 if name == "medusa" else 5_000, batch_tokens=150, rate=1e-2, warmup=500, held_out=6,  # type: ignore[arg-type]
        measure_every=50_000, measure_steps=STEPS, curriculum=((0.0, STEPS),),
    )  # fmt: skip
    unroll = {"p-eagle": unroll_masks, "medusa": unroll_medusa, "mtp": unroll_tokens}[name]
    head = train(settings, model, [store], folder)
    return measure(head, prepare(examples(store)[:16], head.lm_head.weight), STEPS, unroll)


@pytest.mark.parametrize("name", NAMES)
def test_every_position_is_learned(name: str, model: nn.Module, stores: dict[int, Path], tmp_path: Path) -> None:
    store = stores[KINDS[name].reads]
    untrained = random_network(name, model, draft_vocab=None, noise=0.0).float()
    before = measure(untrained, prepare(examples(store)[:16], untrained.lm_head.weight), STEPS, KINDS[name].unroll)
    after = learned(name, model, store, tmp_path)
    assert max(before.single) < 0.3, before
    assert min(after.single) > 0.6, after


def one_late(unroll: Any) -> Any:
    """Planted bug: the row of step j + 1 is trained on the answer of step j."""

    def shifted(network: Any, batch: Batch, steps: int, stay: Any = None) -> Iterator[tuple[Tensor, Tensor]]:
        yield from list(unroll(network, batch, steps + 1))[1:]

    return shifted


@pytest.mark.parametrize("name", ["p-eagle", "medusa"])
def test_shifted_answers_are_noticed(
    name: str, model: nn.Module, stores: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, name, replace(KINDS[name], unroll=one_late(KINDS[name].unroll)))
    found = learned(name, model, stores[KINDS[name].reads], tmp_path)
    assert max(found.single[1:]) < 0.3, found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_drafts_as_it_did(name: str, model: nn.Module, tmp_path: Path) -> None:
    network = random_network(name, model)
    save_file(trained_tensors(network), tmp_path / "head.safetensors", metadata={"version": network.kind})
    target, text = Target(model, check=False), [5, 9, 3, 11]
    layers = default_layers(KINDS[name].reads, 6)  # type: ignore[arg-type]
    features = [torch.randn(3, 32 * len(layers), generator=torch.Generator().manual_seed(0))]
    chains = []
    for drafter in (drafter_for(name, network, layers), build_drafter(name, target, str(tmp_path), SpecConfig())):
        drafter.start([0], [text], features)
        chains.append(drafter.propose([0], DraftBudget(4), SamplingParams(), [])[0].token_list)
    assert chains[0] == chains[1]
    assert len(chains[0]) == 5
    with pytest.raises(ValueError, match=f"of kind '{name}', not 'eagle'.*--drafter {name}"):
        build_drafter("eagle", target, str(tmp_path), SpecConfig())


def test_p_eagle_begins_with_an_eagle_head(model: nn.Module, stores: dict[int, Path], tmp_path: Path) -> None:
    """Its weights are taken over; the masks, which it lacks, begin as they do without one."""
    head = random_head(model, 3, draft_vocab=40).float()
    start = {name: t.clone() for name, t in trained_tensors(head).items()}
    settings = TrainConfig(kind="p-eagle", tokens=1, batch_tokens=1, rate=0.0, held_out=2, curriculum=((0.0, 2),))
    got = train(settings, model, [stores[3]], tmp_path, start=start)
    for name, tensor in trained_tensors(got).items():
        assert name in MASKS or torch.equal(tensor, start[name]), name
    kept = trained_tensors(got)
    with pytest.raises(ValueError, match="missing"):
        train(settings, model, [stores[3]], tmp_path / "x", start={k: t for k, t in kept.items() if k != "fc.weight"})


@pytest.mark.parametrize("name", NAMES)
def test_without_a_trained_head_the_error_says_how_to_make_one(name: str, model: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"specdec train eagle --kind {name}"):
        build_drafter(name, Target(model, check=False), None, SpecConfig())
