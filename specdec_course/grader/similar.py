"""Hints at answers that two students share: a reason to talk to both, and no proof of anything.

Code is compared as tokens, without comments and layout, in runs of ten. Runs that the exercise, our solution or a third
of the class also has do not count, so that short functions which everybody writes alike give no hint.
"""

import io
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

from specdec_course.grader.sources import role, source

__all__ = ["similar"]

RUN, ENOUGH, SHARE = 10, 25, 0.7  # tokens in a run; runs of their own that a hand-in needs; shared part that is a hint
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
LONGEST = 200_000  # characters


def similar(hand_ins: Mapping[str, dict[str, Any]], ours: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """(student, student, shared part of the smaller of their answers), of one exercise.

    An answer may stand in a student's own cells. So the code of one student's solution cells is also compared with all
    code of the other's, and all code of both.
    """
    known = set().union(*(_runs(notebook, "solution") for notebook in ours))
    whole = {student: _runs(notebook, "solution", "") - known for student, notebook in hand_ins.items()}
    counts = Counter(run for each in whole.values() for run in each)
    common = {run for run, count in counts.items() if count > max(2, len(whole) / 3)}
    whole = {student: own for student, each in whole.items() if len(own := each - common) >= ENOUGH}
    answers = {student: _runs(hand_ins[student], "solution") & own for student, own in whole.items()}
    for one, other in combinations(sorted(whole), 2):
        first, second = whole[one], whole[other]
        smaller = [(answers[one], second), (answers[other], first), min((first, second), (second, first), key=_size)]
        share = max((len(part & rest) / len(part) for part, rest in smaller if len(part) >= ENOUGH), default=0.0)
        if share >= SHARE:
            yield one, other, share


def _size(pair: tuple[set[Any], set[Any]]) -> int:
    return len(pair[0])


def _runs(notebook: dict[str, Any], *roles: str) -> set[tuple[str, ...]]:
    found = set()
    for cell in notebook["cells"]:
        if role(cell) in roles and cell["cell_type"] == "code":
            tokens = list(_tokens(source(cell)[:LONGEST]))
            found |= {tuple(tokens[at : at + RUN]) for at in range(len(tokens) - RUN + 1)}
    return found


def _tokens(code: str) -> Iterator[str]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type not in LAYOUT:
                yield token.string
    except (tokenize.TokenError, SyntaxError, ValueError):  # up to there it is compared
        return
