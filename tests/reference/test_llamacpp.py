"""Our head in llama.cpp itself: served plain, by n-grams and by EAGLE-3, and with mistakes that the engine loads silently.

One thread per server: two spin at every barrier where another process wants the core.
"""

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from specdec_ref.bench.llamacpp import llamacpp_sides
from specdec_ref.bench.sides import Setting
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.engines.process import EngineError, LlamaServer
from specdec_ref.session import Session
from specdec_ref.training.gguf_export import export_gguf
from specdec_ref.training.gguf_file import open_gguf
from specdec_ref.weights import shipped_folder

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


def answers(target: Path, *more: object, prompts: tuple[str, ...] = PROMPTS) -> list[dict[str, Any]]:
    """Text and counts of each prompt's greedy answer."""
    found = []
    with LlamaServer.start(words(target, *more)) as server:
        for prompt in prompts:
            body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "temperature": 0}
            reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=300.0, trust_env=False).json()
            timings = reply["timings"]
            found.append(
                {
                    "text": reply["choices"][0]["message"]["content"],
                    "tokens": timings["predicted_n"],
                    "accepted": timings.get("draft_n_accepted", 0),
                    "drafted": timings.get("draft_n", 0),
                }
            )
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
    found = answers(
        files[0], "--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", 3, "--spec-ngram-simple-size-m", 4
    )
    assert [row["text"] for row in found] == [row["text"] for row in plain]


def test_the_same_text_takes_the_same_number_of_rounds(embedded: Session, drafted: list[dict[str, Any]]) -> None:
    """llama.cpp reports no rounds: each pass emits one token besides the drafts it accepts.

    Its first pass, prefill, drafts nothing, ours does: so it may need one more.
    """
    engine = embedded.engine("eagle", budget=DraftBudget(DEPTH), limits=embedded.limits(TOKENS))
    compared = 0
    for prompt, theirs in zip(PROMPTS, drafted, strict=True):
        ours = engine.generate([embedded.encode(prompt)])[0]
        if embedded.decode(ours.tokens) == theirs["text"]:
            compared += 1
            passes = theirs["tokens"] - theirs["accepted"]
            assert passes - 1 <= ours.stats.rounds <= passes
    assert compared, "no text was the same: nothing was compared"


def wrong_head(mistake: str, head: Path) -> Path:
    """The shipped head's file with a few bytes changed: mistakes that our strict reader would refuse or notice."""
    data, file = bytearray(head.read_bytes()), open_gguf(head)

    def put(key: bytes, skip: int, value: bytes) -> None:
        """Overwrite what follows a name in the header, `skip` bytes after it."""
        at = data.index(key) + len(key) + skip
        data[at : at + len(value)] = value

    def store(name: str, value: torch.Tensor) -> None:
        raw, at = value.contiguous().numpy().tobytes(), file.tensors[name].offset
        data[at : at + len(raw)] = raw

    if mistake == "offsets":
        ids = file.tensors["d2t"].read()
        store("d2t", ids - torch.arange(len(ids)))
    elif mistake == "unpermuted":
        for name, heads in (("blk.0.attn_q.weight", 9), ("blk.0.attn_k.weight", 3)):
            rows = file.tensors[name].read()
            store(name, rows.reshape(heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape).half())
    elif mistake == "norm flag":
        put(b"eagle3.norm_before_residual", 4, b"\x01")
    elif mistake == "narrow ids":
        put(b"\x03\x00\x00\x00\x00\x00\x00\x00d2t", 4 + 8, struct.pack("<I", 26))  # I32
    else:
        layers = {"layers": (1, 8, 15), "layer too high": (2, 15, 31)}[mistake]
        put(b"eagle3.target_layers", 4 + 4 + 8, struct.pack("<3i", *layers))
    out = head.with_name(f"{mistake.replace(' ', '-')}.gguf")
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("mistake", ["offsets", "unpermuted", "norm flag", "layers"])
def test_a_wrong_head_loads_and_costs_rounds(
    files: tuple[Path, Path], plain: list[dict[str, Any]], drafted: list[dict[str, Any]], mistake: str
) -> None:
    found = answers(files[0], *eagle(wrong_head(mistake, files[1])))
    assert [row["text"] for row in found] == [row["text"] for row in plain], "verification keeps the text"
    assert sum(row["accepted"] for row in found) < sum(row["accepted"] for row in drafted), "and accepts less"


def test_the_wrong_type_drafts_in_vain(files: tuple[Path, Path], drafted: list[dict[str, Any]]) -> None:
    simple = ("--spec-type", "draft-simple", "--spec-draft-model", files[1])
    (row,) = answers(files[0], *simple, prompts=PROMPTS[:1])
    assert row["accepted"] < 0.3 * drafted[0]["accepted"]


@pytest.mark.parametrize(("mistake", "cause"), [("layer too high", "exceeds"), ("narrow ids", "aborted")])
def test_a_head_that_aborts_the_engine_is_one_line(files: tuple[Path, Path], mistake: str, cause: str) -> None:
    with pytest.raises(EngineError, match=cause) as failed:
        LlamaServer.start(words(files[0], *eagle(wrong_head(mistake, files[1]))))
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


def test_it_is_a_side_of_the_benchmark(embedded: Session, files: tuple[Path, Path]) -> None:
    """The prompt's own tokens, plain and with its n-grams: one text, and a row's tokens and passes are its own counts."""
    ids = embedded.encode("Repeat this line three times: one two three four five six.")
    setting = Setting(embedded, SamplingParams(), embedded.limits(TOKENS), 1)
    with llamacpp_sides({"f16": files[0]}, setting, len(ids) + TOKENS + 1) as sides:
        answers = {side.method: side.begin()([ids], [0])[0] for side in sides}
    assert list(answers) == ["llama.cpp f16", "llama.cpp f16 n-gram"]
    alone, drafted = answers.values()
    assert alone.tokens == drafted.tokens
    assert alone.stats is not None
    assert drafted.stats is not None
    assert alone.stats.tau == 1
    assert drafted.stats.rounds <= alone.stats.rounds == len(alone.tokens)
