"""Kernels are held to their tensors: what strays is named, and rows far apart are read without their memory."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from specdec_ref.kernels.bounds import Region, confined


@triton.jit
def row_sums(x, stride, out, vocab, shift, wide: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0)
    if wide:
        row = row.to(tl.int64)
    lane = tl.arange(0, block)
    v = tl.load(x + row * stride + lane + shift, mask=lane < vocab, other=0.0)
    tl.store(out + row, tl.sum(v, 0))


@triton.jit
def endless(x, out):
    value = tl.load(x)
    while value > 0:
        value = tl.load(x)


def sums(pitch: int | None, vocab: int = 5, shift: int = 0, wide: bool = True) -> tuple[torch.Tensor, int]:
    """(what the kernel stored, numbers it loaded of x): rows of five ones with somebody else's 99 between them."""
    buffer = torch.full((5, 9), 99.0)
    x, out = buffer[1:4, :5].fill_(1.0), torch.zeros(64)[32:35]
    with confined([Region("x", x, pitch), Region("out", out)]) as loaded:
        row_sums[(3,)](x, pitch or x.stride(0), out, vocab, shift, wide=wide, block=8)
    return out, loaded["x"]


@pytest.mark.parametrize("pitch", [None, 2**30, 2**33])
def test_kernels_that_stay_inside_are_not_disturbed(pitch: int | None) -> None:
    out, loaded = sums(pitch)
    assert out.tolist() == [5.0, 5.0, 5.0]
    assert loaded == 15


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"pitch": None, "vocab": 7}, r"program \(0, 0\) reads behind the end of a row of x, with 2 lanes"),
        ({"pitch": None, "shift": 1}, "behind the end of a row of x, with 1 lane"),
        ({"pitch": None, "shift": -1}, "before the beginning, where -1 points, of x"),
        ({"pitch": None, "shift": -2}, "before the beginning of x, with 2 lanes"),
        ({"pitch": 2**30, "wide": False}, r"program \(2, 0\) reads x at an offset that has wrapped around at 2\^31"),
    ],
)
def test_what_strays_is_named(changed: dict[str, int], told: str) -> None:
    with pytest.raises(InterpreterError, match=told):
        sums(**changed)  # type: ignore[arg-type]


def test_a_loop_without_an_end_is_ended() -> None:
    x = torch.ones(1)
    with pytest.raises(InterpreterError, match="does not come to an end"), confined([Region("x", x)], most=50):
        endless[(1,)](x, x)


def test_the_interpreter_is_as_before_afterwards() -> None:
    x = torch.ones(3, 5)
    out = torch.zeros(3)
    row_sums[(3,)](x, 5, out, 5, 0, wide=True, block=8)
    assert out.tolist() == [5.0, 5.0, 5.0]
