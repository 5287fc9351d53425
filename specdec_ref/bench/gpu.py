"""What only a GPU can show of the kernels, as one report: `make gpu`, or `python -m specdec_ref.bench.gpu`.

    timings    microseconds, GB/s of the fewest bytes possible, and their share of the bandwidth that a copy reaches
               here; beside them the torch twin and torch.compile of it
    identity   greedy text with the kernels on and off, by the rule of `identity.py`
    eagle      with --eagle FOLDER and --target MODEL: tokens a forward and a second, kernels on and off

`--dry-run` walks the same way on a CPU, in Triton's interpreter and on toy sizes: it shows that the command works, and
its times mean nothing. The report says which it was. Nothing here has run on a GPU yet.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from specdec_ref.config import DraftBudget
from specdec_ref.drafters import build_drafter
from specdec_ref.engine import SpecEngine
from specdec_ref.identity import check_identity
from specdec_ref.kernels import ops
from specdec_ref.kernels.cases import OPS, Case, Shape, make_case
from specdec_ref.kernels.tables import REAL, difference, render
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.request import Limits

__all__ = ["main"]

LLAMA = {"vocab": 128256, "heads": 8, "group": 4, "head_dim": 128}  # Llama 3.1 8B
SHAPES = {
    "SmolLM2, batch 1": REAL,
    "Llama, batch 1": Shape(batch=1, nodes=8, length=2000, **LLAMA),
    "Llama, tree of 60": Shape(batch=1, nodes=60, length=2000, **LLAMA),
    "Llama, batch 32": Shape(batch=32, nodes=5, length=2000, **LLAMA),
}
TOY = {"toy": Shape(batch=2, nodes=4, vocab=5000, length=20)}
PROMPTS = ("Name three colours.", "Write a limerick about a slow train.", "def fibonacci(n):")


def main() -> None:
    """Measure, and write the report as markdown with the JSON at its end."""
    parser = argparse.ArgumentParser(prog="python -m specdec_ref.bench.gpu", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, in the interpreter: times mean nothing")
    parser.add_argument("--eagle", metavar="FOLDER", help="a head, e.g. of EAGLE-3 for Llama-3.1-8B-Instruct")
    parser.add_argument("--target", metavar="MODEL", default=EMBEDDED, help="the model the head was trained for")
    parser.add_argument("--out", type=Path, default=Path("build/gpu_report.md"))
    chosen = parser.parse_args()
    if not chosen.dry_run and not torch.cuda.is_available():
        parser.error("no CUDA device: torch.cuda.is_available() is false. Without one: --dry-run")
    device = "cpu" if chosen.dry_run else "cuda"
    report: dict[str, Any] = {"machine": machine(device), "copy_GBps": copy_bandwidth(device)}
    report["timings"] = timings(device, report["copy_GBps"], TOY if chosen.dry_run else SHAPES)
    report["identity"] = identity(device)
    no_head = "no head was given: --eagle FOLDER"
    report["eagle"] = eagle(chosen.eagle, chosen.target, device) if chosen.eagle else no_head
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(written(report, chosen.dry_run), encoding="utf-8")
    sys.stdout.write(f"{'Dry run: no figure in it means anything. ' if chosen.dry_run else ''}Report: {chosen.out}\n")


def machine(device: str) -> dict[str, str]:
    """What the figures belong to."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, no GPU"
    versions = {package: metadata.version(package) for package in ("torch", "triton", "transformers", "specdec-ref")}
    return {"device": name, "cuda": str(torch.version.cuda), "hip": str(torch.version.hip), **versions}


def microseconds(run: Callable[[], object], device: str, repeats: int = 30) -> float:
    """Median time of one call. On a GPU by events, with the L2 cache overwritten before each."""
    run()
    if device != "cuda":
        started = time.perf_counter()
        run()
        return 1e6 * (time.perf_counter() - started)
    scratch = torch.empty(256 * 2**20, dtype=torch.int8, device=device)
    for _ in range(3):
        run()
    spans = []
    for _ in range(repeats):
        scratch.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        spans.append(1e3 * begin.elapsed_time(end))
    return float(statistics.median(spans))


def copy_bandwidth(device: str) -> float:
    """GB/s, read and written, of copying one large tensor."""
    source = torch.empty(2**30 if device == "cuda" else 2**22, dtype=torch.int8, device=device)
    goal = torch.empty_like(source)
    return 2e-3 * float(source.numel()) / microseconds(lambda: goal.copy_(source), device)


def timings(device: str, copy_gbps: float, shapes: dict[str, Shape]) -> list[dict[str, Any]]:
    """A row an operation and shape, in bfloat16. Kernel and twin are compared once more on the way."""
    rows = []
    for name, shape in shapes.items():
        for op in OPS:
            case = make_case(op, shape, torch.bfloat16, device)
            kernel, twin = (microseconds(partial(case.run, ops(side)), device) for side in ("triton", "torch"))
            gbps = 1e-3 * case.least_bytes / kernel
            rows.append(
                {"op": op, "shape": name, "kernel_us": kernel, "twin_us": twin,
                 "compiled_us": compiled(case, device), "GBps": gbps, "of_copy": gbps / copy_gbps,
                 "difference": difference(case.run(ops("torch")), case.run(ops("triton")))}
            )  # fmt: skip
    return rows


def compiled(case: Case, device: str) -> float | None:
    """The twin under torch.compile; None in a dry run, or where the compiler gives up on its loops over rows."""
    if device != "cuda":
        return None

    def run(side: ModuleType) -> list[Tensor]:
        return case.run(side)

    try:
        return microseconds(partial(torch.compile(run), ops("torch")), device, repeats=10)
    except torch._dynamo.exc.TorchDynamoException:
        return None


def decode(
    target: Target, prompts: Sequence[list[int]], backend: str, drafter: str, head: str | None
) -> dict[str, Any]:
    """Greedy text, tokens a forward and a second."""
    engine = SpecEngine(
        target, build_drafter(drafter, target, head), budget=DraftBudget(depth=4),
        backend=backend, limits=Limits(8 if target.device.type == "cpu" else 128),
    )  # fmt: skip
    engine.generate(prompts[:1])  # compiles what is compiled on first use
    results = engine.generate(prompts)
    tokens, seconds = sum(len(r.tokens) for r in results), max(r.seconds for r in results)
    return {"texts": [r.tokens for r in results], "tau": statistics.fmean(r.stats.tau for r in results),
            "tokens_per_second": tokens / seconds}  # fmt: skip


def both_ways(model: Any, prompts: Sequence[list[int]], drafter: str, head: str | None = None) -> dict[str, Any]:
    """The same prompts with the kernels off, then on."""
    found = {}
    for backend in ("torch", "triton"):
        target = Target(model, check=backend == "triton", backend=backend)
        found[backend] = decode(target, prompts, backend, drafter, head)
    texts = [found[backend].pop("texts") for backend in ("torch", "triton")]
    rule = check_identity(target, prompts, *texts)
    return {**found, "identical": str(rule), "ok": rule.ok}


def identity(device: str) -> dict[str, Any]:
    """The embedded model in float32, with prompt lookup; in a dry run a toy."""
    if device == "cpu":
        return both_ways(tiny_llama(dtype=torch.float32, layers=1), [[3, 5, 7, 3, 5], [8]], "ngram")
    model, tokenizer = load(EMBEDDED, dtype="float32", device=device)
    return both_ways(model, [list(tokenizer.encode(text)) for text in PROMPTS], "ngram")


def eagle(head: str, name: str, device: str) -> dict[str, Any]:
    """A head from a local folder on its target, batch 1 prompts side by side."""
    model, tokenizer = load(name, dtype="auto" if device == "cuda" else "float32", device=device)
    return {"head": head, "target": name} | both_ways(
        model, [list(tokenizer.encode(text)) for text in PROMPTS], "eagle", head
    )


def written(report: dict[str, Any], dry: bool) -> str:
    """The report as markdown."""
    head = "# Kernels on a GPU\n" if not dry else "# Dry run: no GPU was used, no figure here means anything\n"
    facts = "\n".join(f"- {name}: {value}" for name, value in report["machine"].items())
    parts = [
        head, facts, f"- a copy reaches {report['copy_GBps']:.0f} GB/s (read and written)\n",
        "## Timings, bfloat16\n", f"```\n{render(report['timings'])}\n```\n",
        "`GBps` is the fewest bytes possible over the kernel's time; `-`: torch.compile gave up, or was not tried.\n",
        "## Greedy identity, kernels on and off\n", f"```\n{json.dumps(report['identity'], indent=1)}\n```\n",
        "## EAGLE\n", f"```\n{json.dumps(report['eagle'], indent=1)}\n```\n",
        "## All of it\n", f"```json\n{json.dumps(report)}\n```\n",
    ]  # fmt: skip
    return "\n".join(parts)


if __name__ == "__main__":
    main()
