"""Our head in llama.cpp itself: served plain, by n-grams and by EAGLE-3, and with mistakes that the engine loads silently.

One thread per server: two spin at every barrier where another process wants the core.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from specdec_ref.config import DraftBudget
from specdec_ref.engines.process import EngineError, LlamaServer
from specdec_ref.session import Session
from specdec_ref.training import gguf_head
from specdec_ref.training.gguf_export import export_gguf
from specdec_ref.training.gguf_file import open_gguf
from specdec_ref.weights import shipped_folder
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import LoadedHead, build_head

WHEEL = "xllamacpp"
PROMPTS = ("Write a Python function that adds two numbers.", "Name three colours.")
TOKENS, DEPTH = 40, 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec(WHEEL) is None, reason=f"{WHEEL} is not installed: pip install 'specdec-ref[llamacpp]'"
    ),
]


@pytest.fixture(scope="module")
def files(embedded: Session, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The embedded target in float16 and the shipped head."""
    folder = tmp_path_factory.mktemp("llamacpp")
    source = shipped_folder("smollm2-135m")
    assert source is not None
    return export_gguf(source, embedded.target.model, embedded.tokenizer, folder)


def words(target: Path, *more: object) -> list[str]:
    settings = ("--model", target, "--port", 0, "--ctx-size", 512, "--parallel", 1, "--threads", 1, "--metrics", *more)
    return [str(word) for word in settings]


def eagle(head: Path) -> list[object]:
    return ["--spec-type", "draft-eagle3", "--spec-draft-model", head, "--spec-draft-n-max", DEPTH]


def answers(target: Path, *more: object) -> list[dict[str, Any]]:
    """Text and counts of each prompt's greedy answer."""
    found = []
    with LlamaServer.start(words(target, *more)) as server:
        for prompt in PROMPTS:
            body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "temperature": 0}
            reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=300.0, trust_env=False).json()
            timings = reply["timings"]
            found.append({"text": reply["choices"][0]["message"]["content"], "tokens": timings["predicted_n"],
                          "accepted": timings.get("draft_n_accepted", 0), "drafted": timings.get("draft_n", 0)})  # fmt: skip
    return found


@pytest.fixture(scope="module")
def plain(files: tuple[Path, Path]) -> list[dict[str, Any]]:
    return answers(files[0])


@pytest.fixture(scope="module")
def drafted(files: tuple[Path, Path]) -> list[dict[str, Any]]:
    return answers(files[0], *eagle(files[1]))


def test_plain_does_not_draft(plain: list[dict[str, Any]]) -> None:
    assert [(row["tokens"], row["drafted"]) for row in plain] == [(TOKENS, 0)] * len(PROMPTS)


def test_greedy_text_is_the_same_with_the_head(plain: list[dict[str, Any]], drafted: list[dict[str, Any]]) -> None:
    assert [row["text"] for row in drafted] == [row["text"] for row in plain]
    assert all(row["accepted"] >= 0.25 * row["drafted"] > 0 for row in drafted)


def test_greedy_text_is_the_same_with_ngrams(files: tuple[Path, Path], plain: list[dict[str, Any]]) -> None:
    found = answers(files[0], "--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", 3,
                    "--spec-ngram-simple-size-m", 4)  # fmt: skip
    assert [row["text"] for row in found] == [row["text"] for row in plain]


def test_the_same_text_takes_the_same_number_of_rounds(embedded: Session, drafted: list[dict[str, Any]]) -> None:
    """llama.cpp reports no rounds; each emits one token of the target's own besides the drafts that it accepts."""
    engine = embedded.engine("eagle", budget=DraftBudget(DEPTH), limits=embedded.limits(TOKENS))
    compared = 0
    for prompt, theirs in zip(PROMPTS, drafted, strict=True):
        ours = engine.generate([embedded.encode(prompt)])[0]
        if embedded.decode(ours.tokens) == theirs["text"]:
            compared += 1
            assert len(ours.tokens) - ours.stats.accepted == theirs["tokens"] - theirs["accepted"]
    assert compared, "no text was the same: nothing was compared"


def wrong_head(mistake: str, head: Path, target: Path, embedded: Session, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped head, written with one mistake that our reader would refuse."""
    out = head.with_name(f"{mistake.replace(' ', '-')}.gguf")
    source = shipped_folder("smollm2-135m")
    assert source is not None
    loaded = build_head(read_head(source), embedded.target.model)
    monkeypatch.setattr(gguf_head, "check_head", lambda *_: None)
    if mistake == "offsets":
        monkeypatch.setattr(gguf_head, "_draft_ids", lambda h: h.q_vocab - torch.arange(len(h.q_vocab)))
    elif mistake == "unpermuted":
        monkeypatch.setattr(gguf_head, "pairs_from_halves", lambda weight, heads: weight)
    elif mistake == "norm flag":
        object.__setattr__(loaded.head.variant, "norm_before_residual", True)
    elif mistake == "layers":
        loaded = LoadedHead(loaded.head, (1, 8, 15))
    elif mistake == "layer too high":
        loaded = LoadedHead(loaded.head, (*loaded.layers[:2], 31))
    elif mistake == "narrow ids":
        monkeypatch.setattr(gguf_head, "_draft_ids", lambda h: h.q_vocab.int())
    return gguf_head.write_head(loaded, open_gguf(target), out)


@pytest.mark.parametrize("mistake", ["offsets", "unpermuted", "norm flag", "layers"])
def test_a_wrong_head_loads_and_accepts_less(
    files: tuple[Path, Path], embedded: Session, plain: list[dict[str, Any]], drafted: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch, mistake: str,
) -> None:  # fmt: skip
    target, head = files
    found = answers(target, *eagle(wrong_head(mistake, head, target, embedded, monkeypatch)))
    assert [row["text"] for row in found] == [row["text"] for row in plain], "verification keeps the text"
    rounds = [sum(row["tokens"] - row["accepted"] for row in rows) for rows in (found, drafted)]
    assert rounds[0] > rounds[1], "and costs rounds"


def test_the_wrong_type_drafts_in_vain(files: tuple[Path, Path], drafted: list[dict[str, Any]]) -> None:
    found = answers(files[0], "--spec-type", "draft-simple", "--spec-draft-model", files[1])
    assert sum(row["accepted"] for row in found) < 0.3 * sum(row["accepted"] for row in drafted)


@pytest.mark.parametrize(("mistake", "cause"), [("layer too high", "exceeds"), ("narrow ids", "aborted")])
def test_a_head_that_aborts_the_engine_is_one_line(
    files: tuple[Path, Path], embedded: Session, monkeypatch: pytest.MonkeyPatch, mistake: str, cause: str
) -> None:
    target, head = files
    with pytest.raises(EngineError, match=cause) as failed:
        LlamaServer.start(words(target, *eagle(wrong_head(mistake, head, target, embedded, monkeypatch))))
    assert "\n" not in str(failed.value)


def test_a_head_is_no_target(files: tuple[Path, Path]) -> None:
    with pytest.raises(EngineError, match="did not start"):
        LlamaServer.start(words(files[1]))


def test_a_killed_server_is_noticed(files: tuple[Path, Path]) -> None:
    with LlamaServer.start(words(files[0])) as server:
        server.check()
        server.process.kill()
        server.process.wait()
        with pytest.raises(EngineError, match="has ended: it was killed"):
            server.check()


def test_a_full_port_is_named(files: tuple[Path, Path]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EngineError, match="is in use"):
        LlamaServer.start([*words(files[0]), "--port", str(taken.getsockname()[1])])
