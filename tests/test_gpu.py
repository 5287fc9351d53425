"""On a GPU: compiled kernels against their twins, and the engine that uses them by default. Elsewhere: the dry run."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers import tiny_model

from specdec_ref.config import SamplingParams
from specdec_ref.drafters import NgramDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.kernels import ops, resolve_backend
from specdec_ref.kernels.cases import OPS, make_case
from specdec_ref.kernels.tables import DTYPES, REAL, SHAPES, TOLERANCE, WIDE, difference
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

ROOT = Path(__file__).parent.parent
PROMPTS = [[3, 5, 7, 3, 5, 7, 3, 5], [42], [11, 2, 9, 14, 8, 1, 30, 2, 9]]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_kernel_equals_its_twin(gpu: torch.device, op: str, dtype: str) -> None:
    limit = TOLERANCE[DTYPES[dtype]] if op == "attention" else 0.0
    for shape in (*SHAPES, WIDE, REAL):
        case = make_case(op, shape, DTYPES[dtype], str(gpu))
        assert difference(case.run(ops("torch")), case.run(ops("triton"))) <= limit, shape


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(1.0)], ids=["greedy", "sampled"])
def test_kernels_are_the_default_and_change_nothing(gpu: torch.device, sampling: SamplingParams) -> None:
    model = tiny_model(dtype=torch.float32).to(gpu)
    texts = []
    for backend in ("torch", "auto"):
        target = Target(model, backend=backend)
        engine = SpecEngine(target, NgramDrafter(), sampling=sampling, limits=Limits(20), backend=backend)
        texts.append([generation.tokens for generation in engine.generate(PROMPTS)])
        assert target.packed_mask == (backend == "auto")
    assert resolve_backend("auto", gpu) == "triton"
    assert texts[0] == texts[1]


def test_one_wait_a_round(gpu: torch.device) -> None:
    """torch's own detector: with the verdict's read taken out of the count, nothing else may synchronise."""
    target = Target(tiny_model(dtype=torch.float32).to(gpu))
    engine = SpecEngine(target, NgramDrafter(), limits=Limits(40))
    engine.start([[1, 2, 3, 1, 2, 3, 1, 2]])
    engine.step()  # compiles
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz") as seen:
            engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(seen) == 1, [str(warning.message) for warning in seen]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: Linux only")
def test_dry_run_of_the_report(tmp_path: Path) -> None:
    """The whole way of `make gpu` on a CPU; without a GPU and without --dry-run it refuses."""
    report = tmp_path / "report.md"
    command = [sys.executable, "-W", "ignore", "-m", "specdec_ref.bench.gpu", "--out", str(report)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    kind = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "check": False}
    run = subprocess.run([*command, "--dry-run"], **kind)
    assert run.returncode == 0, run.stderr[-4000:]
    text = report.read_text()
    assert text.startswith("# Dry run: no GPU was used")
    assert all(f"\n{op} " in text for op in OPS)
    assert '"ok": true' in text
    if not torch.cuda.is_available():
        run = subprocess.run(command, **kind)
        assert (run.returncode, "no CUDA device" in run.stderr) == (2, True)
