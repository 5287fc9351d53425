"""Training a block head: its rows are those of the drafter, the Markov columns get their gradient, a run can be resumed."""

from pathlib import Path

import pytest
import torch
from block_heads import random_block
from helpers import VOCAB, tiny_model
from safetensors.torch import load_file
from torch import nn

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.drafters.block import BlockDrafter
from specdec_ref.drafters.eagle_head import default_layers
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.training.agreement import measure, prepare
from specdec_ref.training.batches import is_held_out
from specdec_ref.training.block import new_block, unroll_block
from specdec_ref.training.card import ship
from specdec_ref.training.checkpoint import load_state
from specdec_ref.training.eagle import TrainConfig, train
from specdec_ref.training.features import Example, extract_features, open_features
from specdec_ref.training.kinds import KINDS
from specdec_ref.training.losses import distribution_loss, target_distribution
from specdec_ref.training.shards import Conversation, write_shard
from specdec_ref.training.unroll import pack
from specdec_ref.weights import load_block, load_eagle
from specdec_ref.weights.blocks import build_block
from specdec_ref.weights.files import read_head
from specdec_ref.weights.int8 import from_int8, to_int8


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(spread=0.15, num_hidden_layers=6, dtype=torch.float32)


@pytest.fixture(scope="module")
def features(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tiny model's greedy answers to random prompts: text that a head can learn."""
    folder = tmp_path_factory.mktemp("block")
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(VOCAB, (3 + i % 5,), generator=generator).tolist() for i in range(80)]
    answers = plain_generate(Target(model, check=False), prompts, limits=Limits(max_new_tokens=20))
    pairs = enumerate(zip(prompts, answers, strict=True))
    texts = [Conversation("chat", tuple(p), tuple(a.tokens), 0.0, i) for i, (p, a) in pairs]
    write_shard(folder / "seed0-0.npz", texts)
    extract_features(model, [folder / "seed0-0.npz"], folder / "features", default_layers(3, 6))
    return folder / "features"


def examples(features: Path) -> list[Example]:
    return [example for block in open_features([features]) for example in block.examples()]


@pytest.mark.parametrize(("rank", "layers"), [(0, 1), (3, 2)])
@torch.inference_mode()
def test_a_trained_row_is_the_drafters_row(features: Path, rank: int, layers: int) -> None:
    """From every place of a text, for the text's own tokens: shifts, positions and what is attended to agree."""
    head = random_block(tiny_model(spread=0.15, num_hidden_layers=6), rank, layers=layers)
    texts = examples(features)[:3]
    steps = list(unroll_block(head, pack(texts, torch.float64), head.block))
    row = 0
    for text in texts:
        for column in range(text.response):
            end = text.prompt + column  # tokens committed when this column drafts
            drafter = BlockDrafter(head, default_layers(3, 6))
            drafter.start([0], [text.tokens[:end].tolist()], [text.fused[: end - 1].double()])
            h = drafter._block()[0]
            for step, (rows, g) in enumerate(steps):
                if end + step <= len(text.tokens):
                    wanted = head.joined(h[step], text.tokens[end - 1 + step])
                    torch.testing.assert_close(g[rows == row + column][0], wanted, rtol=0, atol=1e-10)
        row += text.response


def test_rows_left_out_of_the_loss_change_no_other(features: Path) -> None:
    head, batch = (
        random_block(tiny_model(spread=0.15, num_hidden_layers=6)),
        pack(examples(features)[:3], torch.float64),
    )
    whole, coins = [g for _, g in unroll_block(head, batch, 4)], torch.Generator().manual_seed(2)
    sizes = []
    for step, (rows, g) in enumerate(
        unroll_block(head, batch, 4, lambda _, r: torch.rand(len(r), generator=coins) < 0.6)
    ):
        torch.testing.assert_close(g, whole[step][rows], rtol=0, atol=1e-12)
        sizes.append(len(rows))
    assert sizes == sorted(set(sizes), reverse=True)
    with pytest.raises(ValueError, match="the block has 4 tokens"):
        next(unroll_block(head, batch, 5))


def test_markov_columns_get_their_gradient() -> None:
    torch.manual_seed(3)
    hidden = torch.randn(300, 8 + 2, dtype=torch.float64, requires_grad=True)
    weight, learned = (
        torch.randn(11, 8, dtype=torch.float64),
        torch.randn(11, 2, dtype=torch.float64, requires_grad=True),
    )
    dist, rows = target_distribution(torch.randn(400, 8, dtype=torch.float64), weight), torch.randint(400, (300,))
    log_q = (hidden @ torch.cat([weight, learned], 1).T).log_softmax(-1)
    expected = torch.autograd.grad(-(dist[rows] * log_q).sum(), (hidden, learned))
    loss, _ = distribution_loss(hidden, weight, dist, rows, learned=learned)
    for found, wanted in zip(torch.autograd.grad(3.0 * loss, (hidden, learned)), expected, strict=True):
        torch.testing.assert_close(found, 3.0 * wanted)


def config(kind: str, **changes: object) -> TrainConfig:
    settings = {**KINDS[kind].settings, "kind": kind, "tokens": 12_000, "batch_tokens": 200, "rate": 3e-3,
                "warmup": 800, "held_out": 6, "measure_every": 12_000}  # fmt: skip
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def test_training_raises_agreement_and_the_run_ships(model: nn.Module, features: Path, tmp_path: Path) -> None:
    train(config("dspark"), model, [features], tmp_path / "run", torch.arange(0, VOCAB, 1)[:48])
    head = build_block(read_head(tmp_path / "run"), model)
    assert head.rank == 16
    learnt = [e for e in examples(features) if not is_held_out(e)][:40]
    texts = prepare(learnt, model.get_output_embeddings().weight)  # type: ignore[operator]
    untrained = new_block(model, torch.arange(48), rank=0)
    before, after = (measure(each, texts, 4, unroll_block) for each in (untrained, head))
    assert after.tau > before.tau + 0.5, (before, after)
    ship(tmp_path / "run", model, tmp_path / "card", name="tiny")
    small = build_block(read_head(tmp_path / "card"), model)
    assert measure(small, texts, 4, unroll_block).tau > after.tau - 0.1
    stored = load_file(tmp_path / "card" / "head.safetensors")
    assert stored["layers.0.mlp.up_proj.weight"].dtype == torch.int8
    assert "Block head for tiny" in (tmp_path / "card" / "README.md").read_text(encoding="utf-8")
    target = Target(model, check=False)
    drafter = load_block(target, tmp_path / "card")
    engine = SpecEngine(target, drafter, budget=DraftBudget(4), sampling=SamplingParams(), limits=Limits(20))
    (plain,) = plain_generate(Target(model, check=False), [[5, 9, 3]], limits=Limits(20))
    assert engine.generate([[5, 9, 3]])[0].tokens == plain.tokens
    with pytest.raises(ValueError, match="kind 'block'"):
        load_eagle(target, tmp_path / "card")


def test_a_resumed_run_ends_with_the_same_weights(model: nn.Module, features: Path, tmp_path: Path) -> None:
    settings = config("dflash", tokens=4_000, batch_tokens=500)
    train(settings, model, [features], tmp_path / "whole")
    while (state := load_state(tmp_path / "parts")) is None or state["progress"]["tokens"] < settings.tokens:
        train(settings, model, [features], tmp_path / "parts", passes=1)
    whole = load_state(tmp_path / "whole")
    assert whole is not None
    assert state["progress"]["passes"] > 0
    assert all(torch.equal(tensor, state["tensors"][name]) for name, tensor in whole["tensors"].items())


def test_eight_bits_are_off_by_half_a_step_at_most() -> None:
    torch.manual_seed(0)
    tensors = {"a.weight": torch.randn(7, 5) * torch.logspace(-6, 3, 7)[:, None], "zero": torch.zeros(2, 3),
               "norm": torch.randn(5), "d2t": torch.arange(4, dtype=torch.int32)}  # fmt: skip
    packed = to_int8(tensors)
    back = from_int8(packed)
    assert packed["a.weight"].dtype == torch.int8
    assert back.keys() == tensors.keys()
    assert torch.equal(back["norm"], tensors["norm"])
    assert torch.equal(back["d2t"], tensors["d2t"])
    assert torch.equal(back["zero"], tensors["zero"])
    step = packed["a.weight.scale"].float()[:, None]
    assert ((back["a.weight"] - tensors["a.weight"]).abs() <= 0.502 * step + 1e-9).all()  # the scale is rounded as well
    with pytest.raises(ValueError, match="needs a matrix"):
        from_int8({"a.scale": torch.ones(3)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc.weight"), "missing fc.weight"),
        (lambda t: t.update(extra=torch.zeros(2)), "unexpected extra"),
        (lambda t: t.update(masks=torch.zeros(3, 5)), "masks has shape"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(model: nn.Module, tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from specdec_ref.training.checkpoint import Progress, save

    head = new_block(model)
    save(tmp_path, head, torch.optim.SGD(head.parameters(), lr=0.0), Progress())
    files = read_head(tmp_path)
    change(files.tensors)
    with pytest.raises(ValueError, match=message):
        build_block(files, model)
    with pytest.raises(ValueError, match="kind 'eagle', not 'block'"):
        build_block(replace(files, metadata={"version": "3"}), model)
