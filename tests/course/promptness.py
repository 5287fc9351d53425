"""How long a widget takes to answer a hand."""

import io
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from matplotlib.figure import Figure

__all__ = ["answers_at_once"]

FELT = 0.1  # seconds, below which a hand feels no delay
PICTURES = 5  # or, where drawing is slow, as long as so many empty pictures take


def answers_at_once(change: Callable[[Any], object], values: Iterable[Any]) -> bool:
    """Whether the median answer to a change takes no longer. This process's own time: other jobs do not count."""
    pairs = [(seconds(change, value), seconds(empty, value)) for value in values]
    return median(taken for taken, _ in pairs) < FELT or median(taken / drawn for taken, drawn in pairs) < PICTURES


def seconds(work: Callable[[Any], object], value: Any) -> float:
    started = time.process_time()
    work(value)
    return time.process_time() - started


def empty(_: Any) -> None:
    figure = Figure((7, 3))
    figure.add_subplot()
    figure.savefig(io.BytesIO(), format="png")
