"""`check`: the instant answer of a chapter's *your turn* cell.

threes = ...                        # the reader replaces the dots
check(threes, 3, hint="count the boxes without a line through them")
"""

from types import EllipsisType
from typing import Any

__all__ = ["check"]


def check(answer: Any, expected: Any, *, hint: str = "", near: float = 0.0) -> None:
    """Print whether an answer is right. `near`: how far a number may be off. Dots (`...`) mean: not answered yet."""
    if isinstance(answer, EllipsisType):
        print("Your turn: replace the dots, then run this cell again.")
    elif _right(answer, expected, near):
        print("Right.")
    else:
        print(f"Not yet: you have {answer!r}.{f' Hint: {hint}.' if hint else ''}")


def _right(answer: Any, expected: Any, near: float) -> bool:
    if isinstance(expected, str) and isinstance(answer, str):
        return answer.strip().casefold() == expected.casefold()
    if isinstance(expected, int | float) and isinstance(answer, int | float):
        return abs(answer - expected) <= near
    return bool(answer == expected)
