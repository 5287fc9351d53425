"""The committed prompts (`prompts.jsonl`: id, task, split, prompt) and how a prompt becomes token ids."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

__all__ = ["Prompt", "chat_ids", "load_prompts"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of the file. `split` is "dev" (tune on it) or "test" (report on it)."""

    id: str
    task: str
    split: str
    prompt: str


def load_prompts(tasks: Sequence[str] = (), split: str | None = None) -> list[Prompt]:
    """The committed prompts, all of them or those of these tasks and this split."""
    lines = files("specdec_ref.bench").joinpath("prompts.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [Prompt(**json.loads(line)) for line in lines if line]
    return [p for p in prompts if (not tasks or p.task in tasks) and split in (None, p.split)]


def chat_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of one user turn in the model's chat template, ready for the answer."""
    turns = [{"role": "user", "content": prompt}]
    encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])
