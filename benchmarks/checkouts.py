"""Did a change slow the engine down? The same prompts decoded by two checkouts in turn, each in a process of its own.

    ratio = seconds of the other checkout / seconds of this one        above 1: this one is faster

    git worktree add ../before SOME_COMMIT
    python -m benchmarks.checkouts ../before

One process per checkout loads the model once; then they take turns (A B A B ...), so that a slow minute of the machine
falls on both. The tokens of both are compared as well. Prints one JSON line per method.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

__all__ = ["main"]

ROOT = Path(__file__).parents[1]

WORKER = """
import json, sys, time
from specdec_ref.session import Session
session = Session.open(dtype=sys.argv[1])
prompts = [session.encode(text) for text in json.loads(sys.argv[2])]
limits = session.limits(int(sys.argv[3]), ignore_eos=True)
for line in sys.stdin:
    name = line.strip()
    start = time.perf_counter()
    if name == "plain":
        answers = [session.plain([prompt], limits=limits)[0] for prompt in prompts]
    else:
        answers = [session.engine(name, limits=limits).generate([prompt])[0] for prompt in prompts]
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, [list(answer.tokens) for answer in answers]]), flush=True)
"""

PROMPTS = [
    "Write a Python function that returns the largest of three numbers.",
    "Explain to a child why the sky is blue.",
    "Repeat these words and then sort them: pear, apple, fig, plum.",
]


class Worker:
    """One checkout's process. `ask(method)` gives its seconds and tokens."""

    def __init__(self, root: Path, dtype: str, tokens: int) -> None:
        self.root = root
        command = [sys.executable, "-c", WORKER, dtype, json.dumps(PROMPTS), str(tokens)]
        self.process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.into, self.out = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)

    def ask(self, method: str) -> tuple[float, Any]:
        """Decode all prompts once. Raises RuntimeError if the checkout's process has died."""
        self.into.write(method + "\n")
        self.into.flush()
        line = self.out.readline()
        if not line:
            raise RuntimeError(f"the process of the checkout {self.root} ended; its error is above")
        seconds, tokens = json.loads(line)
        return float(seconds), tokens


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkouts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="root of the other checkout (a git worktree)")
    parser.add_argument("--methods", nargs="+", default=["plain", "ngram", "eagle"], help="default: plain ngram eagle")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="default: float32")
    parser.add_argument("--tokens", type=int, default=48, help="new tokens a prompt (default 48)")
    parser.add_argument("--repeats", type=int, default=5, help="paired repeats (default 5), after one to warm up")
    args = parser.parse_args(argv)
    if not (args.other / "specdec_ref").is_dir():
        parser.error(f"{args.other} holds no specdec_ref: name the root of a checkout")
    workers = [Worker(root, args.dtype, args.tokens) for root in (args.other, ROOT)]
    try:
        for method in args.methods:
            rounds = [[worker.ask(method) for worker in workers] for _ in range(args.repeats + 1)][1:]
            ratios = [other[0] / this[0] for other, this in rounds]
            new = len(PROMPTS) * args.tokens
            row = {"method": method, "dtype": args.dtype, "ratio": round(statistics.median(ratios), 3)}
            row |= {"lowest": round(min(ratios), 3), "highest": round(max(ratios), 3)}
            for side, name in enumerate(("other", "this")):
                seconds = statistics.median(pair[side][0] for pair in rounds)
                row[f"{name}_tokens_per_second"] = round(new / seconds, 1)
            row["same_tokens"] = all(other[1] == this[1] for other, this in rounds)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    finally:
        for worker in workers:
            worker.process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
