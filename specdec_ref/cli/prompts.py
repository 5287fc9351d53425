"""Where prompts come from: the argument, standard input, or a JSONL file. Checked before a model is loaded."""

import argparse
import json
import sys
from dataclasses import dataclass, field
from math import isinf
from pathlib import Path
from typing import Any, NoReturn

from specdec_ref.cli.shared import UsageError

__all__ = ["RESULT_KEYS", "Job", "read_jobs"]

RESULT_KEYS = (
    "id", "drafter", "tokens", "text", "seconds", "prefill_seconds", "rounds", "tau", "alpha", "accepted_per_position",
    "finish_reason",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt. `where` names its place for error messages, `kept` are the keys that its result carries along."""

    id: Any
    prompt: str
    where: str = "the prompt"
    kept: dict[str, Any] = field(default_factory=dict)


def read_jobs(args: argparse.Namespace) -> list[Job]:
    """What the arguments ask for: `prompt`, `prompts_file` or stdin. Raises UsageError if there is none, or two."""
    if args.prompts_file is not None:
        if args.prompt is not None:
            raise UsageError("give a prompt or --prompts-file, not both")
        return read_prompts_file(args.prompts_file)
    prompt = args.prompt
    if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
        prompt = _read_stdin()
    if prompt is None:
        raise UsageError('no prompt: write one, as in `specdec generate "Name three colours."`, or pipe one in')
    if not prompt:
        raise UsageError("the prompt is empty: write something for the model to answer")
    return [Job(0, prompt)]


def _read_stdin() -> str:
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text: {error}") from error
    return text.removesuffix("\n").removesuffix("\r")  # the newline that `echo` adds is not meant


def read_prompts_file(name: str) -> list[Job]:
    """One job a line of a JSONL file; blank lines are skipped. Raises UsageError: file, line, what is wrong."""
    try:
        lines = Path(name).read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read the prompts file {name}: {error.strerror or error}") from error
    jobs = [_job(line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not jobs:
        raise UsageError(f'{name} holds no prompts: write one a line, as in {{"id": 1, "prompt": "Name a colour."}}')
    return jobs


def _job(line: bytes, where: str) -> Job:
    try:
        row = json.loads(line.decode(), parse_constant=_no_constant, parse_float=_finite)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both
        raise UsageError(f"{where} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{where} is not valid JSON: it is nested too deeply") from error
    if not isinstance(row, dict):
        raise UsageError(f'{where}: expected an object {{"id": ..., "prompt": ...}}, found {json.dumps(row)[:40]}')
    missing = [key for key in ("id", "prompt") if key not in row]
    if missing:
        raise UsageError(f"{where} has no {' and no '.join(map(repr, missing))}; its keys are {sorted(row)}")
    if isinstance(row["id"], dict | list | bool | None):
        raise UsageError(f"{where}: 'id' must be a string or a number, got {json.dumps(row['id'])[:40]}")
    if isinstance(row["id"], str) and any("\ud800" <= char <= "\udfff" for char in row["id"]):
        raise UsageError(f"{where}: 'id' holds half a character (a lone surrogate), got {json.dumps(row['id'])[:40]}")
    if not isinstance(row["prompt"], str) or not row["prompt"]:
        raise UsageError(f"{where}: 'prompt' must be a text that is not empty, got {json.dumps(row['prompt'])[:40]}")
    kept = {key: value for key, value in row.items() if key not in ("id", "prompt")}
    clash = sorted(set(kept) & set(RESULT_KEYS))
    if clash:
        raise UsageError(f"{where}: key {clash[0]!r} would be overwritten by the result's own; rename it")
    return Job(row["id"], row["prompt"], where, kept)


def _finite(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise ValueError(f"{digits} is too large for a number of JSON")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
