"""No input ends in a traceback: malformed files, flags, variables, streams and answers, thrown at every command.

Each call ends with a documented exit code and, if that is 1 or 2, one line (`any_input.Outcome.fault`).
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import httpx
import pytest
from any_input import ROWS, command, environment, harmed, lines, mutated, run
from cli_helpers import folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specdec_ref import web

__all__ = ["folder"]  # fixture

QUICK = [
    "explain",
    "export-command",
    "replay",
    "serve",
    "fetch",
    "help",
    "leaderboard",
]  # not grade: it rewrites exercises/
MODEL = ["generate", "demo", "bench", "train", "doctor", "choose"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # interrupted in a callback
chances = given(chance=st.randoms(use_true_random=False))
relaxed = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], print_blob=True
)


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither network nor the embedded model: the real one would take seconds in each call."""
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SPECDEC_WHEEL", str(tmp_path / "none.whl"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def call(chance: Random, names: list[str], model: Path) -> None:
    variables = environment(chance) if chance.random() < 0.3 else {}
    with TemporaryDirectory() as place, mock.patch.dict(os.environ, variables), contextlib.chdir(place):
        argv = command(chance, names, model, Path(place))
        stdin = chance.choice([b"", b"red\n", b"\xff\xfe", b"a\x00b", b"vllm serve m/x --speculative-config '{'"])
        outcome = run(argv, stdin, chance.choice(["utf-8", "cp1252", "ascii"]))
    assert not (fault := outcome.fault()), f"{argv}: {fault}"


@chances
@settings(relaxed, max_examples=100)
def test_commands_that_load_no_model(chance: Random, folder: Path) -> None:
    call(chance, QUICK, folder)


@chances
@settings(relaxed, max_examples=30)
def test_commands_with_a_model(chance: Random, folder: Path) -> None:
    call(chance, MODEL, folder)


@chances
@settings(relaxed, max_examples=30)
def test_damaged_models_and_heads(chance: Random, folder: Path) -> None:
    with TemporaryDirectory() as place:
        model = harmed(chance, folder, Path(place))
        argv = ["generate", "--target", str(model), "--drafter", chance.choice(["eagle", "ngram", "layer-skip"]),
                "--draft-model", str(model / "eagle"), "--max-new-tokens", "3", "a"]  # fmt: skip
        if "eagle" not in argv:
            del argv[argv.index("--draft-model") : argv.index("--max-new-tokens")]
        outcome = run(argv)
    assert not (fault := outcome.fault()), f"{argv}: {fault}"


@chances
@settings(relaxed, max_examples=30)
def test_prompt_files(chance: Random, folder: Path) -> None:
    with TemporaryDirectory() as place:
        argv = ["generate", "--target", str(folder), "--json", "--max-new-tokens", "2"]
        outcome = run(
            [*argv, "--prompts-file", str(lines(chance, Path(place)))], encoding=chance.choice(["utf-8", "cp1252"])
        )
    assert not (fault := outcome.fault()), fault


EVENT = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}], "usage": {"completion_tokens": 1}}
DETAILS = {"choices": [], "sglext": {"spec_tokens_details": {
    "spec_verify_ct": 2, "spec_num_correct_drafts": 1, "spec_num_proposed_drafts": 6, "spec_correct_drafts_histogram": [1, 1]}},
    "usage": {"completion_tokens": 3}, "timings": {"predicted_n": 3, "draft_n": 2, "draft_n_accepted": 1}}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "/v1/models": {"data": [{"id": "m", "owned_by": "sglang"}, {"id": "n", "owned_by": "vllm"}]},
    "/server_info": {"version": "0.5.23", "dtype": "bfloat16", "speculative_num_steps": 3},
    "/version": {"version": "0.33.0"},
    "/v1/completions": {"choices": [{"text": "red", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}},
}
METRICS = ["sglang:generation_tokens_total 9", "sglang:spec_verify_calls_total 3", "sglang:num_requests_total 1",
           'vllm:spec_decode_num_drafts_total{a="b"} 3', "other:gauge NaN", "other:bucket +Inf", "no sample", "x 1e999"]  # fmt: skip


class Server(httpx.AsyncBaseTransport):
    """Answers of which some have another shape than a server's."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        chance, path = self.chance, request.url.path
        if chance.random() < 0.03:
            raise chance.choice([httpx.ReadError, httpx.RemoteProtocolError, httpx.DecodingError])("broken")
        if chance.random() < 0.05:
            return httpx.Response(chance.choice([204, 301, 400, 404, 429, 500]), content=chance.choice(ROWS).encode())
        if path == "/metrics":
            return httpx.Response(200, text="\n".join(chance.sample(METRICS, 4)))
        if path == "/v1/chat/completions":
            events = [self._maybe(EVENT) for _ in range(2)] + [self._maybe(DETAILS)]
            stream = "".join(f"data: {event}\n\n" for event in events)
            return httpx.Response(200, text=stream + "data: [DONE]\n\n" * (chance.random() < 0.9))
        return httpx.Response(200, text=self._maybe(ANSWERS.get(path, {})))

    def _maybe(self, good: Any) -> str:
        chance = self.chance
        if chance.random() < 0.05:
            return chance.choice(ROWS)
        return json.dumps(mutated(chance, good) if chance.random() < 0.3 else good)


@chances
@settings(relaxed, max_examples=80)
def test_answers_of_servers(chance: Random, folder: Path) -> None:
    def client(urls: Any, **_: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=Server(chance))

    bench = ["bench", "--endpoint", "http://localhost:1", "--quick", "--json", "--tokens", "3"]
    with TemporaryDirectory() as place:
        corpus = ["train", "corpus", "--endpoint", "http://localhost:1", "--target", str(folder), "--check", "0",
                  "--conversations", "2", "--concurrency", "1", "--patience", "0", "--out", place]  # fmt: skip
        argv = bench if chance.random() < 0.7 else corpus
        with (
            mock.patch("specdec_ref.bench.endpoint.client", client),
            mock.patch("specdec_ref.training.remote.client", client),
        ):
            outcome = run(argv)
    assert not (fault := outcome.fault()), f"{argv[:2]}: {fault}"


def test_proxies_and_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="the proxy of ALL_PROXY cannot be used"):
        web.client(["http://example.com"])
    web.client(["http://localhost:1", "http://127.0.0.1:2", "http://[::1]:3"])  # local servers are asked directly
    for url, fault in (
        ("http://localhost:99999", "ports 1 to 65535"),
        ("localhost:1", "write it as"),
        ("http://[::1", "no address"),
    ):
        with pytest.raises(ValueError, match=fault):
            web.address(url)
    for place in ("http://localhost:99999", "http://example.com:1"):
        assert not run(["bench", "--endpoint", place]).fault()


@pytest.mark.parametrize(
    ("argv", "closed"),
    [
        ("generate --raw --target {} --max-new-tokens 4", "<&-"),
        ("generate --raw --target {} --max-new-tokens 4", ">&-"),
        ("explain --help", "| head -c 1"),
        ("explain --json", "<&- >&- 2>&-"),
    ],
)
def test_closed_streams(argv: str, closed: str, folder: Path) -> None:
    """As a shell closes them, in a process of its own."""
    text = f"{sys.executable} -m specdec_ref {argv.format(folder)} {closed}; echo code=${{PIPESTATUS[0]}} >&2"
    ended = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )
    assert "Traceback" not in ended.stderr
    if "2>&-" not in closed:
        assert int(ended.stderr.rpartition("code=")[2]) in (0, 1, 2, 141)
