"""What to ask the target: an endless, reproducible stream of dialogues, most of them different from all before.

A small grammar (`_text/grammar.txt`: templates x topics) with code and prose found on the machine (`material.py`). Some
dialogues go on for a second turn, some hand the target's own answer back to be edited, summarised or translated, and
in some the target writes the user's message itself. Dialogue n depends on (seed, n) alone, repeats apart.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from random import Random

from specdec_ref.training.edits import computed_rules
from specdec_ref.training.grammar import Grammar
from specdec_ref.training.material import Material, collect

__all__ = ["TASKS", "Dialogue", "Turn", "dialogues", "fingerprint", "overlap", "overlaps"]

# How often each task is asked, in relative terms. Answers to "translation", "summary" and "editing" are short, so these
# tasks are asked more often than their share of the tokens. "invented": the target writes the user's message itself.
TASKS: Mapping[str, int] = {
    "chat": 14, "explanation": 6, "list": 3, "email": 4, "creative": 13, "roleplay": 3, "question": 4, "maths": 4,
    "code": 13, "code_explain": 4, "editing_code": 7, "editing": 18, "rewriting": 8, "translation": 24, "summary": 26,
    "structured": 4, "invented": 13,
}  # fmt: skip
FOLLOW_UP = 0.10  # share of dialogues that go on for a second turn
OWN_TEXT = 0.20  # share of prose answers that come back as the text of a new prompt
_PROSE = frozenset({"chat", "explanation", "email", "creative", "invented"})
_CODE = frozenset({"code", "code_explain", "editing_code"})


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message. Where it says `{answer}`, the target's last response goes, and a new dialogue begins."""

    task: str
    text: str
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Dialogue:
    """`number` names it for ever: the same seed and number give the same turns.

    In a dialogue of the task "invented" the first turn's text is only an opening, perhaps empty: the target goes on.
    """

    number: int
    turns: tuple[Turn, ...]


def dialogues(seed: int, material: Material | None = None) -> Iterator[Dialogue]:
    """Dialogues without end, numbered upwards. A number whose first prompts all came up before (ten tries) is left out.

    `material` defaults to `collect()`: what is found depends on the machine, so pass one to be independent of it.
    """
    text = files("specdec_ref.training").joinpath("_text/grammar.txt").read_text("utf8")
    grammar = Grammar(text, computed_rules(collect() if material is None else material))
    seen: set[tuple[int, ...]] = set()
    number = -1
    while True:
        number += 1
        for attempt in range(10):
            turns = _turns(grammar, Random(f"{seed}:{number}:{attempt}"))
            mark = fingerprint(turns[0].text)
            if turns[0].task == "invented" or mark not in seen:
                seen.add(mark)
                yield Dialogue(number, turns)
                break


def _turns(grammar: Grammar, rng: Random) -> tuple[Turn, ...]:
    task = rng.choices(list(TASKS), list(TASKS.values()))[0]
    if task == "invented":
        text = grammar.expand("user_opening", rng) if rng.random() < 0.6 else ""
    else:
        text = grammar.expand(task, rng).strip()
    first = Turn(task, text[:1].upper() + text[1:])
    kind = rng.random()
    if kind < FOLLOW_UP:
        return first, Turn("follow_up", grammar.expand("followup_code" if task in _CODE else "followup", rng))
    if task in _PROSE and kind < FOLLOW_UP + OWN_TEXT:
        return first, Turn("own_text", grammar.expand("own_text", rng), fresh=True)
    return (first,)


def fingerprint(text: str, size: int = 4, keep: int = 3) -> tuple[int, ...]:
    """Equal for texts that are nearly the same: the `keep` smallest hashes of their runs of `size` words.

    Case and punctuation do not count. A bottom-k sketch (Broder 1997): texts that share most runs share their
    smallest hashes, so a long passage under another instruction counts as a repeat while short prompts about another
    topic do not.
    """
    words = re.findall(r"\w+", text.lower())
    runs = {" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}
    return tuple(sorted(zlib.crc32(run.encode()) for run in runs)[:keep])


def overlap(prompt: Sequence[int], others: Iterable[Sequence[int]], n: int = 8) -> float:
    """Share of the prompt's n-grams of tokens that occur in any of the others: 0.0 means unseen, 1.0 a copy."""
    return overlaps([prompt], others, n)[0]


def overlaps(prompts: Sequence[Sequence[int]], others: Iterable[Sequence[int]], n: int = 8) -> list[float]:
    """`overlap` for many held-out prompts in one pass over a large corpus.

    Pass the tokens of the user's text alone: the chat template around it is the same everywhere. A prompt shorter than
    n tokens counts as one n-gram of its own length. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: an n-gram needs at least one token")
    wanted = [set(_grams(prompt, min(n, max(1, len(prompt))))) for prompt in prompts]
    lengths = {len(gram) for grams in wanted for gram in grams}
    everything = set().union(*wanted)
    found: set[tuple[int, ...]] = set()
    for other in others:
        for length in lengths:
            found.update(gram for gram in _grams(other, length) if gram in everything)
    return [len(grams & found) / len(grams) if grams else 0.0 for grams in wanted]


def _grams(tokens: Sequence[int], n: int) -> Iterator[tuple[int, ...]]:
    return (tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
