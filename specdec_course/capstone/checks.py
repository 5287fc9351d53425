"""Self-checks of exercise 09: an index, two rounds, a loop with a bug, and whether a whole decoder is one.

The last check runs a decoder as the leaderboard does, on targets small enough to know everything about them: `exact`
holds what any entry must pass, here and there; `pace` what it should cost, on a stated curve instead of a clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from specdec_course.capstone import suspects as wrong
from specdec_course.capstone.adapter import TargetView, first_unasked
from specdec_course.capstone.admission import Making, exact_trials, pace_trials
from specdec_course.capstone.suspects import Scan, greedy_round
from specdec_course.capstone.toys import Scripted, rounds_distribution, view
from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, examine, ids, unaided
from specdec_course.checks.plain import Counted
from specdec_course.checks.report import Report
from specdec_course.checks.standalone import alone
from specdec_course.checks.toys import compare, wanted
from specdec_ref.exact import Distribution
from specdec_ref.models.toy import TableLM

__all__ = ["entry", "greedy", "greedy_round", "index", "loop", "sampled", "toy"]

Tokens = list[int]
Pieces = Sequence[Sequence[int]]


def toy() -> tuple[TargetView, Tokens, Tokens]:
    """A model to play with, the prompt that it has read, and what it will write after it."""
    script = Scripted.random(2, prompt=6, new=12)
    script.guesses(len(script.prompt), "rw")
    return view(script.model).open(script.prompt, 64), list(script.prompt), script.text[len(script.prompt) :]


INDICES: tuple[tuple[str, Pieces, int], ...] = (
    ("It copies what followed", ([1, 2, 3, 4, 9, 1, 2],), 2),
    ("It works as the text grows", ([1, 2, 3, 4], [9], [1], [2, 3], [9, 9]), 2),
    ("A match may reach from one add() into the next", ([1, 2, 9, 9], [1, 2, 6], [1], [2, 3, 7], [8, 1, 2]), 3),
    ("The longest match is taken first", ([1, 2, 3, 6, 8, 2, 3, 7, 8, 1, 2, 3], [5, 8, 2, 3], [6, 8, 2, 3]), 1),
    ("Of equal matches the latest", ([1, 2, 3, 9, 1, 2, 4, 9, 8, 1, 2], [5, 5, 1, 2]), 2),
    ("It guesses what follows, and nothing if nothing matches", ([4, 5, 4, 5], [6, 1]), 5),
)


def index(make: Callable[[], Any], more: Sequence[tuple[Pieces, int]] = ()) -> Report:
    """Of a class with `add(tokens)` and `guess(gamma)`: n-grams of 2 to 4 tokens."""

    def trial(asks: str, pieces: Pieces, gamma: int) -> Trial:
        def outcome(code: Any) -> list[Any]:
            made, guesses, given = attempt(code), [], [list(piece) for piece in pieces]
            for piece in given:
                attempt(made.add, piece)
                guesses.append(ids(attempt(made.guess, gamma)))
            if given != [list(piece) for piece in pieces]:
                raise Trouble("it changes a list that was passed to add(). A decoder's prompt would grow: keep a copy")
            return guesses

        def judge(guesses: list[Any]) -> tuple[bool, str]:
            right, text = Scan(), Tokens()
            for piece, guess in zip(pieces, guesses, strict=True):
                right.add(piece)
                text += piece
                if guess != right.guess(gamma):
                    return False, f"after {text}, the last {len(piece)} of them new, guess({gamma}) gave {guess}"
            return True, f"{len(text)} tokens in {len(pieces)} piece{'s' * (len(pieces) > 1)}"

        return Trial(asks, outcome, judge)

    cases = [*INDICES, *(("Another text", *case) for case in more)]
    return examine("Task 1, the index", make, [*(trial(*case) for case in cases), _reading()], wrong.INDICES)


def _reading() -> Trial:
    """Tokens that a guess looks at, in a long text: few or many."""
    words = Random(7).choices(range(40), k=1500)

    def outcome(code: Any) -> str:
        made = attempt(code)
        attempt(made.add, [Counted(word) for word in words])
        before, guesses = Counted.looks[0], []
        for word in words[:10]:
            attempt(made.add, [Counted(word)])
            guesses.append(ids(attempt(made.guess, 4)))
        if not any(guesses):
            raise Trouble("it guesses nothing, after a text in which most pairs of tokens occurred before")
        return "few" if Counted.looks[0] - before < len(words) else "many"

    def judge(looked: str) -> tuple[bool, str]:
        return looked == "few", f"in a text of {len(words)} tokens a guess looked at {looked} of them"

    return Trial("A guess does not read the whole text again", outcome, judge, side=True)


GUESSES: tuple[tuple[str, int, tuple[str, str]], ...] = (  # of two rounds: r a right guess, w a wrong one
    ("All guesses are right", 55, ("rrr", "rr")),  # and the target's own token is the first guess once more
    ("None is", 4, ("www", "rr")),
    ("The second is wrong, the third right again", 5, ("rwr", "rrr")),
    ("There are none", 6, ("", "r")),
    ("Right, then wrong, over two rounds", 8, ("rrw", "rwww")),
)


def greedy(function: Callable[..., Any], more: Sequence[tuple[int, tuple[str, str]]] = ()) -> Report:
    """Of `function(model, last, guess)`: the new tokens, and a cache that holds all of the text but its last token."""

    def trial(asks: str, seed: int, plan: tuple[str, str]) -> Trial:
        script = Scripted.random(seed, prompt=4, new=16)

        def outcome(code: Any) -> list[Any]:
            model, text, told = view(script.model).open(script.prompt, 16), list(script.prompt), []
            for kinds in plan:
                guess = script.guesses(len(text), kinds)
                before, new = model.forwards, ids(attempt(code, model, text[-1], guess))
                text += new
                told.append([guess, new, model.length - len(text), model.forwards - before])
            return told

        def judge(told: list[Any]) -> tuple[bool, str]:
            at = len(script.prompt)
            for number, (kinds, (guess, new, off, forwards)) in enumerate(zip(plan, told, strict=True), 1):
                right = script.text[at : at + len(kinds.partition("w")[0]) + 1]
                ours = script.text[at : at + len(kinds) + 1]
                where = f"round {number}: the target would write {ours}, the guesses were {guess}; "
                if new != right:
                    return False, f"{where}it returned {new}"
                if off != -1:
                    tokens = f"{abs(off + 1)} token{'s' * (abs(off + 1) > 1)} too {'many' if off > -1 else 'few'}"
                    return False, f"{where}the cache then held {tokens}"
                if forwards != 1:
                    return False, f"{where}it took {forwards} forwards, but a round must take one"
                at += len(new)
            return True, f"two rounds, {at - len(script.prompt)} tokens, and the cache is one token behind the text"

        return Trial(asks, outcome, judge)

    cases = [*GUESSES, *(("Other rounds", *case) for case in more)]
    own, trials = unaided(function, greedy_round), [trial(*case) for case in cases]
    return examine("Task 2, a greedy round", own, trials, wrong.GREEDY)


DRAWS: tuple[tuple[str, int, Pieces], ...] = (
    ("One guess", 11, ([1], [])),
    ("Two guesses, then two more", 12, ([0, 1], [2, 0])),
    ("No guess, then one", 13, ([], [2])),
    ("Two guesses, then one, then none", 14, ([0, 1], [2], [])),  # the last round reads what the first one kept
)


def sampled(function: Callable[..., Any], more: Sequence[tuple[int, Pieces]] = ()) -> Report:
    """Of `function(model, last, guess, rng)`: the distribution of the first words, one per round, and how many come."""

    def trial(asks: str, seed: int, guesses: Pieces) -> Trial:
        table, words = TableLM(3, seed=seed), len(guesses)  # a round yields a word at least
        goal = wanted(table, words)

        def outcome(code: Any) -> tuple[Distribution, float]:
            return rounds_distribution(table, code, guesses, words)

        best = outcome(wrong.sampled_round)[1]

        def judge(came: tuple[Distribution, float]) -> tuple[bool, str]:
            right, says = compare(came[0], goal)
            if right and not came[1] > best - CLOSE:
                return False, f"the rounds yield {came[1]:.3f} words on average, those of this task {best:.3f}"
            return right, says

        return Trial(asks, outcome, judge)

    cases = [*DRAWS, *(("Other guesses", *case) for case in more)]
    return examine("Task 3, a sampled round", function, [trial(*case) for case in cases], wrong.SAMPLED)


LOOPS: tuple[tuple[str, int, int, int | None, int], ...] = (  # seed, max_new_tokens, where the text ends, guesses
    ("No end in sight", 21, 12, None, 3),
    ("The end is the last token of a round", 22, 14, 4, 4),
    ("The end is in the middle of a round", 23, 14, 5, 4),
    ("The end is the first token", 24, 14, 0, 3),
    ("The limit is in the middle of a round", 25, 8, None, 4),
    ("The limit is in the middle of a round, and the end after it", 26, 8, 9, 4),
)


def loop(function: Callable[..., Any], more: Sequence[tuple[int, int, int | None, int]] = ()) -> Report:
    """Of `function(model, prompt, max_new_tokens, eos, guess)`. The prompt holds an end-of-text token, as chats do."""

    def trial(asks: str, seed: int, most: int, end: int | None, gamma: int) -> Trial:
        script = Scripted.random(seed, prompt=5, new=24, ends=end)

        def outcome(code: Any) -> Tokens:
            model = view(script.model).open(script.prompt, 24)
            new = ids(
                attempt(code, model, list(script.prompt), most, script.eos, lambda text: script.next(text, gamma))
            )
            at = first_unasked(model, script.prompt, new)
            if new == script.answer(most) and at is not None:
                raise Trouble(
                    f"it wrote the target's text, but no forward was asked for token {at}: a guess is no proof"
                )
            return new

        def judge(new: Tokens) -> tuple[bool, str]:
            goal = script.answer(most)
            about = f"max_new_tokens {most}, end-of-text {sorted(script.eos)}, {gamma} right guesses per round: "
            return new == goal, f"{about}it returned {new}" + ("" if new == goal else f", plain decoding {goal}")

        return Trial(asks, outcome, judge)

    cases = [*LOOPS, *(("Another text", *case) for case in more)]
    return examine("Task 4, the bug", function, [trial(*case) for case in cases], wrong.LOOPS)


def entry(make: Callable[[], Any], *, seed: int = 9) -> Report:
    """Of a whole decoder, the class itself: exact on small targets, and its pace on a stated curve."""
    trials = [_own(trial, make) for trial in (*exact_trials(seed), *pace_trials(seed))]
    return examine("Task 5, your decoder", Making(make), trials, wrong.DECODERS)


def _own(trial: Trial, make: Any) -> Trial:
    """The same, for a decoder that is its author's."""

    def outcome(code: Any) -> Any:
        taken, cell = alone(make) if isinstance(code, Making) and code.make is make else ("", "")
        if taken:
            raise Trouble(f"it uses {taken} of specdec_ref, but the decoder must be your own: an entry stands alone")
        if cell:
            raise Trouble(
                f"it uses {cell} of another cell. The leaderboard reads this cell only: copy it into this one"
            )
        return trial.outcome(code)

    return replace(trial, outcome=outcome)
