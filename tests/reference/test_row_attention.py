"""Every node of a tree gets, bit for bit, the logits of decoding its path token by token, whatever stands beside it."""

from random import Random
from typing import TYPE_CHECKING

import pytest
import torch
from drafting import chain
from helpers import VOCAB, tiny_model

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.core import DraftTree
from specdec_ref.models import packing, row_attention
from specdec_ref.models.probe import exact_rows
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.workloads import HELD_OUT, load_prompts

if TYPE_CHECKING:
    from specdec_ref.session import Session

BLOCK, MOST = row_attention.BLOCK, 500
SHAPES: dict[str, dict[str, object]] = {  # of products as the embedded model has them, two layers
    "three heads share a key": {"num_attention_heads": 9, "num_key_value_heads": 3},
    "own keys": {"num_attention_heads": 9, "num_key_value_heads": 9},
}
LENGTHS = (1, 7, 60, BLOCK - 9, BLOCK - 3, BLOCK - 1, BLOCK, 190, 250, 2 * BLOCK - 4, 2 * BLOCK - 1, 383, 384)
DTYPES = [torch.float32, torch.bfloat16]  # float64 is not packed; rounding decides nothing there


def target_of(shape: str, dtype: torch.dtype) -> Target:
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "head_dim": 64, "num_hidden_layers": 2}
    model = tiny_model(dtype=dtype, positions=512, spread=0.05, **sizes, **SHAPES[shape])
    return Target(model, check=False)


def random_tree(rng: Random) -> DraftTree:
    parents = [-1] + [
        rng.randrange(max(0, i - rng.choice([1, 3, 9])), i) for i in range(1, rng.choice([2, 4, 5, 8, 13, 64]))
    ]
    return DraftTree(torch.tensor([rng.randrange(VOCAB) for _ in parents]), torch.tensor(parents))


def path_to(tree: DraftTree, node: int) -> list[int]:
    return [*(path_to(tree, tree.parent_list[node]) if tree.parent_list[node] >= 0 else []), node]


def mismatches(target: Target, seed: int, trials: int) -> list[str]:
    """Random batches of trees behind texts of `LENGTHS`; a node of each against its path, token by token."""
    rng, found = Random(seed), []
    for _ in range(trials):
        count = rng.choice([1, 1, 2, 4])
        same = rng.choice(LENGTHS)
        texts = [
            [rng.randrange(VOCAB) for _ in range(rng.choice([same, same, rng.choice(LENGTHS)]))] for _ in range(count)
        ]
        trees = [random_tree(rng) for _ in texts]
        paths = [path_to(tree, rng.randrange(len(tree))) for tree in trees]
        target.start(texts, MOST)
        checked = target.forward(trees).logits
        target.start(texts, MOST)
        for step in range(max(map(len, paths))):
            nodes = [path[min(step, len(path) - 1)] for path in paths]
            alone = target.forward([chain([int(t.tokens[n])]) for t, n in zip(trees, nodes, strict=True)]).logits[:, 0]
            target.commit([(0,)] * count)
            for row, path in enumerate(paths):
                if step == len(path) - 1 and not torch.equal(alone[row], checked[row, path[-1]]):
                    found.append(f"{[len(text) for text in texts]}, row {row}, {trees[row].parent_list}, path {path}")
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_node_is_what_it_would_be_alone(shape: str, dtype: torch.dtype) -> None:
    target = target_of(shape, dtype)
    assert target.fast is not None
    assert mismatches(target, seed=0, trials=30) == []
    assert exact_rows(target)


@pytest.mark.parametrize(
    ("name", "value"), [("BLOCK", 10_000), ("FEWEST", 1)], ids=["one block for all keys", "products of few rows"]
)
def test_what_it_takes(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, nodes differ: in float32, whose sums are not rounded away."""
    monkeypatch.setattr(row_attention, name, value)
    assert mismatches(target_of("three heads share a key", torch.float32), seed=0, trials=15) != []


def test_blocks_by_slot_are_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that stands in another block than its position says: its keys' order would differ."""
    real = row_attention._blocks
    monkeypatch.setattr(
        row_attention, "_blocks",
        lambda positions, lengths, slots, dtype: real(
            torch.tensor(lengths)[:, None] + torch.arange(positions.shape[1]), lengths, slots, dtype),
    )  # fmt: skip
    assert mismatches(target_of("three heads share a key", torch.float32), seed=0, trials=40) != []


def test_without_the_fast_forward_rounding_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of("three heads share a key", torch.float32)
    target.fast = None
    assert not exact_rows(target)


def test_another_forward_takes_over_in_the_middle() -> None:
    """A hook makes the model's own modules run: they read the same cache, whatever it was written in."""
    target = target_of("own keys", torch.bfloat16)
    target.start([[3, 5, 7]], 20)
    fast = target.forward([chain([11, 13])]).logits
    handle = target.model.lm_head.register_forward_hook(lambda *_: None)
    slow = target.forward([chain([11, 13])]).logits
    handle.remove()
    torch.testing.assert_close(fast, slow, rtol=0.05, atol=0.3)
    assert torch.equal(target.forward([chain([11, 13])]).logits, fast)


@pytest.mark.slow
def test_the_real_model_s_greedy_texts(embedded: "Session") -> None:
    """No near-tie excuses anything: trees and chains, token for token plain decoding's, from the first token on.

    In the number format that is the default: bfloat16 where the processor multiplies it natively.
    """
    from specdec_ref.session import Session

    session = Session.open()
    limits = Limits(40, eos=session.eos)
    engines = {
        "eagle tree": session.engine("eagle", budget=DraftBudget(4, 3, 12), limits=limits),
        "hybrid": session.engine("hybrid", budget=DraftBudget(4), limits=limits),
        "trie tree": session.engine("trie", budget=DraftBudget(4, 3, 12), limits=limits),
    }
    for held_out in load_prompts(split="dev", file=HELD_OUT)[::12]:
        prompt = session.encode(held_out.prompt)
        plain = plain_generate(session.target, [prompt], limits=limits)[0].tokens
        texts = {name: engine.generate([prompt])[0].tokens for name, engine in engines.items()}
        assert texts == dict.fromkeys(engines, plain), held_out.prompt


def test_padded_products_stay_exact() -> None:
    """One or two rows by a large weight are padded (`packing.py`), and come out as among more."""
    if not packing.can_pack(torch.nn.Linear(8, 8)):
        pytest.skip("this torch packs no weights")
    product = packing.Product(torch.nn.Linear(1536, 576), pack=True)
    x = torch.randn(13, 1536, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert all(torch.equal(product(x[:k]), product(x)[:k]) for k in range(1, 13))
