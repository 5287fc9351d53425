"""`specdec bench --endpoint`: no model is loaded here; a server has it."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from specdec_ref.cli.shared import UsageError, console, plural, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from specdec_ref.workloads import Prompt

__all__ = ["add_endpoint", "run_endpoint"]


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which server."""
    group = parser.add_argument_group(
        "a running server",
        "SGLang, vLLM or llama.cpp, measured as it was launched, with the same prompts;\n"
        "acceptance from its metrics. No model is loaded here. A key, if needed, is\n"
        "taken from OPENAI_API_KEY.",
    )
    group.add_argument("--endpoint", metavar="URL", help="where it is: http://localhost:30000")
    group.add_argument("--endpoint-plain", metavar="URL", help="one that does not speculate, to compare it with")
    group.add_argument("--endpoint-model", metavar="NAME", help="which of its models (default: its first)")
    group.add_argument("--timeout", type=float, default=120.0, metavar="S", help="silence that is an error (120 s)")
    group.add_argument(
        "--load",
        type=int,
        nargs="+",
        metavar="N",
        help="a load test: so many requests at the same time, level by level, e.g. 1 2 4 8",
    )
    group.add_argument("--each", type=int, default=3, metavar="N", help="its requests per client and level (default 3)")


def run_endpoint(args: argparse.Namespace, prompts: "Sequence[Prompt]", command: str) -> int:
    """Connect, ask, print; what was measured before Ctrl-C is printed as well."""
    from specdec_ref.bench.endpoint import Endpoints, Work
    from specdec_ref.bench.report import served

    for given, name in ((args.drafter, "drafter"), (args.method, "method"), (args.context, "context"),
                        (args.cpu_clock, "cpu-clock"), (args.plot and not args.load, "plot")):  # fmt: skip
        if given:
            raise UsageError(f"--{name} is for models that run here; with --endpoint the server decides")
    if args.timeout <= 0:
        raise UsageError("--timeout must be > 0 seconds")
    if args.load:
        return _load(args, prompts, command)
    work = Work(prompts, args.tokens, args.repeats, args.temperature, args.batch)
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    ends = Endpoints(
        args.endpoint,
        args.endpoint_plain,
        model=args.endpoint_model,
        timeout=args.timeout,
        key=os.environ.get("OPENAI_API_KEY"),
    )
    try:
        with console(stderr=True).status("measuring") as status, ends:
            about = {"command": command, **ends.environment()}
            if args.json:
                _line({"environment": about})
            for row in ends.rows(work, lambda task: status.update(f"measuring: {task}")):
                rows.append({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
                if args.json:
                    _line(rows[-1])
    finally:
        if rows and not args.json:
            sys.stdout.write(served(about, rows))
        _remark(rows)
    return 0


def _load(args: argparse.Namespace, prompts: "Sequence[Prompt]", command: str) -> int:
    """The load test: a progress bar, the table, a plot; what was measured before Ctrl-C is printed as well."""
    from tqdm import tqdm

    from specdec_ref.bench.endpoint import Endpoints
    from specdec_ref.bench.load import Load, load_table, measure_load

    load = Load([prompt.prompt for prompt in prompts], args.load, args.each, args.tokens, args.temperature[0])
    ends = Endpoints(
        args.endpoint,
        args.endpoint_plain,
        model=args.endpoint_model,
        timeout=args.timeout,
        key=os.environ.get("OPENAI_API_KEY"),
    )
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    try:
        with ends, tqdm(total=load.requests * len(ends.servers), unit="request", desc="load test") as bar:
            about = {"command": command, **ends.environment()}
            for server in ends.servers:
                _warn_of_queue(server.url, server.settings.get("total_slots"), max(load.levels))
            if args.json:
                _line({"environment": about})
            for row in measure_load(ends, load, bar.update):
                rows.append(_rounded(row))
                if args.json:
                    _line(rows[-1])
    finally:
        if rows and not args.json:
            sys.stdout.write(load_table(about, rows))
    if args.plot:
        _picture(rows, args.plot)
    return 0


def _warn_of_queue(url: str, slots: object, level: int) -> None:
    """llama.cpp answers as many requests at a time as it has slots; the others wait."""
    if isinstance(slots, int) and 0 < slots < level:
        say(
            f"{url} answers {plural(slots, 'request')} at a time, so at level {level} the others wait for a slot: "
            f"start it with --parallel {level}"
        )


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    short = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    return short | {key: [round(v, 3) for v in value] for key, value in row.items() if isinstance(value, list)}


def _picture(rows: "Sequence[dict[str, Any]]", file: "Path") -> None:
    from specdec_ref.bench.load import crossing
    from specdec_ref.plots import load_curves

    file.parent.mkdir(parents=True, exist_ok=True)
    both = 2 * len({row["concurrency"] for row in rows}) == len(rows)
    file.write_bytes(load_curves(rows, crossing(rows) if both else None).png)
    say(f"picture: {file}")


def _line(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def _remark(rows: "Sequence[dict[str, Any]]") -> None:
    """What a reader of the numbers should know."""
    told = [row for row in rows if row["task"] != "all"]
    if any(row["tau"] is None for row in told):
        say("acceptance is not known: no metrics page (SGLang: launch it with --enable-metrics)")
    if others := sum(row["others"] or 0 for row in told):
        say(f"the server wrote {plural(others, 'token')} for others meanwhile: times and counters are not ours alone")
    if wrong := sum(row["texts"] - row["identical"] for row in told if row["identical"] is not None):
        say(f"{plural(wrong, 'greedy text')} not the plain server's: near-ties in its number format, or a mistake")
