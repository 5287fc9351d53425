"""Self-checks of exercise 10: an exact output, a block's rows, a best-first tree, a cut-off, suffix decoding.

What is right is found in another way than by the code that is asked for: by the engine run through every outcome, by
conditioning in the enumerated drafts, by listing every path, and by the package's compressed suffix tree.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import exp
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.after_eagle import suspects as wrong
from specdec_course.checks.after_eagle.cutting import length
from specdec_course.checks.after_eagle.schemes import SCHEMES, Pair, Proposal, proposals
from specdec_course.checks.after_eagle.suffixes import suffix
from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, described, examine, ids, numbers
from specdec_course.checks.report import Report
from specdec_course.checks.toys import PROMPT, distribution_after, spell, text_distribution, wanted
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.exact import Distribution, chain_output, outcomes, total_variation
from specdec_ref.models.toy import TableLM
from specdec_ref.verifiers import RejectionVerifier

__all__ = ["block", "length", "output", "suffix", "tree"]

WORDS = 3
NEAR = 1e-5  # float32 will do; a wrong rule is far off


def output(function: Callable[..., Any], schemes: Sequence[str] = tuple(SCHEMES)[:5], target: int = 1) -> Report:
    """Of `function(drafts, p1, p2)`: the exact distribution of two words, rows of rows. `target`: seed of a table."""
    table, (p1, p2) = TableLM(WORDS, target), _target(target)

    def trial(name: str) -> Trial:
        drafts = proposals(name, p1, p2)
        goal = _emitted(name, target)
        off = total_variation(goal, wanted(table, 2))

        def outcome(code: Any) -> Distribution:
            given = [(chance, pair, tuple(list(row) for row in rows)) for chance, pair, rows in drafts]
            return _square(attempt(code, given, list(p1), [list(row) for row in p2]))

        def judge(came: Distribution) -> tuple[bool, str]:
            worst = max(goal, key=lambda text: abs(came[text] - goal[text]))
            if all(abs(came[text] - goal[text]) < NEAR for text in goal):
                told = f"Distance from the target's distribution (TV): {off:.3f}"
                return True, f"all nine probabilities are right. {told}"
            return False, (
                f"it gave {list(worst)} the probability {came[worst]:.4f}; the engine, run through every "
                f"outcome, emits "
                f"it with {goal[worst]:.4f}. Your nine numbers sum to {sum(came.values()):.4f}"
            )

        return Trial(name, outcome, judge, easy=off < CLOSE)  # the target's own distribution fulfils it

    return examine("Task 1, the exact output", function, [trial(name) for name in schemes], wrong.OUTPUTS)


def _target(target: int) -> tuple[list[float], list[list[float]]]:
    """p1 and p2."""
    table = TableLM(WORDS, target)
    after: list[list[float]] = [distribution_after(table, [*PROMPT, *w]).tolist() for w in ((), (0,), (1,), (2,))]
    return after[0], after[1:]


@lru_cache(maxsize=32)
def _emitted(name: str, target: int) -> Distribution:
    """What the engine emits when a drafter proposes in that way, by running every outcome of its rounds."""
    drafts = proposals(name, *_target(target))

    def draft(text: list[int], depth: int, rng: Randomness) -> DraftTree:
        if len(text) > len(PROMPT):  # after a rejection: a plain step
            return DraftTree(torch.tensor([text[-1]]), torch.tensor([-1]))
        drawn: Proposal = drafts[rng.draw(torch.tensor([chance for chance, _, _ in drafts], dtype=torch.float64))]
        q = torch.tensor([*drawn[2], [0.0] * WORDS], dtype=torch.float64)
        return DraftTree(torch.tensor([text[-1], *drawn[1]]), torch.tensor([-1, 0, 1]), "iid", q)

    dist = text_distribution(TableLM(WORDS, target), draft, RejectionVerifier(), 2, 2)
    return {text: dist.get(text, 0.0) for text in product(range(WORDS), repeat=2)}


def _square(came: Any) -> Distribution:
    rows = came.tolist() if isinstance(came, Tensor) else came
    if not isinstance(rows, list | tuple) or len(rows) != WORDS:
        raise Trouble(f"it returned {described(came)}, and a list of {WORDS} rows was expected")
    values = [numbers(row, WORDS) for row in rows]
    return {(first, second): values[first][second] for first in range(WORDS) for second in range(WORDS)}


Block = tuple[int, int, int]  # seed, positions, rank

BLOCKS: tuple[Block, ...] = ((3, 1, 2), (5, 2, 1), (8, 3, 2))


def block(function: Callable[..., Any], blocks: Sequence[Block] = BLOCKS) -> Report:
    """Of `function(base, first, W1, W2, rng)`: (words drawn left to right, the row that each was drawn from)."""
    trials: list[Trial] = []
    for seed, positions, rank in blocks:
        name = f"{positions} position{'s' * (positions > 1)}, rank {rank}"
        run = _drawn(seed, positions, rank)
        trials.append(Trial(f"Which blocks are drawn, and how often: {name}", run, _is_markov(seed, positions, rank)))
        trials.append(Trial(f"Each row is what its word was drawn from: {name}", run, _honest(seed), side=True))
    return examine("Task 2, a block with a Markov head", function, trials, wrong.BLOCKS)


def markov(seed: int, positions: int, rank: int) -> tuple[Tensor, int, Tensor, Tensor]:
    """(base logits, the last verified word, W1, W2) of a small block drafter."""
    rng = torch.Generator().manual_seed(seed)
    shapes = ((positions, WORDS), (WORDS, rank), (rank, WORDS))
    base, before, after = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in shapes)
    return base, seed % WORDS, before, after


def _rows_first(words: Any) -> bool:
    """Whether rows stand where the words belong."""
    if isinstance(words, Tensor):
        return words.dim() == 2
    each = list(words) if isinstance(words, list | tuple) else []
    return any(isinstance(one, list | tuple) or (isinstance(one, Tensor) and one.dim() == 1) for one in each)


Drawn = dict[Pair, tuple[float, list[list[float]]]]  # words -> how likely, and their rows


def _drawn(seed: int, positions: int, rank: int) -> Callable[[Any], Drawn]:
    base, first, before, after = markov(seed, positions, rank)

    def run(code: Any) -> Drawn:
        def once(rng: Randomness) -> tuple[Pair, list[list[float]]]:
            came = attempt(code, base.clone(), first, before.clone(), after.clone(), rng)
            if not isinstance(came, tuple | list) or len(came) != 2:
                raise Trouble(f"it returned {described(came)}, and two things were expected: the words and their rows")
            if isinstance(came[0], int):
                raise Trouble(f"it returned {came!r}: the words alone. Return the words and their rows")
            if _rows_first(came[0]):
                raise Trouble("the first thing that it returned holds rows. The words come first: return words, rows")
            words, rows = ids(came[0]), came[1]
            if len(words) != positions or any(not 0 <= word < WORDS for word in words):
                raise Trouble(f"it returned the words {words}, and {positions} numbers below {WORDS} were expected")
            if not isinstance(rows, list | tuple | Tensor) or len(rows) != positions:
                raise Trouble(
                    f"it returned {described(rows)} as rows, and a row for each of {positions} words was expected"
                )
            return tuple(words), [numbers(row, WORDS) for row in rows]

        found: Drawn = {}
        for prob, (words, rows) in attempt(lambda: list(outcomes(once))):
            found[words] = (found.get(words, (0.0, rows))[0] + prob, rows)
        return found

    return run


def _is_markov(seed: int, positions: int, rank: int) -> Callable[[Drawn], tuple[bool, str]]:
    base, first, before, after = markov(seed, positions, rank)

    def share(words: Pair) -> float:
        prob = 1.0
        for row, previous, word in zip(base, (first, *words), words, strict=False):
            weights = [exp(float(row[w]) + float(before[previous] @ after[:, w])) for w in range(WORDS)]
            prob *= weights[word] / sum(weights)
        return prob

    def judge(came: Drawn) -> tuple[bool, str]:
        every = list(product(range(WORDS), repeat=positions))
        worst = max(every, key=lambda words: abs(came.get(words, (0.0,))[0] - share(words)))
        ours = came.get(worst, (0.0,))[0]
        if abs(ours - share(worst)) < NEAR:
            return True, f"all {len(every)} blocks have the right probability"
        return False, f"“{spell(worst)}” is drawn with probability {ours:.4f}, and should be with {share(worst):.4f}"

    return judge


def _honest(seed: int) -> Callable[[Drawn], tuple[bool, str]]:
    """The rows, against the shares of the next word among the blocks that begin alike."""
    table = TableLM(WORDS, seed + 1)

    def judge(came: Drawn) -> tuple[bool, str]:
        for words, (_, rows) in came.items():
            for at, row in enumerate(rows):
                alike = {w: prob for w, (prob, _) in came.items() if w[:at] == words[:at]}
                shares = [
                    sum(p for w, p in alike.items() if w[at] == word) / sum(alike.values()) for word in range(WORDS)
                ]
                if not all(abs(a - b) < NEAR for a, b in zip(row, shares, strict=True)):
                    told = f"the row of position {at + 1}" + (f" after “{spell(words[:at])}”" if at else "")
                    return False, (
                        f"{told} is {_row(row)}, and the word there is drawn with {_row(shares)}. {_off(came, table)}"
                    )
        return True, "every row is the distribution of its word, given the words before it"

    return judge


def _row(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.3f}' for value in values)})"


def _off(came: Drawn, table: TableLM) -> str:
    """What such rows do to the output."""
    size = len(next(iter(came)))

    def p(text: Pair) -> list[float]:
        row: list[float] = distribution_after(table, [*PROMPT, *text]).tolist()
        return row

    try:
        dist, _ = chain_output({w: prob for w, (prob, _) in came.items()}, lambda w: came[w][1], p, size)
    except (ValueError, ZeroDivisionError):
        return "Such rows cannot be tested"
    off = total_variation(dist, wanted(table, size))
    if off < NEAR:
        return "These rows keep the output as well, but accept less. The task asks for the rows that were drawn from"
    return f"Tested with these rows, the output is off by {off:.3f} (TV)"


Rows = tuple[str, Sequence[Sequence[float]], int]  # what it is, a row a position, nodes

ROWS: tuple[Rows, ...] = (
    ("a sure block", ((0.9, 0.06, 0.04), (0.8, 0.15, 0.05), (0.7, 0.2, 0.1)), 5),
    ("an unsure first word", ((0.4, 0.35, 0.25), (0.9, 0.07, 0.03)), 6),
    ("a wide budget", ((0.5, 0.3, 0.2), (0.6, 0.3, 0.1), (0.55, 0.25, 0.2)), 14),
    ("words in another order", ((0.1, 0.3, 0.6), (0.25, 0.7, 0.05)), 5),
    ("more room than paths", ((0.7, 0.3, 0.0), (1.0, 0.0, 0.0)), 8),
)


def tree(function: Callable[..., Any], rows: Sequence[Rows] = ROWS) -> Report:
    """Of `function(rows, nodes)`: (words, parents) of the drafts, best first; parent 0 is the root."""
    return examine("Task 3, a best-first tree", function, [_tree_trial(*each) for each in rows], wrong.TREES)


def _tree_trial(name: str, rows: Sequence[Sequence[float]], nodes: int) -> Trial:
    values = _path_values(rows)
    best = sorted((value for value in values.values() if value > 0), reverse=True)[: nodes - 1]

    def outcome(code: Any) -> tuple[list[int], list[int]]:
        came = attempt(code, [list(row) for row in rows], nodes)
        if not isinstance(came, tuple | list) or len(came) != 2:
            raise Trouble(f"it returned {described(came)}, and two lists were expected: words and parents")
        words, parents = ids(came[0]), ids(came[1])
        if len(words) != len(parents):
            raise Trouble(f"it returned {len(words)} words and {len(parents)} parents: each draft has one of both")
        return words, parents

    def judge(came: tuple[list[int], list[int]]) -> tuple[bool, str]:
        found = [values[path] for path in _paths(came, values)]
        gave = f"{len(found)} drafts, together worth {sum(found):.4f}"
        if len(found) != len(best):
            room = f"{nodes} nodes with the root leave room for {nodes - 1}"
            return False, f"{gave}; {room}, and {len(best)} are possible here"
        if sum(found) < sum(best) - CLOSE:
            return False, f"{gave}; the best {len(best)} are worth {sum(best):.4f}"
        for at, (ours, theirs) in enumerate(zip(found, best, strict=True), 1):
            if abs(ours - theirs) > CLOSE:
                worth = f"number {at} is worth {ours:.4f} and should be worth {theirs:.4f}"
                return False, f"the right drafts, but {worth}: best first"
        return True, f"{gave}, the best first"

    return Trial(f"{name}: {len(rows)} positions, {nodes} nodes", outcome, judge, side=not best)


Path = tuple[int, ...]


def _paths(came: tuple[list[int], list[int]], values: Mapping[Path, float]) -> list[Path]:
    """The words from the root to each draft. Raises Trouble if the links are none, or if a draft comes twice."""
    paths: list[Path] = [()]
    for number, (word, parent) in enumerate(zip(*came, strict=True), 1):
        if not 0 <= parent < number:
            raise Trouble(
                f"draft {number} has the parent {parent}: 0 is the root, and a parent comes before its children"
            )
        path = (*paths[parent], word)
        if path not in values:
            rows = f"{max(map(len, values))} rows of {1 + max(path[0] for path in values)}"
            raise Trouble(f"draft {number} is word {word} at depth {len(path)}: there are {rows}")
        if path in paths:
            raise Trouble(
                f"draft {number} repeats draft {paths.index(path)}: word {word} below node {parent}. The root is node "
                f"0, so the draft at index i of the lists is node i + 1"
            )
        paths.append(path)
    return paths[1:]


def _path_values(rows: Sequence[Sequence[float]]) -> Mapping[Path, float]:
    """Every path below the root, and the product of its probabilities."""
    values: dict[Path, float] = {}
    for depth in range(1, len(rows) + 1):
        for path in product(range(len(rows[0])), repeat=depth):
            values[path] = values.get(path[:-1], 1.0) * rows[depth - 1][path[-1]]
    return values
