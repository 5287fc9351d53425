"""The capstone's leaderboard: an entry, our reference and plain decoding, A B A B on prompts that nobody has seen.

    speed-up   median over prompts of (reference's seconds a token) / (the entry's), both clocks, bootstrap intervals
    score      the smaller of the two: threads buy wall-clock time but no processor time, waiting buys the opposite

All three are processes that reach the target through the adapter (`entry.py`). An entry is admitted by the checks of
`admission`, on models made for the occasion; refused if a text is not the target's, or if a token was not looked up.
"""

import ast
import hashlib
import json
import math
import random
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from specdec_course.capstone.adapter import TargetView
from specdec_course.capstone.admission import exact_trials, written
from specdec_course.capstone.entry import Entry, EntryError
from specdec_course.checks.examine import Trouble, examine
from specdec_course.grader.sources import source
from specdec_ref.bench.harness import median_interval
from specdec_ref.identity import EPSILON, check_identity
from specdec_ref.models.target import Target
from specdec_ref.session import Session
from specdec_ref.training.material import read
from specdec_ref.training.prompts import dialogues

__all__ = ["PLAIN", "REFERENCE", "Arena", "Call", "compete", "fingerprint", "fresh_prompts", "read_entry", "rows_of"]

PLAIN, REFERENCE = "plain", "reference"
OURS = {PLAIN: "PlainDecoder", REFERENCE: "ReferenceDecoder"}
COPIES = ("editing", "editing_code")  # two of three prompts ask for one of these
_FILES, _LONGEST = 60, 400  # files of the standard library that prompts are made of; tokens of a prompt
_UNREADABLE = (  # the last two: nested too deeply for a parser
    OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError,
)  # fmt: skip
_CELL = "decoder"  # grade id of the notebook's cell that holds the class


@dataclass(frozen=True, slots=True)
class Arena:
    """What everybody is measured on. `tokens`: new ones an answer."""

    target: Target
    eos: frozenset[int]
    prompts: Sequence[list[int]]
    tokens: int

    @property
    def epsilon(self) -> float:
        """Near-ties that rounding may decide: none in float64; narrower than float32, the rule says nothing."""
        return {torch.float64: 0.0, torch.float32: EPSILON}.get(self.target.dtype, math.inf)


@dataclass(frozen=True, slots=True)
class Call:
    """One answer: seconds by the wall clock, processor seconds of grader and entry, its tokens, nodes a forward."""

    seconds: float
    cpu: float | None
    tokens: list[int]
    sizes: tuple[int, ...]


def read_entry(path: Path) -> str:
    """The code of an entry: a Python file, or the decoder's cell of a notebook. Raises EntryError if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            found = [source(c) for c in cells if c["metadata"].get("nbgrader", {}).get("grade_id") == _CELL]
            if not found:
                raise EntryError(f"it has no cell {_CELL!r}, where the class is to stand")
            text = found[-1]
        tree = ast.parse(text)
    except _UNREADABLE as error:
        raise EntryError(f"it cannot be read: {type(error).__name__}: {' '.join(str(error).split())}") from error
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        if ours := {name.partition(".")[0] for name in names} & {"specdec_ref", "specdec_course"}:
            raise EntryError(f"line {getattr(node, 'lineno', 0)} imports {min(ours)}: the decoder is to be your own")
    return text


def fresh_prompts(session: Session, count: int, seed: int) -> list[list[int]]:
    """Prompts that no table of answers can hold: a grammar's, with texts and code from files that this seed picks."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    material = read(random.Random(seed).sample(files, min(_FILES, len(files))))
    found: list[list[int]] = []
    for dialogue in dialogues(seed, material):
        turn = dialogue.turns[0]
        if turn.task == "invented" or (turn.task in COPIES) == (len(found) % 3 == 2):
            continue
        prompt = session.encode(turn.text)
        found += [prompt] if len(prompt) <= _LONGEST else []
        if len(found) == count:
            return found
    raise RuntimeError("no prompts")  # the stream does not end


def fingerprint(target: Target) -> str:
    """sha256 of every weight, and of the logits that they lead to: a packed copy of a weight shows there."""
    digest = hashlib.sha256(str(target.dtype).encode())
    for name, weight in sorted(target.model.named_parameters()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    target.feature_layers = ()
    probe = target.start([[i % target.vocab_size for i in range(8)]], capacity=8)
    digest.update(b"" if probe is None else probe.logits.double().cpu().numpy().tobytes())
    return digest.hexdigest()


def compete(
    arena: Arena, code: str, *, seed: int, tick: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, list[Call]], str]:
    """Calls of plain, reference and entry on every prompt, neighbours in time; and why the entry is refused, or "".

    Raises RuntimeError if the target is not the same afterwards.
    """
    calls: dict[str, list[Call]] = {}
    before = fingerprint(arena.target)
    entry = Entry(code)
    try:
        with entry:
            tick("is it exact?")
            report = examine("", entry, exact_trials(_apart(seed)), ())
            _alone(entry)
            if not report.ok:
                return {}, "; ".join(f"{case.asks}: {case.says}" for case in report.cases if not case.passed)
            with _ours(PLAIN) as plain, _ours(REFERENCE) as reference:
                _run(arena, {PLAIN: plain, REFERENCE: reference, "entry": entry}, calls, tick)
    except Trouble as trouble:
        return calls, str(trouble)
    if fingerprint(arena.target) != before:
        raise RuntimeError("the target's weights are not what they were before this entry: nothing measured is valid")
    return calls, _difference(arena, calls)


def _apart(seed: int) -> int:
    """Another seed: what an entry sees of the small models' numbers tells it nothing of the prompts that follow."""
    return int.from_bytes(hashlib.sha256(f"exact trials {seed}".encode()).digest()[:8], "big")


def _ours(name: str) -> Entry:
    return Entry(ours=f"specdec_course.capstone.entry_reference:{OURS[name]}")


def _run(arena: Arena, sides: Mapping[str, Entry], calls: dict[str, list[Call]], tick: Callable[[str], None]) -> None:
    """Every side once on every prompt, each prompt begun by another side; the first prompt only warms up."""
    names = list(sides)
    calls.update({name: [] for name in names})
    for number, prompt in enumerate(arena.prompts):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            call = _timed(arena, sides[name], prompt)
            calls[name] += [call] if number else []
        tick(f"prompt {number} of {len(arena.prompts) - 1}")


def _timed(arena: Arena, entry: Entry, prompt: list[int]) -> Call:
    """Prompt and answer by our clocks. Raises EntryError if the entry has company."""
    model = TargetView(arena.target)
    theirs, own, started = entry.cpu_seconds(), time.process_time(), time.perf_counter()
    tokens = written(entry, model, prompt, arena.tokens, arena.eos)
    seconds, own = time.perf_counter() - started, time.process_time() - own
    now = entry.cpu_seconds()
    _alone(entry)
    cpu = None if now is None or theirs is None else own + now - theirs
    return Call(seconds, cpu, tokens, tuple(model.sizes))


def _alone(entry: Entry) -> None:
    if len(entry.processes()) > 1:
        raise EntryError("it started other processes, which would go on while others are measured")


def _difference(arena: Arena, calls: Mapping[str, Sequence[Call]]) -> str:
    """Where a text of the entry is not the target's and no near-tie explains it; "" if they all are."""
    plain, entry = ([call.tokens for call in calls[name]] for name in (PLAIN, "entry"))
    report = check_identity(arena.target, arena.prompts[1:], plain, entry, epsilon=arena.epsilon)
    return "" if report.ok else f"its text is not the target's: {report.errors[0]}"


def rows_of(calls: Mapping[str, Sequence[Call]], why: str) -> dict[str, Any]:
    """What the calls say of the entry; with a reason, that it was refused."""
    row: dict[str, Any] = {"verdict": "refused" if why else "admitted", "why": why, "score": None}
    if why or not calls.get("entry"):
        return row
    plain, reference, entry = (calls[name] for name in (PLAIN, REFERENCE, "entry"))
    for clock in ("seconds", "cpu"):
        ratios = _ratios(reference, entry, clock)
        low, high = median_interval(ratios) if ratios else (None, None)
        row |= {f"{clock}_speedup": median(ratios) if ratios else None, f"{clock}_low": low, f"{clock}_high": high}
    for name, sides in ((PLAIN, plain), (REFERENCE, reference), ("entry", entry)):
        row[f"{name}_tokens_per_s"] = median(len(call.tokens) / call.seconds for call in sides)
        row[f"{name}_vs_plain"] = median(_ratios(plain, sides, "seconds"))
        row[f"{name}_tau"] = sum(len(c.tokens) for c in sides) / sum(len(c.sizes) for c in sides)
    same = sum(a.tokens == b.tokens for a, b in zip(plain, entry, strict=True))
    known = [row[f"{clock}_speedup"] for clock in ("seconds", "cpu") if row[f"{clock}_speedup"] is not None]
    nodes = sum(map(sum, (call.sizes for call in entry))) / sum(len(call.sizes) for call in entry)
    return row | {"score": min(known), "nodes": nodes, "identical": same, "texts": len(entry)}


def _ratios(base: Sequence[Call], calls: Sequence[Call], clock: str) -> list[float]:
    """Base's seconds a token over these, prompt by prompt: > 1 is faster. [] where there is no such clock."""
    pairs = [
        (getattr(a, clock), len(a.tokens), getattr(b, clock), len(b.tokens)) for a, b in zip(base, calls, strict=True)
    ]
    if any(one is None or other is None for one, _, other, _ in pairs):
        return []
    return [(one / m) / (other / n) for one, m, other, n in pairs]
