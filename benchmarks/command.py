"""What the measuring commands of this folder have in common: arguments, drafters by spelling, a row on stdout."""

import argparse
import json
import sys
from typing import Any

from specdec_ref.workloads import TASKS

__all__ = ["command_parser", "print_row"]


def command_parser(module: str, doc: str | None, *, prompts: int | None, tokens: int) -> argparse.ArgumentParser:
    """--target, --dtype, --task, and with these defaults --prompts and --tokens."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="smollm2-135m", help="model name, folder or Hugging Face id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float64")
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    many = "all" if prompts is None else prompts
    parser.add_argument("--prompts", type=int, default=prompts, help=f"the first N prompts a task (default {many})")
    parser.add_argument("--tokens", type=int, default=tokens, help=f"new tokens a prompt, at most (default {tokens})")
    return parser


def print_row(row: dict[str, Any]) -> None:
    """A JSON object a line on stdout, at once, floats cut to three places."""
    short = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
    sys.stdout.write(json.dumps(short) + "\n")
    sys.stdout.flush()
