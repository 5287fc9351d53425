"""`specdec train`: corpus, features and head in one command, on a tiny chat model and, briefly, on the real one."""

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chat_models import save_byte_model
from cli_helpers import Specdec, specdec

from specdec_ref.baseline import plain_generate
from specdec_ref.session import Session
from specdec_ref.training.features import open_features
from specdec_ref.training.recipe import read_log
from specdec_ref.training.shards import load_corpus
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import build_head

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["specdec"]  # a fixture

SMALL = ["--preset", "tiny", "--conversations", "24", "--rows", "12", "--draft-vocab", "120", "--batch-tokens", "60"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_model(tmp_path_factory.mktemp("models") / "bytes")


@pytest.fixture(scope="module")
def run(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head from nothing, by the command line."""
    from specdec_ref.cli import main

    out = tmp_path_factory.mktemp("run")
    assert main(["train", "eagle", "--target", str(target), *SMALL, "--tokens", "12000", "--out", str(out)]) == 0
    return out


def test_a_head_from_nothing_drafts(run: Path, target: Path, specdec: Specdec) -> None:
    assert len(list((run / "corpus").glob("*.npz"))) == 1
    log = read_log(run)
    assert log[0]["tokens"] == 0
    assert len(read_head(run).tensors["d2t"]) == 120
    lab = Session.open(str(target), dtype="float64")
    (plain,) = plain_generate(lab.target, [lab.encode("Hello")], limits=lab.limits(20))
    flags = ["--drafter", "eagle", "--draft-model", run, "--max-new-tokens", "20"]
    (row,) = specdec.rows("--target", target, *flags, "Hello")
    assert row["tokens"] == plain.tokens


def test_the_same_command_goes_on(
    run: Path, target: Path, specdec: Specdec, capsys: pytest.CaptureFixture[str]
) -> None:
    before, argv = read_head(run).metadata["progress"], ["train", "eagle", "--target", target, *SMALL, "--out", run]
    assert specdec(*argv, "--tokens", "12000") == 0
    assert specdec.out.strip() == str(run)
    assert read_head(run).metadata["progress"] == before  # the budget was used up
    assert len(list((run / "corpus").glob("*.npz"))) == 1
    assert specdec(*argv, "--tokens", "12600") == 0
    assert read_head(run).metadata["progress"] > before


def test_a_plain_model_on_the_same_text(run: Path, target: Path, specdec: Specdec, tmp_path: Path) -> None:
    argv = ["train", "draft", "--target", target, "--features", run / "features", "--like", run, "--out", tmp_path]
    assert specdec(*argv, *SMALL, "--tokens", "600") == 0, specdec.err
    plain = read_head(tmp_path)
    assert plain.metadata["version"] == "0"
    assert torch.equal(plain.tensors["d2t"], read_head(run).tensors["d2t"])
    (row,) = specdec.rows(
        "--target", target, "--drafter", "draft", "--draft-model", tmp_path, "--max-new-tokens", "9", "a"
    )
    assert row["rounds"] <= 9


def test_a_new_run_from_a_head_s_weights(run: Path, target: Path, specdec: Specdec, tmp_path: Path) -> None:
    """What the head has learned is there before the first step, and a plain model's weights are refused."""
    argv = [
        "train",
        "eagle",
        "--target",
        target,
        "--features",
        run / "features",
        "--start",
        run,
        "--out",
        tmp_path / "a",
    ]
    assert specdec(*argv, *SMALL, "--tokens", "60") == 0, specdec.err
    first = read_log(tmp_path / "a")[0]
    assert first["tokens"] == 0
    shutil.copytree(run, tmp_path / "on")  # the run itself, gone on with, reports of the same weights first
    on = ["train", "eagle", "--target", target, "--features", run / "features", "--out", tmp_path / "on"]
    assert specdec(*on, *SMALL, "--tokens", "12800") == 0, specdec.err
    resumed = read_log(tmp_path / "on")[len(read_log(run))]
    assert [first[key] for key in ("single", "chain")] == [resumed[key] for key in ("single", "chain")]
    fresh = read_log(run)[0]
    assert [first[key] for key in ("single", "chain")] != [fresh[key] for key in ("single", "chain")]
    assert torch.equal(read_head(tmp_path / "a").tensors["d2t"], read_head(run).tensors["d2t"])
    plain = [
        "train",
        "draft",
        "--target",
        target,
        "--features",
        run / "features",
        "--start",
        run,
        "--out",
        tmp_path / "b",
    ]
    assert specdec(*plain, *SMALL, "--tokens", "60") == 2
    assert "not a checkpoint of this head: missing" in specdec.err


def test_a_shipped_head_says_what_it_is_and_whose(run: Path, target: Path, specdec: Specdec, tmp_path: Path) -> None:
    measured = tmp_path / "rows.jsonl"
    row = {
        "drafter": "eagle=run",
        "temperature": 0.0,
        "split": "test",
        "task": "mean",
        "tau": 1.25,
        "per_position": [0.25],
    }
    measured.write_text(json.dumps({"dtype": "float32"}) + "\n" + json.dumps(row) + "\n")
    argv = [
        "train",
        "export",
        run,
        "--format",
        "card",
        "--target",
        target,
        "--measured",
        measured,
        "--out",
        tmp_path / "w",
    ]
    assert specdec(*argv) == 0, specdec.err
    files = read_head(tmp_path / "w")
    assert {t.dtype for name, t in files.tensors.items() if name != "d2t"} == {torch.bfloat16}
    assert files.tensors.keys() == read_head(run).tensors.keys()
    text = (tmp_path / "w/README.md").read_text()
    assert f"{json.loads(files.metadata['progress'])['tokens']:,} response tokens" in text
    assert "| eagle | 0 | test | mean | 1.25 | 0.25 |" in text
    model: Any = Session.open(str(target), dtype="float32").target.model
    assert build_head(files, model).layers == (2, 3, 3)
    model.base_model.norm.weight *= 1.1
    with pytest.raises(ValueError, match="trained on another target"):
        build_head(files, model)


def test_an_exported_head_comes_with_its_target(run: Path, target: Path, specdec: Specdec, tmp_path: Path) -> None:
    assert specdec("train", "export", run, "--target", target, "--out", tmp_path / "e") == 0, specdec.err
    assert specdec.out.split() == [str(tmp_path / "e/head"), str(tmp_path / "e/target")]
    flags = ["--drafter", "eagle", "--max-new-tokens", "12", "Hello", "--draft-model"]
    (mine,) = specdec.rows("--target", target, *flags, run)
    (theirs,) = specdec.rows("--target", tmp_path / "e/target", *flags, tmp_path / "e/head")
    assert [theirs[key] for key in ("tokens", "rounds")] == [mine[key] for key in ("tokens", "rounds")]


def test_curves(run: Path, specdec: Specdec, tmp_path: Path) -> None:
    assert specdec("train", "plot", run, "--out", tmp_path) == 0
    assert specdec.out.split() == [str(tmp_path / "agreement.png"), str(tmp_path / "loss.png")]
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("agreement.png", "loss.png"))


def test_two_workers_share_one_corpus(target: Path, specdec: Specdec, tmp_path: Path) -> None:
    for worker in ("0/2", "1/2"):
        argv = ["train", "corpus", "--target", target, *SMALL[:2], "--conversations", "7", "--rows", "3"]
        kept = ["--features", tmp_path / "features"]
        assert specdec(*argv, "--worker", worker, "--out", tmp_path, *kept) == 0, specdec.err
    numbers = [{c.number % 2 for c in load_corpus(sorted(tmp_path.glob(f"*-{w}of2-*")))} for w in range(2)]
    assert numbers == [{0}, {1}]
    assert len(list(load_corpus([tmp_path]))) == 7
    assert sum(1 for block in open_features([tmp_path / "features"]) for _ in block.examples()) == 7


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [(["eagle"], "--corpus or --features"), (["eagle", "--preset", "huge"], "unknown preset 'huge'"),
     (["plot"], "name the folder of a run"), (["export"], "name the folder of a run"), (["plot", "nowhere"], "holds no log.jsonl"), (["eagle", "x"], "unexpected argument 'x'"),
     (["eagle", "--preset", "tiny", "--loss", "l2"], "unknown loss 'l2'"),
     (["corpus", "--endpoint", "http://localhost:1", "--features", "f"], "a server returns text only"),
     (["corpus", "--worker", "2/2"], "--worker is '2/2'"), (["corpus", "--worker", "1"], "write W/N"),
     (["eagle", "--corpus", "nowhere"], "nowhere")],
)  # fmt: skip
def test_wrong_words_are_told_before_anything_is_trained(
    argv: "Sequence[str]", complaint: str, target: Path, specdec: Specdec, tmp_path: Path
) -> None:
    rest = [] if argv[0] == "plot" else ["--target", target, "--out", tmp_path]
    code = 1 if complaint == "nowhere" else 2
    assert complaint in specdec.error(code, "train", *argv, *rest)


@pytest.mark.slow
def test_the_tiny_preset_learns_the_real_model(embedded: Session, specdec: Specdec, tmp_path: Path) -> None:
    """End to end, the corpus included. CPU time, since a busy machine says nothing about the recipe."""
    before = time.process_time()
    assert specdec("train", "eagle", "--preset", "tiny", "--out", tmp_path) == 0, specdec.err
    spent = time.process_time() - before
    log = read_log(tmp_path)
    assert log[-1]["chain"][0] > log[0]["chain"][0] + 0.1, (log[0]["chain"], log[-1]["chain"])
    assert spent < 180, f"{spent:.0f} CPU seconds: more than 90 s on two cores"
