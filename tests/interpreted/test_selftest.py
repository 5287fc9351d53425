"""The self-test of a device, in the interpreter: it passes here, and finds a planted fault of every kernel."""

import ast
from pathlib import Path

import pytest
import torch
from test_planted import BUGS, FOLDER, is_found, run_with_bug

from specdec_ref.kernels.cases import OPS
from specdec_ref.kernels.selftest import checks, find_fault

# which operations run the code of a file
USERS = {
    "stats.py": ("tree", "chain"), "draw.py": ("tree",), "tree_sample.py": ("tree",), "chain.py": ("chain q",),
    "residual.py": ("chain q",), "gumbel.py": ("chain q race",), "links.py": ("links",), "greedy.py": ("greedy",),
    "floors.py": ("floors",), "attention.py": ("attention",), "gather.py": ("gather",),
}  # fmt: skip
FAR = {"32-bit offset", "32-bit offset in the cache"}  # shows with more than 2^31 logits in a batch: 4 GB of them


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sound_kernels_pass(dtype: torch.dtype) -> None:
    names: list[str] = []
    fault, done = find_fault(checks(dtype, "cpu", seeds=2), dtype, names.append)
    assert (fault, done) == ("", len(names))
    assert {name.partition(" (")[0] for name in names} == set(OPS)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug not in FAR])
def test_finds_planted_faults(bug: str, tmp_path: Path) -> None:
    users = USERS[BUGS[bug][0]]

    def selftest() -> None:
        fault, _ = find_fault(checks(torch.float32, "cpu", users), torch.float32)
        assert not fault

    assert is_found(run_with_bug(bug, selftest, tmp_path)), "the self-test does not notice this fault"


KERNELS = {
    "_build_links", "_greedy_walk", "_logit_floors", "_block_stats", "_tree_walk", "_draw_rest", "_chain_walk",
    "_residual_mass", "_draw_residual", "_race", "_tree_attention", "_combine", "_move_slots",
}  # fmt: skip


def place(bug: str) -> str:
    """The function that the fault is planted in."""
    file, old, *_ = BUGS[bug]
    source = (FOLDER / file).read_text()
    line = source[: source.index(old)].count("\n") + 1
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return next(f.name for f in functions if f.lineno <= line <= (f.end_lineno or 0))


def test_every_kernel_has_a_planted_fault() -> None:
    assert {BUGS[bug][0] for bug in BUGS if bug not in FAR} == set(USERS)
    assert {place(bug) for bug in BUGS if bug not in FAR} >= KERNELS
