"""What a plausible wrong answer is, and how one is written down."""

from dataclasses import dataclass
from textwrap import dedent, indent

__all__ = ["Wrong", "function"]


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
