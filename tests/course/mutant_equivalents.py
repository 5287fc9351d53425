"""Mutants that no correct test can tell from the reference solution, each with the reason: an allow-list."""

__all__ = ["EQUIVALENT"]

EQUIVALENT: dict[tuple[str, str], dict[str, str]] = {  # (exercise, task) -> change -> reason
    ("06_metrics", "counts"): {
        "`0` → `-1` (2)": "the default is for a run without rounds, and range(-1) is as empty as range(0)",
    },
    ("08_production", "choice"): {
        "`range(1, len(alive) + 1)` → `list(range(1, len(alive) + 1))[::-1]`":
            "the order decides between equally fast lengths only, and either is right",
    },
}  # fmt: skip
