"""Hypothesis strategies shared by the tests."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from specdec_ref.config import SamplingParams


def quick(examples: int) -> Callable[[Any], Any]:
    """The same examples every run, and no deadline: a shared machine may stall any of them."""
    return settings(max_examples=examples, derandomize=True, deadline=None)


@st.composite
def logit_rows(draw: st.DrawFn, rows: int = 3, gap: float = 0.0) -> Tensor:
    """rows x vocab, float64, vocab 2..12, in [-20, 20]; `gap`: least distance of any two logits in a row."""
    vocab = draw(st.integers(2, 12))
    cells = st.floats(-20.0, 20.0, width=32)
    values = torch.tensor([[draw(cells) for _ in range(vocab)] for _ in range(rows)], dtype=torch.float64)
    if gap:
        values = values.argsort(-1).argsort(-1) * max(gap, 0.01)
    return values.double()


def sampling_params(greedy: bool = True) -> st.SearchStrategy[SamplingParams]:
    """All four settings, each off in a part of the cases."""
    temperature = st.floats(0.2, 3.0)
    return st.builds(
        SamplingParams,
        temperature=st.one_of(st.just(0.0), temperature) if greedy else temperature,
        top_k=st.one_of(st.just(0), st.integers(1, 12)),
        top_p=st.one_of(st.just(1.0), st.floats(0.05, 1.0)),
        min_p=st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
    )


@st.composite
def tree_parents(draw: st.DrawFn, max_nodes: int = 8) -> list[int]:
    """parents of a random tree: node 0 the root, every parent before its child."""
    return [-1, *(draw(st.integers(0, node - 1)) for node in range(1, draw(st.integers(1, max_nodes))))]
