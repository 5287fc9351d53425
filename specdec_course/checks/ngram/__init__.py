"""Self-checks of exercise 04: a lookup, several guesses as one tree, the n-grams of a trie, and a batch with a bug."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specdec_course.checks.examine import Trial, Trouble, attempt, described, examine, unaided
from specdec_course.checks.ngram import suspects as wrong
from specdec_course.checks.ngram.suspects import found
from specdec_course.checks.ngram.tree_suspects import TREES as WRONG_TREES
from specdec_course.checks.report import Report
from specdec_ref.core import DraftTree

__all__ = ["grams", "look", "lookup", "propose", "tree"]

Words = Sequence[str]
Case = tuple[str, int, int, int]  # text, gamma, longest, shortest

LOOKUPS: tuple[tuple[str, tuple[Case, ...]], ...] = (
    ("It copies what followed", (("a b c d x y a b", 2, 2, 1), ("to be or not to", 3, 4, 1), ("is this is", 2, 2, 1))),
    ("The longest match goes first", (("a b c x b d b c y a b", 1, 3, 1), ("u v w 1 v w 2 u v w", 1, 3, 1))),
    ("No match is longer than `longest`", (("u v w 1 v w 2 u v w", 1, 2, 1),)),
    ("Of equal matches the latest", (("a b 1 a b 2 a b", 1, 2, 2), ("p q r 1 . p q r 2 . p q r", 2, 3, 2))),
    ("It guesses what there is, if that is less", (("a b c a b", 9, 2, 1), ("n o n o", 5, 2, 1))),
    ("A match may overlap the end that it matches", (("ha ha ha", 4, 2, 2),)),
    (
        "A match that is too short, or none, gives no guess",
        (("a b c b", 3, 4, 2), ("a b c d", 3, 4, 1), ("a", 3, 4, 1)),
    ),
)


def look(text: Words, gamma: int, longest: int = 4, shortest: int = 1) -> list[str]:
    """What followed the longest suffix that occurred before, at its latest place; [] if there is none."""
    return found(text, gamma, longest, shortest)


def spelt(words: Sequence[Any]) -> str:
    """Words as a learner sees them."""
    return "nothing" if not words else "“" + " ".join(map(str, words)) + "”"


def _listed(value: Any, wanted: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise Trouble(f"it returned {described(value)}, and {wanted} was expected")
    return list(value)


def lookup(function: Callable[..., Any], more: Sequence[Case] = ()) -> Report:
    """Of `function(text, gamma, longest, shortest)`, a list of words. `more`: further cases, judged together."""

    def trial(asks: str, cases: Sequence[Case]) -> Trial:
        def outcome(code: Any) -> list[list[Any]]:
            return [_listed(attempt(code, text.split(), *how), "a list of words") for text, *how in cases]

        def judge(guesses: list[list[Any]]) -> tuple[bool, str]:
            for (text, gamma, longest, shortest), guess in zip(cases, guesses, strict=True):
                if guess != found(text.split(), gamma, longest, shortest):
                    how = f"gamma = {gamma}, longest = {longest}, shortest = {shortest}"
                    return False, f"after “{text}” ({how}) it guessed {spelt(guess)}, which is wrong"
            return True, f"right after {' and after '.join(f'“{case[0]}”' for case in cases)}"

        return Trial(asks, outcome, judge)

    trials = [trial(*group) for group in (*LOOKUPS, *([("On longer texts", more)] if more else []))]
    return examine("Task 1, lookup", unaided(function, look), trials, wrong.LOOKUPS)


Branches = Sequence[Sequence[int]]
TREES: tuple[tuple[str, Branches, int], ...] = (
    ("One guess is a chain", ((5, 6, 7),), 9),
    ("A common beginning is one path", ((5, 6, 7), (5, 8), (5, 6, 9)), 9),
    ("The same word in two places is two nodes", ((5, 6, 7), (8, 5, 6, 9), (8, 5, 6, 4)), 9),
    ("The budget counts the root, and may end within a guess", ((5, 6), (7, 8), (9, 4)), 4),
    ("No guesses: only the root", (), 6),
)


def _paths(branches: Branches, nodes: int) -> set[tuple[int, ...]]:
    """The wanted paths, in the order of the branches until the budget is used up."""
    wanted: dict[tuple[int, ...], None] = {}
    for branch in branches:
        for depth in range(1, len(branch) + 1):
            if len(wanted) < nodes - 1:
                wanted[tuple(branch[:depth])] = None
    return set(wanted)


def tree(function: Callable[..., Any], more: Sequence[tuple[Branches, int]] = ()) -> Report:
    """Of `function(root, branches, nodes)`, a DraftTree."""

    def trial(asks: str, branches: Branches, nodes: int) -> Trial:
        def outcome(code: Any) -> list[list[int]]:
            drafted = attempt(code, 3, [list(branch) for branch in branches], nodes)
            if not isinstance(drafted, DraftTree):
                raise Trouble(f"it returned {described(drafted)}, and a DraftTree was expected")
            if drafted.token_list[0] != 3:
                raise Trouble(f"its node 0 holds {drafted.token_list[0]}: that place is the root's, and root was 3")
            if drafted.drawn != "point":
                raise Trouble(f"its third argument is {drafted.drawn!r}, but nothing was drawn here: leave it out")
            return sorted([drafted.token_list[i] for i in drafted.path(node)] for node in range(1, len(drafted)))

        def judge(paths: list[list[int]]) -> tuple[bool, str]:
            twice = [list(path) for path, count in Counter(map(tuple, paths)).items() if count > 1]
            if twice:
                return False, f"the path {twice[0]} occurs {sum(path == twice[0] for path in paths)} times"
            right = {tuple(path) for path in paths} == _paths(branches, nodes)
            told = f"{len(paths) + 1} node{'s' * bool(paths)}" + (f" with the paths {paths}" if paths else "")
            return right, f"for {[list(b) for b in branches]} and a budget of {nodes} it built {told}"

        return Trial(asks, outcome, judge)

    cases = [*TREES, *(("Another one", branches, nodes) for branches, nodes in more)]
    return examine("Task 2, tree", function, [trial(*case) for case in cases], WRONG_TREES)


GRAMS: tuple[tuple[str, Sequence[str], int], ...] = (
    ("Every n-gram of one text", ("a b c",), 2),
    ("It counts how often", ("a b a b a",), 3),
    ("Several texts", ("a b", "b a", "a b"), 2),
    ("A text shorter than the depth", ("a b",), 5),
)


def grams(function: Callable[..., Any], more: Sequence[tuple[Sequence[str], int]] = ()) -> Report:
    """Of `function(texts, depth)`, a dict from tuples of words to counts."""

    def trial(asks: str, texts: Sequence[str], depth: int) -> Trial:
        lists = [text.split() for text in texts]
        wanted = wrong.counted(lists, depth)

        def outcome(code: Any) -> dict[Any, Any]:
            counts = attempt(code, [list(words) for words in lists], depth)
            if not isinstance(counts, Mapping):
                raise Trouble(f"it returned {described(counts)}, and a dict from tuples of words was expected")
            strange = [gram for gram in counts if not isinstance(gram, tuple)]
            if strange:
                raise Trouble(f"one of its keys is {strange[0]!r}, and a tuple of words was expected, even of one word")
            return dict(counts)

        def judge(counts: dict[Any, Any]) -> tuple[bool, str]:
            for gram in sorted({*counts, *wanted}):
                if counts.get(gram, 0) != wanted.get(gram, 0):
                    often = f"{counts[gram]} time{'s' * (counts[gram] != 1)}" if gram in counts else "not at all"
                    return False, f"in {list(texts)} with depth {depth} it counts {spelt(gram)} {often}"
            return True, f"{len(wanted)} n-grams of {list(texts)} with depth {depth}"

        return Trial(asks, outcome, judge)

    cases = [*GRAMS, *(("Others", texts, depth) for texts, depth in more)]
    return examine("Task 3, n-grams", function, [trial(*case) for case in cases], wrong.GRAMS)


BATCHES: tuple[tuple[str, Sequence[str], Sequence[bool], float], ...] = (  # the last number: its weight
    ("All requests are ready", ("a b c a b", "x y x", "p q r"), (True, True, True), 1),
    ("The last one is not", ("a b c a b", "x y x", "m n m"), (True, True, False), 1),
    ("The one in the middle is not", ("a b c a b", "m n m", "x y x"), (True, False, True), 6),
    ("None is", ("a b a", "m n m"), (False, False), 1),
)


def propose(function: Callable[..., Any], more: Sequence[tuple[Sequence[str], Sequence[bool]]] = ()) -> Report:
    """Of `function(texts, ready, gamma)`, a list of guesses a request."""

    def trial(asks: str, texts: Sequence[str], ready: Sequence[bool], weight: float | int) -> Trial:
        def outcome(code: Any) -> list[Any]:
            drafts = _listed(attempt(code, [text.split() for text in texts], list(ready), 2), "a list")
            return [draft if draft is None else _listed(draft, "a list of guesses") for draft in drafts]

        def judge(drafts: list[Any]) -> tuple[bool, str]:
            if len(drafts) != len(texts):
                return False, f"{len(texts)} requests, and {len(drafts)} drafts came back"
            for number, (text, is_ready, draft) in enumerate(zip(texts, ready, drafts, strict=True)):
                if draft != (look(text.split(), 2) if is_ready else []):
                    state = "is ready" if is_ready else "is not ready"
                    return False, f"request {number} (“{text}”, {state}) got {spelt(draft or [])}"
            return True, f"{len(texts)} requests, each with its own draft"

        return Trial(asks, outcome, judge, weight)

    cases = [*BATCHES, *(("Other batches", *case, 3.0) for case in more)]
    return examine("Task 4, the bug", function, [trial(*case) for case in cases], wrong.BATCHES)
