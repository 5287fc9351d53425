"""`specdec bench` without its arguments: settings tuned on the dev split, then the table of the test split.

For each temperature and batch size: all methods at all settings of their grids on a few dev prompts, interleaved; the
fastest setting of each method stays; those run on the test split, task by task. A row is out as soon as its task is.
"""

import datetime
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from specdec_ref.bench.peers import peers
from specdec_ref.bench.sides import PLAIN, Setting, Side, ours
from specdec_ref.bench.table import Batch, Timing, best_settings, overall, rows_of, run_sides
from specdec_ref.config import SamplingParams
from specdec_ref.core import Drafter
from specdec_ref.machine import cpu_features, machine_line
from specdec_ref.session import Session
from specdec_ref.workloads import Prompt

__all__ = ["Plan", "bench", "environment"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `tune`: dev prompts a task, 0: every method at the first setting of its grid."""

    test: Sequence[Prompt]
    dev: Sequence[Prompt]
    tokens: int = 96
    repeats: int = 1
    temperatures: Sequence[float] = (0.0,)
    batches: Sequence[int] = (1,)
    context: int = 0
    methods: Sequence[str] = ()  # only these; () for all
    hf: bool = True
    every: bool = False  # each setting of each grid is a row of its own, and nothing is tuned
    llamacpp: Mapping[str, Path] | None = None  # GGUF types and files that llama.cpp runs beside, at batch 1
    cpu_clock: bool = False  # processor seconds of the process instead of the wall clock's

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, from any zero."""
        return time.process_time if self.cpu_clock else time.perf_counter


def environment(session: Session) -> dict[str, Any]:
    """What a row's numbers depend on, besides the row."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_line(session.target.device), "features": cpu_features(), "target": session.name,
        "dtype": str(session.target.dtype).removeprefix("torch."), "threads": torch.get_num_threads(),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


def bench(
    session: Session, drafters: Mapping[str, Drafter], plan: Plan, tick: Callable[[str], None] = lambda text: None
) -> Iterator[dict[str, Any]]:
    """Rows as they are measured; the task "all" after the last task of each temperature and batch size."""
    for temperature in plan.temperatures:
        for batch in plan.batches:
            setting = Setting(session, SamplingParams(temperature), session.limits(plan.tokens), batch)
            about = {"dtype": str(session.target.dtype).removeprefix("torch."), "batch": batch,
                     "temperature": temperature, "context": plan.context,
                     "clock": "cpu" if plan.cpu_clock else "wall"}  # fmt: skip
            work = _batches(session, plan.test, batch, plan.context)
            with _servers(setting, plan, work) as served:
                chosen = _tuned(setting, plan, _sides(setting, drafters, plan, served), tick)
                tasks: dict[str, dict[Side, list[Timing]]] = {}
                for task, batches in work.items():
                    tasks[task] = run_sides(chosen, batches, plan.repeats, partial(tick, task), plan.clock)
                    yield from (about | row for row in rows_of(task, tasks[task], greedy=temperature == 0))
                yield from (about | row for row in overall(tasks))


@contextmanager
def _servers(setting: Setting, plan: Plan, work: Mapping[str, Sequence[Batch]]) -> Iterator[Sequence[Side]]:
    """llama.cpp's sides, while its servers run; none unless the plan asks for them, and none above batch 1."""
    if not plan.llamacpp or setting.batch > 1:
        yield ()
        return
    from specdec_ref.bench.llamacpp import llamacpp_sides

    longest = max(len(prompt) for batches in work.values() for prompts, _ in batches for prompt in prompts)
    with llamacpp_sides(plan.llamacpp, setting, longest + plan.tokens + 1) as sides:
        yield sides


def _sides(setting: Setting, drafters: Mapping[str, Drafter], plan: Plan, served: Sequence[Side]) -> list[Side]:
    """Those that were asked for; plain always, and `hf` with it unless it was refused: they are the denominators."""
    sides = [*ours(setting, drafters), *(peers(setting, drafters) if plan.hf else ()), *served]
    kept = [s for s in sides if not plan.methods or s.method in (PLAIN, "hf", *plan.methods) or s in served]
    unknown = sorted(set(plan.methods) - {side.method for side in sides})
    if unknown and setting.batch == 1:
        raise ValueError(
            f"unknown method {unknown[0]!r}; there are {', '.join(dict.fromkeys(s.method for s in sides))}"
        )
    return kept


def _tuned(setting: Setting, plan: Plan, sides: Sequence[Side], tick: Callable[[str], None]) -> list[Side]:
    """One side a method, unless every setting is wanted. Running them all first is the warm-up as well."""
    if plan.every:
        sides = [
            replace(side, method=f"{side.method}, {side.setting}" if side.setting else side.method) for side in sides
        ]
    if plan.every or not plan.dev:
        first: dict[str, Side] = {}
        for side in sides:
            first.setdefault(side.method, side)
        run_sides(list(first.values()), [([setting.session.encode("Hello!")], [0])], tick=lambda: tick("warm-up"))
        return list(first.values())
    tasks = _batches(setting.session, plan.dev, setting.batch, plan.context)
    return best_settings(
        [run_sides(sides, batches, 1, lambda: tick("tuning"), plan.clock) for batches in tasks.values()]
    )


def _batches(session: Session, prompts: Sequence[Prompt], size: int, context: int) -> dict[str, list[Batch]]:
    """By task, `size` prompts at a time; prompt i of a task draws with seed i. A task's last batch may be smaller."""
    tasks: dict[str, list[list[int]]] = defaultdict(list)
    for prompt in prompts:
        tasks[prompt.task].append(_encoded(session, prompt, prompts, context))
    return {
        task: [(ids[i : i + size], list(range(i, min(i + size, len(ids))))) for i in range(0, len(ids), size)]
        for task, ids in tasks.items()
    }


def _encoded(session: Session, prompt: Prompt, others: Sequence[Prompt], context: int) -> list[int]:
    """The prompt behind other prompts' texts, as notes to ignore, until it has about `context` tokens."""
    raw = not session.tokenizer.chat_template
    ids = session.encode(prompt.prompt, raw=raw)
    notes = ""
    for other in [o for o in others if o.task != prompt.task or o.id != prompt.id] * 50:
        if len(ids) >= context:
            break
        notes += other.prompt + "\n\n"
        ids = session.encode(f"Notes:\n\n{notes}Ignore the notes above.\n\n{prompt.prompt}", raw=raw)
    return ids
