"""Self-check of exercise 10, task 5: suffix decoding's draft and score, against the package's compressed tree."""

from collections.abc import Callable, Sequence
from typing import Any

from specdec_course.checks.after_eagle.suffix_suspects import SUFFIXES
from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, described, examine, ids, numbers
from specdec_course.checks.report import Report
from specdec_ref.config import DraftBudget, SuffixOptions
from specdec_ref.drafters.suffix_tree import SuffixTree

__all__ = ["TEXTS", "follows", "suffix"]

Text = tuple[str, str, float, float, int]  # what it is, the text (a letter a token), factor, min_prob, longest string
Follows = dict[tuple[int, ...], dict[int, int]]

TEXTS: tuple[Text, ...] = (
    ("one match, continued", "abcdefabc", 1.0, 0.1, 8),
    ("a long match, a long draft", "thecatsatonthemat.thecatsatonthe", 1.0, 0.1, 16),
    ("two continuations", "abcabcabdabcab", 2.0, 0.1, 8),
    ("a short match with the better score", "xyabababababcqqxcqxyab", 1.5, 0.3, 8),
    ("nothing repeats", "abcdefg", 1.0, 0.1, 8),
    ("one matched token, one draft", "pqrstp", 1.0, 0.1, 8),
    ("half of a match", "uvwxyzuvwxy", 0.5, 0.1, 10),
    ("one token, repeated", "aaa", 0.5, 0.1, 8),
    ("two equal scores", "abxqabxcabzcabycab", 0.5, 0.1, 8),
    ("likely steps, an unlikely draft", "qacqadqbq", 2.0, 0.4, 8),
    ("an end at the least probability", "aabacabaacaabadaabaab", 2.0, 0.25, 8),
    ("a draft that ends early", "qrrqqrqrpqr", 3.0, 0.5, 8),
    ("less than one draft", "pqrstp", 0.5, 0.1, 8),
)


def follows(text: Sequence[int], longest: int) -> Follows:
    """string -> token that came next -> how often; of equally frequent ones the latest first."""
    counted: dict[tuple[int, ...], dict[int, tuple[int, int]]] = {}
    for at, token in enumerate(text):
        for size in range(1, min(longest, at + 1)):
            nexts = counted.setdefault(tuple(text[at - size : at]), {})
            nexts[token] = (nexts.get(token, (0, 0))[0] + 1, at)
    return {
        string: {token: nexts[token][0] for token in sorted(nexts, key=lambda t: -nexts[t][1])}
        for string, nexts in counted.items()
    }


def suffix(function: Callable[..., Any], texts: Sequence[Text] = TEXTS) -> Report:
    """Of `function(text, follows, factor, min_prob)`: (draft, score)."""
    trials = [trial for text in texts for trial in _trials(*text)]
    return examine("Task 5, suffix decoding", function, trials, SUFFIXES)


def _trials(name: str, letters: str, factor: float, min_prob: float, longest: int) -> list[Trial]:
    alphabet = sorted({*letters})
    text = [alphabet.index(letter) for letter in letters]
    tree = SuffixTree(longest)
    for token in text:
        tree.append(token)
    options = SuffixOptions(max_depth=longest, factor=factor, min_prob=min_prob)
    best = tree.draft(text, DraftBudget(len(text)), options)
    right, score = best.nodes.tokens[1:], best.score
    found = f" (match of length {best.match}, score {score:.4g})" if right else ""

    def came(code: Any) -> tuple[Any, Any]:
        given = attempt(code, list(text), follows(text, longest), factor, min_prob)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise Trouble(f"it returned {described(given)}, and two things were expected: the draft and its score")
        return given[0], given[1]

    def drafted(draft: list[int]) -> tuple[bool, str]:
        gave = f"it drafted {_spelt(draft, alphabet)}"
        if draft == right:
            return True, gave
        return False, f"{gave}, and the best draft is {_spelt(right, alphabet)}{found}"

    def scored(value: float) -> tuple[bool, str]:
        good = abs(value - score) < CLOSE
        told = f", and the best score is {score:.4g} (match of length {best.match})"
        return good, f"it gave {value:.4g}{'' if good else told}"

    about = f"{name}, “{letters}”, factor {factor:g}, min_prob {min_prob:g}"
    empty = not right  # a function that never drafts fulfils it
    return [
        Trial(f"draft: {about}", lambda code: ids(came(code)[0]), drafted, side=empty),
        Trial(f"score: {about}", lambda code: numbers(came(code)[1], 1)[0], scored, weight=0.5, side=empty),
    ]


def _spelt(draft: Sequence[int], alphabet: Sequence[str]) -> str:
    if not draft:
        return "nothing"
    known = all(0 <= token < len(alphabet) for token in draft)
    return f"“{''.join(alphabet[token] for token in draft)}”" if known else str(list(draft))
