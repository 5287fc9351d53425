"""Suggestions for mistyped names: "Did you mean ...?"."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "unknown"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The sentence that suggests the closest known name, with a space before it; empty if none is close."""
    names = {option.lower(): option for option in known}
    close = get_close_matches(name.lower(), names, n=1)
    return f" Did you mean {names[close[0]]}?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a list: what was given, the closest name, all names."""
    names = list(known)
    return f"unknown {kind} {name!r}.{did_you_mean(name, names)} Choose from {', '.join(names)}"
