"""SlotCache: whatever was speculated, kept, rolled back or selected, a row holds exactly its committed tokens.

First against a list of lists, by random operations; then on a real model: the cache after rounds of the engine equals
one computed from scratch on the committed text.
"""

from collections.abc import Sequence

import pytest
import torch
from drafting import chain, oracle_trees, random_shapes
from helpers import VOCAB, perturbed, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick
from torch import Tensor

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter
from specdec_ref.drafters import NgramDrafter
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.kv_cache import SlotCache
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

HEADS, HEAD_DIM = 2, 3
PROMPTS = [[3, 5, 7, 3, 5, 7, 3, 5], [42], [11, 2, 9, 14, 8, 1, 30, 2, 9], [7] * 6]
NEW = 20


def write(cache: SlotCache, values: Tensor) -> tuple[Tensor, Tensor]:
    """A forward as attention sees it: `values` (batch x nodes) become keys, their negatives values, in every layer."""
    cache.prepare(values.shape[1])
    states = values[:, None, :, None].expand(-1, HEADS, -1, HEAD_DIM).double()
    return [cache.update(states, -states, layer) for layer in range(len(cache.layers))][-1]


def contents(cache: SlotCache) -> list[list[float]]:
    """What each row holds, after checking that layers and heads agree."""
    rows = []
    for row, length in enumerate(cache.lengths):
        held = [x for layer in cache.layers for x in (layer.keys[row, :, :length], -layer.values[row, :, :length])]
        assert all(torch.equal(x, held[0][:1, :, :1].expand_as(x)) for x in held)
        rows.append(held[0][0, :, 0].tolist())
    return rows


@quick(150)
@given(st.data(), st.integers(1, 4), st.integers(0, 12))
def test_random_operations_equal_a_list_of_lists(data: st.DataObject, batch: int, capacity: int) -> None:
    """Chains, trees, ragged rows, growth past `capacity`, rollback, rows leaving and changing places."""
    cache, rows, fresh = SlotCache(2, batch, capacity), [[] for _ in range(batch)], iter(range(1, 10_000))
    for _ in range(data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(["forward", "forward", "abandoned", "truncate", "select"]))
        if kind in ("forward", "abandoned"):
            nodes = data.draw(st.integers(1, 5))
            new = torch.tensor([[next(fresh) for _ in range(nodes)] for _ in rows])
            seen, _ = write(cache, new)
            for row, held in enumerate(rows):  # attention is shown the committed tokens, then the new nodes
                shown = seen[row, 0, : len(held) + nodes, 0].tolist()
                assert shown == held + new[row].tolist()
            if kind == "forward":
                order = st.lists(st.integers(0, nodes - 1), unique=True, max_size=nodes).map(sorted)
                kept = [data.draw(order) for _ in rows]
                cache.commit(kept)
                for row, path in enumerate(kept):
                    rows[row] = rows[row] + new[row, path].tolist()
        elif kind == "truncate":
            lengths = [data.draw(st.integers(0, len(held))) for held in rows]
            cache.truncate(lengths)
            rows = [held[:length] for held, length in zip(rows, lengths, strict=True)]
        elif cache.layers[0].keys is not None:
            picked = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True, min_size=1))
            cache.select(picked)
            rows = [rows[row] for row in picked]
        assert cache.lengths == [len(held) for held in rows]
        if cache.layers[0].keys is not None:
            assert contents(cache) == rows


def test_growth_keeps_what_is_there_and_doubles() -> None:
    cache = SlotCache(1, 1, 3)
    for step in range(20):
        write(cache, torch.tensor([[step]]))
        cache.commit([[0]])
    assert contents(cache) == [[float(step) for step in range(20)]]
    assert cache.layers[0].get_max_length() == 24  # 3, 6, 12, 24: amortised O(1) a token


def test_truncate_refuses_to_invent_tokens() -> None:
    cache = SlotCache(1, 2, 8)
    write(cache, torch.tensor([[1, 2], [3, 4]]))
    cache.commit([[0, 1], [0]])
    with pytest.raises(ValueError, match="cannot roll back from"):
        cache.truncate([2, 2])
    with pytest.raises(ValueError, match="cannot roll back from"):
        cache.truncate([-1, 0])
    assert cache.lengths == [2, 1]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_abandoned_forward_leaves_nothing_even_if_it_was_nan(attention: str) -> None:
    """Ragged, and the failed forward wider than the next one: its NaN would lie in slots that the next one masks."""
    target = Target(tiny_model(attention=attention))
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10]]
    target.start(prompts, capacity=32)
    narrow, wide = [chain([7]), chain([8])], [chain([7, 1, 2, 3, 4]), chain([8, 1, 2, 3, 4])]
    expected = target.forward(narrow).logits
    target.commit([(), ()])
    weight = target.model.model.layers[0].self_attn.k_proj.weight
    good = weight.clone()
    weight.fill_(float("nan"))
    assert target.forward(wide).logits.isnan().any()
    weight.copy_(good)
    assert torch.equal(target.forward(narrow).logits, expected)


def recomputed(target: Target, texts: Sequence[Sequence[int]]) -> SlotCache:
    """The cache of these texts, each run alone from scratch; `target` is left as it was."""
    held, batch = target.cache, target.batch
    try:
        target.start(texts, capacity=max(map(len, texts)))
        return target.cache
    finally:
        target.cache, target.batch = held, batch


def cache_error(target: Target, texts: Sequence[Sequence[int]]) -> float:
    """Largest |cached - recomputed| over keys and values of all layers; the lengths must agree."""
    assert target.lengths == [len(text) for text in texts]
    worst = 0.0
    for row, text in enumerate(texts):
        alone = recomputed(target, [text])
        for ours, fresh in zip(target.cache.layers, alone.layers, strict=True):
            for left, right in ((ours.keys, fresh.keys), (ours.values, fresh.values)):
                worst = max(worst, float((left[row, :, : len(text)] - right[0, :, : len(text)]).abs().max()))
    return worst


def make_drafter(name: str, target: Target) -> Drafter:
    if name == "ngram":
        return NgramDrafter()
    if name == "draft":
        return DraftModelDrafter(Target(perturbed(target.model, 0.1)), VOCAB)
    runs = plain_generate(target, PROMPTS, limits=Limits(max_new_tokens=NEW))
    answers = [prompt + run.tokens for prompt, run in zip(PROMPTS, runs, strict=True)]
    return oracle_trees(answers, VOCAB, random_shapes(3), seed=3)


# float64 keys of size ~10: sums of ~100 products differ by about 1e-14 with the order of summation. eager upcasts its
# softmax to float32 only, so that one layer on the inputs differ by 1e-7 and the keys by about 1e-6.
TOLERANCE = {"sdpa": 1e-12, "eager": 1e-4}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["ngram", "draft", "trees"])
def test_cache_after_every_round_equals_one_computed_from_scratch(name: str, attention: str) -> None:
    """Ragged batch of four; budgets differ by EOS, so rows leave; both caches are checked after every round."""
    target = Target(tiny_model(attention=attention, seed=1))
    drafter = make_drafter(name, target)
    engine = SpecEngine(
        target,
        drafter,
        budget=DraftBudget(4, nodes=8 if name == "trees" else 0),
        limits=Limits(max_new_tokens=NEW, eos=frozenset({5, 17})),
    )
    requests = engine.start(PROMPTS)
    capacity = target.cache.layers[0].get_max_length()
    worst, rounds = 0.0, 0
    while engine.requests:
        engine.step()
        rounds += 1
        if engine.requests:
            worst = max(worst, cache_error(target, [r.tokens[:-1] for r in engine.requests]))
            if isinstance(drafter, DraftModelDrafter):
                texts = [r.tokens[:n] for r, n in zip(engine.requests, drafter.lm.lengths, strict=True)]
                worst = max(worst, cache_error(drafter.lm, texts))
    assert worst <= TOLERANCE[attention]
    assert sum(record.accepted for request in requests for record in request.records) > 5  # rollback and acceptance
    assert len({len(request.new_tokens) for request in requests}) > 1  # rows did leave at different times
    assert target.cache.layers[0].get_max_length() == capacity  # preallocated: no growth in a decoding step


def test_sampled_rounds_too() -> None:
    target = Target(tiny_model(seed=2))
    engine = SpecEngine(
        target,
        DraftModelDrafter(Target(perturbed(target.model, 0.2)), VOCAB),
        sampling=SamplingParams(1.0, top_k=4),
        limits=Limits(max_new_tokens=24),
    )
    engine.start([[1, 2, 3], [4, 5, 6, 7, 8]], seeds=[5, 6])
    for _ in range(6):
        engine.step()
        assert cache_error(target, [r.tokens[:-1] for r in engine.requests]) <= TOLERANCE["sdpa"]
