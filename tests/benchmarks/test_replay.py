"""The replay of similar requests, on a tiny model: every drafter answers alike, and begins each episode without memory."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import folder

from benchmarks import replay, suffix
from specdec_ref.workloads import load_episodes

__all__ = ["folder"]  # a fixture


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_replay_has_a_row_for_each_episode_and_drafter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--target", str(folder), "--dtype", "float64", "--tokens", "8", "--split", "dev"]
    assert replay.main([*argv, "--drafter", "ngram", "--drafter", "suffix"]) == 0
    about, *found = rows(capsys.readouterr().out)
    episodes = [episode.id for episode in load_episodes("dev")]
    assert about["split"] == "dev"
    assert sorted((str(row["episode"]), str(row["drafter"])) for row in found) == sorted(
        (episode, name) for episode in [*episodes, "mean"] for name in ("ngram", "suffix")
    )
    assert all(row["same"] == row["requests"] for row in found), "float64: no near-ties"
    assert replay.main([*argv, "--drafter", "suffix", "--no-clock"]) == 0
    _, *again = rows(capsys.readouterr().out)
    taus = [{row["episode"]: row["tau"] for row in some if row["drafter"] == "suffix"} for some in (found, again)]
    assert taus[0] == taus[1]
    assert all("speedup" not in row for row in again)


def test_load_of_the_suffix_trees_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    assert suffix.main(["--tokens", "3000", "--capacity", "500", "--request", "100", "--every", "7"]) == 0
    (row,) = rows(capsys.readouterr().out)
    assert row["lookups"] > 50
    assert row["tokens"] >= 3000  # the stream ends with a whole passage
    assert row["tokens_kept"] <= 500
    assert row["most_nodes"] <= 2 * 600
