"""Corpus files: shards of finished conversations, written atomically and read back one conversation at a time."""

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from specdec_ref.models.fetch import cache_dir

__all__ = ["Conversation", "corpus_folder", "load_corpus", "small_corpus", "write_shard"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a head is trained on: the response, given the prompt. Token ids of the target's tokenizer.

    `prompt` is the whole rendered chat, earlier turns included, up to where the response begins; `response` ends with
    the end-of-turn token unless it was cut. `temperature` 0 means greedy. `number` is the dialogue's, -1 if unknown.
    """

    task: str
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    temperature: float
    number: int = -1


def corpus_folder(name: str) -> Path:
    """Where a corpus of this name is kept by default: in the user's cache, see `models.fetch.cache_dir`."""
    return cache_dir() / "corpus" / name


def write_shard(path: Path, conversations: Sequence[Conversation]) -> None:
    """One compressed .npz: complete or absent, never half-written. Raises OSError if the folder cannot be written."""
    tasks = sorted({c.task for c in conversations})
    tokens = np.concatenate([np.array(c.prompt + c.response, dtype=np.int64) for c in conversations])
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        np.savez_compressed(
            file,
            tokens=tokens.astype(np.uint16 if tokens.max() < 1 << 16 else np.uint32),
            prompt_lengths=np.array([len(c.prompt) for c in conversations], dtype=np.int32),
            response_lengths=np.array([len(c.response) for c in conversations], dtype=np.int32),
            temperatures=np.array([c.temperature for c in conversations], dtype=np.float32),
            numbers=np.array([c.number for c in conversations], dtype=np.int64),
            task_ids=np.array([tasks.index(c.task) for c in conversations], dtype=np.int16),
            tasks=np.array(tasks),
        )
    os.replace(scratch, path)


def load_corpus(paths: Iterable[Path | str]) -> Iterator[Conversation]:
    """All conversations of these shards, or of the folders that hold them, in the order of their file names.

    Reads `.npz` shards and `.jsonl.gz` files with one `{"task", "prompt", "response", "temperature"}` a line.
    Raises FileNotFoundError for a path that does not exist and ValueError for a file that is neither.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from load_corpus(sorted(file for file in path.iterdir() if file.name.endswith((".npz", ".jsonl.gz"))))
        elif path.name.endswith(".jsonl.gz"):
            with gzip.open(path, "rt", encoding="utf8") as lines:
                for line in lines:
                    row = json.loads(line)
                    # 0.001 stands for greedy in the first corpus
                    temperature = row["temperature"] if row["temperature"] > 0.01 else 0.0
                    yield Conversation(row["task"], tuple(row["prompt"]), tuple(row["response"]), temperature)
        elif path.suffix == ".npz":
            yield from _read_shard(path)
        else:
            raise ValueError(f"{path} is not a corpus file: pass folders, .npz shards or .jsonl.gz files")


def _read_shard(path: Path) -> Iterator[Conversation]:
    with np.load(path, allow_pickle=False) as shard:
        tokens, start = shard["tokens"].tolist(), 0
        columns = [shard[name].tolist() for name in ("prompt_lengths", "response_lengths", "temperatures", "numbers")]
        names = [shard["tasks"].tolist()[i] for i in shard["task_ids"].tolist()]
    for task, prompt, response, temperature, number in zip(names, *columns, strict=True):
        middle, end = start + prompt, start + prompt + response
        rounded = round(temperature, 4)  # float32 on disk
        yield Conversation(task, tuple(tokens[start:middle]), tuple(tokens[middle:end]), rounded, number)
        start = end


def small_corpus(part: str) -> Path:
    """A part of the small corpus: train, heldout, or minute (75 of both). The grammar wrote all prompts in it."""
    return Path(str(files("specdec_ref.training").joinpath(f"_text/small/{part}.npz")))
