"""Self-checks of exercise 05: what a node sees, EAGLE-2's rerank, a tree verifier, Sequoia's recursion, a bug.

What is right is found in another way than by the code that is asked for: by climbing to the root, by trying every set
of candidates that hangs together, every course of a round and every shape, and by walking along the links.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import combinations, product
from math import prod
from typing import Any

import torch

from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, examine, numbers
from specdec_course.checks.report import Report
from specdec_course.checks.toys import PROMPT, SAMPLING, as_long, compare, keeps_some, lossless
from specdec_course.checks.tree import suspects as wrong
from specdec_course.checks.tree.rounds import VERIFIERS
from specdec_course.checks.tree.suspects import way
from specdec_course.checks.tree.toys import ROW, WORDS, emitted_by_walk, tree_rounds, walked
from specdec_ref.core import Draw
from specdec_ref.exact import table_distribution
from specdec_ref.models.toy import TableLM
from specdec_ref.trees.sequoia import expected_tokens
from specdec_ref.verifiers import MultiRoundVerifier

__all__ = ["best_tau", "links", "rerank", "verifier", "view"]

Shape = tuple[str, Sequence[int], int]  # what it is, parents, tokens in the cache

SHAPES: tuple[Shape, ...] = (
    ("a chain", (-1, 0, 1, 2), 7),
    ("two guesses, and one more below the first", (-1, 0, 0, 1), 5),
    ("two branches, three levels", (-1, 0, 0, 1, 1, 2, 4), 12),
)


def _part(parents: Sequence[int], length: int, which: int) -> Callable[[Any], Any]:
    """The mask, or the positions."""
    return lambda code: _mask_and_positions(attempt(code, list(parents), length), len(parents))[which]


def _mask_and_positions(came: Any, nodes: int) -> tuple[list[list[bool]], list[float]]:
    if not isinstance(came, tuple | list) or len(came) != 2:
        raise Trouble(f"it returned {type(came).__name__}, and two things were expected: the mask and the positions")
    try:
        mask = torch.as_tensor(came[0]).bool()
    except (TypeError, ValueError, RuntimeError):
        raise Trouble(f"the mask is {type(came[0]).__name__}, and rows of True and False were expected") from None
    if mask.shape != (nodes, nodes):
        raise Trouble(f"the mask has the shape {tuple(mask.shape)}, and one for {nodes} nodes is {nodes} x {nodes}")
    return mask.tolist(), numbers(came[1], nodes)


def view(function: Callable[[list[int], int], Any], shapes: Sequence[Shape] = SHAPES) -> Report:
    """Of `function(parents, length)`: who sees whom, and the position of each node."""
    trials: list[Trial] = []
    for name, parents, length in shapes:
        weight = 0.5 if name == "a chain" else 1.0
        mask, positions = (_part(parents, length, which) for which in (0, 1))
        trials.append(Trial(f"The mask of {name}", mask, _sees(parents), weight))
        trials.append(Trial(f"The positions of {name}", positions, _stands(parents, length), weight))
    return examine("Task 1, what a node sees", function, trials, wrong.VIEWS)


def _sees(parents: Sequence[int]) -> Callable[[list[list[bool]]], tuple[bool, str]]:
    def judge(mask: list[list[bool]]) -> tuple[bool, str]:
        for node, row in enumerate(mask):
            seen, up = {other for other, sees in enumerate(row) if sees}, set(way(parents, node))
            for other in sorted(seen - up):
                below = node in way(parents, other)
                return False, f"node {node} sees node {other}, {'which is below it' if below else 'another future'}"
            for other in sorted(up - seen):
                who = "itself" if other == node else f"node {other}, on its own way to the root"
                return False, f"node {node} does not see {who}"
        return True, "every node sees its own way to the root, and nothing else"

    return judge


def _stands(parents: Sequence[int], length: int) -> Callable[[list[float]], tuple[bool, str]]:
    def judge(positions: list[float]) -> tuple[bool, str]:
        if positions[0] != length:
            return (
                False,
                f"the root got {positions[0]:g}; the {length} cached tokens have the positions 0 to {length - 1}",
            )
        for node in range(1, len(parents)):
            steps = positions[node] - positions[parents[node]]
            if steps != 1:
                return False, f"node {node} follows node {parents[node]}, but its position is {steps:g} after that"
        return True, "the position of every node is one after that of its parent"

    return judge


Pool = tuple[str, Sequence[float], Sequence[int], int]  # what it is, confidences, parents, nodes

POOLS: tuple[Pool, ...] = (
    ("Values multiply", (0.625, 0.25, 0.5, 0.25, 0.75), (-1, -1, 0, 0, 1), 4),
    ("The order of the candidates", (0.25, 0.5, 0.25, 0.75), (-1, -1, 0, 1), 4),
    ("A certain child", (0.5, 0.25, 1.0, 0.125, 1.0), (-1, -1, 1, 0, 3), 3),
    ("Two certain ones in a row", (0.75, 0.25, 1.0, 1.0, 1.0, 0.5), (-1, -1, 1, 0, 3, 1), 3),
    ("More room than candidates", (0.5, 0.25, 0.5), (-1, -1, 0), 9),
)


def rerank(function: Callable[..., Any], pools: Sequence[Pool] = POOLS) -> Report:
    """Of `function(confidence, parents, nodes)`: which candidates stay, ascending."""
    return examine("Task 2, the rerank", function, [_pool_trial(*pool) for pool in pools], wrong.RERANKS)


def _pool_trial(name: str, confidence: Sequence[float], parents: Sequence[int], nodes: int) -> Trial:
    count = min(nodes - 1, len(parents))
    values = [prod(confidence[i] for i in way(parents, node)) for node in range(len(parents))]

    def total(kept: Iterable[int]) -> float:
        return sum(values[node] for node in kept)

    whole = (kept for kept in combinations(range(len(parents)), count) if all(parents[i] in (-1, *kept) for i in kept))
    best = list(max(map(list, whole), key=total))  # of equal ones the first, in the order of the candidates

    def outcome(code: Any) -> list[int]:
        came = attempt(code, list(confidence), list(parents), nodes)
        kept = came.tolist() if isinstance(came, torch.Tensor) else came
        if not isinstance(kept, list | tuple) or not all(isinstance(i, int) and 0 <= i < len(parents) for i in kept):
            raise Trouble(f"it returned {came!r}, and a list of candidates' numbers was expected")
        return list(kept)

    def judge(kept: list[int]) -> tuple[bool, str]:
        orphans = [node for node in kept if parents[node] not in (-1, *kept)]
        if len(set(kept)) != count:
            return False, f"it kept {kept}; beside the root there is room for {nodes - 1}, and there are {len(parents)}"
        if orphans:
            return False, f"it kept candidate {orphans[0]} and left out {parents[orphans[0]]}, which that one follows"
        if total(kept) < total(best) - CLOSE:
            return False, f"it kept {kept}, together worth {total(kept):.3f}; as many others are worth more"
        if kept != sorted(kept):
            return False, f"it kept {kept}: the right ones, in an order in which a node may come before its parent"
        says = "" if kept == best else ": of equally valuable ones not the earliest"
        return kept == best, f"it kept {kept}, together worth {total(kept):.3f}{says}"

    return Trial(f"{name}: {len(parents)} candidates, {nodes} nodes", outcome, judge)


FORK, FAN, TWIG = (-1, 0, 0), (-1, 0, 0, 0), (-1, 0, 0, 2)


def verifier(make: Callable[[], Any], target: int = 1, other: int = 11) -> Report:
    """Of a verifier class for drawn children, tried on every course of a round. `target`, `other`: seeds of tables."""

    def dist(shape: Sequence[int], drawn: Draw, tokens: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        goal = table_distribution(TableLM(WORDS, target), PROMPT, tokens, SAMPLING)
        run = partial(tree_rounds, target, other, shape, drawn, tokens)
        return lambda code: keeps_some(run(code)), lambda came: lossless(came, goal)

    def length(shape: Sequence[int], drawn: Draw) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        goal = table_distribution(TableLM(WORDS, target), PROMPT, 3, SAMPLING)
        run = partial(tree_rounds, target, other, shape, drawn, 3)
        best = run(MultiRoundVerifier)[1]
        return run, lambda came: as_long(came, goal, best, "a round")

    rest: Draw = "without_replacement"
    trials = [
        Trial("One child: the distribution is the target's", *dist((-1, 0), "iid", 2)),
        Trial("Two independent children: the distribution is the target's", *dist(FORK, "iid", 2)),
        Trial("Two children without replacement: the distribution is the target's", *dist(FORK, rest, 2)),
        Trial("Three children without replacement: the distribution is the target's", *dist(FAN, rest, 2)),
        Trial("A child below the second: the distribution is the target's", *dist(TWIG, rest, 3)),
        Trial("A round yields as many words as the rule gives (independent)", *length(FORK, "iid"), weight=0.5),
        Trial("A round yields as many words as the rule gives (without replacement)", *length(TWIG, rest), weight=0.5),
    ]
    return examine("Task 3, the verifier", make, trials, VERIFIERS)


Budget = tuple[Sequence[float], int]  # acceptance by rank, nodes

BUDGETS: tuple[Budget, ...] = (((0.3, 0.2), 1), ((0.8,), 5), ((0.6, 0.2, 0.1), 6), ((0.1, 0.6, 0.1), 5))


def best_tau(function: Callable[..., float], budgets: Sequence[Budget] = BUDGETS) -> Report:
    """Of `function(acceptance, nodes)`: tokens per round of the best tree, compared with all shapes there are."""

    def trial(row: Sequence[float], nodes: int) -> Trial:
        shapes = [(-1, *above) for above in product(*(range(node) for node in range(1, nodes)))]
        best = max(expected_tokens(shape, [row]) for shape in shapes)

        def judge(value: float) -> tuple[bool, str]:
            good = abs(value - best) < CLOSE
            word = "as many as" if good else "fewer than" if value < best else "more than"
            ways = f"the best of all {len(shapes)} ways to link {nodes} nodes" if nodes > 2 else "the only tree"
            return good, f"it gave {value:.4f}, {word} {ways}"

        rates = ", ".join(f"{share:g}" for share in row)
        return Trial(
            f"{nodes} node{'s' * (nodes > 1)}, acceptance by rank {rates}",
            lambda code: numbers(attempt(code, list(row), nodes), 1)[0],
            judge,
        )

    return examine("Task 4, the best tree", function, [trial(*budget) for budget in budgets], wrong.TAUS)


Guess = tuple[str, Sequence[int], Sequence[int], int]  # what it is, tokens, parents, size

GUESSES: tuple[Guess, ...] = (
    ("two words and one below, padded to eight", (2, 1, 2, 1), (-1, 0, 0, 1), 8),
    ("a guess that is word 0 itself, padded", (1, 0, 2), (-1, 0, 1), 6),
    ("a tree that fills its place", (2, 1, 0, 2, 1), (-1, 0, 0, 1, 1), 5),
)


def links(function: Callable[..., Any], guesses: Sequence[Guess] = GUESSES) -> Report:
    """Of `function(tokens, parents, size)`: tokens, first children and next siblings of a padded tree."""
    trials = []
    for name, tokens, parents, size in guesses:

        def outcome(code: Any, tokens: Any = tokens, parents: Any = parents, size: int = size) -> Any:
            return _three_lists(attempt(code, list(tokens), list(parents), size), size)

        nothing = len(tokens) == 1  # also met by links that lead nowhere
        trials.append(
            Trial(f"The walk meets every guess, once: {name}", outcome, _meets(tokens, parents), side=nothing)
        )
        trials.append(Trial(f"The distribution is the target's: {name}", outcome, _keeps_distribution, side=True))
    return examine("Task 5, the bug", function, trials, wrong.LINKS)


def _three_lists(came: Any, size: int) -> tuple[list[int], ...]:
    if not isinstance(came, tuple | list) or len(came) != 3:
        raise Trouble(f"it returned {type(came).__name__}, and three lists were expected: tokens, children, siblings")
    found = tuple([int(value) for value in numbers(row, size)] for row in came)
    for name, row in zip(("first child", "next sibling"), found[1:], strict=True):
        if not all(-1 <= node < size for node in row):
            raise Trouble(f"a {name} is {max(row, key=abs)}: a node's number below {size} was expected, or -1 for none")
    return found


def _meets(tokens: Sequence[int], parents: Sequence[int]) -> Callable[[Any], tuple[bool, str]]:
    def judge(came: Any) -> tuple[bool, str]:
        met = walked(*came[1:])
        if list(came[0][: len(tokens)]) != list(tokens):
            return False, f"the tokens begin with {came[0][: len(tokens)]}, and were {list(tokens)}"
        for node in range(len(tokens)):
            children = [other for other, parent in enumerate(parents) if parent == node]
            if met.get(node, []) != children:
                return (
                    False,
                    f"below node {node} the walk meets {met.get(node, [])}, and what was guessed is {children}",
                )
        return True, f"{len(tokens) - 1} guesses, each met once, in their order"

    return judge


def _keeps_distribution(came: Any) -> tuple[bool, str]:
    return compare(emitted_by_walk(*came), {(word,): share for word, share in enumerate(ROW)})
