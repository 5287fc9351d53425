"""On a GPU: compiled kernels against their twins, and the engine that uses them by default."""

import pytest
import torch
from helpers import tiny_model

from specdec_ref.config import SamplingParams
from specdec_ref.drafters import NgramDrafter
from specdec_ref.drafters.eagle import EagleDrafter
from specdec_ref.drafters.eagle_head import new_head
from specdec_ref.engine import SpecEngine
from specdec_ref.kernels import ops, resolve_backend
from specdec_ref.kernels.cases import OPS, make_case
from specdec_ref.kernels.tables import DTYPES, REAL, SHAPES, TOLERANCE, WIDE, difference
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

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


@pytest.mark.parametrize("method", ["ngram", "eagle"])
def test_one_wait_a_round(gpu: torch.device, method: str) -> None:
    """torch's own detector: the verdict is read, an EAGLE chain with it, and nothing else may synchronise."""
    model = tiny_model(dtype=torch.float32).to(gpu)
    target = Target(model)
    drafter = NgramDrafter() if method == "ngram" else EagleDrafter(new_head(model, 1).to(gpu), [3])
    engine = SpecEngine(target, drafter, limits=Limits(40))
    engine.start([[1, 2, 3, 1, 2, 3, 1, 2]])
    engine.step()  # compiles
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz") as seen:
            engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(seen) == 1, [str(warning.message) for warning in seen]
