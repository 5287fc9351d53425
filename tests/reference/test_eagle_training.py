"""Training an EAGLE head: it is trained on what it will meet when drafting, and can be stopped at any time."""

import gzip
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from eagle_heads import random_head
from helpers import VOCAB, tiny_model
from torch import nn

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.drafters.eagle import EagleDrafter, default_layers
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.training import batches, eagle
from specdec_ref.training.agreement import measure, prepare, replay
from specdec_ref.training.checkpoint import load_head, load_state
from specdec_ref.training.eagle import TrainConfig, draft_vocabulary, train
from specdec_ref.training.features import Example, extract_features, open_features
from specdec_ref.training.losses import LOSSES, distribution_loss, sample_vocabulary, target_distribution
from specdec_ref.training.recipe import write_features
from specdec_ref.training.shards import Conversation, load_corpus, write_shard
from specdec_ref.training.unroll import pack, unroll

STEPS = 4


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(spread=0.15, num_hidden_layers=6, dtype=torch.float32)


@pytest.fixture(scope="module")
def corpus(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Greedy answers of the tiny model to random prompts, in two shards: text that a head can learn."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(VOCAB, (3 + i % 5,), generator=generator).tolist() for i in range(600)]
    answers = plain_generate(Target(model, check=False), prompts, limits=Limits(max_new_tokens=20))
    texts = [
        Conversation("chat", tuple(p), tuple(a.tokens), 0.0, i)
        for i, (p, a) in enumerate(zip(prompts, answers, strict=True))
    ]
    for half, shard in enumerate((texts[:90], texts[90:])):
        write_shard(folder / f"seed0-{half}.npz", shard)
    return folder


@pytest.fixture(scope="module", params=[1, 3])
def version(request: pytest.FixtureRequest) -> Literal[1, 3]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def features(model: nn.Module, corpus: Path, version: Literal[1, 3], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    layers = default_layers(version, model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    assert extract_features(model, sorted(corpus.iterdir()), folder, layers) == 600 * 20
    return folder


@torch.inference_mode()
def test_an_unrolled_step_is_the_draft_step(model: nn.Module, features: Path, version: Literal[1, 3]) -> None:
    """Step j of training = the head's output at draft step j, from the same prefix: shifts, positions and masks agree.

    The drafter is made to start at every column of a text and to draft the text's own tokens.
    """
    double = tiny_model(spread=0.15, num_hidden_layers=6)
    head = random_head(double, version, draft_vocab=None)
    examples = list(open_features([features])[0].examples())[:3]
    steps = [g.detach() for _, g in unroll(head, pack(examples, torch.float64), STEPS)]
    row = 0
    for example in examples:
        text, response = example.tokens.tolist(), example.response
        for column in range(response):
            end = example.prompt + column  # tokens committed when this column drafts; the next one is text[end]
            follow = text[end : end + STEPS - 1]
            drafter = EagleDrafter(head, default_layers(version, 6))
            drafter.start([0], [text[:end]], [example.fused[: end - 1].double()])
            g = drafter._read(drafter._unread)
            for step in range(len(follow) + 1):
                torch.testing.assert_close(g[0], steps[step][row + column], rtol=0, atol=1e-10)
                if step < len(follow):
                    g = drafter._step(g, [follow[step]])
        row += response


@torch.inference_mode()
def test_a_column_left_out_changes_no_other(model: nn.Module, features: Path, version: Literal[1, 3]) -> None:
    head = random_head(tiny_model(spread=0.15, num_hidden_layers=6), version, draft_vocab=None)
    batch = pack(list(open_features([features])[0].examples())[:3], torch.float64)
    everything = [g for _, g in unroll(head, batch, STEPS)]
    coins = torch.Generator().manual_seed(2)
    seen = len(batch.query) + 1
    for step, (rows, g) in enumerate(
        unroll(head, batch, STEPS, lambda _, r: torch.rand(len(r), generator=coins) < 0.6)
    ):
        torch.testing.assert_close(g, everything[step][rows], rtol=0, atol=1e-12)
        assert 3 < len(rows) < seen
        seen = len(rows)


@torch.inference_mode()
def test_no_column_may_be_left(model: nn.Module, features: Path, version: Literal[1, 3]) -> None:
    """Every step is there all the same: several processes count together after each."""
    head = random_head(tiny_model(spread=0.15, num_hidden_layers=6), version, draft_vocab=None)
    batch = pack(list(open_features([features])[0].examples())[:3], torch.float64)
    sizes = [(len(rows), len(g)) for rows, g in unroll(head, batch, 3, lambda _, r: torch.zeros(len(r)).bool())]
    assert sizes == [(len(batch.query), len(batch.query)), (0, 0), (0, 0)]


def test_features_on_disk_are_the_engine_s(model: nn.Module, features: Path, version: Literal[1, 3]) -> None:
    layers = default_layers(version, 6)
    example = list(open_features([features])[1].examples())[7]
    target = Target(model, layers, check=False)
    text = example.tokens.tolist()
    output = target.start([text], capacity=64)
    assert output is not None
    assert output.features is not None
    torch.testing.assert_close(example.fused.float(), output.features[0, :-2], rtol=2e-3, atol=2e-3)
    logits = example.final.float() @ model.get_output_embeddings().weight.T  # type: ignore[operator]
    assert logits.argmax(-1).tolist() == text[example.prompt :]  # the corpus is greedy: final predicts the response


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_loss_and_gradient_by_autograd(loss: str) -> None:
    torch.manual_seed(3)
    hidden = torch.randn(300, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, dtype=torch.float64)
    dist, rows = target_distribution(torch.randn(400, 8, dtype=torch.float64), weight), torch.randint(400, (300,))
    q, p = (hidden @ weight.T).softmax(-1), dist[rows]
    written_out = {
        "cross_entropy": -(p * q.log()).sum(),
        "total_variation": 0.5 * (p - q).abs().sum(),
        "acceptance": -torch.minimum(p, q).sum(-1).log().sum(),
        "dspark": -0.1 * (p * q.log()).sum() + 0.9 * (p - q).abs().sum(),
    }[loss]
    (expected,) = torch.autograd.grad(written_out, hidden)
    fused, guess = distribution_loss(hidden, weight, dist, rows, loss)
    (found,) = torch.autograd.grad(2.0 * fused, hidden)
    torch.testing.assert_close(fused, written_out)
    assert torch.equal(guess, q.argmax(-1))
    torch.testing.assert_close(found, 2.0 * expected)


def test_a_bfloat16_loss_points_the_same_way() -> None:
    """The products' rounding, 2^-8 of each term, leaves loss and direction: what `bfloat16` training relies on."""
    torch.manual_seed(3)
    hidden, weight = torch.randn(300, 64, requires_grad=True), torch.randn(500, 64) / 8
    dist, rows = target_distribution(torch.randn(400, 64), weight), torch.randint(400, (300,))
    gradients = []
    for frozen in (weight, weight.bfloat16()):
        loss, _ = distribution_loss(hidden, frozen, dist, rows)
        gradients.append((float(loss.detach()), torch.autograd.grad(loss, hidden)[0]))
    (exact, slope), (rounded, rough) = gradients
    assert rough.dtype == torch.float32
    assert 0 < abs(rounded - exact) < 1e-3 * exact
    assert torch.cosine_similarity(slope.view(1, -1), rough.view(1, -1)).item() > 0.999


def peaked(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(LM head, hidden states) of distributions with most of their mass on a few of 2,000 tokens, as text has it."""
    torch.manual_seed(4)
    weight = torch.randn(2000, 32, dtype=torch.float64)
    return weight, torch.randn(rows, 32, dtype=torch.float64)


def test_a_sampled_vocabulary_keeps_the_normaliser_on_average() -> None:
    """Each sample's sum of exp(z + bias) is an unbiased estimate of the sum over all tokens."""
    weight, hidden = peaked(20)
    dist, coins = target_distribution(hidden, weight), torch.Generator().manual_seed(0)
    z = torch.randn(5, 32, dtype=torch.float64) / 8 @ weight.T
    samples = [sample_vocabulary(dist, 200, coins) for _ in range(2000)]
    estimates = torch.stack([(z[:, s.tokens] + s.bias).exp().sum(-1) for s in samples])
    assert all(len(s.tokens.unique()) == 200 for s in samples)
    error = (estimates.mean(0) - z.exp().sum(-1)).abs()
    assert (error < 4 * estimates.std(0) / len(samples) ** 0.5).all()
    assert (estimates.std(0) > 0.01 * z.exp().sum(-1)).all(), "nothing was sampled: the test is empty"


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_sampled_vocabulary_points_the_same_way(loss: str) -> None:
    """The larger the sample, the closer the gradient; a sample of all tokens, in another order, gives the same one."""
    weight, hidden = peaked(60)
    dist, coins = target_distribution(hidden, weight), torch.Generator().manual_seed(0)
    drafts = (hidden + 0.3 * torch.randn_like(hidden)).requires_grad_(True)

    def slope(size: int) -> torch.Tensor:
        sample = sample_vocabulary(dist, size, coins)
        part = sample.distribution(dist)
        torch.testing.assert_close(part.sum(-1), torch.ones(60, dtype=torch.float64))
        value, _ = distribution_loss(drafts, weight[sample.tokens], part, torch.arange(60), loss, sample.bias)
        return torch.autograd.grad(value, drafts)[0]

    (whole,) = torch.autograd.grad(distribution_loss(drafts, weight, dist, torch.arange(60), loss)[0], drafts)
    near = [torch.cosine_similarity(slope(size).view(1, -1), whole.view(1, -1)).item() for size in (100, 500, 1500)]
    assert near == sorted(near)
    assert near[-1] > 0.98, near
    assert 0 < near[0] < 0.98, "a small sample made no difference: the test is empty"
    torch.testing.assert_close(slope(2000), whole)


def test_replayed_rounds_are_the_engine_s(version: Literal[1, 3]) -> None:
    """Counting over the text how long each draft lives gives the engine's number of rounds, text by text."""
    double = tiny_model(spread=0.15, num_hidden_layers=6)
    head, layers = random_head(double, version, draft_vocab=None), default_layers(version, 6)
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(VOCAB, (4 + i,), generator=generator).tolist() for i in range(6)]
    target = Target(double, layers, check=False)
    engine = SpecEngine(
        target, EagleDrafter(head, layers), budget=DraftBudget(depth=3), limits=Limits(max_new_tokens=40)
    )
    answers = engine.generate(prompts)
    examples = []
    for prompt, answer in zip(prompts, answers, strict=True):
        text = torch.tensor([*prompt, *answer.tokens])
        states = double.base_model(input_ids=text[None], output_hidden_states=True).hidden_states  # type: ignore[operator]
        fused = torch.cat([states[layer][0, :-2] for layer in layers], -1)
        examples.append(Example("chat", 0, text, len(prompt), fused, states[-1][0, len(prompt) - 1 : -1]))
    held_out = prepare(examples, double.get_output_embeddings().weight)  # type: ignore[operator]
    counts = replay(head, held_out, 3)
    assert counts == [(len(a.tokens), len(a.records)) for a in answers]
    assert sum(tokens - rounds for tokens, rounds in counts) > 0, "no draft was ever accepted: the test is empty"


def config(version: Literal[1, 3], **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "tokens": 12_000, "batch_tokens": 200, "rate": 3e-3, "warmup": 800, "held_out": 6, "measure_every": 6_000,
        "curriculum": ((0.0, 1), (0.3, 2), (0.6, 3)),
        **({"feature_weight": 1.0, "distribution_weight": 0.1} if version == 1 else {}),
    }  # fmt: skip
    return TrainConfig(version=version, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("loss_vocab", [0, 24])
def test_training_raises_agreement(
    model: nn.Module, features: Path, version: Literal[1, 3], loss_vocab: int, tmp_path: Path
) -> None:
    q_vocab = draft_vocabulary((e.tokens.tolist() for b in open_features([features]) for e in b.examples()), 48, VOCAB)
    settings = config(version, tokens=36_000, measure_every=36_000, loss_vocab=loss_vocab)
    train(settings, model, [features], tmp_path, q_vocab if version == 3 else None)
    head = load_head(tmp_path / "head.safetensors", model)
    seen = [e for block in open_features([features]) for e in block.examples()]
    held_out = prepare([e for e in seen if batches.is_held_out(e)], model.get_output_embeddings().weight)  # type: ignore[operator]
    untrained = random_head(model, version, draft_vocab=None, noise=0.0).float()
    before, after = measure(untrained, held_out, 3), measure(head, held_out, 3)
    assert after.tau > before.tau + 0.2, (before, after)  # seen: 1.4 to 1.9 (EAGLE-1), 1.5 to 1.9 (EAGLE-3)


def test_a_stopped_run_ends_with_the_same_weights(
    model: nn.Module, features: Path, version: Literal[1, 3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(version, tokens=6_000)
    train(settings, model, [features], tmp_path / "whole")
    done, step = itertools.count(), eagle._Run.step

    def interrupted(run: eagle._Run, batch: object) -> list[float]:
        if next(done) in (4, 11, 17):  # in the first pass and in the second
            import signal

            signal.raise_signal(signal.SIGTERM)
        return step(run, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(eagle._Run, "step", interrupted)
    for _ in range(3):
        train(settings, model, [features], tmp_path / "parts")
        state = load_state(tmp_path / "parts")
        assert state is not None
        assert state["progress"]["tokens"] < settings.tokens
    train(settings, model, [features], tmp_path / "parts")
    whole, parts = load_state(tmp_path / "whole"), load_state(tmp_path / "parts")
    assert whole is not None
    assert parts is not None
    assert whole["progress"] == parts["progress"]
    for name, tensor in whole["tensors"].items():
        assert torch.equal(tensor, parts["tensors"][name]), name


def test_a_pass_per_call_ends_with_the_same_weights(
    model: nn.Module, features: Path, version: Literal[1, 3], tmp_path: Path
) -> None:
    settings = config(version, tokens=18_000, batch_tokens=1000)
    train(settings, model, [features], tmp_path / "whole")
    passes, tokens = 0, 0
    while tokens < settings.tokens:
        train(settings, model, [features], tmp_path / "parts", passes=1)
        state = load_state(tmp_path / "parts")
        assert state is not None
        passes, tokens = passes + 1, state["progress"]["tokens"]
        assert state["progress"]["passes"] == passes - (tokens >= settings.tokens)
    assert passes > 1
    whole = load_state(tmp_path / "whole")
    assert whole is not None
    for name, tensor in whole["tensors"].items():
        assert torch.equal(tensor, state["tensors"][name]), name


def test_two_processes_end_where_one_does(
    model: nn.Module, features: Path, version: Literal[1, 3], tmp_path: Path
) -> None:
    """By torchrun and accelerate. All rejected columns go deeper, since which do is drawn by each process."""
    if version == 1:
        pytest.skip("the loop is the same for both versions, and two processes take their time to start")
    settings = config(version, tokens=800, rejected_share=1.0)
    train(settings, model, [features], tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               str(Path(__file__).with_name("train_parallel.py")), str(features), str(tmp_path / "two")]  # fmt: skip
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[1]))),
    }
    subprocess.run(command, check=True, env=environment, timeout=240, capture_output=True)
    one, two = load_state(tmp_path / "one"), load_state(tmp_path / "two")
    assert one is not None
    assert two is not None
    assert one["progress"] == two["progress"]
    for name, tensor in one["tensors"].items():
        # sums in another order; Adam makes that as large as the gradient is small, but on few weights
        gap = (tensor - two["tensors"][name]).abs().float()
        assert gap.mean() < 1e-5, (name, float(gap.mean()))
        assert gap.max() < 2e-3, (name, float(gap.max()))


def test_corpora_whose_shards_share_a_name_are_combined(model: nn.Module, corpus: Path, tmp_path: Path) -> None:
    """Every corpus has a shard 0; and the first corpus came as lines of JSON. No text is lost, none is read twice."""
    texts = list(load_corpus([corpus / "seed0-0.npz"]))
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, part in zip(folders, (texts[:40], texts[40:70]), strict=True):
        folder.mkdir()
        write_shard(folder / "seed0-0of1-00000.npz", part)
    rows = [{"task": c.task, "prompt": c.prompt, "response": c.response, "temperature": 0.001} for c in texts[70:]]
    (tmp_path / "first.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    paths = [*folders, tmp_path / "first.jsonl.gz"]
    store = tmp_path / "features"
    assert write_features(model, paths, store, 3) == 90 * 20
    assert write_features(model, paths, store, 3) == 0
    found = sorted(e.tokens.tolist() for block in open_features([store]) for e in block.examples())
    assert found == sorted([*c.prompt, *c.response] for c in texts)


def test_extraction_goes_on_where_it_stopped(model: nn.Module, corpus: Path, tmp_path: Path) -> None:
    files = sorted(corpus.iterdir())
    assert extract_features(model, files[:1], tmp_path, (2, 3, 3)) == 90 * 20
    assert extract_features(model, files, tmp_path, (2, 3, 3)) == 510 * 20
    assert len(open_features([tmp_path])) == 1 + 4
    with pytest.raises(ValueError, match="layers"):
        extract_features(model, files, tmp_path, (1, 3, 3))
