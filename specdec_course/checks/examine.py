"""Try a learner's code, judge what comes out, and name the misconception that would give just that.

A `Trial` turns code into an outcome (numbers, a distribution) and judges the outcome. Each suspect is a wrong answer
that people give, with a sentence about it. Where a trial fails, the suspects are put through the same trial: one whose
outcome is the learner's own explains it. So a reason is never guessed from the look of the code.
"""

import inspect
import io
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor

from specdec_course.checks.report import UNWRITTEN, Case, Report
from specdec_course.checks.wire import sentence

__all__ = [
    "CLOSE", "Suspect", "Trial", "Trouble", "attempt", "described", "examine", "ids", "numbers", "same", "unaided",
]  # fmt: skip

CLOSE = 1e-9  # float64 sums of a few hundred products are far closer; a wrong rule is far off


class Trouble(Exception):  # noqa: N818  (it is the learner's, not ours)
    """The learner's code could not be tried; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Trial:
    """`outcome(code)` may raise Trouble. `judge(outcome)` says whether it is right, and what came out."""

    asks: str
    outcome: Callable[[Any], Any]
    judge: Callable[[Any], tuple[bool, str]]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Suspect:
    """A misconception in a sentence, and the code that it leads to, of the same form as the learner's."""

    says: str
    code: Any


def examine(title: str, code: Any, trials: Sequence[Trial], suspects: Sequence[Suspect]) -> Report:
    """All trials of one task, and what would explain those that fail."""
    cases: list[Case] = []
    failed: list[tuple[Trial, Any]] = []
    for trial in trials:
        try:
            outcome = trial.outcome(code)
            passed, says = trial.judge(outcome)
        except Trouble as trouble:
            passed, says = False, str(trouble)
        else:
            failed += [] if passed else [(trial, outcome)]
        cases.append(Case(trial.asks, passed, says, trial.weight))
    return Report(title, tuple(cases), tuple(_reasons(code, failed, suspects)))


def _reasons(code: Any, failed: Sequence[tuple[Trial, Any]], suspects: Sequence[Suspect]) -> list[str]:
    """The sentence that explains all that failed or, if there is none, a few that explain much of it, and how much.

    Of those few, always the one that explains most of what is left: two mistakes at once then are named as two.
    """
    if not all(_explains(Suspect("", code), trial, outcome) for trial, outcome in failed):
        return ["It gives something else each time it is run: it takes chance, or memory, from outside."]
    explained = [{i for i, (trial, outcome) in enumerate(failed) if _explains(s, trial, outcome)} for s in suspects]
    left, reasons = set(range(len(failed))), []
    while left and suspects:
        best = max(range(len(suspects)), key=lambda i: len(explained[i] & left))
        found = explained[best] & left
        if not found:
            break
        share = "" if len(found) == len(failed) else f" (This would explain {len(found)} of {len(failed)} failures.)"
        reasons.append(suspects[best].says + share)
        left -= found
    return reasons


def _explains(suspect: Suspect, trial: Trial, outcome: Any) -> bool:
    try:
        return same(trial.outcome(suspect.code), outcome)
    except Trouble:
        return False


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """What the learner's function returns. Raises Trouble, with their own line, if it raises anything.

    What it prints or warns of is dropped: a grader takes anything on stderr for a failure.
    """
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args)
    except Trouble:
        raise
    except NotImplementedError:
        raise Trouble(UNWRITTEN) from None
    except Exception as error:
        told = getattr(error, "told", "")  # where it ran in another process: the lines are there
        raise Trouble(told or sentence(error)) from error


def unaided(code: Any, *offered: Callable[..., Any]) -> Callable[..., Any]:
    """`code`, which may not call what the page offers to later tasks: the package's own answers to this one."""
    answers = {inspect.unwrap(function).__code__: function.__name__ for function in offered}

    def alone(*args: Any) -> Any:
        called: list[str] = []

        def look(frame: FrameType, event: str, _: Any) -> None:
            if event == "call" and frame.f_code in answers:
                called.append(answers[frame.f_code])

        before = sys.getprofile()
        sys.setprofile(look)
        try:
            result = code(*args)
        finally:
            sys.setprofile(before)
        if called:
            raise Trouble(f"it calls `{called[0]}`. Later tasks may; this one asks for a version of your own")
        return result

    return alone


def described(value: Any) -> str:
    """What a learner's function returned, in words."""
    return "None, as a function without `return` does" if value is None else f"{type(value).__name__} {value!r}"


def numbers(values: Any, count: int) -> list[float]:
    """What came back, as a list of `count` numbers. Raises Trouble if it is something else."""
    try:
        found = [float(value) for value in (values if count != 1 else [values])]
    except (TypeError, ValueError):
        found = []
    if len(found) != count:
        wanted = "a number was" if count == 1 else f"{count} numbers were"
        raise Trouble(f"it returned {described(values)}, and {wanted} expected")
    return found


def ids(tokens: Any) -> list[int]:
    """What came back, as a list of token ids. Raises Trouble if it is something else."""
    if not isinstance(tokens, list | tuple):
        raise Trouble(f"it returned {type(tokens).__name__} {tokens!r}, and a list of token ids was expected")
    if any(isinstance(token, Tensor) for token in tokens):
        raise Trouble(f"it returned {tokens!r}. A tensor is never found in a set or a dict: make it an int first")
    found = [number for token in tokens for number in numbers(token, 1)]
    if strange := [number for number in found if not number.is_integer()]:
        raise Trouble(f"it returned {tokens!r}, and {strange[0]:g} is no token id")
    return list(map(int, found))


def same(first: Any, second: Any) -> bool:
    """Equal up to rounding, for numbers and whatever holds them."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return same(first.tolist(), second.tolist())
    if isinstance(first, float | int) and isinstance(second, float | int):
        both_nan = first != first and second != second
        return both_nan or math.isclose(first, second, rel_tol=CLOSE, abs_tol=CLOSE)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return all(same(first.get(key, 0.0), second.get(key, 0.0)) for key in {*first, *second})
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(type(first) is type(second) and first == second)
