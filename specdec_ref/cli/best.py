"""The drafter that `specdec generate` uses unless told otherwise."""

from pathlib import Path

__all__ = ["best_drafter"]


def best_drafter(target: str) -> str:
    """The best drafter that ships for this target: hybrid where a trained head comes with the package, else ngram."""
    from specdec_ref.weights import SHIPPED

    return "hybrid" if "eagle" in SHIPPED.get(Path(target).name, {}) else "ngram"
