"""Whether a decoder of exercise 09 is self-contained: what it uses of this package, or of other cells of its notebook.

It looks at the compiled code, so it runs where that is: in the notebook, or in the process of a hand-in.
"""

from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["alone"]


def alone(make: Any) -> tuple[str, str]:
    """(the first thing of this package that it uses, the first of another cell), each "" if there is none."""
    elsewhere = getattr(make, "told_alone", None)  # a class of another process
    return elsewhere() if elsewhere is not None else (_borrowed(make) or "", _elsewhere(make) or "")


def _borrowed(make: Any) -> str | None:
    """The first thing of this package that the class, or what it calls, takes from the notebook's names."""
    for name, value in _taken(make):
        home = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
        if {home.partition(".")[0], name.partition(".")[0]} & {"specdec_ref", "specdec_course"}:
            return name
    return None


def _elsewhere(make: Any) -> str | None:
    """The first function or class that it takes from another cell of the notebook. Each cell is a file of its own."""
    own = _functions(make)
    cell = {function.__code__.co_filename for function in own} | {"<string>"}  # that is what a dataclass adds
    for name, value in _taken(make):
        written = [function for function in _functions(value) if function.__globals__ is own[0].__globals__]
        if written and cell.isdisjoint(function.__code__.co_filename for function in written):
            return name
    return None


def _functions(value: Any) -> list[FunctionType]:
    """A function alone, or those of a class."""
    found = vars(value).values() if isinstance(value, type) else [value]
    return [one for one in found if isinstance(one, FunctionType)]


def _taken(make: Any) -> Iterator[tuple[str, Any]]:
    """What the class, and the functions and classes of the notebook that it uses, take from the notebook's names."""
    waiting = _functions(make)
    names, seen = waiting[0].__globals__ if waiting else {}, set(waiting)
    while waiting:
        for name in _names(waiting.pop().__code__):
            value = names.get(name)
            yield name, value
            new = [one for one in _functions(value) if one.__globals__ is names and one not in seen]
            seen.update(new)
            waiting += new


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
