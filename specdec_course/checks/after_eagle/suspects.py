"""Common mistakes in exercise 10, each with the sentence that explains it. They serve `examine`.

Those in its task 4 are in `cutting.py`, those in its task 5 in `suffix_suspects.py`.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.examine import Suspect

__all__ = ["BLOCKS", "OUTPUTS", "TREES"]

Row = Sequence[float]


def _scaled(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) if sum(weights) else 0.0 for weight in weights]


def _gaps(p: Row, q: Row) -> list[float]:
    return [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]


def _outputs(
    stays: Callable[[float, float], float] = lambda p, q: min(1.0, p / q),
    rest: Callable[[Row, Row], list[float]] = lambda p, q: _scaled(_gaps(p, q)),
    *,
    weigh: bool = True,
    then: str = "plain",
    last: bool = True,
    after: str = "word",
) -> Callable[..., Any]:
    """The output by enumeration, right but for what is given. `then`: what follows a rejected first word."""

    def run(drafts: Any, p1: Row, p2: Sequence[Row]) -> list[list[float]]:
        out = [[0.0] * len(p1) for _ in p1]

        def second(first: int, draft: tuple[int, int], rows: Any, weight: float) -> None:
            p = p1 if after == "p1" else p2[draft[0]]
            x, q = draft[1], rows[1]
            keep = stays(p[x], q[x])
            out[first][x] += weight * keep
            for word, share in enumerate(rest(p, q) if last else []):
                out[first][word] += weight * (1 - keep) * share

        for chance, (a, b), rows in drafts:
            weight = chance if weigh else 1 / len(drafts)
            keep = stays(p1[a], rows[0][a])
            second(a, (a, b), rows, weight * keep)
            for word, share in enumerate(rest(p1, rows[0]) if last else []):
                lost = weight * (1 - keep) * share
                if then in ("goes on", "old row"):
                    second(word, (word if then == "goes on" else a, b), rows, lost)
                    continue
                if then == "kept":
                    out[word][b] += lost
                    continue
                for other, prob in enumerate({"plain": p2[word], "draft": p2[a], "p1": p1, "row": rows[1]}[then]):
                    out[word][other] += lost * prob
        return out

    return run


OUTPUTS = (
    Suspect("After a rejection the first word is drawn from p. It comes from the residual: max(p - q, 0), normalised.",
            _outputs(rest=lambda p, q: list(p))),
    Suspect("The residual is not normalised: max(p - q, 0) sums to less than 1 and must be divided by its sum.",
            _outputs(rest=_gaps)),
    Suspect("The second draft is still tested after the first was rejected. A rejection ends the round: the "
            "next word is "
            "the target's own.", _outputs(then="goes on")),
    Suspect("The second draft is still tested after the first was rejected, with p2 of the rejected word. A rejection "
            "ends the round: the next word is the target's own.", _outputs(then="old row")),
    Suspect("The second draft is kept after the first was rejected. A rejection ends the round: the second word comes "
            "from p2, after the word that took the first one's place.", _outputs(then="kept")),
    Suspect("The residual is max(q - p, 0) here. It is max(p - q, 0): what the draft gave too little of.",
            _outputs(rest=lambda p, q: _scaled(_gaps(q, p)))),
    Suspect("Where p = q, the residual is all zeros and nothing is ever rejected. Do not divide by its sum then.",
            _outputs(rest=lambda p, q: [gap / sum(_gaps(p, q)) for gap in _gaps(p, q)])),
    Suspect("After a rejection the second word follows the rejected draft. It follows the word that took its place.",
            _outputs(then="draft")),
    Suspect("After a rejection the second word comes from p1. It comes from p2, after the word that was emitted.",
            _outputs(then="p1")),
    Suspect("After a rejection the second word comes from the draft's row. The round is over, and p2 gives the "
            "next word.",
            _outputs(then="row")),
    Suspect("The second draft is tested against p1. Its p is p2, after the first word.", _outputs(after="p1")),
    Suspect("Acceptance is q/p here. A draft is accepted with min(1, p/q).",
            _outputs(stays=lambda p, q: min(1.0, q / p))),
    Suspect("p/q is not capped at 1, so some words get more than they were drafted with.",
            _outputs(stays=lambda p, q: p / q)),
    Suspect("All drafts count alike. Each counts with its chance.", _outputs(weigh=False)),
    Suspect("What replaces a rejected draft is left out, so the nine numbers sum to less than 1.",
            _outputs(last=False)),
)  # fmt: skip


def _blocks(
    bias: Callable[[Tensor, Tensor, int], Tensor] = lambda before, after, word: before[word] @ after,
    previous: Callable[[int, list[int]], int] = lambda first, words: ([first, *words])[-1],
    pick: Callable[[Tensor, Tensor, Any], int] = lambda base, row, rng: int(rng.draw(row)),
    shown: Callable[[Tensor, Tensor], Tensor] = lambda base, logits: torch.softmax(logits, -1),
    *,
    late: bool = False,
) -> Callable[..., Any]:
    """A block drawn left to right, right but for what is given. `late`: rows after the word they are for."""

    def run(base: Tensor, first: int, before: Tensor, after: Tensor, rng: Any) -> Any:
        words: list[int] = []
        rows = []
        for row in base:
            at = previous(first, words)
            logits = row if at < 0 else row + bias(before, after, at)
            words.append(pick(row, torch.softmax(logits, -1), rng))
            rows.append(shown(row, row + bias(before, after, words[-1]) if late else logits))
        return words, rows

    return run


def _added_up(base: Tensor, first: int, before: Tensor, after: Tensor, rng: Any) -> Any:
    """Each position also keeps the biases of the positions before it."""
    words: list[int] = []
    rows: list[Tensor] = []
    for row in base:
        total = sum(((before[word] @ after) for word in [first, *words]), torch.zeros_like(row))
        rows.append(torch.softmax(row + total, -1))
        words.append(int(rng.draw(rows[-1])))
    return words, rows


BLOCKS = (
    Suspect("The rows lack the Markov head: they are softmax(base), and the words were drawn with its bias. "
            "Keep the row "
            "that a word was drawn from.", _blocks(shown=lambda base, logits: torch.softmax(base, -1))),
    Suspect("The words are drawn from softmax(base), and the rows have the bias of the Markov head. Draw from "
            "the row that "
            "you return.", _blocks(pick=lambda base, row, rng: int(rng.draw(torch.softmax(base, -1))))),
    Suspect("The Markov head is left out: every word is drawn from softmax(base), whatever came before it.",
            _blocks(bias=lambda before, after, word: torch.zeros(after.shape[1], dtype=after.dtype))),
    Suspect("The bias is that of the last verified word at every position. Position k takes the word of "
            "position k - 1.",
            _blocks(previous=lambda first, words: first)),
    Suspect("The first position has no bias. The word before it is `first`.",
            _blocks(previous=lambda first, words: words[-1] if words else -1)),
    Suspect("The bias comes from the word two positions back.",
            _blocks(previous=lambda first, words: ([first, first, *words])[-2])),
    Suspect("The likeliest word is taken, and the row is a softmax. Such a draft has a one-hot row; to be "
            "tested with the "
            "softmax it must be drawn from it.", _blocks(pick=lambda base, row, rng: int(row.argmax()))),
    Suspect("The likeliest word is taken, with a one-hot row. That keeps the output, but the task asks to draw it "
            "from the softmax.", _blocks(pick=lambda base, row, rng: int(row.argmax()),
                                         shown=lambda base, logits: torch.eye(len(logits))[int(logits.argmax())])),
    Suspect("The rows are logits. What a draft is tested with is a distribution: softmax of them.",
            _blocks(shown=lambda base, logits: logits)),
    Suspect("The row is computed after `previous` was replaced, so its bias is that of the word itself. Keep the row "
            "at the moment at which you draw from it.", _blocks(late=True)),
    Suspect("The words are drawn with the logits as weights. `rng.draw` takes probabilities: softmax comes first.",
            _blocks(pick=lambda base, row, rng: int(rng.draw(row)), shown=lambda base, logits: logits)),
    Suspect("The biases add up along the block. Position k takes the bias of the word before it only.",
            _added_up),
    Suspect("The bias is subtracted.", _blocks(bias=lambda before, after, word: -(before[word] @ after))),
)  # fmt: skip


def _trees(
    value: Callable[[float, float], float] = lambda above, share: above * share,
    room: Callable[[int], int] = lambda nodes: nodes - 1,
    wide: int = 99,
    order: Callable[[float, int], Any] = lambda value, depth: -value,
    *,
    zero: bool = False,
    shift: int = 0,
) -> Callable[..., Any]:
    """Best first over all paths, right but for what is given. `wide`: words that a node may have below it."""

    def run(rows: Sequence[Row], nodes: int) -> tuple[list[int], list[int]]:
        words: list[int] = []
        parents: list[int] = []
        waiting: list[Any] = []

        def offer(parent: int, depth: int, above: float) -> None:
            if depth < len(rows):
                shares = sorted(enumerate(rows[depth]), key=lambda pair: -pair[1])
                for word, share in shares[:wide]:
                    if share > 0 or zero:
                        made = value(above, share)
                        heapq.heappush(waiting, (order(made, depth), parent, word, depth + 1, made))

        offer(0, 0, 1.0)
        while waiting and len(words) < room(nodes):
            _, parent, word, depth, made = heapq.heappop(waiting)
            words.append(word)
            parents.append(parent)
            offer(len(words) - shift, depth, made)
        return words, parents

    return run


def _sorted_pairs(rows: Sequence[Row], nodes: int) -> tuple[list[int], list[int]]:
    """The right drafts, sorted at the end: level by level."""
    words, parents = _trees()(rows, nodes)
    depths = [0]
    for parent in parents:
        depths.append(depths[parent] + 1)
    old = sorted(range(1, len(depths)), key=lambda node: depths[node])
    new = {0: 0, **{node: at for at, node in enumerate(old, 1)}}
    return [words[node - 1] for node in old], [new[parents[node - 1]] for node in old]


TREES = (
    Suspect("Each node is ranked by its own probability. A draft counts only if all drafts above it were accepted: "
            "multiply along the path.", _trees(value=lambda above, share: share)),
    Suspect("`nodes` counts the root, so there is room for one draft fewer.", _trees(room=lambda nodes: nodes)),
    Suspect("That is a chain of the likeliest words. A second word at the first position may be worth more than "
            "a third "
            "position.", _trees(wide=1)),
    Suspect("Only two words are considered below each node. The budget alone limits how many there may be.",
            _trees(wide=2)),
    Suspect("Level by level: all words of one position come before any of the next.",
            _trees(order=lambda value, depth: (depth, -value))),
    Suspect("The least likely path is taken first. `heapq` pops the smallest: store the negative product.",
            _trees(order=lambda value, depth: value)),
    Suspect("Probabilities are added along the path. The chance that all of them are accepted is their product.",
            _trees(value=lambda above, share: above + share)),
    Suspect("Words of probability 0 are drafted. They are never accepted.", _trees(zero=True)),
    Suspect("The parent's number is one too low. The root is node 0, so the draft at index i of the lists is "
            "node i + 1.", _trees(shift=1)),
    Suspect("These are the right drafts, listed level by level. An engine that cuts the list wants the best "
            "ones first.",
            _sorted_pairs),
)  # fmt: skip
