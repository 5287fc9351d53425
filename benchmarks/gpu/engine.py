"""Step 3: the engine. Greedy identity with kernels on and off; tokens per second of every method; waits per round."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.journal import Facts
from benchmarks.gpu.kernels import DTYPES, native_dtype
from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget
from specdec_ref.core import Drafter
from specdec_ref.drafters import build_drafter, forget
from specdec_ref.drafters.eagle import EagleDrafter
from specdec_ref.drafters.eagle_head import new_head
from specdec_ref.engine import SpecEngine
from specdec_ref.identity import check_identity
from specdec_ref.models.hub import load
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.request import Limits
from specdec_ref.workloads import HELD_OUT, chat_ids, load_prompts

__all__ = ["Models", "Toy", "units"]

BATCHES = (1, 8, 64)
METHODS = ("plain", "ngram", "trie", "layer-skip", "draft", "eagle")
TREES = ("eagle-tree", "hybrid")  # with more than one child per node
NEW = {"cuda": 128, "cpu": 4}  # new tokens per prompt


class Models:
    """The target of this step, its prompts and its drafters; weights are loaded once per process and number format."""

    def __init__(self, name: str, device: str, head: str | None) -> None:
        self.name, self.device, self.head = name, device, head
        self._loaded: dict[torch.dtype, tuple[Any, Any]] = {}

    def load(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """(model, tokenizer)."""
        if dtype not in self._loaded:
            self._loaded[dtype] = load(self.name, dtype=DTYPES[dtype], device=self.device)
        return self._loaded[dtype]

    def target(self, dtype: torch.dtype, backend: str) -> Target:
        """A target on the shared weights. "triton" runs the kernels whatever the self-test found."""
        return Target(self.load(dtype)[0], backend=backend)

    def prompts(self, dtype: torch.dtype, count: int) -> list[list[int]]:
        """Held-out prompts of all tasks in turn, the test split first."""
        tokenizer = self.load(dtype)[1]
        texts = [*load_prompts(split="test", file=HELD_OUT), *load_prompts(split="dev", file=HELD_OUT)]
        mixed = [text for i in range(16) for text in texts[i::16]]
        return [chat_ids(tokenizer, prompt.prompt) for prompt in mixed[:count]]

    def drafter(self, method: str, target: Target) -> Drafter:
        """The drafter of a method."""
        return build_drafter(method.removesuffix("-tree"), target, self.head if "eagle" in method else None)


class Toy(Models):
    """A random model of one layer with an untrained head: enough to walk the way in the interpreter."""

    def load(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """Random weights from a fixed seed, and no tokenizer."""
        self._loaded.setdefault(dtype, (tiny_llama(dtype=dtype, layers=1), None))
        return self._loaded[dtype]

    def prompts(self, dtype: torch.dtype, count: int) -> list[list[int]]:
        """Short ones that repeat."""
        return [[3, 5, 7, 3, 5], [8], [2, 2, 2]][:count]

    def drafter(self, method: str, target: Target) -> Drafter:
        """EAGLE-1 reads one layer, and this model has no more."""
        return EagleDrafter(new_head(target.model, 1), [1]) if method == "eagle" else super().drafter(method, target)


def units(models: Models) -> dict[str, Callable[[], Facts]]:
    """Identity in float32 and in half precision, then every method at every batch size."""
    device = models.device
    half, batches = native_dtype(device), BATCHES if device == "cuda" else (1, 2)
    methods = (*METHODS, *TREES) if device == "cuda" else ("plain", "ngram", "eagle")
    same = {
        f"identity.{method}.{DTYPES[dtype]}": partial(identity, models, dtype, method)
        for dtype in dict.fromkeys((torch.float32, half))
        for method in ("ngram", "eagle")
    }
    backends = ("triton", "torch") if device == "cuda" else ("torch",)
    fast = {
        f"speed.{method}.{batch}.{backend}": partial(speed, models, half, method, batch, backend)
        for batch in batches
        for method in methods
        for backend in backends
    }
    return {**same, **fast}


def make_engine(models: Models, target: Target, method: str, backend: str, new: int) -> SpecEngine:
    """Chains of four; the methods with trees may use sixteen nodes."""
    budget = DraftBudget(depth=4, topk=4, nodes=16) if method in TREES else DraftBudget(depth=4)
    return SpecEngine(target, models.drafter(method, target), budget=budget, limits=Limits(new), backend=backend)


def identity(models: Models, dtype: torch.dtype, method: str) -> Facts:
    """Greedy text of eight prompts in a batch with the kernels off and on, by the rule of `identity.py`."""
    prompts = models.prompts(dtype, 8 if models.device == "cuda" else 1)
    texts = []
    for backend in ("torch", "triton"):
        target = models.target(dtype, backend)
        engine = make_engine(models, target, method, backend, NEW[models.device])
        texts.append([generation.tokens for generation in engine.generate(prompts)])
    rule = check_identity(target, prompts, *texts)
    return {"identical": str(rule), "ok": rule.ok}


def speed(models: Models, dtype: torch.dtype, method: str, batch: int, backend: str) -> Facts:
    """Median of three runs after a first one, which compiles and is not timed."""
    prompts, target, limits = models.prompts(dtype, batch), models.target(dtype, backend), Limits(NEW[models.device])
    engine = None if method == "plain" else make_engine(models, target, method, backend, NEW[models.device])
    runs: list[tuple[float, int, float]] = []
    for _ in range(4 if models.device == "cuda" else 2):
        if engine is not None:
            forget(engine.drafter)
        started = time.perf_counter()
        done = engine.generate(prompts) if engine else plain_generate(target, prompts, limits=limits)
        spent = time.perf_counter() - started
        runs.append((spent, sum(len(g.tokens) for g in done), statistics.fmean(g.stats.tau for g in done)))
    seconds = statistics.median(run[0] for run in runs[1:])
    return {
        "method": method, "batch": batch, "backend": backend, "dtype": DTYPES[dtype], "tokens": runs[-1][1],
        "tokens_per_second": runs[-1][1] / seconds, "tau": runs[-1][2],
        "waits_per_round": None if engine is None else waits(engine, prompts),
    }  # fmt: skip


def waits(engine: SpecEngine, prompts: Sequence[Sequence[int]], rounds: int = 4) -> float | None:
    """How often a round waits for the device, by torch's own detector; None on a CPU."""
    if engine.target.device.type != "cuda":
        return None
    engine.start(prompts)
    engine.step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(rounds):
                engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        engine.close()
    return sum("synchroniz" in str(warning.message) for warning in seen) / rounds
