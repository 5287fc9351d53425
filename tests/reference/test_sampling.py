"""sampling.warp and residual: against transformers' own processors, the greedy limit, and rows that have no distribution."""

from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import logit_rows, quick, sampling_params
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from specdec_ref.config import SamplingParams
from specdec_ref.sampling import residual, warp


def transformers_distribution(logits: Tensor, sampling: SamplingParams) -> Tensor:
    """What `generate(do_sample=True)` would sample from: its warpers, in the order in which it applies them."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0.0:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers(torch.zeros(len(logits), 1, dtype=torch.long), logits).softmax(-1)


CASES = [
    SamplingParams(1.0),
    SamplingParams(0.3),
    SamplingParams(1.7, top_k=5),
    SamplingParams(0.8, top_p=0.9),
    SamplingParams(0.8, top_p=0.05),
    SamplingParams(1.3, min_p=0.1),
    SamplingParams(0.7, top_k=20, top_p=0.8, min_p=0.02),
    SamplingParams(1.0, top_k=1),
    SamplingParams(1.0, top_k=1000),
]


@pytest.mark.parametrize("sampling", CASES, ids=str)
def test_warp_is_the_distribution_transformers_samples_from(sampling: SamplingParams) -> None:
    logits = 3.0 * torch.randn(64, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = warp(logits, sampling), transformers_distribution(logits, sampling)
    assert torch.equal(ours > 0, theirs > 0)  # the same tokens survive
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)  # float64; only the order of divisions differs


@pytest.mark.parametrize("sampling", CASES, ids=str)
def test_warp_half_precision_is_widened_first(sampling: SamplingParams) -> None:
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(2)).bfloat16()
    p = warp(logits, sampling)
    assert p.dtype == torch.float32
    assert torch.equal(p, warp(logits.float(), sampling))


@quick(200)
@given(logit_rows(), sampling_params())
def test_warp_gives_distributions(logits: Tensor, sampling: SamplingParams) -> None:
    """Sums to one, non-negative, keeps the order of the logits, and always keeps the most likely token."""
    p = warp(logits, sampling)
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(-1), torch.ones(len(p), dtype=p.dtype), rtol=0, atol=1e-12)
    for row, dist in zip(logits, p, strict=True):
        assert dist[row.argmax()] > 0
        assert dist[row.argmax()] == dist.max()
        order = row.argsort(descending=True, stable=True)
        if not sampling.greedy:
            assert (dist[order].diff() <= 1e-12).all()


@quick(100)
@given(logit_rows(), st.integers(1, 12), st.floats(0.05, 1.0))
def test_what_each_cut_promises(logits: Tensor, top_k: int, top_p: float) -> None:
    full = warp(logits, SamplingParams(1.0))
    for row, dist in zip(full, warp(logits, SamplingParams(1.0, top_k=top_k)), strict=True):
        kept = dist > 0
        assert kept.sum() >= min(top_k, len(row)) or (row == 0).any()  # more only on ties, fewer only by underflow
        assert row[kept].min() >= row[~kept].max() if (~kept).any() else True
    for row, dist in zip(full, warp(logits, SamplingParams(1.0, top_p=top_p)), strict=True):
        kept = dist > 0
        assert row[kept].sum() >= top_p - 1e-12  # the nucleus holds its mass ...
        assert row[row > row[kept].min()].sum() < top_p + 1e-12  # ... and no token more than it needs,
        assert not (~kept).any() or row[~kept].max() < row[kept].min()  # but equals stay together


@quick(100)
@given(logit_rows(gap=1e-3), st.sampled_from([torch.float32, torch.float64]))
def test_greedy_is_the_limit_of_small_temperatures(logits: Tensor, dtype: torch.dtype) -> None:
    """With a top-2 gap of 1e-3 or more, T = 1e-5 leaves the runner-up exp(-100)."""
    logits = logits.to(dtype)
    greedy = warp(logits, SamplingParams(0.0))
    assert torch.equal(greedy.sum(-1), torch.ones(len(logits), dtype=dtype))
    assert torch.equal(greedy.argmax(-1), logits.argmax(-1))
    torch.testing.assert_close(warp(logits, SamplingParams(1e-5)), greedy, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1e-3, 1e-10, 1e-30, 1e-45, 1e-300])
def test_any_positive_temperature_gives_a_distribution(temperature: float) -> None:
    """Also where the temperature itself is zero in float32."""
    p = warp(torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, -1e30]]), SamplingParams(temperature))
    torch.testing.assert_close(p, torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]))


def test_ties_are_broken_as_argmax_breaks_them() -> None:
    assert warp(torch.tensor([2.0, 5.0, 5.0]), SamplingParams()).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(1.0, top_k=2)])
def test_nan_and_infinite_rows_are_refused(bad: float, sampling: SamplingParams) -> None:
    logits = torch.zeros(3, 4)
    logits[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        warp(logits, sampling)


def test_a_row_of_minus_infinity_has_no_distribution_but_single_ones_are_banned_tokens() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        warp(torch.full((1, 4), float("-inf")), SamplingParams(1.0))
    banned = torch.tensor([[0.0, float("-inf"), 0.0]])
    assert warp(banned, SamplingParams(1.0)).tolist() == [[0.5, 0.0, 0.5]]


@quick(100)
@given(logit_rows(rows=2), logit_rows(rows=2))
def test_residual_completes_p(first: Tensor, second: Tensor) -> None:
    """min(p, q) + max(p - q, 0) = p: the identity behind rejection sampling."""
    vocab = min(first.shape[-1], second.shape[-1])
    p, q = warp(first[0, :vocab], SamplingParams(1.0)), warp(second[0, :vocab], SamplingParams(1.0))
    rest = residual(p, q)
    assert (rest >= 0).all()
    if not torch.equal(p, q):
        torch.testing.assert_close(torch.minimum(p, q) + rest, p, rtol=0, atol=1e-15)


def test_residual_of_equal_distributions_is_p_not_zero() -> None:
    """Nothing is rejected there; if rounding says otherwise, there must still be something to draw from."""
    p = torch.tensor([0.25, 0.75])
    assert torch.equal(residual(p, p), p)


@pytest.mark.skipif(not find_spec("beartype"), reason="shapes are checked with beartype only, which is missing")
def test_a_wrong_axis_is_an_error_where_it_enters() -> None:
    """In all tests (`conftest.py`), whatever a function would have made of it: this one broadcasts."""
    with pytest.raises(TypeError, match="Type-check"):
        residual(torch.ones(2, 3), torch.ones(3))
