"""Copy explorer: a text written down as if a target wrote it, each round with the guesses that copying would make.

Words stand for tokens, and the text is its own target: a guess is accepted if it is what the text says next. So the
page shows what a rule of copying is worth on a text, without a model.
"""

import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from specdec_course.plots import Number, bars
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_course.widgets.painted import LEGEND, painted
from specdec_ref.config import DraftBudget, TrieOptions
from specdec_ref.drafters.ngram import NgramIndex
from specdec_ref.drafters.trie import NgramTrie, Node
from specdec_ref.metrics import StepRecord
from specdec_ref.trace import Round

__all__ = ["SAMPLE", "TrieCopier", "copy_explorer", "copy_view", "replay", "words_of"]

SAMPLE = (
    "The cat sat on the mat and the dog sat on the rug. The cat sat on the rug and the dog sat on the mat. Then the "
    "cat sat on the mat and the dog sat on the rug. At last the cat and the dog sat on the rug."
)
POLICIES = ("first match", "latest match", "trie, recency", "trie, frequency")
KNOBS = (
    Knob("longest match", "compare at most this many words", 1, 8, 4, 1, "words"),
    Knob("shortest match", "ignore shorter matches (prompt lookup only)", 1, 4, 1, 1, "words"),
    Knob("draft length", "gamma, guesses per round", 1, 8, 4, 1, "words"),
    Knob("policy", "which earlier place is copied, or a trie", 0, 3, 1, choices=POLICIES),
)
SHORTEST = 2  # words of a text that can be replayed: one to begin with, one to guess


@runtime_checkable
class Copier(Protocol):
    """What a text is fed to, word by word, and asked how it goes on."""

    def extend(self, tokens: Sequence[int]) -> None:
        """The text went on."""
        ...

    def continuation(self, length: int) -> list[int]:
        """Up to `length` guesses."""
        ...


class TrieCopier:
    """A trie with one text, asked for its best chain."""

    def __init__(self, options: TrieOptions) -> None:
        self.trie, self.suffixes = NgramTrie(options), list[Node]()

    def extend(self, tokens: Sequence[int]) -> None:
        """The text went on."""
        for token in tokens:
            self.suffixes = self.trie.follow(self.suffixes, token)

    def continuation(self, length: int) -> list[int]:
        """Up to `length` guesses."""
        draft = self.trie.draft(self.suffixes[-1].token, self.suffixes, DraftBudget(length))
        return draft.nodes.tokens[1:]


def words_of(text: str) -> list[str]:
    """Words with the space before them, and punctuation."""
    return re.findall(r"\s*\w+|\s*[^\w\s]", text)


def replay(tokens: Sequence[int], copier: Copier, gamma: int) -> list[Round]:
    """Write the text down from its second word on, in rounds of up to `gamma` guesses."""
    copier.extend(tokens[:1])
    rounds, at = [], 1
    while at < len(tokens):
        guesses, left = copier.continuation(gamma), tokens[at:]
        held = next((i for i, (g, x) in enumerate(zip(guesses, left, strict=False)) if g != x), len(guesses))
        held = min(held, len(left))
        added = left[held] if held < len(left) else None
        wrong = tuple(guesses[held : held + 1]) if added is not None else ()
        emitted = held + (added is not None)
        record = StepRecord(0, len(guesses), held + len(wrong), held, emitted, len(guesses))
        rounds.append(Round(tuple(guesses[:held]), wrong, tuple(guesses[held + 1 :]), added, record=record))
        copier.extend(rounds[-1].tokens)
        at += len(rounds[-1].tokens)
    return rounds


def copy_view(text: str, longest: Number, shortest: Number, gamma: Number, policy: Number) -> View:
    """The text in colours, and what the guesses were worth."""
    words = words_of(text)
    if len(words) < SHORTEST:
        return View("<p>Write or paste at least two words.</p>", bars({"": 0.0}, x="words", alt="Nothing to show yet."))
    names = list(dict.fromkeys(words))

    def decode(ids: Sequence[int]) -> str:
        return "".join(names[i] for i in ids)

    number = {word: i for i, word in enumerate(names)}
    most, least, length = round(longest), min(round(shortest), round(longest)), round(gamma)
    copier: Copier = (
        NgramIndex(least, most, "latest" if policy == 1 else "first")
        if policy < 2
        else TrieCopier(TrieOptions("bfs" if policy == 2 else "prob", most + length))
    )
    rounds = replay([number[word] for word in words], copier, length)
    held, turned, never = (
        sum(len(part) for part in parts)
        for parts in zip(*((r.accepted, r.rejected, r.untested) for r in rounds), strict=True)
    )
    tau, tested = (len(words) - 1) / len(rounds), max(1, held + turned)
    silent = sum(not (r.accepted or r.rejected) for r in rounds)
    html = (
        f"<p>{LEGEND}</p>{painted([Round(added=0), *rounds], decode, POLICIES[round(policy)])}"
        f"<p>The first word is given. {len(words) - 1} words follow in {len(rounds)} rounds: "
        f"<b>tau = {tau:.2f}</b> words per round. {held} of {tested} tested guesses were accepted "
        f"(alpha = {held / tested:.2f}). In {silent} rounds nothing matched, so nothing was guessed.</p>"
    )
    counts = {"accepted": held, "rejected": turned, "never tested": never, "the target's own": len(words) - 1 - held}
    colours = ["accepted", "rejected", "grey", "bonus"]
    alt = f"{held} guesses accepted, {turned} rejected, {never} never tested, {len(words) - 1 - held} words of its own."
    return View(html, bars(counts, x=f"words, in {len(rounds)} rounds", alt=alt, colours=colours, form="{:.0f}"))


def copy_explorer(text: str = SAMPLE) -> Explorer:
    """Four sliders below a text to paste into."""
    return Explorer.build(KNOBS, copy_view, text=text)
