"""Where the milliseconds of a plain step and of a speculative round go, beside the floor that memory sets.

    python -m benchmarks.floor --dtype bfloat16 > rows.jsonl          idle machine, all threads, by the wall clock
    python -m benchmarks.floor --cpu-clock                            busy machine: one thread, processor seconds

Three forwards of the same weights take turns in one process: transformers' modules, the same with packed linear layers,
and the short forward (`models/fast.py`); then plain decoding and rounds of a drafter with the first and the last.
Floor: bytes of all weights that a step reads, over the bandwidth measured here by summing numbers. Prints a JSON object
a line.
"""

import argparse
import copy
import datetime
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.command import print_row
from specdec_ref.config import DraftBudget
from specdec_ref.core import DraftTree
from specdec_ref.machine import machine_line
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.models.packing import PackedLinear, can_pack, pack_linears
from specdec_ref.models.target import Target
from specdec_ref.session import Session

__all__ = ["main"]

PROMPT = "Write a Python function that adds two numbers, with a docstring, and explain each line of it."
TOKENS = 32  # an answer
PARTS = ("step", "propose", "forward", "verify")  # of a round


def read_bytes(model: Any) -> int:
    """What one step reads: every weight but the embedding's rows, which is counted where it is the head, too."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    skipped = 0 if tied else model.get_input_embeddings().weight.numel()
    size = sum(weight.numel() for weight in model.parameters()) - skipped
    return int(size * next(model.parameters()).element_size())


def clock() -> float:
    """Seconds: of the processor where one thread is used, so that other work does not count, else by the wall."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def bandwidth(seconds: float = 1.0) -> float:
    """Bytes a second of the fastest of several sums over 256 MB."""
    numbers, times = torch.ones(2**26), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = clock()
        numbers.sum()
        times.append(clock() - started)
    return numbers.numel() * 4 / min(times)


def in_turn(sides: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median milliseconds of every side, A B C A B C ..."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 1):  # the first round warms up
        for name, side in sides.items():
            started = clock()
            side()
            spent[name].append(1e3 * (clock() - started))
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def products(target: Target, nodes: int) -> Callable[[], None]:
    """The matrix products of one forward and nothing else."""
    calls: list[tuple[Callable[[torch.Tensor], torch.Tensor], int]]
    if target.fast is not None:
        every = [product for layer in target.fast.layers for product in layer.products]
        calls = [(product, product.linears[0].in_features) for product in (*every, target.fast.lm_head)]
    else:
        linears = [m for m in target.model.modules() if isinstance(m, (nn.Linear, PackedLinear))]
        calls = [(linear, linear.in_features) for linear in linears]
    inputs = {width: torch.randn(1, nodes, width, dtype=target.dtype) for _, width in calls}

    def run() -> None:
        with torch.inference_mode():
            for product, width in calls:
                product(inputs[width])

    return run


@contextmanager
def _forward_of(session: Session, fast: Any) -> Any:
    """The session's target with that forward, and drafters built inside like it."""
    target, before = session.target, (session.target.fast, session.target.wants_fast)
    target.fast, target.wants_fast = fast, fast is not None
    try:
        yield
    finally:
        target.fast, target.wants_fast = before


def forwards(modules: nn.Module, packed: nn.Module, nodes: int, repeats: int) -> Iterator[dict[str, Any]]:
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
        steps[f"{name}, products"] = products(target, nodes)
    spent = in_turn(steps, repeats)
    for name in targets:
        yield {
            "kind": "forward",
            "nodes": nodes,
            "by": name,
            "ms": spent[name],
            "products_ms": spent[f"{name}, products"],
        }


def decoding(session: Session, drafter: str, repeats: int) -> Iterator[dict[str, Any]]:
    """One answer with either forward, in turn: a token of the whole call, prefill included, and the parts of a round.

    Beside plain decoding stands transformers' `generate()`. The parts are by the wall clock: none for one thread.
    """
    prompt, limits, fast = session.encode(PROMPT), session.limits(TOKENS, ignore_eos=True), session.target.fast
    engines: dict[str, Any] = {"transformers": None, "short": None}
    for name, forward in (("transformers", None), ("short", fast)):
        with _forward_of(session, forward):
            engines[name] = (
                session.engine(drafter, budget=DraftBudget(3), limits=limits) if drafter != "plain" else None
            )
    answers: dict[str, list[Any]] = {name: [] for name in engines}
    spent: dict[str, list[float]] = {name: [] for name in (*(["generate()"] if drafter == "plain" else []), *engines)}
    for _ in range(repeats):
        for name in spent:
            started = clock()
            if name == "generate()":
                _generate(session, prompt)
                spent[name].append(1e3 * (clock() - started) / TOKENS)
                continue
            with _forward_of(session, fast if name == "short" else None):
                engine = engines[name]
                done = engine.generate([prompt])[0] if engine else session.plain([prompt], limits=limits)[0]
            spent[name].append(1e3 * (clock() - started) / len(done.tokens))
            answers[name].append(done)
    for name, times in spent.items():
        row = {"kind": "decoding", "drafter": drafter, "by": name, "token_ms": statistics.median(times)}
        records = [record for answer in answers.get(name, []) for record in answer.records if record.drafted]
        if torch.get_num_threads() > 1 and records:
            for part in PARTS:
                row[f"{part}_ms"] = 1e3 * statistics.median(getattr(record, f"{part}_s") for record in records)
        yield row


def _generate(session: Session, prompt: list[int]) -> None:
    """transformers' own, exactly so many tokens."""
    ids, model = torch.tensor([prompt]), session.target.model
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=0,
    )


def measure(dtype: str, nodes: Sequence[int], drafters: Sequence[str], repeats: int) -> Iterator[dict[str, Any]]:
    """The floor, then each forward, then each way to decode."""
    modules, _ = load(EMBEDDED, dtype=dtype, device="cpu", pack=False)
    packed = copy.deepcopy(modules)
    if can_pack(packed):
        pack_linears(packed)
    size, speed = read_bytes(modules), bandwidth()
    yield {"kind": "floor", "mb": size / 1e6, "gb_per_s": speed / 1e9, "ms": 1e3 * size / speed}
    for count in nodes:
        yield from forwards(modules, packed, count, repeats)
    session = Session.open(dtype=dtype, device="cpu")
    for drafter in drafters:
        yield from decoding(session, drafter, max(2, repeats // 5))


def main() -> None:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.floor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--drafter", nargs="*", default=["plain", "eagle", "hybrid"])
    parser.add_argument("--cpu-clock", action="store_true")
    args = parser.parse_args()
    if args.cpu_clock:
        torch.set_num_threads(1)
    command = " ".join(["python -m benchmarks.floor", *sys.argv[1:]])
    about = {
        "command": command, "target": EMBEDDED, "dtype": args.dtype, "machine": machine_line(torch.device("cpu")),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "transformers": transformers.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "clock": "cpu" if args.cpu_clock else "wall",
    }  # fmt: skip
    print_row({"environment": about})
    for row in measure(args.dtype, args.nodes, args.drafter, args.repeats):
        print_row(row)


if __name__ == "__main__":
    main()
