"""What `watching` records of a kernel's lanes, and what `inspected` reads from the compiler."""

import pytest
import torch
import triton
import triton.language as tl

from specdec_ref.kernels.inspected import inspected
from specdec_ref.kernels.watch import owners, sectors, watching


@triton.jit
def copy(x, out, n, stride, BLOCK: tl.constexpr):  # noqa: N803
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at * stride, mask=at < n), mask=at < n)


def test_every_access_is_recorded_with_its_lanes() -> None:
    x, out = torch.arange(10.0), torch.empty(10)
    with watching(x=x, out=out) as seen:
        copy[(3,)](x, out, 10, 1, BLOCK=4)
    assert torch.equal(out, x)
    assert [(a.program[0], a.kind, a.name) for a in seen] == [
        (program, kind, name) for program in range(3) for kind, name in (("load", "x"), ("store", "out"))
    ]
    assert seen[4].offsets.tolist() == [8, 9, 10, 11]
    assert seen[4].active.tolist() == [True, True, False, False]
    loads = [access for access in seen if access.kind == "load"]
    assert owners(loads, (2, 5)).tolist() == [[0, 0, 0, 0, 1], [1, 1, 1, 2, 2]]
    with watching(x=x) as later:
        pass
    copy[(3,)](x, out, 10, 1, BLOCK=4)
    assert later == []


@pytest.mark.parametrize(("stride", "wanted"), [(1, 4), (2, 8), (4, 16), (8, 32), (32, 32)])
def test_sectors_of_a_warp(stride: int, wanted: int) -> None:
    """32 numbers of 4 bytes; a sector has 32 bytes. Masked lanes fetch nothing."""
    x, out = torch.zeros(2048), torch.empty(64)
    with watching(x=x) as seen:
        copy[(1,)](x, out, 64, stride, BLOCK=64)
        copy[(1,)](x, out, 8, stride, BLOCK=32)
    assert sectors(seen[0]) == 2 * wanted
    assert sectors(seen[1]) == max(1, wanted // 4)


def test_the_compiler_is_asked_without_the_interpreter() -> None:
    kinds = {"x": "*fp32", "out": "*fp32", "n": "i32", "stride": "i32"}
    variants = [{"BLOCK": 1024, "stride": 1, "num_warps": warps} for warps in (1, 4)]
    one, four, strided = inspected(copy, kinds, [*variants, {"BLOCK": 1024}])
    assert (one.warps, one.per_thread, one.loads) == (1, 4, {"ld.global.v4.b32": 8})
    assert (four.warps, four.per_thread, four.loads) == (4, 4, {"ld.global.v4.b32": 2})
    assert strided.loads == {"ld.global.b32": 8}
    assert one.registers > four.registers > 0 == one.spills
    with pytest.raises(RuntimeError, match=r"(?i)nonsense|error"):
        inspected(copy, {**kinds, "x": "nonsense"}, [{"BLOCK": 16}])
