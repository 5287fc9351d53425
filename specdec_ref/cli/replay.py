"""`specdec replay`: a trace of `specdec generate --trace`, coloured and in its own time, without a model."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from specdec_ref.cli.shared import UsageError, console, say

if TYPE_CHECKING:
    from specdec_ref.replay import Trace

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "watch a recorded run again, token by token"
DESCRIPTION = """\
Show a trace written by `specdec generate --trace FILE`: what each round
accepted, rejected, never tested and added, at the recorded speed. No model is
needed.
"""
EPILOG = """\
examples:
  $ specdec generate --drafter eagle --trace run.jsonl "Name three colours."
  $ specdec replay run.jsonl --speed 0.5          at half speed
  $ specdec replay run.jsonl --rounds             one line per round
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", type=Path, help="the trace")
    parser.add_argument(
        "--speed", type=float, metavar="X", help="1: as recorded (default), 2: twice as fast, 0: at once"
    )
    parser.add_argument("--rounds", action="store_true", help="one line per round: guesses, accepted, time")


def run(args: argparse.Namespace) -> int:
    """Read and show."""
    from specdec_ref.cli.paint import legend, marked
    from specdec_ref.replay import read_trace

    speed = (1.0 if sys.stdout.isatty() else 0.0) if args.speed is None else args.speed
    if not 0 <= speed < float("inf"):
        raise UsageError(f"--speed must be a finite number >= 0, got {speed:g}")
    try:
        trace = read_trace(args.file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the trace {args.file}: {error.strerror or error}") from error
    except RecursionError as error:
        raise UsageError(f"{args.file} is not a trace: its JSON is nested too deeply") from error
    except ValueError as error:
        raise UsageError(f"{args.file} is not a trace of `specdec generate --trace`: {error}") from error
    say(", ".join(f"{name} {value}" for name, value in trace.about.items() if name != "prompt"))
    console().print(legend(marked=marked(console())))
    _show(trace, speed, lines=args.rounds)
    return 0


def _show(trace: "Trace", speed: float, *, lines: bool) -> None:
    """Round by round; afterwards the figures of them all."""
    from rich.text import Text

    from specdec_ref.cli.paint import Painter
    from specdec_ref.metrics import RunStats

    out = console()
    painter = Painter(out, trace.decode)
    for number, step in enumerate(trace.rounds, 1):
        if speed:
            time.sleep(step.seconds / speed)
        if lines:
            guessed = len(step.accepted) + len(step.rejected) + len(step.untested)
            head = f"{number:>4}  {len(step.accepted)}/{guessed} accepted, {1e3 * step.seconds:6.1f} ms  "
            out.print(Text(head, style="dim"), end="")
            painter = Painter(out, trace.decode, indent=0)
        painter.show(step)
        if lines:
            painter.end()
    if not lines:
        painter.end()
    records = [step.record for step in trace.rounds if step.record is not None]
    if records:
        say(RunStats.from_records(records).log_line())
