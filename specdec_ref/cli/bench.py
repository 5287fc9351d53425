"""`specdec bench`: every method on the held-out prompts, against plain decoding and transformers, in one process."""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdec_ref.cli.endpoint import add_endpoint, run_endpoint
from specdec_ref.cli.flags import add_model
from specdec_ref.cli.nearest import unknown
from specdec_ref.cli.shared import UsageError, check_plots, console, open_session, plural, say
from specdec_ref.config import SamplingParams, SpecConfig

if TYPE_CHECKING:
    from specdec_ref.bench.run import Plan
    from specdec_ref.workloads import Prompt

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "measure every method against plain decoding and transformers"
DESCRIPTION = """\
Measure all methods on the held-out prompts, interleaved in one process: plain
decoding; each drafter as a chain, as a tree if it grows one, and with a draft
length chosen by the cost model; and transformers' generate(), its prompt lookup
and its assisted decoding. Each method runs at the setting that was fastest on
other prompts (the dev split). Texts are compared with plain decoding's. Ratios
are paired. Absolute speeds hold for this machine and this moment.

--endpoint measures a running SGLang, vLLM or llama.cpp server instead, alone or
next to one that does not speculate: tokens per second, time to first token, and
acceptance from its metrics. --load makes it a load test: throughput against
latency.
"""
EPILOG = """\
--json writes one object per line: the environment first, then a row per task
and method as soon as it is measured. The task "all" is their geometric mean.
  task, method, setting, dtype, batch, temperature, context, clock
  tokens_per_s, tau, alpha            tau: tokens per target forward
  speedup_vs_plain, ci_low, ci_high   median of paired ratios, 95 % bootstrap
                                      (null if a task has a single call)
  speedup_vs_hf                       the same against transformers' generate()
  identical, texts, calls             greedy texts equal to plain's, of how many
A server's rows also have ttft_ms, rounds, drafted, accepted, positions, others.

examples:
  $ specdec bench --quick                          about a minute
  $ specdec bench --json > rows.jsonl              everything, batch 1, greedy
  $ specdec bench --drafter eagle --drafter ngram --temperature 0 1 --batch 1 4
  $ specdec bench --prompts-file mine.jsonl
      with a line such as {"id": "a", "task": "chat", "prompt": "Hi"} each
  $ specdec bench --endpoint http://localhost:30000 --batch 1 8
  $ specdec bench --endpoint http://localhost:30000 \\
      --endpoint-plain http://localhost:30001 --json
  $ specdec bench --endpoint http://localhost:30000 --load 1 2 4 8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_model(parser)
    group = parser.add_argument_group("methods")
    group.add_argument(
        "--drafter", action="append", metavar="NAME[=PATH]", help="only these; repeatable (default: all)"
    )
    group.add_argument("--method", action="append", default=[], metavar="NAME", help="only these rows; repeatable")
    group.add_argument(
        "--all-settings", action="store_true", help="a row per setting, not only the one chosen by tuning"
    )
    group.add_argument("--no-hf", action="store_true", help="leave out transformers' own decoding")
    group.add_argument("--llamacpp", action="store_true", help="also llama.cpp, f16 and q4_1, plain and with n-grams")
    group.add_argument("--tune", type=int, default=1, metavar="N", help="dev prompts per task for tuning (default 1)")
    group = parser.add_argument_group("work")
    group.add_argument("--task", nargs="+", metavar="TASK", help="only these tasks")
    group.add_argument("--prompts", type=int, default=4, metavar="N", help="prompts per task (default 4)")
    group.add_argument(
        "--prompts-file", type=Path, metavar="FILE", help="your prompts; a third of each task is used for tuning"
    )
    group.add_argument(
        "--tokens", type=int, default=96, metavar="N", help="new tokens per answer, at most (default 96)"
    )
    group.add_argument("--temperature", type=float, nargs="+", default=[0.0], metavar="X", help="default 0")
    group.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="batch sizes (default 1)")
    group.add_argument("--context", type=int, default=0, metavar="N", help="lengthen prompts to about N tokens")
    group.add_argument("--repeats", type=int, default=1, metavar="N", help="runs of everything (default 1)")
    group.add_argument(
        "--cpu-clock",
        action="store_true",
        help="measure processor time, for a machine that others use; set OMP_NUM_THREADS=1",
    )
    group.add_argument("--quick", action="store_true", help="about a minute: one prompt of three tasks, no tuning")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="one JSON object per line on stdout, nothing else")
    group.add_argument("--plot", type=Path, metavar="FILE", help="also draw the result, as PNG")
    add_endpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Check, load, measure; rows as they come, or a table at the end."""
    test, dev = _prompts(args)
    if args.plot:
        check_plots()
    command = shlex.join(["specdec", *args.argv])
    if args.endpoint:
        return run_endpoint(args, test, command)
    if args.endpoint_plain:
        raise UsageError("--endpoint-plain is what --endpoint is compared with: give both")
    from specdec_ref.bench.report import markdown
    from specdec_ref.bench.run import bench, environment
    from specdec_ref.bench.sides import usable_drafters

    _check_names(args.drafter or ())
    plan = _plan(args, test, dev)
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        session = open_session(SpecConfig(target=args.target, dtype=args.dtype, device=args.device))
        drafters, missing = usable_drafters(session, args.drafter or ())
        for name, reason in missing.items():
            say(f"{name} is left out: {reason}")
        about = {"command": command, **environment(session)}
        rows: list[dict[str, Any]] = []
        if args.json:
            out.write(json.dumps({"environment": about}) + "\n")
        with console(stderr=True).status("measuring") as status:
            for row in bench(session, drafters, plan, lambda text: status.update(f"measuring: {text}")):
                rows.append({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
                if args.json:
                    out.write(json.dumps(rows[-1]) + "\n")
                    out.flush()
        if not args.json:
            out.write(markdown(about, rows))
        if args.plot:
            _plot(rows, args.plot)
    _remark(rows, about["dtype"])
    return 0


def _remark(rows: Sequence[dict[str, Any]], dtype: str) -> None:
    """How many greedy texts are not plain decoding's, by method."""
    wrong: Counter[str] = Counter()
    for row in rows:
        if row.get("identical") is not None:
            wrong[row["method"]] += row["texts"] - row["identical"]
    names = [f"{name} {count}" for name, count in wrong.items() if count]
    if names:
        whose = "; hf is transformers' own decoding" if any(name.startswith("hf") for name in names) else ""
        total = plural(wrong.total(), "greedy text")
        say(f"{total} not plain's ({', '.join(names)}{whose}): near-ties in {dtype}, or a mistake; float64 tells")


def _plan(args: argparse.Namespace, test: "Sequence[Prompt]", dev: "Sequence[Prompt]") -> "Plan":
    """What the arguments ask for."""
    from specdec_ref.bench.run import Plan

    return Plan(
        test,
        dev,
        args.tokens,
        args.repeats,
        args.temperature,
        args.batch,
        args.context,
        args.method,
        not args.no_hf,
        args.all_settings,
        _gguf(args) if args.llamacpp else None,
        args.cpu_clock,
    )


def _gguf(args: argparse.Namespace) -> dict[str, Path]:
    """The embedded model as llama.cpp reads it, by GGUF type. Raises UsageError for what cannot be compared."""
    from specdec_ref.cli.serve import gguf_files
    from specdec_ref.engines.process import EngineError, missing_wheel
    from specdec_ref.models.hub import EMBEDDED

    if args.target != EMBEDDED:
        raise UsageError(f"--llamacpp compares the same weights, which it has for {EMBEDDED} only, not {args.target}")
    if args.cpu_clock:
        raise UsageError("--llamacpp runs in other processes, whose seconds --cpu-clock does not count: choose one")
    if complaint := missing_wheel():
        raise EngineError(complaint)
    return {kind: gguf_files(EMBEDDED, None, kind)[0] for kind in ("f16", "q4_1")}


def _check_names(spelled: Sequence[str]) -> None:
    """Raises UsageError for a drafter that does not exist, before the model is loaded."""
    from specdec_ref.drafters import DRAFTERS

    known = (*DRAFTERS, "useless")
    for name in (each.partition("=")[0] for each in spelled):
        if name not in known:
            raise UsageError(f"--drafter: {unknown('drafter', name, known)}")


def _prompts(args: argparse.Namespace) -> "tuple[list[Prompt], list[Prompt]]":
    """What to measure on and what to tune on. Raises UsageError or ValueError before anything is loaded."""
    from specdec_ref.workloads import HELD_OUT, load_prompts

    if min(args.prompts, args.repeats, args.tokens, *args.batch) < 1 or min(args.tune, args.context) < 0:
        raise UsageError("--prompts, --repeats, --tokens and --batch must be >= 1, --tune and --context >= 0")
    for temperature in args.temperature:
        SamplingParams(temperature)
    if args.quick:
        args.task = args.task or ["editing", "code", "chat"]
        args.prompts, args.tune, args.tokens = 1, 0, min(args.tokens, 48)
    if args.prompts_file:
        test, dev = _own_prompts(args.prompts_file)
    else:
        test, dev = (load_prompts((), split, file=HELD_OUT) for split in ("test", "dev"))
    tasks = args.task or list(dict.fromkeys(p.task for p in test))
    unknown = sorted(set(tasks) - {p.task for p in test})
    if unknown:
        raise UsageError(f"--task: no prompts for {unknown[0]!r}; there are {', '.join({p.task: 0 for p in test})}")
    return _first(test, tasks, args.prompts), _first(dev, tasks, args.tune)


def _first(prompts: "Sequence[Prompt]", tasks: Sequence[str], count: int) -> "list[Prompt]":
    return [p for task in tasks for p in [p for p in prompts if p.task == task][:count]]


def _own_prompts(file: Path) -> "tuple[list[Prompt], list[Prompt]]":
    """(test, dev) of a JSONL file; every third prompt of a task is for tuning. Raises UsageError naming a bad line."""
    from specdec_ref.workloads import Prompt

    by_task: dict[str, list[Prompt]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompts-file: cannot read {file}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            prompt = Prompt(str(entry.get("id", number)), str(entry.get("task", "prompts")), "own", entry["prompt"])
        except (ValueError, KeyError, AttributeError) as error:
            raise UsageError(f"{file}, line {number}: want an object with a prompt, got {error!r}") from error
        by_task.setdefault(prompt.task, []).append(prompt)
    if not by_task:
        raise UsageError(f"{file} holds no prompts")
    dev = [p for task in by_task.values() for p in task[2::3]]
    return [p for task in by_task.values() for p in task if p not in dev], dev


def _plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Geometric means over tasks, at the first temperature and batch size."""
    from specdec_ref.plots import bars

    means = [row for row in rows if row["task"] == "all"]
    first = {
        r["method"]: r["speedup_vs_plain"]
        for r in means
        if r["temperature"] == means[0]["temperature"] and r["batch"] == means[0]["batch"]
    }
    alt = "Speed-up over plain decoding: " + ", ".join(f"{name} {gain:.2f}" for name, gain in first.items())
    axis = f"speed-up over plain decoding, T = {means[0]['temperature']:g}, batch {means[0]['batch']}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bars(first, x=axis, alt=alt, guide=1).png)
    say(f"picture: {file}")
