"""The committed prompts (id, task, split, prompt, a line each) and how a prompt becomes token ids.

    prompts.jsonl   a few that show a task well: what the demo and the timings of single drafters run on
    heldout.jsonl   16 a task and split, written by us as a user of a small chat model would; no head has seen them

    replay.jsonl    episodes: similar requests in a row, as an agent sends them while it works on one thing

All are in the public domain (CC0). `overlap.py` checks the held-out ones against a corpus.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

__all__ = ["HELD_OUT", "TASKS", "Episode", "Prompt", "chat_ids", "load_episodes", "load_prompts"]

HELD_OUT = "heldout.jsonl"
TASKS = ("code", "chat", "translation", "summary", "creative", "editing")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of the file. `split` is "dev" (tune on it) or "test" (report on it)."""

    id: str
    task: str
    split: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Episode:
    """One line of replay.jsonl: requests to send one after the other. `kind` is what the agent does."""

    id: str
    split: str
    kind: str
    prompts: tuple[str, ...]


def load_episodes(split: str | None = None) -> list[Episode]:
    """The committed episodes, all of them or those of this split; each step stands in the episode's own frame."""
    lines = files("specdec_ref.workloads").joinpath("replay.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        Episode(
            row["id"], row["split"], row["kind"], tuple(row["prompt"].replace("{step}", step) for step in row["steps"])
        )
        for row in rows
        if split in (None, row["split"])
    ]


def load_prompts(tasks: Sequence[str] = (), split: str | None = None, *, file: str = "prompts.jsonl") -> list[Prompt]:
    """The committed prompts of this file, all of them or those of these tasks and this split."""
    lines = files("specdec_ref.workloads").joinpath(file).read_text(encoding="utf-8").splitlines()
    prompts = [Prompt(**json.loads(line)) for line in lines if line]
    return [p for p in prompts if (not tasks or p.task in tasks) and split in (None, p.split)]


def chat_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of one user turn in the model's chat template, ready for the answer."""
    turns = [{"role": "user", "content": prompt}]
    encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])
