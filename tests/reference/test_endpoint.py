"""`specdec bench --endpoint` against a server that speaks as SGLang and vLLM do: its figures, worked out from what it did."""

import json
import re
import signal
import socket
import time
from threading import Thread
from typing import Any

import pytest
from cli_helpers import Specdec, specdec, start
from fake_server import TURNS, Fake, _no_proxy

from specdec_ref.bench import endpoint, server
from specdec_ref.bench.server import ACCEPTED, DRAFTED, DRAFTS, FINISHED, GENERATED, POSITION, VERIFIED
from specdec_ref.exporters import ENGINES

__all__ = ["_no_proxy", "specdec"]  # fixtures

TOKENS = 15  # prefill's one, then two times the turns: 2 + 0 + 3 + 1 accepted and 4 of the target's own make 10
SHORT = ["--task", "chat", "code", "--prompts", "2", "--tokens", TOKENS]


def measured(specdec: Specdec, url: str, *more: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(environment, rows) of --json."""
    assert specdec("bench", "--endpoint", url, *SHORT, "--json", *more) == 0, specdec.err
    about, *rows = map(json.loads, specdec.out.splitlines())
    return about["environment"], rows


def expected(tokens: int, drafts: int, requests: int) -> dict[str, Any]:
    """What `requests` answers of so many tokens did, by the fake's own account."""
    rounds = [accepted for accepted, _ in Fake("vllm", drafts).rounds(tokens)] * requests
    positions = [sum(accepted > i for accepted in rounds) for i in range(drafts)]
    return {"rounds": len(rounds), "accepted": sum(rounds), "drafted": drafts * len(rounds), "positions": positions,
            "tau": round(1 + sum(rounds) / len(rounds), 4),
            "alpha": round(sum(rounds) / (len(rounds) + sum(positions[:-1])), 4)}  # fmt: skip


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_acceptance_is_what_the_server_did(specdec: Specdec, engine: str) -> None:
    with Fake(engine, 3) as fake:
        about, rows = measured(specdec, fake.url)
    assert [row["task"] for row in rows] == ["chat", "code"]
    wanted = expected(TOKENS, 3, requests=2)
    assert wanted["accepted"] > 0
    for row in rows:
        assert {key: row[key] for key in wanted} == wanted
        assert (row["calls"], row["texts"], row["others"], row["identical"]) == (2, 2, 0, None)
        assert row["method"] == engine
    (server,) = about["servers"]
    assert (server["engine"], server["model"]) == (engine, "tiny")
    assert server["version"] == ENGINES[engine]["version"]
    assert rows[0]["setting"] == ("EAGLE3, num_steps 3, eagle_topk 1, num_draft_tokens 4" if engine == "sglang" else "")
    assert about["command"].startswith("specdec bench --endpoint http")
    assert all(
        (body.get("return_spec_tokens_details"), body["top_k"]) == (True if engine == "sglang" else None, -1)
        for body in fake.asked
    )


def test_sglang_without_accounts_leaves_its_counters(specdec: Specdec) -> None:
    """An older SGLang: accepted = tokens - prefill's - rounds; by position and alpha it cannot say."""
    with Fake("sglang", 3, details=False) as fake:
        _, rows = measured(specdec, fake.url)
    wanted = expected(TOKENS, 3, requests=2)
    for row in rows:
        assert {key: row[key] for key in ("rounds", "accepted", "tau")} == {
            key: wanted[key] for key in ("rounds", "accepted", "tau")
        }
        assert (row["alpha"], row["drafted"], row["positions"]) == (None, None, [])


def test_sglang_accounts_need_no_metrics_page(specdec: Specdec) -> None:
    with Fake("sglang", 3, metrics=False) as fake:
        _, rows = measured(specdec, fake.url)
    assert [row["tau"] for row in rows] == [expected(TOKENS, 3, 2)["tau"]] * 2
    assert [row["others"] for row in rows] == [None, None]


def test_without_metrics_acceptance_is_unknown_and_said_so(specdec: Specdec) -> None:
    with Fake("vllm", 3, metrics=False) as fake:
        _, rows = measured(specdec, fake.url)
    assert [row["tau"] for row in rows] == [None, None]
    assert all(row["tokens_per_s"] > 0 for row in rows)
    assert "acceptance is not known" in specdec.err


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_a_server_that_does_not_speculate_has_tau_one(specdec: Specdec, engine: str) -> None:
    with Fake(engine, 0) as fake:
        _, rows = measured(specdec, fake.url)
    assert [(row["tau"], row["alpha"], row["rounds"]) for row in rows] == [(1.0, None, None)] * 2


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_two_servers_are_paired(specdec: Specdec, engine: str) -> None:
    """Rounds of 20 ms: 15 tokens take 15 of them plainly, 9 with drafts. The ratio is of whole answers."""
    with Fake(engine, 3, round_s=0.02) as fast, Fake(engine, 0, round_s=0.02) as plain:
        about, rows = measured(specdec, fast.url, "--endpoint-plain", plain.url)
    assert [server["url"] for server in about["servers"]] == [plain.url, fast.url]
    assert [(row["task"], row["method"]) for row in rows] == [
        ("chat", "plain"),
        ("chat", engine),
        ("code", "plain"),
        ("code", engine),
        ("all", engine),
    ]
    rounds = 1 + expected(TOKENS, 3, 1)["rounds"]
    for row in rows:
        ideal = 1.0 if row["method"] == "plain" else TOKENS / rounds
        assert row["speedup_vs_plain"] == pytest.approx(ideal, rel=0.35)
    for row in rows[:-1]:
        assert row["identical"] == row["texts"] == 2
        assert row["ci_low"] <= row["speedup_vs_plain"] <= row["ci_high"]
        assert row["ttft_ms"] < 0.5 * 1000 * TOKENS / row["tokens_per_s"], "the first text, not the last"
    assert "not the plain server's" not in specdec.err
    asked = [[body["messages"][0]["content"] for body in fake.asked[1:]] for fake in (fast, plain)]
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == 4


def test_servers_take_turns_at_going_first(specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    async def noted(asked: server.Server, *args: Any, **options: Any) -> server.Reply:
        turns.append(asked.url)
        return await server.ask(asked, *args, **options)

    monkeypatch.setattr(endpoint, "ask", noted)
    with Fake("vllm", 3) as fast, Fake("vllm", 0) as plain:
        measured(specdec, fast.url, "--endpoint-plain", plain.url)
    assert turns[2::2] == [plain.url, fast.url] * 2, "of each pair, after the warm-up, the first"


def test_another_text_is_counted(specdec: Specdec) -> None:
    with Fake("vllm", 3, wrong="else") as fast, Fake("vllm", 0) as plain:
        _, rows = measured(specdec, fast.url, "--endpoint-plain", plain.url)
        assert [row["identical"] for row in rows if row["method"] == "vllm" and row["task"] != "all"] == [0, 0]
        assert "4 greedy texts not the plain server's" in specdec.err
        _, rows = measured(specdec, fast.url, "--endpoint-plain", plain.url, "--temperature", "0.7")
        assert {row["identical"] for row in rows if row["task"] != "all"} == {None}
    assert {body["temperature"] for body in fast.asked} == {0.0, 0.7}
    assert {body["seed"] for body in fast.asked} == {0, 1}


def test_batch_is_requests_at_a_time(specdec: Specdec) -> None:
    with Fake("vllm", 3, round_s=0.02) as fake:
        _, rows = measured(specdec, fake.url, "--batch", "1", "3", "--prompts", "3")
        assert fake.most == 3
    assert [(row["batch"], row["calls"], row["texts"]) for row in rows] == [(1, 3, 3)] * 2 + [(3, 1, 3)] * 2
    assert rows[2]["tokens_per_s"] > 2 * rows[0]["tokens_per_s"]


def test_what_the_server_wrote_for_others_is_said(specdec: Specdec) -> None:
    with Fake("vllm", 3) as fake:
        fake.rounds_of_others = fake.prometheus

        def busy() -> str:
            fake.count(generated=50)
            return str(fake.rounds_of_others())

        fake.prometheus = busy  # type: ignore[method-assign]
        _, rows = measured(specdec, fake.url)
    assert all(row["others"] >= 50 for row in rows)
    assert "for others meanwhile" in specdec.err


def test_a_table_for_people(specdec: Specdec) -> None:
    with Fake("sglang", 3) as fast, Fake("sglang", 0) as plain:
        assert specdec("bench", "--endpoint", f"{fast.url}/v1/", "--endpoint-plain", plain.url, *SHORT) == 0
    assert f"- {fast.url}: tiny, sglang 0.5.23" in specdec.out
    assert specdec.out.count("| plain |") == 2
    assert specdec.out.count("| EAGLE3, num_steps 3, eagle_topk 1, num_draft_tokens 4 |") == 3
    assert "Temperature 0, 1 at a time" in specdec.out


def test_metric_names_are_the_engines_own() -> None:
    names = [*GENERATED.values(), VERIFIED, FINISHED, DRAFTS, DRAFTED, ACCEPTED, POSITION]
    for name in (
        name for name in names if name.partition(":")[0] != "llamacpp"
    ):  # llama.cpp: tests/reference/test_serve.py
        engine = name.partition(":")[0]
        known = {
            known.removesuffix("_total") for known, kind in ENGINES[engine]["metrics"].items() if kind == "counter"
        }
        assert name.removesuffix("_total") in known


@pytest.mark.parametrize(
    ("fault", "said"),
    [("refused", r"HTTP 400 \(max_tokens is too large\)"), ("cut off", r"half way, without \[DONE\]"),
     ("error", "failed half way: CUDA out of memory"),
     ("killed", "/v1/chat/completions: the server ended during an answer")],
)  # fmt: skip
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_failures_name_their_cause(specdec: Specdec, engine: str, fault: str, said: str) -> None:
    with Fake(engine, fault=fault) as fake:
        assert re.search(said, specdec.error(1, "bench", "--endpoint", fake.url, *SHORT, "--batch", "2"))


def test_a_port_that_is_not_http(specdec: Specdec) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection = other.accept()[0]
            with connection:
                connection.sendall(b"220 mail ready\r\n\r\n")
                connection.recv(1000)

        Thread(target=greet, daemon=True).start()
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        assert "does not answer in HTTP" in specdec.error(1, "bench", "--endpoint", url)


def test_no_server_no_api_no_key_no_model(specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "is the server up, and the port right?" in specdec.error(
        1, "bench", "--endpoint", f"http://127.0.0.1:{port}"
    )
    assert "is no address" in specdec.error(2, "bench", "--endpoint", "localhost:30000")
    with Fake("vllm", fault="web page") as fake:
        assert "not an OpenAI-compatible API" in specdec.error(1, "bench", "--endpoint", fake.url)
    with Fake("vllm", fault="key") as fake:
        assert "set OPENAI_API_KEY" in specdec.error(1, "bench", "--endpoint", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        measured(specdec, fake.url)
    with Fake("vllm") as fake:
        assert "has: tiny, other" in specdec.error(1, "bench", "--endpoint", fake.url, "--endpoint-model", "huge")
        measured(specdec, fake.url, "--endpoint-model", "other")
        assert fake.asked[-1]["model"] == "other"
        assert "HTTP 404" in specdec.error(1, "bench", "--endpoint", f"{fake.url}/wrong")
        assert "same server" in specdec.error(2, "bench", "--endpoint", fake.url, "--endpoint-plain", f"{fake.url}/")
        for more in (
            ["--context", "500"],
            ["--drafter", "ngram"],
            ["--cpu-clock"],
            ["--timeout", "0"],
            ["--method", "x"],
        ):
            assert "--" in specdec.error(2, "bench", "--endpoint", fake.url, *more)
    assert "give both" in specdec.error(2, "bench", "--endpoint-plain", "http://localhost:1")


def test_silence_is_an_error_in_the_end(specdec: Specdec) -> None:
    with Fake("sglang", fault="silent") as fake:
        assert "kept silent for too long" in specdec.error(
            1, "bench", "--endpoint", fake.url, *SHORT, "--timeout", "0.3"
        )


def test_ctrl_c_hangs_up_and_keeps_what_was_measured() -> None:
    """The row of the first task is out; the server sees its clients go; no traceback."""
    with (
        Fake("vllm", round_s=0.05) as fake,
        start("bench", "--endpoint", fake.url, *SHORT, "--batch", "2", "--json") as process,
    ):
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        while fake.now < 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
        assert process.wait(timeout=30) == 130, err
        deadline = time.monotonic() + 10
        while fake.hung_up < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert fake.hung_up == 2
    assert json.loads(lines[1])["task"] == "chat"
    assert out == ""
    assert err.strip().endswith("specdec: interrupted")
    assert "Traceback" not in err


def test_the_fake_s_turns() -> None:
    assert [accepted for accepted, _ in Fake("vllm", 3).rounds(11)] == list(TURNS)
