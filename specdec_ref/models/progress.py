"""What a long preparation says while it works: one line a stage, always on stderr, so that stdout stays for results."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

__all__ = ["say", "stage"]


def say(text: str) -> None:
    """One line on stderr."""
    print(f"specdec: {text}", file=sys.stderr, flush=True)


@contextmanager
def stage(text: str, *, bar: bool = True) -> Iterator[None]:
    """Name what is being done, with a moving bar on a terminal; say how long it took when it is done.

    `bar=False` leaves the terminal to whatever draws its own (pip, tqdm).
    """
    start = time.perf_counter()
    progress = _bar(text) if bar else None
    if progress is None:
        say(f"{text} ...")
    with progress or nullcontext():
        yield
    say(f"{text}: done in {time.perf_counter() - start:.1f} s")


def _bar(text: str) -> AbstractContextManager[object] | None:
    """rich's bar, if rich is installed and stderr is a terminal."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        return None
    console = Console(file=sys.stderr)  # this very stream: transformers is silenced by swapping sys.stderr
    if not console.is_terminal:
        return None
    columns = (TextColumn("specdec: {task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    progress.add_task(text, total=None)
    return progress
