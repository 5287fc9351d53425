"""What a plausible wrong answer is, and how one is written down."""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import dedent, indent

__all__ = ["Wrong", "function", "task"]


@dataclass(frozen=True)
class Wrong:
    """`task`: grade id of the cell that holds the answer. `told`: words of the sentence that names the mistake."""

    exercise: str
    task: str
    name: str
    told: str
    code: str


def function(signature: str, body: str) -> str:
    """Source of a function."""
    return f"def {signature}:\n{indent(dedent(body).strip(), '    ')}\n"


def task(exercise: str, name: str, signature: str) -> Callable[[str, str, str], Wrong]:
    """A writer of wrong answers to one task, whose answer is a function: (name, told, body of the function) -> Wrong."""
    return lambda wrong, told, body: Wrong(exercise, name, wrong, told, function(signature, body))
