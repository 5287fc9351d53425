"""Bytes counted in the interpreter against closed forms, for the sizes of the embedded model."""

import pytest
import torch

from specdec_ref.kernels import ops
from specdec_ref.kernels.cases import make_case
from specdec_ref.kernels.tables import REAL, byte_table
from specdec_ref.kernels.traffic import counting

# What each may read and write at most, as a multiple of the least. Below 1: the draw after a refusal without q reads two
# blocks where the closed form grants a row. Links climb the tree one level a step; floors make 1 + 4 + 4 passes.
LIMITS = {
    "links": 1.6, "greedy": 1.0, "floors": 9.1, "tree": 1.1, "chain": 1.1, "chain q": 1.1, "chain q race": 1.1,
    "attention": 1.1, "gather": 1.1,
}  # fmt: skip


def test_traffic_stays_near_the_least() -> None:
    table = {row["op"]: row for row in byte_table()}
    assert set(table) == set(LIMITS)
    assert {op: row["ratio"] for op, row in table.items() if row["ratio"] > LIMITS[op]} == {}
    vocabulary = REAL.vocab * 2
    assert all(row["written"] < vocabulary / 8 for op, row in table.items() if op not in ("attention", "gather"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("op", ["chain", "chain q"])
def test_chain_rejection_reads_little(op: str, seed: int) -> None:
    """Over refusals and bonuses alike: at most 1.1 times one read of each tested row and of one row more."""
    case = make_case(op, REAL, torch.bfloat16, seed=seed)
    with counting() as traffic:
        case.run(ops("triton"))
    assert 0.5 < (traffic.read + traffic.written) / case.least_bytes <= 1.1


def test_the_count_counts() -> None:
    """A gather of whole slots: every byte is known."""
    case = make_case("gather", REAL, torch.float16)
    with counting() as traffic:
        case.run(ops("triton"))
    assert traffic.written > 0
    assert traffic.written % (REAL.heads * REAL.head_dim * 2) == 0
    assert traffic.read - traffic.written < 200  # lengths, paths, addresses
