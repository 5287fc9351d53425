"""Where the milliseconds of a plain step and of a speculative round go, beside the floor that memory sets.

    python -m benchmarks.floor --dtype bfloat16 --repeats 20

Three forwards of the same weights take turns in one process: transformers' modules, the same with packed linear layers,
and the short forward (`models/fast.py`); then plain decoding and rounds of a drafter with the first and the last.
Floor: bytes of all weights that a step reads, over the bandwidth measured here by summing numbers.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from specdec_ref.config import DraftBudget
from specdec_ref.core import DraftTree
from specdec_ref.machine import machine_line
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.models.packing import can_pack, pack_linears
from specdec_ref.models.target import Target
from specdec_ref.session import Session

__all__ = ["main"]

PROMPT = "Write a Python function that adds two numbers, with a docstring, and explain each line of it."
PARTS = {  # operation -> the row that it counts in; what is not named is a small operation
    "mkldnn::_linear_pointwise": "matrix products", "aten::linear": "matrix products", "aten::addmm": "matrix products",
    "aten::mm": "matrix products", "aten::matmul": "matrix products",
    "aten::scaled_dot_product_attention": "attention",
}  # fmt: skip


def bandwidth(seconds: float = 1.0) -> float:
    """Bytes a second of the fastest of several sums over 256 MB."""
    numbers, times = torch.ones(2**26), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - started)
    return numbers.numel() * 4 / min(times)


def read_bytes(model: Any) -> int:
    """What one step reads: every weight but the embedding's rows, which is counted where it is the head, too."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    skipped = 0 if tied else model.get_input_embeddings().weight.numel()
    return (sum(weight.numel() for weight in model.parameters()) - skipped) * next(model.parameters()).element_size()


def in_turn(sides: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median milliseconds of every side, A B C A B C ..."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 1):  # the first round warms up
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            spent[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def shares(step: Callable[[], None], repeats: int = 5) -> dict[str, float]:
    """Which part of a step's processor time each kind of operation takes, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(repeats):
            step()
    spent = {"matrix products": 0.0, "attention": 0.0}
    for event in seen.key_averages():
        if part := PARTS.get(event.key):
            nested = event.key in ("aten::addmm", "aten::mm", "aten::matmul")
            spent[part] += 0.0 if nested else event.cpu_time_total
    whole = sum(event.self_cpu_time_total for event in seen.key_averages())
    return {name: time_ / whole for name, time_ in spent.items()} | {
        "small operations": 1 - sum(spent.values()) / whole
    }


@contextmanager
def _forward_of(session: Session, fast: Any) -> Any:
    """The session's target with that forward, and drafters built inside like it."""
    target, before = session.target, (session.target.fast, session.target.wants_fast)
    target.fast, target.wants_fast = fast, fast is not None
    try:
        yield
    finally:
        target.fast, target.wants_fast = before


def forwards(modules: nn.Module, packed: nn.Module, nodes: int, repeats: int) -> list[str]:
    """A forward of so many nodes after 100 tokens, by each of the three."""
    targets = {
        "transformers": Target(modules, check=False, fast=False),
        "packed": Target(packed, check=False, fast=False),
        "short": Target(modules, check=False, fast=True),
    }
    tree = DraftTree(torch.arange(nodes) + 100, torch.arange(-1, nodes - 1))
    steps: dict[str, Callable[[], None]] = {}
    for name, target in targets.items():
        target.start([[(7 * i) % 1000 for i in range(100)]], capacity=128)

        def step(target: Target = target) -> None:
            target.forward([tree])
            target.commit([[]])

        steps[name] = step
    rows = []
    for name, ms in in_turn(steps, repeats).items():
        parts = {part: f"{share * ms:.1f}" for part, share in shares(steps[name]).items()}
        rows.append(f"| forward of {nodes}, {name} | {ms:.1f} | {' | '.join(parts.values())} |")
    return rows


def decoding(session: Session, drafter: str, repeats: int) -> list[str]:
    """Whole rounds, or plain steps, of one answer with either forward, in turn; the engine's own clocks.

    Beside plain decoding stands transformers' `generate()`, prefill taken off as the time of one token.
    """
    prompt, limits, fast = session.encode(PROMPT), session.limits(32, ignore_eos=True), session.target.fast
    engines: dict[str, Any] = {"transformers": None, "short": None}
    for name, forward in (("transformers", None), ("short", fast)):
        with _forward_of(session, forward):
            engines[name] = (
                session.engine(drafter, budget=DraftBudget(3), limits=limits) if drafter != "plain" else None
            )
    answers: dict[str, list[Any]] = {name: [] for name in engines}
    generated = []
    for _ in range(repeats):
        for name, engine in engines.items():
            with _forward_of(session, fast if name == "short" else None):
                done = engine.generate([prompt])[0] if engine else session.plain([prompt], limits=limits)[0]
            answers[name].append(done)
        if drafter == "plain":
            long, short = (_generate(session, prompt, tokens) for tokens in (32, 1))
            generated.append(1e3 * (long - short) / 31)
    lines = [f"| generate() of transformers | {statistics.median(generated):.1f} |  |  |  |  |"] if generated else []
    for name, ended in answers.items():
        token = statistics.median(
            1e3 * answer.seconds / (len(answer.tokens) - (drafter == "plain")) for answer in ended
        )
        records = [record for answer in ended for record in answer.records if record.drafted]
        clocks = [1e3 * statistics.median(getattr(record, clock) for record in records)
                  for clock in ("step_s", "propose_s", "forward_s", "verify_s") if records]  # fmt: skip
        words = " | ".join(f"{ms:.1f}" for ms in clocks) if clocks else " |  |  | "
        lines.append(f"| {drafter}, {name} | {token:.1f} | {words} |")
    return lines


def _generate(session: Session, prompt: list[int], tokens: int) -> float:
    ids, model = torch.tensor([prompt]), session.target.model
    started = time.perf_counter()
    model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    return time.perf_counter() - started


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 4, 8])
    parser.add_argument("--drafter", nargs="*", default=["plain", "eagle", "hybrid"])
    args = parser.parse_args()
    modules, _ = load(EMBEDDED, dtype=args.dtype, device="cpu", pack=False)
    packed = copy.deepcopy(modules)
    if can_pack(packed):
        pack_linears(packed)
    size, speed = read_bytes(modules), bandwidth()
    floor = 1e3 * size / speed
    _say(
        f"{EMBEDDED} in {args.dtype}, {machine_line(torch.device('cpu'))}, torch {torch.__version__}: "
        f"{size / 1e6:.0f} MB of weights at {speed / 1e9:.0f} GB/s take {floor:.1f} ms.\n",
        "| ms | all | matrix products | attention | small operations |\n|---|---:|---:|---:|---:|",
        f"| floor | {floor:.1f} | {floor:.1f} | 0 | 0 |",
    )
    for nodes in args.nodes:
        _say(*forwards(modules, packed, nodes, args.repeats))
    session = Session.open(dtype=args.dtype, device="cpu")
    _say("\n| ms | a token | a round | drafting | forward | verifying |\n|---|---:|---:|---:|---:|---:|")
    for drafter in args.drafter:
        _say(*decoding(session, drafter, max(2, args.repeats // 5)))


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
