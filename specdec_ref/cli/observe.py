"""What `specdec generate` writes for others to look at: a per-token trace, Prometheus text."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from specdec_ref.cli.shared import UsageError, say, typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from specdec_ref.cli.work import Work
    from specdec_ref.metrics import StepRecord
    from specdec_ref.trace import Round

__all__ = ["add_observing", "check_observing", "write_metrics", "write_trace"]


def add_observing(parser: argparse.ArgumentParser) -> None:
    """--trace and --metrics."""
    group = parser.add_argument_group("observing")
    group.add_argument("--trace", type=Path, metavar="FILE", help="one prompt: every round, for `specdec replay FILE`")
    group.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="the run's figures as Prometheus text, under our, SGLang's and vLLM's names",
    )


def check_observing(args: argparse.Namespace, *, streamed: bool) -> None:
    """Refuse what cannot be written, before a model is loaded."""
    if args.trace is not None and not streamed:
        raise UsageError("--trace is for one prompt, without --json and --prompts-file")
    for flag, path in (("--trace", args.trace), ("--metrics", args.metrics)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{flag}: there is no folder {path.absolute().parent}")


def write_trace(path: Path | None, work: "Work", prompt: str, done: "Sequence[Round]") -> None:
    """The rounds, with their texts."""
    from specdec_ref.replay import trace_lines

    if path is not None:
        config = work.config
        about = {
            "target": config.target,
            "drafter": config.drafter,
            "budget": config.budget.describe(),
            "prompt": prompt,
        }
        lines = trace_lines(done, work.session.decode, byte_tokens=work.session.byte_tokens, **about)
        path.write_text("".join(lines), encoding="utf-8")
        say(f"trace in {path}: {typed(f'specdec replay {path}')}")


def write_metrics(path: Path | None, work: "Work", records: "Iterable[StepRecord]", seconds: float | None) -> None:
    """The figures of all rounds."""
    from specdec_ref.exposition import exposition
    from specdec_ref.metrics import RunStats

    if path is not None:
        stats, config = RunStats.from_records(records), work.config
        path.write_text(exposition(stats, config.budget, seconds=seconds, model=config.target), encoding="utf-8")
        say(f"metrics in {path}")
