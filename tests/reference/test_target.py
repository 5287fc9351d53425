"""Target: one forward over a tree says of every node what a forward over its path alone would say."""

from collections.abc import Sequence

import pytest
import torch
from drafting import chain, random_shapes, tree
from helpers import ARCHITECTURES, VOCAB, tiny_model
from hypothesis import given
from strategies import quick, tree_parents
from torch import Tensor, nn

from specdec_ref.core import DraftTree
from specdec_ref.models import target as target_module
from specdec_ref.models.target import Target, last_logits
from specdec_ref.trees.masks import ancestor_mask

# float64 logits of size ~5: 1e-10 leaves room for any order of summation. With eager attention most models compute the
# softmax in float32 whatever their dtype (relative error 6e-8), which three layers carry to about 1e-6 in the logits.
TOLERANCE = {"sdpa": 1e-10, "eager": 1e-4}
PROMPTS = [[3, 5, 7, 9, 11, 2, 8, 8, 1, 4], [6], [1, 2, 3]]


@torch.inference_mode()
def alone(model: nn.Module, text: Sequence[int], layers: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Logits and features of every token of a text, by transformers: no cache, no mask, no batch."""
    out = model(input_ids=torch.tensor([list(text)]), output_hidden_states=True)
    features = [out.hidden_states[layer][0] for layer in layers]
    return out.logits[0], torch.cat(features, -1) if features else out.logits[0, :, :0]


def path(drafted: DraftTree, node: int) -> list[int]:
    """Tokens from the root down to the node."""
    tokens: list[int] = []
    while node >= 0:
        tokens.insert(0, drafted.token_list[node])
        node = drafted.parent_list[node]
    return tokens


def random_trees(seed: int, count: int) -> list[DraftTree]:
    generator = torch.Generator().manual_seed(seed)
    shapes = random_shapes(seed, count)
    return [tree(torch.randint(0, VOCAB, (len(shape),), generator=generator).tolist(), shape) for shape in shapes]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_node_is_scored_as_its_path_alone(architecture: str, attention: str) -> None:
    """Ragged batch, trees of different sizes, two rounds: the second stands on a gathered cache."""
    model = tiny_model(architecture, attention=attention)
    target = Target(model)
    layers = target.feature_layers = (0, 1, 3)
    texts = [list(prompt) for prompt in PROMPTS]
    target.start(list(texts), capacity=64)
    for round_number in range(2):
        trees = random_trees(10 + round_number, len(texts))
        output = target.forward(trees)
        assert output.features is not None
        kept = []
        for row, drafted in enumerate(trees):
            for node in range(len(drafted)):
                logits, features = alone(model, texts[row] + path(drafted, node), layers)
                assert (output.logits[row, node] - logits[-1]).abs().max() < TOLERANCE[attention]
                assert (output.features[row, node] - features[-1]).abs().max() < TOLERANCE[attention]
            leaf = len(drafted) - 1
            kept.append([n for n in range(leaf + 1) if ancestor_mask(drafted.parent_list)[leaf, n]])
            texts[row] += path(drafted, leaf)
        target.commit(kept)
        assert target.lengths == [len(text) for text in texts]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("chunk", [1, 3, 10, 512])
def test_prefill_in_chunks_equals_prefill_at_once(chunk: int, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are empty, end inside a chunk, or end with one; logits, features and cache."""
    monkeypatch.setattr(target_module, "PREFILL_CHUNK", chunk)
    model = tiny_model(attention=attention)
    target = Target(model, feature_layers=(1, 3))
    prompts = [*PROMPTS, [], [9, 8, 7, 6, 5, 4]]
    output = target.start(prompts, capacity=16)
    assert output is not None
    assert output.features is not None
    assert target.lengths == [len(prompt) for prompt in prompts]
    for row, prompt in enumerate(prompts):
        if prompt:
            logits, features = alone(model, prompt, (1, 3))
            assert (output.logits[row, 0] - logits[-1]).abs().max() < TOLERANCE[attention]
            assert (output.features[row, : len(prompt)] - features).abs().max() < TOLERANCE[attention]
    after = target.forward([chain([2])] * len(prompts))
    for row, prompt in enumerate(prompts):
        assert (after.logits[row, 0] - alone(model, [*prompt, 2])[0][-1]).abs().max() < TOLERANCE[attention]


def test_prefill_asks_for_few_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt's logits would be the largest tensor of all: only the last positions are computed."""
    target = Target(tiny_model())
    seen = []
    monkeypatch.setattr(
        target.model.lm_head, "forward", lambda x: seen.append(x.shape) or x @ target.model.lm_head.weight.T
    )
    target.start([[1] * 100, [2] * 100], capacity=128)
    assert seen == [(2, 1, 32)]


@quick(40)
@given(tree_parents(10))
def test_the_tree_mask_is_the_ancestor_relation(parents: list[int]) -> None:
    mask = ancestor_mask(parents)
    for node in range(len(parents)):
        line, up = set(), node
        while up >= 0:
            line.add(up)
            up = parents[up]
        assert set(mask[node].nonzero().flatten().tolist()) == line


def test_a_chain_gives_the_causal_mask() -> None:
    assert torch.equal(ancestor_mask(range(-1, 4)), torch.ones(5, 5, dtype=torch.bool).tril())


def test_empty_prompts_need_no_forward() -> None:
    target = Target(tiny_model())
    assert target.start([[], []], capacity=4) is None
    assert target.lengths == [0, 0]


def test_what_a_target_says_of_its_model() -> None:
    target = Target(tiny_model("gpt2", positions=77))
    assert (target.vocab_size, target.max_positions, target.dtype) == (VOCAB, 77, torch.float64)
    assert target.device == torch.device("cpu")
    assert Target(tiny_model(), feature_layers=[2, 0]).feature_layers == (2, 0)


def test_last_logits_skips_padding() -> None:
    target = Target(tiny_model())
    target.start([[1], [2]], capacity=16)
    trees = [chain([3, 4, 5]), chain([6])]
    output = target.forward(trees)
    assert torch.equal(last_logits(output, trees), torch.stack([output.logits[0, 2], output.logits[1, 0]]))


def test_a_boolean_mask_with_eager_attention_would_be_silently_wrong() -> None:
    """The bug that `Target.additive_mask` is there for: eager attention adds the mask to the scores."""
    model = tiny_model(attention="eager")
    target = Target(model)
    target.additive_mask = False
    target.start([PROMPTS[0]], capacity=32)
    drafted = tree([1, 2, 3, 4], [-1, 0, 0, 1])
    wrong = (target.forward([drafted]).logits[0, 3] - alone(model, [*PROMPTS[0], 1, 2, 4])[0][-1]).abs().max()
    assert wrong > 0.1
