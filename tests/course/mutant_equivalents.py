"""Mutants that no correct test can tell from the reference solution, each with the reason: an allow-list."""

__all__ = ["EQUIVALENT"]

EQUIVALENT: dict[tuple[str, str], dict[str, str]] = {}  # (exercise, task) -> change -> reason
