"""A tiny chat model in a folder, and ways to run `specdec` on it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from block_heads import random_block
from eagle_heads import random_head
from parallel_heads import random_network
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from specdec_ref.cli import main
from specdec_ref.models.toy import tiny_llama
from specdec_ref.training.checkpoint import trained_tensors
from specdec_ref.weights import TRAINED

ROOT = Path(__file__).parent.parent
SPECIAL = ["<unk>", "<end>", "<over>", "<user>", "<bot>"]
TEMPLATE = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
TEXT = ["The keeper climbs the steps and lights the lamp.\nWhy is the sky blue? Name three colours: red, green, blue."]


def save_model(folder: Path, *, template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A random Llama with a byte-level BPE tokenizer and two end-of-text tokens; `changes` go to `tiny_llama`."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(TEXT * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<end>", pad_token="<end>", chat_template=template
    )
    model = tiny_llama(1, **({"vocab": len(tokenizer), "dtype": torch.float32} | changes))
    model.generation_config.eos_token_id = [1, 2]  # <end>, as the tokenizer says, and <over>, which it does not know of
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny chat model, random heads in folders named after their drafters; no test changes them."""
    tiny = save_model(tmp_path_factory.mktemp("models") / "tiny")
    model = AutoModelForCausalLM.from_pretrained(tiny)
    heads = {kind: random_network(kind, model, draft_vocab=60) for kind in TRAINED}
    for name, head in {
        "eagle": random_head(model, draft_vocab=60),
        "block": random_block(model, draft_vocab=60),
        **heads,
    }.items():
        (tiny / name).mkdir()
        save_file(trained_tensors(head), tiny / name / "head.safetensors", metadata={"version": head.kind})
    return tiny


class Specdec:
    """Runs the command line in this process: `specdec(...)` gives the exit code, and `out` and `err` what was said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.out, self.err = capsys, "", ""

    def __call__(self, *argv: object) -> int:
        self.capsys.readouterr()
        code = main([str(word) for word in argv])
        self.out, self.err = self.capsys.readouterr()
        return code

    def rows(self, *argv: object) -> list[dict[str, Any]]:
        """`generate --json` in float64: the objects on stdout."""
        assert self("generate", "--json", "--dtype", "float64", *argv) == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]

    def error(self, code: int, *argv: object) -> str:
        """The one line of an error: nothing on stdout, no traceback, and that exit code."""
        assert self(*argv) == code, self.err
        assert self.out == ""
        *progress, last = self.err.splitlines()
        assert all(line.startswith("specdec: ") and "error" not in line for line in progress), self.err
        assert last.startswith("specdec: error: ")
        return last.removeprefix("specdec: error: ")


@pytest.fixture
def specdec(capsys: pytest.CaptureFixture[str]) -> Specdec:
    """The command line."""
    return Specdec(capsys)


def start(*argv: object) -> "subprocess.Popen[str]":
    """A real process, without network and with one thread."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a job of `nohup` or `&`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "specdec_ref", *map(str, argv)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def write_lines(path: Path, *rows: Any) -> Path:
    """A JSONL file; a string is written as it is."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
