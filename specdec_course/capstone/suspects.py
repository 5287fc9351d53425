"""The parts of a decoder behind the capstone's adapter, right and wrong: what exercise 09's self-checks compare with.

Of each part there is one that is right, and those that people write instead, each with the sentence that explains it.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from specdec_course.capstone.adapter import Model
from specdec_course.checks.examine import Suspect
from specdec_course.checks.ngram.suspects import found
from specdec_ref.core import Randomness

__all__ = ["DECODERS", "GREEDY", "INDICES", "LOOPS", "SAMPLED", "Scan", "generate", "greedy_round", "sampled_round"]

Tokens = list[int]
Guess = Callable[[Tokens], Tokens]


class Scan:
    """The lookup that is asked for, by reading the whole text again; with other knobs those that are not."""

    def __init__(self, longest: int = 4, shortest: int = 2, **knobs: Any) -> None:
        self.longest, self.shortest, self.knobs = longest, shortest, knobs
        self.text: Tokens = []
        self.pieces: list[int] = []  # where each piece ended

    def add(self, tokens: Sequence[int]) -> None:
        """The text grows."""
        self.text += tokens
        self.pieces.append(len(self.text))

    def guess(self, gamma: int) -> Tokens:
        """Up to gamma tokens."""
        lengths = range(min(self.longest, len(self.text) - 1), self.shortest - 1, -1)
        if self.knobs.get("short"):
            lengths = lengths[::-1]
        places = self.knobs.get("places", lambda text, n: range(len(text) - 1, n - 1, -1))
        if self.knobs.get("borders"):
            places = self._within
        copied: Any = list(found(self.text, gamma, 0, 0, places, lengths))  # type: ignore[arg-type]  # ids for words
        if copied and self.knobs.get("pads"):
            copied += self.text[:1] * (gamma - len(copied))
        if self.knobs.get("one"):
            return list(copied[:1])
        while copied and self.knobs.get("through") and len(copied) < gamma:
            copied.append(copied[-len(found(self.text, len(self.text), 0, 0, places, lengths))])  # type: ignore[arg-type]
        return list(copied)

    def _within(self, text: Sequence[Any], n: int) -> list[int]:
        """Matches that lie within one piece, together with what followed them."""
        starts = [0, *self.pieces]
        return [e for e in range(len(text) - 1, n - 1, -1) if not any(e - n < border <= e for border in starts[1:])]


INDICES = (  # a class with add(tokens) and guess(gamma)
    Suspect(
        "It reads the whole text again for each guess. An index stores a token once and needs few look-ups per guess.",
        Scan,
    ),
    Suspect(
        "It copies from the first place, but the latest was asked for: a later add() has to replace the earlier entry.",
        lambda longest=4, shortest=2: Scan(longest, shortest, places=lambda text, n: range(n, len(text))),
    ),
    Suspect(
        "Short matches are tried first. A longer match is better evidence.",
        lambda longest=4, shortest=2: Scan(longest, shortest, short=True),
    ),
    Suspect(
        "It finds the end of the text itself: an n-gram was entered before anything followed it.",
        lambda longest=4, shortest=2: Scan(longest, shortest, places=lambda text, n: range(len(text), n - 1, -1)),
    ),
    Suspect(
        "N-grams that reach from one add() into the next are missing: all calls together make one text.",
        lambda longest=4, shortest=2: Scan(longest, shortest, borders=True),
    ),
    Suspect(
        "The guess is filled up to gamma tokens. If fewer tokens follow in the text, guess only those.",
        lambda longest=4, shortest=2: Scan(longest, shortest, pads=True),
    ),
    Suspect(
        "It goes on copying from its own guess. Our reference does so too, but here only the text counts.",
        lambda longest=4, shortest=2: Scan(longest, shortest, through=True),
    ),
    Suspect(
        "It guesses one token, but up to gamma were asked for: store the place in the text, not the token.",
        lambda longest=4, shortest=2: Scan(longest, shortest, one=True),
    ),
)


def greedy_round(model: Model, last: int, guess: Sequence[int]) -> Tokens:
    """One round at temperature 0: the guesses that are the target's own choices, and one more choice of its own."""
    choices = model.score([last, *guess]).argmax(-1).tolist()
    count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(guess, choices, strict=False)))
    model.keep(range(count + 1))
    return [*guess[:count], choices[count]]


def _greedy(
    emit: Callable[[Tokens, Tokens, int], Tokens] = lambda guess, choices, count: [*guess[:count], choices[count]],
    count: Callable[[Tokens, Tokens], int] | None = None,
    keep: Callable[[int, int], int] = lambda kept, drafted: kept,
) -> Callable[[Model, int, Sequence[int]], Tokens]:
    def one_round(model: Model, last: int, guess: Sequence[int]) -> Tokens:
        choices = model.score([last, *guess]).argmax(-1).tolist()
        right = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(guess, choices, strict=False)))
        kept = right if count is None else count(list(guess), choices)
        model.keep(range(keep(kept, len(guess)) + 1))
        return emit(list(guess), choices, kept)

    return one_round


def _shifted(guess: Tokens, choices: Tokens) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(guess, choices[1:], strict=True)))


def _headless(model: Model, last: int, guess: Sequence[int]) -> Tokens:
    choices = model.score(guess).argmax(-1).tolist()
    count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(guess, choices, strict=True)))
    model.keep(range(count + 1))
    return [*guess[:count], choices[count]]


GREEDY = (  # (model, last, guess) -> new tokens
    Suspect("Nothing is rolled back: the rejected guesses stay in the cache, and the next round reads on from them.",
            _greedy(keep=lambda kept, drafted: drafted)),
    Suspect("The first rejected guess stays in the cache as well.",
            _greedy(keep=lambda kept, drafted: min(kept + 1, drafted))),
    Suspect("The target's own token is missing: a round also yields the choice after the last accepted guess.",
            _greedy(lambda guess, choices, count: guess[:count])),
    Suspect("The target's own token is added only if a guess failed. If all passed, the last row gives one more.",
            _greedy(lambda guess, choices, count: [*guess[:count], *choices[count : len(guess)][:1]])),
    Suspect("It emits the rejected guess in place of the target's choice there.",
            _greedy(lambda guess, choices, count: [*guess[:count], *(guess[count:] or choices[-1:])[:1]])),
    Suspect("Guess 1 is tested with row 1. Row i is for the token after node i, and node 0 is the last token: row 0.",
            _greedy(count=_shifted)),
    Suspect("It counts right guesses that come after a wrong one. They were scored after a text that is not this one.",
            _greedy(count=lambda guess, choices: sum(a == b for a, b in zip(guess, choices, strict=False)))),
    Suspect("It takes every guess. A guess may only stay if it is the target's choice.",
            _greedy(count=lambda guess, choices: len(guess))),
    Suspect("The target's own token is taken from the last row, whatever was rejected before it.",
            _greedy(lambda guess, choices, count: [*guess[:count], choices[-1]])),
    Suspect("It returns `last` as well. That one is in the text already.",
            lambda model, last, guess: [last, *greedy_round(model, last, guess)]),
    Suspect("An accepted guess is missing in the cache, which must keep node 0 and one node per accepted guess.",
            _greedy(keep=lambda kept, drafted: max(0, kept - 1))),
    Suspect("`last` is not scored. Node 0 is the text's last token: its row tests the first guess.", _headless),
)  # fmt: skip


def sampled_round(
    model: Model,
    last: int,
    guess: Sequence[int],
    rng: Randomness,
    *,
    keep: Callable[[Any, int, Randomness], bool] = lambda row, x, rng: rng.accept(float(row[x])),
    correct: Callable[[Any, int, Randomness], int] | None = None,
    bonus: bool = True,
    own: Callable[[Any, Randomness], int] = lambda row, rng: rng.draw(row),
    shift: int = 0,
    rolled_back: bool = True,
    last_row: bool = False,
) -> Tokens:
    """One round above temperature 0, for guesses made without chance: x stays with p(x), else draw from p without x."""
    p = model.score([last, *guess])
    count, correction = 0, None
    for i, x in enumerate(guess):
        if not keep(p[i + shift], x, rng):
            rest = p[-1 if last_row else i].clone()
            rest[x] = 0.0
            correction = own(rest, rng) if correct is None else correct(p[i], x, rng)
            break
        count += 1
    model.keep(range((count if rolled_back else len(guess)) + 1))
    if correction is not None:
        return [*guess[:count], correction]
    return [*guess, *([own(p[-1], rng)] if bonus else [])]


def _sampled(**knobs: Any) -> Callable[..., Tokens]:
    return lambda model, last, guess, rng: sampled_round(model, last, guess, rng, **knobs)


def _likeliest(row: Any, rng: Randomness) -> int:
    return int(row.argmax())


SAMPLED = (  # (model, last, guess, rng) -> new tokens
    Suspect("After a rejection it draws from p with the guess still in it: the guess gets a second chance.",
            _sampled(correct=lambda row, x, rng: rng.draw(row))),
    Suspect("It keeps a guess only if it is the likeliest token: that is the rule of temperature 0.",
            _sampled(keep=lambda row, x, rng: int(row.argmax()) == x)),
    Suspect("It keeps every guess, whatever p says.", _sampled(keep=lambda row, x, rng: True)),
    Suspect("The target's own token is the likeliest one. It has to be drawn.", _sampled(own=_likeliest)),
    Suspect("After a rejection it takes the likeliest token. It has to be drawn.",
            _sampled(correct=lambda row, x, rng: int(row.index_fill(0, row.new_tensor([x]).long(), 0.0).argmax()))),
    Suspect("Guess 1 is tested with row 1. Row i is the distribution after node i, and node 0 is the last token.",
            _sampled(shift=1)),
    Suspect("The bonus is missing: when all guesses passed, the last row holds one more token.",
            _sampled(bonus=False)),
    Suspect("Nothing is rolled back: the rejected guesses stay in the cache, and the next round reads on from them.",
            _sampled(rolled_back=False)),
    Suspect("It keeps each guess that has at least an even chance. A coin decides, with probability p(x).",
            _sampled(keep=lambda row, x, rng: float(row[x]) >= 0.5)),
    Suspect("It is a round at temperature 0: it takes the likeliest token every time and draws nothing.",
            _sampled(keep=lambda row, x, rng: int(row.argmax()) == x, own=_likeliest)),
    Suspect("After a rejection it draws from the last row, but must draw from the row that tested the guess.",
            _sampled(last_row=True)),
)  # fmt: skip


def generate(
    model: Model,
    prompt: Tokens,
    max_new_tokens: int,
    eos: frozenset[int],
    guess: Guess,
    *,
    cut: Callable[[Tokens, frozenset[int]], Tokens] | None = None,
    ended: Callable[..., bool] | None = None,
    limit: bool = True,
) -> Tokens:
    """Greedy rounds until the text ends: at the first end-of-text token, wherever in a round it stands."""
    new: Tokens = []
    while len(new) < max_new_tokens:
        block = greedy_round(model, [*prompt, *new][-1], guess([*prompt, *new]))
        new += (_through_eos if cut is None else cut)(block, eos)
        if eos.intersection(block) if ended is None else ended(prompt, new, block, eos):
            break
    return new[:max_new_tokens] if limit else new


def _through_eos(block: Tokens, eos: frozenset[int]) -> Tokens:
    at = next((i for i, token in enumerate(block) if token in eos), len(block))
    return block[: at + 1]


def _loop(**knobs: Any) -> Callable[..., Tokens]:
    return lambda model, prompt, most, eos, guess: generate(model, prompt, most, eos, guess, **knobs)


def _whole(block: Tokens, eos: frozenset[int]) -> Tokens:
    return block


LOOPS = (  # (model, prompt, max_new_tokens, eos, guess) -> new tokens
    Suspect("The bug is still there: only the last token of a round is compared with the end-of-text tokens.",
            _loop(cut=_whole, ended=lambda prompt, new, block, eos: block[-1] in eos)),
    Suspect("It stops, but the tokens that the round accepted after the end-of-text token are still in the text.",
            _loop(cut=_whole)),
    Suspect("The end-of-text token itself is missing. Plain decoding emits it, and so must this.",
            _loop(cut=lambda block, eos: list(takewhile(lambda token: token not in eos, block)))),
    Suspect("It takes an end-of-text token of the prompt for the end. Chat prompts hold such tokens, one per turn.",
            _loop(ended=lambda prompt, new, block, eos: bool(eos.intersection([*prompt, *new])))),
    Suspect("It writes more than max_new_tokens: the last round may yield more than there is room for.",
            _loop(limit=False)),
    Suspect("It only looks at the first token of a round.",
            _loop(cut=_whole, ended=lambda prompt, new, block, eos: block[0] in eos)),
    Suspect("It goes on with another round after the end: a `break` leaves only the innermost loop.",
            _loop(ended=lambda prompt, new, block, eos: False)),
)  # fmt: skip


class _Decoder:
    """A whole one around a sampled round, for the distribution of its texts at temperature 1."""

    def __init__(self, one_round: Callable[..., Tokens], spare: int) -> None:
        """`spare`: guesses beyond those that there is room for, in the last rounds."""
        self.one_round, self.spare = one_round, spare

    def generate(
        self, model: Model, prompt: Tokens, max_new_tokens: int, eos: frozenset[int], rng: Randomness
    ) -> Tokens:
        """See `Decoder`."""
        text, index = list(prompt), Scan()
        index.add(prompt)
        for _ in range(max_new_tokens):  # rounds: one that yields nothing must not go on for ever
            room = len(prompt) + max_new_tokens - len(text)
            if room <= 0 or eos.intersection(text[len(prompt) :]):
                break
            block = _through_eos(self.one_round(model, text[-1], index.guess(min(4, room - 1 + self.spare)), rng), eos)
            text += block
            index.add(block)
        return text[len(prompt) :][:max_new_tokens]


DECODERS = tuple(Suspect(suspect.says, _Decoder(suspect.code, spare)) for spare in (0, 4) for suspect in SAMPLED)
