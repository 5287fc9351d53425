"""llama.cpp with our EAGLE head against llama.cpp without it, on this machine: task by task, or as a load test.

    python -m benchmarks.served --type f32 --p-min 0.6 >> specdec_ref/bench/rows/served.jsonl
    python -m benchmarks.served --type f32 --p-min 0.6 --load 1 2 4 8 >> specdec_ref/bench/rows/load.jsonl
    python -m benchmarks.served --type f32 --drafter ngram --task translation summary --load 1 2 4 8 >> ...

Two servers with the same target, one with the head, answer in turn, so the other one is idle and drift meets both. In a
load test the tasks take turns: a client with six requests sends one of each task, so every level has the same mix. What
is measured and how: `specdec bench --endpoint`, in `bench/endpoint.py` and `bench/load.py`. Needs the extra `llamacpp`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.command import command_parser, print_row
from specdec_ref.bench.endpoint import Endpoints, Work
from specdec_ref.bench.load import Load, measure_load
from specdec_ref.engines.process import LlamaServer
from specdec_ref.exporters.llamacpp import MATCH, TYPES
from specdec_ref.machine import cpu_features, cpu_name
from specdec_ref.session import Session
from specdec_ref.training.gguf_export import export_gguf
from specdec_ref.weights import shipped_folder
from specdec_ref.workloads import HELD_OUT, load_prompts

__all__ = ["main"]

COPIED = 8  # tokens of an n-gram draft


def measured(ends: Endpoints, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of either kind."""
    tasks = [load_prompts([task], "test", file=HELD_OUT)[: args.prompts] for task in args.task]
    if not args.load:
        yield from ends.rows(Work([prompt for task in tasks for prompt in task], args.tokens))
        return
    prompts = [prompt.prompt for together in zip(*tasks, strict=True) for prompt in together]
    load = Load(prompts, args.load, args.each, args.tokens)
    with tqdm(total=2 * load.requests, unit="request") as bar:
        for row in measure_load(ends, load, bar.update):
            yield {
                key: [round(v, 3) for v in value] if isinstance(value, list) else value for key, value in row.items()
            }


def speculation(args: argparse.Namespace) -> list[Any]:
    """The flags of the server that speculates, but for the head's file."""
    copies = ["--spec-ngram-simple-size-n", MATCH, "--spec-ngram-simple-size-m", COPIED]
    head = ["--spec-draft-n-max", args.depth, "--spec-draft-p-min", args.p_min]
    flags = {"eagle": head, "ngram": copies, "hybrid": [*copies, *head]}
    return ["--spec-type", TYPES[args.drafter], *flags[args.drafter]]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's arguments."""
    parser = command_parser("served", __doc__, prompts=4, tokens=64)
    parser.add_argument("--type", default="f16", help="GGUF type of the target (default f16)")
    parser.add_argument("--drafter", choices=("eagle", "ngram", "hybrid"), default="eagle", help="(default eagle)")
    parser.add_argument("--depth", type=int, default=3, help="drafts per round (default 3)")
    parser.add_argument("--p-min", type=float, default=0.0, help="a draft ends below this probability (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="of each server (default 1: two spin if a core is busy)")
    parser.add_argument("--load", type=int, nargs="+", help="concurrencies of a load test")
    parser.add_argument("--each", type=int, default=6, help="requests per client and level of a load test (default 6)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    args = arguments(argv)
    source, session = shipped_folder(args.target), Session.open(args.target, dtype="float32", device="cpu")
    if source is None:
        raise SystemExit(f"{args.target} comes with no head")
    slots = max(args.load or [1])
    shared = ["--port", 0, "--ctx-size", 1024 * slots, "--parallel", slots, "--threads", args.threads, "--metrics",
              "--alias", args.target]  # fmt: skip
    head = speculation(args)
    about = {
        "command": "python -m benchmarks.served " + " ".join(argv if argv is not None else sys.argv[1:]),
        "target": args.target, "dtype": args.type, "drafter": args.drafter,
        "server": " ".join(map(str, [*shared, *head])),
        "llamacpp": f"xllamacpp {version('xllamacpp')}", "machine": cpu_name(), "features": cpu_features(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        target, draft = export_gguf(source, session.target.model, session.tokenizer, Path(folder), args.type)
        words = [str(word) for word in ["--model", target, *shared]]
        with (
            LlamaServer.start(words) as plain,
            LlamaServer.start(
                [*words, *map(str, head), *["--spec-draft-model", str(draft)] * (args.drafter != "ngram")]
            ) as drafted,
            Endpoints(drafted.url, plain.url) as ends,
        ):
            print_row({"environment": about | {"date": ends.environment()["date"]}})
            for row in measured(ends, args):
                print_row(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
