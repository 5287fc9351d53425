"""`specdec serve`, llama.cpp's commands, and `bench --endpoint` against it: the engine's own parser, one line per fault."""

import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import ROOT, Specdec, specdec, start
from fake_server import _no_proxy

from specdec_ref.bench.server import Reply, Server, acceptance
from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig
from specdec_ref.engines import process
from specdec_ref.exporters import export_command

__all__ = ["_no_proxy", "specdec"]  # fixtures

WHEEL = pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="xllamacpp is not installed: pip install 'specdec-ref[llamacpp]'"
)
EAGLE = SpecConfig("target.gguf", "eagle", "head.gguf", budget=DraftBudget(3))


def configs() -> list[SpecConfig]:
    """Settings that llama.cpp has, and many that it does not."""
    found = product(
        ("none", "ngram", "draft", "eagle", "hybrid", "trie", "suffix"),
        range(9),
        (1, 2),
        (0.0, 0.7, 1.0),
        ("auto", "rejection"),
        ("a.gguf", "folder/b c.gguf"),
    )
    return [
        SpecConfig(
            target,
            drafter,
            "head.gguf" if drafter in ("draft", "eagle", "hybrid") else None,
            verifier,
            budget=DraftBudget(depth, topk),
            sampling=SamplingParams(temperature),
        )
        for drafter, depth, topk, temperature, verifier, target in found
    ]


def parsed(commands: list[tuple[str, ...]]) -> list[dict[str, Any]]:
    """What the engine's parser makes of each."""
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "llamacpp_parser.py"],
        text=True,
        capture_output=True,
        check=True,
        input="".join(json.dumps(command) + "\n" for command in commands),
    )
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"accepted"')]


@WHEEL
def test_the_engines_own_parser_takes_every_command() -> None:
    made = []
    for config in configs():
        try:
            made.append((config, export_command(config, "llamacpp").command))
        except ValueError:
            continue
    assert len({command for _, command in made}) >= 40
    assert len(made) >= 200
    for (config, command), found in zip(made, parsed([command for _, command in made]), strict=True):
        assert found["accepted"], command
        drafts = config.drafter if config.budget.depth else "none"
        wanted = {
            "ngram": ["ngram_simple"],
            "draft": ["draft_simple"],
            "eagle": ["draft_eagle3"],
            "hybrid": ["draft_eagle3", "ngram_simple"],
        }.get(drafts, [])
        assert found["types"] == wanted
        if drafts in ("ngram", "hybrid"):
            assert found["size_m"] == config.budget.depth
        if drafts in ("draft", "eagle", "hybrid"):
            assert (found["n_max"], found["draft"]) == (config.budget.depth, "head.gguf")
        assert found["probabilistic"] == (drafts == "draft" and config.sampling.temperature > 0)


@WHEEL
def test_the_engines_own_parser_refuses_what_is_wrong() -> None:
    wrong = [
        ("llama-server", "--spec-type", "eagle9"),
        ("llama-server", "--draft-max", "4"),
        ("llama-server", "--nothing"),
    ]
    assert [row["accepted"] for row in parsed(wrong)] == [False] * 3


@WHEEL
def test_the_adapter_understands_what_the_engine_understands() -> None:
    code = (
        "import json, sys\nfrom specdec_ref.engines.llamacpp import parameters\np = parameters(sys.argv[1:])\n"
        "s = p.speculative\nprint(json.dumps([str(s.types), s.draft.n_max, s.ngram_simple.size_m, s.draft.mparams.path]))"
    )
    command = export_command(replace(EAGLE, drafter="hybrid", budget=DraftBudget(5)), "llamacpp").command
    run = subprocess.run(
        [sys.executable, "-c", code, *command[1:]], text=True, capture_output=True, check=True, cwd=ROOT
    )
    types, *rest = json.loads(run.stdout)
    assert "NGRAM_SIMPLE" in types
    assert "DRAFT_EAGLE3" in types
    assert rest == [5, 5, "head.gguf"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"drafter": "trie"}, "does not draft by 'trie'"), ({"drafter": "suffix"}, "does not draft by 'suffix'"),
        ({"budget": DraftBudget(3, 2, 6)}, "chains only"),
        ({"budget": DraftBudget(3, 1, 8)}, "chains have depth"), ({"draft_model": None}, "needs its weights"),
        ({"target": "smollm2-135m"}, "reads GGUF"), ({"adaptive": "ema"}, "fixed length"),
        ({"verifier": "block"}, "not in llama.cpp"), ({"dtype": "bfloat16"}, "the GGUF file decides"),
        ({"drafter": "ngram", "draft_model": None, "budget": DraftBudget(2)}, "at least 3"),
        ({"device": "cuda"}, "build decides"), ({"budget": DraftBudget(3, min_confidence=0.5)}, "another rule"),
    ],
)  # fmt: skip
def test_what_llamacpp_lacks_is_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        export_command(replace(EAGLE, **changes), "llamacpp")


def test_cli_exports_the_command(specdec: Specdec) -> None:
    argv = ["export-command", "--engine", "llamacpp", "--folder", "out", "--drafter", "eagle", "--depth", "4"]
    assert specdec(*argv) == 0, specdec.err
    assert specdec.out.split()[:3] == ["llama-server", "\\", "--model"]
    assert "--spec-draft-model out/head.gguf" in specdec.out
    assert "--spec-draft-n-max 4" in specdec.out


def test_wrong_arguments_are_one_line(specdec: Specdec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    assert "pip install 'specdec-ref[llamacpp]'" in specdec.error(1, "serve")
    monkeypatch.setattr(process, "find_spec", lambda name: object())
    assert "unknown drafter 'trie'" in specdec.error(2, "serve", "--drafter", "trie")
    assert "--port must be from" in specdec.error(2, "serve", "--port", 70000)
    assert "there is no file" in specdec.error(2, "serve", "--target", tmp_path / "x.gguf", "--drafter", "none")
    (tmp_path / "x.gguf").write_bytes(b"not a model, whatever its name")
    assert "no GGUF file" in specdec.error(2, "serve", "--target", tmp_path / "x.gguf", "--drafter", "none")
    assert "no GGUF file" in specdec.error(2, "serve", "--target", tmp_path / "x.gguf")


def test_a_full_port_is_one_line(specdec: Specdec) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(process.EngineError, match="is in use: choose another"),
    ):
        process._free(["--host", "127.0.0.1", "--port", str(taken.getsockname()[1])])


def test_acceptance_from_timings() -> None:
    """Two answers: 1 + 14 rounds + 25 accepted, and 1 + 20 + 19. Others' rounds on the counters hide the positions."""
    server = Server(None, "http://x", "m", "llamacpp", None, {})  # type: ignore[arg-type]
    rows = [
        {"predicted_n": 40, "draft_n": 41, "draft_n_accepted": 25},
        {"predicted_n": 40, "draft_n": 57, "draft_n_accepted": 19},
    ]
    replies = [Reply("", 40, 1.0, 0.1, row) for row in rows]
    name = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total"
    after = {f"{name}/0": 22.0, f"{name}/1": 15.0, f"{name}/2": 7.0}
    found = acceptance(server, replies, {}, after)
    assert found is not None
    assert (found.rounds, found.accepted, found.drafted, found.positions) == (34, 44, 98, (22, 15, 7))
    assert acceptance(server, replies, {}, after | {f"{name}/0": 30.0}).positions == ()  # type: ignore[union-attr]
    assert acceptance(server, [Reply("", 40, 1.0, 0.1, {"predicted_n": 40})], {}, {}) is None


@WHEEL
def test_serve_and_measure(embedded: object, specdec: Specdec, tmp_path: Path) -> None:
    """The command from start to Ctrl-C; a request, a benchmark and a killed server in between."""
    served = start("serve", "--port", 0, "--drafter", "eagle")
    assert served.stdout is not None
    url = served.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), served.stderr and served.stderr.read()
    assert specdec("bench", "--endpoint", url, "--task", "chat", "--prompts", 1, "--tokens", 24, "--json") == 0, (
        specdec.err
    )
    about, row = map(json.loads, specdec.out.splitlines())
    assert about["environment"]["servers"][0]["engine"] == "llamacpp"
    assert row["tau"] > 1.1
    assert sum(row["positions"]) == row["accepted"] > 0
    served.send_signal(signal.SIGINT)
    _, err = served.communicate(timeout=30)
    assert served.returncode == 0
    assert "try: curl http://127.0.0.1" in err
    assert f"counters: curl {url}/metrics" in err
    assert "specdec choose --engine llamacpp measures it here" in err
    assert err.splitlines()[-1] == "specdec: stopped"
