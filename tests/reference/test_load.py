"""The load test of `specdec bench --endpoint --load`, against a server whose rounds take a known time."""

import json
from typing import Any

import pytest
from cli_helpers import Specdec, specdec
from fake_server import Fake, _no_proxy

from specdec_ref.bench.load import Load, crossing, load_table

__all__ = ["_no_proxy", "specdec"]  # fixtures

LOAD = ["--task", "chat", "--prompts", 3, "--tokens", 15, "--each", 2, "--load", 1, 3]


def rows_of(specdec: Specdec, *more: object) -> list[dict[str, Any]]:
    assert specdec("bench", *more, *LOAD, "--json") == 0, specdec.err
    about, *rows = map(json.loads, specdec.out.splitlines())
    assert "--load 1 3" in about["environment"]["command"]
    return rows


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_levels_times_and_acceptance(specdec: Specdec, engine: str) -> None:
    """20 ms a round: 15 tokens are one of the prompt and 6 rounds with drafts, 14 without."""
    with Fake(engine, 3, round_s=0.02) as fast, Fake(engine, 0, round_s=0.02) as plain:
        rows = rows_of(specdec, "--endpoint", fast.url, "--endpoint-plain", plain.url)
        assert (fast.most, plain.most) == (3, 3)
        asked = [sorted(body["messages"][0]["content"] for body in fake.asked[1:]) for fake in (fast, plain)]
    assert asked[0] == asked[1]
    assert [(row["concurrency"], row["method"], row["requests"]) for row in rows] == [
        (1, "plain", 2),
        (1, engine, 2),
        (3, "plain", 6),
        (3, engine, 6),
    ]
    for row in rows:
        rounds = 14 if row["method"] == "plain" else 6
        assert row["tau"] == pytest.approx(14 / rounds, abs=1e-4)
        first, each, whole = row["ttft_ms"][0], row["tpot_ms"][0], 1e3 * row["latency_s"][0]
        assert first >= 20, "what the server waits is the least: a busy machine adds to it"
        assert each >= 0.6 * 20 * rounds / 14, "less where the first text was noticed late"
        assert whole >= 20 * (rounds + 1)
        assert first < 0.5 * whole, "the first text, not the last"
        assert each < whole / 14, "the first token belongs to the prompt"
        assert row["tokens_per_s"] == pytest.approx(15 * row["requests"] / row["seconds"], rel=0.01)
        for name in ("ttft_ms", "tpot_ms", "latency_s"):
            assert row[name] == sorted(row[name]), "percentiles rise"
    assert rows[2]["tokens_per_s"] > 1.5 * rows[0]["tokens_per_s"]


def test_a_table_a_progress_bar_and_a_picture(specdec: Specdec, tmp_path: Any) -> None:
    picture = tmp_path / "new" / "load.png"
    with Fake("vllm", 3, round_s=0.01) as fast, Fake("vllm", 0, round_s=0.01) as plain:
        argv = ["bench", "--endpoint", fast.url, "--endpoint-plain", plain.url, *LOAD, "--plot", picture]
        assert specdec(*argv) == 0, specdec.err
    assert specdec.out.count("| plain |") == specdec.out.count("| vllm |") == 2
    assert "higher throughput at every level" in specdec.out
    assert "16/16" in specdec.err, "the progress bar counts requests"
    assert picture.read_bytes().startswith(b"\x89PNG")


def row(level: int, method: str, speed: float) -> dict[str, Any]:
    three = [1.0, 2.0, 3.0]
    return {"concurrency": level, "method": method, "tokens_per_s": speed, "tau": None, "ttft_ms": three, "tpot_ms": three,
            "latency_s": three}  # fmt: skip


def test_where_the_curves_cross() -> None:
    speeds = {1: (100, 120), 2: (150, 165), 4: (200, 200 / 1.1), 8: (220, 150)}
    rows = [row(n, m, s) for n, pair in speeds.items() for m, s in zip(("plain", "vllm"), pair, strict=True)]
    assert crossing(rows) == pytest.approx(2 * 2**0.5)  # 1.1 ahead at 2, 1.1 behind at 4: half way on a log axis
    about = {"date": "today", "servers": [{"url": "u", "model": "m", "engine": "vllm", "version": "1"}] * 2}
    assert "at about 2.8 concurrent requests" in load_table(about, rows)
    assert crossing(rows[4:]) is None
    assert "lower throughput at every level" in load_table(about, rows[4:])
    assert "stops paying" not in load_table(about, rows[::2]), "one server has nothing to cross"


@pytest.mark.parametrize("levels", [(), (0,), (1, -2)])
def test_odd_levels(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=">= 1"):
        Load(["hello"], levels)


@pytest.mark.parametrize(("level", "warned"), [(2, False), (3, True)])
def test_a_level_above_the_slots_of_the_server_is_reported(level: int, warned: bool, specdec: Specdec) -> None:
    with Fake("llamacpp", drafts=0, metrics=False) as fake:
        argv = ("--task", "chat", "--prompts", 1, "--tokens", 4, "--each", 1, "--load", 1, level)
        assert specdec("bench", "--endpoint", fake.url, *argv) == 0, specdec.err
    queue = "answers 2 requests at a time, so at level 3 the others wait for a slot: start it with --parallel 3"
    assert (queue in specdec.err) == warned


def test_faults_are_one_line(specdec: Specdec) -> None:
    with Fake("vllm", fault="error") as fake:
        assert specdec("bench", "--endpoint", fake.url, *LOAD) == 1
        assert "failed half way: CUDA out of memory" in specdec.err.splitlines()[-1], "below the progress bar"
    with Fake("vllm") as fake:
        assert ">= 1" in specdec.error(2, "bench", "--endpoint", fake.url, "--load", 0)
