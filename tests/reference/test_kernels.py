"""The kernels: their twins against the readable verifiers here, the rest in processes of its own.

Interpreter or compiler is decided when a kernel is decorated, so neither can share this process: `interpreted/` holds what
runs in Triton's interpreter, and compilation is asked of `python -m specdec_ref.kernels`.
"""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick, tree_parents

from specdec_ref.config import SamplingParams
from specdec_ref.core import DraftTree, Verifier
from specdec_ref.kernels import resolve_backend
from specdec_ref.kernels.contract import pack_bits, unpack_bits
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.verifiers import (
    AutoVerifier,
    GreedyVerifier,
    MultiRoundVerifier,
    RejectionVerifier,
    TargetOnlyVerifier,
    verify_batch,
)
from specdec_ref.verifiers.fused import fused_verify, reason_unfused

ROOT = Path(__file__).parents[2]
SAMPLED = SamplingParams(1.0)

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: Linux only")


def trees_of(data: st.DataObject, vocab: int, chain: bool) -> list[DraftTree]:
    """Up to three rows; chains are drawn from a q at times, trees are made without chance and repeat siblings."""
    trees = []
    for row in range(data.draw(st.integers(1, 3))):
        parents = data.draw(tree_parents(6))
        parents = list(range(-1, len(parents) - 1)) if chain else parents
        tokens = torch.tensor([data.draw(st.integers(0, min(vocab, 3) - 1)) for _ in parents])
        if chain and data.draw(st.booleans()):
            half = torch.arange(0, vocab, 2)
            noise = torch.randn(len(parents), len(half), generator=torch.Generator().manual_seed(row))
            trees.append(DraftTree(tokens // 2 * 2, torch.tensor(parents), "iid", noise.softmax(-1), half))
        else:
            trees.append(DraftTree(tokens, torch.tensor(parents)))
    return trees


@quick(150)
@given(st.data(), st.sampled_from(["greedy", "chain", "tree"]), st.integers(3, 9), st.integers(0, 10**6))
def test_twins_emit_the_tokens_of_the_readable_verifiers(data: st.DataObject, kind: str, vocab: int, seed: int) -> None:
    """Same coins, same tokens, cuts included. Random logits keep coins off the break points."""
    sampling = (
        SamplingParams()
        if kind == "greedy"
        else data.draw(
            st.sampled_from([SAMPLED, SamplingParams(0.7, top_k=3), SamplingParams(1.3, top_p=0.8, min_p=0.05)])
        )
    )
    verifiers: dict[str, list[Verifier]] = {
        "greedy": [GreedyVerifier(), AutoVerifier(), TargetOnlyVerifier()],
        "chain": [RejectionVerifier(), AutoVerifier()],
        "tree": [TargetOnlyVerifier(), AutoVerifier()],
    }
    verifier = data.draw(st.sampled_from(verifiers[kind]))
    trees = trees_of(data, vocab, chain=kind == "chain")
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(len(trees), max(map(len, trees)), vocab, generator=generator)

    def coins() -> list[KeyedRandomness]:
        return [KeyedRandomness(seed, row, "verify") for row in range(len(trees))]

    if reason_unfused(verifier, trees, logits, sampling, coins()):
        assert isinstance(verifier, AutoVerifier), "only a mix of drawn trees has no kernel here"
        return
    readable = verify_batch(verifier, trees, logits, sampling, coins(), backend="torch")
    fused = fused_verify(verifier, trees, logits, sampling, coins(), "torch")
    plain = [(result.path, result.next_token) for result in readable]
    assert [(result.path, result.next_token) for result in fused] == plain


def test_what_has_no_kernel_says_why() -> None:
    drawn = DraftTree(torch.tensor([0, 1, 1]), torch.tensor([-1, 0, 0]), "iid", torch.full((3, 3), 1 / 3))
    coins, logits = [KeyedRandomness(0, 0, "verify")], torch.zeros(1, 3, 3)
    assert "none for MultiRoundVerifier" in str(reason_unfused(MultiRoundVerifier(), [drawn], logits, SAMPLED, coins))
    assert "none for AutoVerifier" in str(reason_unfused(AutoVerifier(), [drawn], logits, SAMPLED, coins))
    assert "float64" in str(reason_unfused(TargetOnlyVerifier(), [drawn], logits.double(), SAMPLED, coins))
    assert reason_unfused(TargetOnlyVerifier(), [drawn], logits, SAMPLED, coins) is None

    class Mine(TargetOnlyVerifier):
        """A learner's own: it may do anything, so no kernel stands in for it."""

    assert reason_unfused(Mine(), [drawn], logits, SAMPLED, coins) is not None


def test_backends() -> None:
    assert resolve_backend("auto", "cpu") == "torch"
    assert resolve_backend("torch", "cuda") == "torch"
    if not torch.cuda.is_available():
        assert resolve_backend("auto", "cuda") == "torch", "no device, so no self-test has passed"
    with pytest.raises(ValueError, match="unknown backend 'gpu'"):
        resolve_backend("gpu", "cpu")
    with pytest.raises(ValueError, match=r"TRITON_INTERPRET|needs the extra"):
        resolve_backend("triton", "cpu")


@quick(30)
@given(st.integers(1, 130), st.integers(0, 10**6))
def test_bits_hold_a_mask(nodes: int, seed: int) -> None:
    mask = torch.rand(2, nodes, nodes, generator=torch.Generator().manual_seed(seed)) < 0.5
    bits = pack_bits(mask)
    assert bits.shape == (2, nodes, -(-nodes // 64))
    assert torch.equal(unpack_bits(bits), mask)


def process(*command: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@needs_triton
def test_in_the_interpreter() -> None:
    """All of tests/interpreted: equality, hard cases, distributions, bytes, the engine, planted bugs."""
    run = process("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/interpreted", interpret=True)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert "skipped" not in run.stdout.splitlines()[-1]


@pytest.mark.slow
@needs_triton
def test_compiles_for_every_target() -> None:
    """From the launches the operations make: what the table in docs/GPU.md holds, within each target's shared memory."""
    run = process("-m", "specdec_ref.kernels", "--json", "--part", "compiled", "--dtype", "bfloat16", interpret=False)
    assert run.returncode == 0, run.stderr[-4000:]
    table = json.loads(run.stdout)["compiled"]
    targets = {"sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942", "gfx1100"}  # sm_75 has no bfloat16
    built = {row["target"]: {r["kernel"] for r in table if r["target"] == row["target"]} for row in table}
    kernels = {
        "build_links", "greedy_walk", "logit_floors", "block_stats", "tree_walk", "draw_rest", "chain_walk",
        "residual_mass", "draw_residual", "race", "tree_attention", "combine", "move_slots",
    }  # fmt: skip
    assert built == dict.fromkeys(targets, kernels)
    spilling = {
        (row["kernel"], row["target"]) for row in table if row["spills"] != 0
    }  # None: the tools do not report it
    assert spilling <= {("draw_rest", "sm_120")}, "16 bytes, in the variant with floors"
    assert all(row["spills"] <= 16 for row in table)
    assert all(0 < row["registers"] <= 256 for row in table)
    assert all(row["fits"] for row in table)
    text = (ROOT / "docs" / "GPU.md").read_text(encoding="utf-8")
    if f"from triton {metadata.version('triton')}." in text:
        assert_documented(table, text)


def assert_documented(table: list[dict[str, Any]], text: str) -> None:
    """The document's figures are the largest over all number formats, so one format has no larger ones."""
    head, *lines = (line for line in text.splitlines() if line.startswith(("| kernel | sm_75", "| `")))
    targets = [cell.strip() for cell in head.split("|")[2:-1]]
    cells = {line.split("`")[1]: line.split("|")[2:-1] for line in lines if line.count("|") == len(targets) + 2}
    for row in table:
        registers, shared = re.findall(r"\d+", cells[row["kernel"]][targets.index(row["target"])])[:2]
        assert row["registers"] <= int(registers), row
        assert row["shared_bytes"] <= 1024 * int(shared), row
