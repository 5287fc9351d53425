"""Try a learner's code, judge what comes out, and name the misconception that would give just that.

A `Trial` turns code into an outcome (numbers, a distribution) and judges the outcome. Each suspect is a wrong answer
that people give, with a sentence about it. If a trial fails, the suspects go through all trials: one is named only if
it gives the learner's outcome in each that failed, and passes those that passed. A reason is never guessed from the
code's text.
"""

import inspect
import io
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from time import perf_counter
from types import FrameType
from typing import Any

from torch import Tensor

from specdec_course.checks.limits import SECONDS, TimeUp, in_time
from specdec_course.checks.report import UNWRITTEN, Case, Report
from specdec_course.checks.wire import own_line, sentence, without_line

__all__ = [
    "CLOSE", "Suspect", "Trial", "Trouble", "attempt", "described", "examine", "ids", "numbers", "same", "unaided",
]  # fmt: skip

ALONE = "but that alone is no answer: it counts once one of the cases holds that ask for more"
CLOSE = 1e-9  # float64 sums of a few hundred products are far closer; a wrong rule is far off


class Trouble(Exception):  # noqa: N818  (it is the learner's, not ours)
    """The learner's code could not be tried; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Trial:
    """`outcome(code)` may raise Trouble. `judge(outcome)` says whether it is right, and what came out.

    `side`: a constant may fulfil it, so it counts only if one of the report's other trials holds. `easy`: so may code
    that leaves out what the task is about, and the same holds.
    """

    asks: str
    outcome: Callable[[Any], Any]
    judge: Callable[[Any], tuple[bool, str]]
    weight: float = 1.0
    side: bool = False
    easy: bool = False


@dataclass(frozen=True, slots=True)
class Suspect:
    """A misconception in a sentence, and the code that it leads to, of the same form as the learner's."""

    says: str
    code: Any


def examine(title: str, code: Any, trials: Sequence[Trial], suspects: Sequence[Suspect]) -> Report:
    """All trials of one task, and the first of `suspects` that explains what failed and what held."""
    cases: list[Case] = []
    seen: list[tuple[float, Trial, bool, Any]] = []
    reasons: list[str] = []
    try:
        with in_time(SECONDS):
            for trial in trials:
                began = perf_counter()
                try:
                    outcome = trial.outcome(code)
                except Trouble as trouble:
                    outcome, passed, says = trouble, False, str(trouble)
                else:
                    passed, says = _judged(trial, outcome)
                seen.append((perf_counter() - began, trial, passed, outcome))
                cases.append(Case(trial.asks, passed, says, trial.weight))
            reasons = _reasons(code, seen, suspects)
    except TimeUp as end:
        says = f"it had not finished after {SECONDS:g} seconds{own_line(end)}: is there a loop that never ends?"
        for trial in trials[len(cases) :]:
            cases.append(Case(trial.asks, False, says, trial.weight))
            says = "not run, because the time was up"
    return Report(title, tuple(_counted(cases, trials)), tuple(reasons))


def _counted(cases: Sequence[Case], trials: Sequence[Trial]) -> Sequence[Case]:
    """What holds on the side, or is easy, holds only beside something else."""
    others = [case for case, trial in zip(cases, trials, strict=True) if not (trial.side or trial.easy)]
    if not others or any(case.passed for case in others):
        return cases
    return [replace(case, passed=False, says=f"{case.says}; {ALONE}") if case.passed else case for case in cases]


def _judged(trial: Trial, outcome: Any) -> tuple[bool, str]:
    try:
        return trial.judge(outcome)
    except Trouble as trouble:
        return False, str(trouble)


def _reasons(code: Any, seen: Sequence[tuple[float, Trial, bool, Any]], suspects: Sequence[Suspect]) -> list[str]:
    """The sentence of the first suspect that gives what the learner's code gave where it failed, and holds elsewhere.

    Where a `side` trial held, a suspect need not: how often something was read is no part of its mistake. The trials
    that took the least time (`seen`: seconds, trial, whether it held, outcome) come first, and rule most suspects out.
    """
    failed = [(trial, outcome) for _, trial, passed, outcome in seen if not passed]
    if not failed:
        return []
    if not all(_gives(code, trial, outcome) for trial, outcome in failed):
        return ["It gives something else each time it is run: it uses random numbers, or memory, from outside."]
    telling = sorted((each for each in seen if not (each[2] and each[1].side)), key=lambda each: each[0])
    for suspect in suspects:
        if all(
            _holds(suspect.code, trial) if passed else _gives(suspect.code, trial, outcome)
            for _, trial, passed, outcome in telling
        ):
            return [suspect.says]
    return []


def _holds(code: Any, trial: Trial) -> bool:
    """Whether the trial holds for this code."""
    try:
        return _judged(trial, trial.outcome(code))[0]
    except Trouble:
        return False


def _gives(code: Any, trial: Trial, outcome: Any) -> bool:
    """Whether the trial comes out the same with this code; of two errors, whether they are described alike."""
    try:
        return same(trial.outcome(code), outcome)
    except Trouble as trouble:
        return isinstance(outcome, Trouble) and without_line(str(trouble)) == without_line(str(outcome))


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
        except Exception:
            if not called:
                raise
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
