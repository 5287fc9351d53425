"""`specdec prove`: what it shows, and that it fails when it should."""

import json

import pytest
from cli_helpers import Specdec, specdec

from specdec_ref.cli import prove
from specdec_ref.config import SamplingParams
from specdec_ref.verifiers import VERIFIERS, GreedyVerifier

__all__ = ["specdec"]  # a fixture


def test_every_verifier_is_exact_and_every_mistake_is_noticed(specdec: Specdec) -> None:
    assert specdec("prove", "--json") == 0
    rows = [json.loads(line) for line in specdec.out.splitlines()]
    assert {row["verifier"] for row in rows} == set(VERIFIERS)
    for row in rows:
        assert row["lossless"] == bool(VERIFIERS[row["verifier"]]().lossless_for)
        assert (row["distance"] <= 1e-12) == row["lossless"], row
        assert not row["lossless"] or row["broken"] > 1e-2, row


@pytest.mark.parametrize(
    ("distance", "broken", "word"), [(0.0, 0.1, "exact"), (1e-6, 0.1, "NOT EXACT"), (0.0, 0.0, "NOT CAUGHT")]
)
def test_the_table_reports_what_was_found(
    distance: float, broken: float, word: str, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        prove.Proof("greedy", "chain", True, distance, prove.UNTESTED, broken),
        prove.Proof("typical", "tree", False, 0.5),
    ]
    monkeypatch.setattr(prove, "proofs", lambda: iter(found))
    assert specdec("prove") == int(word != "exact")
    row = next(line for line in specdec.out.splitlines() if line.startswith("greedy"))
    assert word in row
    assert ("please report it" in specdec.out) == (word != "exact")
    assert max(map(len, specdec.out.splitlines())) <= 100


def test_a_mistake_in_a_verifier_itself_is_measured() -> None:
    """Greedy verification of drafts at temperature 1 is not lossless: its text has no chance in it."""
    assert prove._distance(GreedyVerifier(), "chain", SamplingParams(1.0)) > 0.1
