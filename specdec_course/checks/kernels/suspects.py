"""Common wrong answers to exercise 07, each with its explanation; those of task 3 are in `stats_suspects.py`.

A suspect imitates a kernel: it takes a grid and the kernel's arguments, and stores what such a kernel would store.
Stray addresses need no suspects: the launch itself names them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.examine import Suspect

__all__ = ["BYTES", "COINS", "MAXIMA", "WALKS", "Answers", "Imitation", "is_kernel", "piece"]

INF = float("inf")


@dataclass(frozen=True, slots=True)
class Imitation:
    """`does(grid, *arguments)` in place of a kernel."""

    does: Callable[..., None]

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, **block: self.does(grid, *arguments, *block.values())


class Answers(list[Any]):
    """A row's answers, and how often a logit was read, which an imitation of a mistake cannot show."""

    def __init__(self, answers: Sequence[Any], reads: float) -> None:
        super().__init__(answers)
        self.reads = reads


def is_kernel(value: Any) -> bool:
    """Whether it came of `@triton.jit`, or imitates a kernel here. Behind the wire, the judge has read its cell."""
    kind = type(value)
    return kind is Imitation or kind.__module__.partition(".")[0] == "triton" or bool(getattr(value, "written", False))


def _stored(stored: Callable[..., float]) -> Callable[..., tuple[float, float]]:
    return lambda v, s, g: (stored(v, s, g), (g + 1) * v * s)


def _raw(raw: Callable[..., float]) -> Callable[..., tuple[float, float]]:
    return lambda v, s, g: ((g + 1) * v * (s + 8) + 16 * v, raw(v, s, g))


BYTES = (  # (vocab, bytes of a logit, gamma) -> bytes with stored probabilities, bytes from raw logits
    Suspect(
        "The bonus row is left out: with gamma drafts the target scores gamma + 1 places, and all get probabilities.",
        _stored(lambda v, s, g: g * v * (s + 8) + 16 * v),
    ),
    Suspect(
        "Probabilities are counted at the logits' size. They are stored as float32: 4 bytes each, always.",
        _stored(lambda v, s, g: (g + 1) * v * 3 * s + 4 * v * s),
    ),
    Suspect(
        "The zeroed buffer is left out. It is as large as the probabilities, and writing zeros moves bytes as well.",
        _stored(lambda v, s, g: (g + 1) * v * (s + 4) + 16 * v),
    ),
    Suspect(
        "Half of the last draw is missing: it reads a row of both buffers, and reads it twice.",
        _stored(lambda v, s, g: (g + 1) * v * (s + 8) + 8 * v),
    ),
    Suspect(
        "The last draw is left out: it reads a row of both buffers, twice.",
        _stored(lambda v, s, g: (g + 1) * v * (s + 8)),
    ),
    Suspect(
        "The row that the last token is drawn from is left out: it is read, too.",
        _raw(lambda v, s, g: g * v * s),
    ),
    Suspect(
        "All gamma + 1 rows are read to test gamma drafts, and then one more. The bonus row has no draft to test: it "
        "is read only if it is drawn from.",
        _raw(lambda v, s, g: (g + 2) * v * s),
    ),
    Suspect(
        "Raw logits are counted as float32. They are read as they are, and turned into float32 in registers.",
        _raw(lambda v, s, g: (g + 1) * v * 4),
    ),
    Suspect(
        "Numbers are counted, not bytes: each logit takes `size` of them.",
        lambda v, s, g: ((g + 1) * v * 3 + 4 * v, (g + 1) * v),
    ),
)


def _maxima(row_of: Callable[[int], int], part: Callable[[Tensor, int, int], float]) -> Imitation:
    def does(grid: Any, x: Tensor, stride: int, peak: Tensor, vocab: int, blocks: int, block: int) -> None:
        values = [part(x[row_of(r), :vocab], b, block) for r in range(grid[0]) for b in range(grid[1])]
        peak[:] = torch.tensor(values)

    return Imitation(does)


def piece(row: Tensor, b: int, block: int, fill: float = -INF) -> Tensor:
    """Block b of a row, its tail filled."""
    piece = row[b * block : (b + 1) * block]
    return torch.cat([piece, torch.full((block - len(piece),), fill)])


def _overwritten(grid: Any, x: Tensor, stride: int, peak: Tensor, vocab: int, blocks: int, block: int) -> None:
    for b in range(blocks):
        peak[b] = piece(x[grid[0] - 1, :vocab], b, block).max()


MAXIMA = (  # kernel[rows, blocks](x, stride, peak, vocab, blocks, BLOCK)
    Suspect(
        "The tail counts as 0: a masked lane without `other` holds 0 here, and anything on a GPU. 0 is an ordinary "
        "logit; -inf is the value that is never larger than another.",
        _maxima(lambda r: r, lambda row, b, n: float(piece(row, b, n, 0.0).max())),
    ),
    Suspect(
        "Every program looks at the first row: program_id(0) must choose the row, in the address as well.",
        _maxima(lambda r: 0, lambda row, b, n: float(piece(row, b, n).max())),
    ),
    Suspect(
        "Every program looks at the first block of its row: the lanes must begin at block * BLOCK.",
        _maxima(lambda r: r, lambda row, b, n: float(piece(row, 0, n).max())),
    ),
    Suspect(
        "All rows store to the same places, and the last one wins: peak has a place for every block of every row.",
        Imitation(_overwritten),
    ),
    Suspect(
        "This is the smallest, not the largest.",
        _maxima(lambda r: r, lambda row, b, n: float(piece(row, b, n, INF).min())),
    ),
)


def _kept(rule: Callable[[Tensor, int, float], bool], fill: float = -INF) -> Imitation:
    def does(
        grid: Any, x: Tensor, stride: int, drafts: Tensor, coins: Tensor, kept: Tensor, vocab: int, n: int
    ) -> None:
        for r in range(grid[0]):
            row = piece(x[r, :vocab], 0, n, fill).double()
            kept[r] = int(rule(row, int(drafts[r]), float(coins[r])))

    return Imitation(does)


def _p(row: Tensor, draft: int) -> float:
    return float(row.softmax(-1)[draft])


COINS = (  # kernel[rows,](logits, stride, drafts, coins, kept, vocab, BLOCK)
    Suspect(
        "The tail counts as 0: each masked lane adds e^0 to the sum, and the draft seems too unlikely.",
        _kept(lambda row, draft, u: u < _p(row, draft), fill=0.0),
    ),
    Suspect(
        "The tail counts as 0: each masked lane adds e^0 to the sum. And a coin can be 0: compare strictly.",
        _kept(lambda row, draft, u: u <= _p(row, draft), fill=0.0),
    ),
    Suspect(
        "A coin can be 0, and 0 <= 0: a token of probability 0 is kept. The comparison must be strict.",
        _kept(lambda row, draft, u: u <= _p(row, draft)),
    ),
    Suspect(
        "The comparison is the wrong way round: a draft is kept if the coin is below p.",
        _kept(lambda row, draft, u: u > _p(row, draft)),
    ),
    Suspect(
        "The coin is compared without its logarithm: log p is never above 0, so hardly any coin is below it.",
        _kept(lambda row, draft, u: u < float(row.log_softmax(-1)[draft])),
    ),
)

Path = tuple[list[int], int]  # nodes, extra


def _walked(one: Callable[..., Path], text_of: Callable[[int], int] = lambda b: b) -> Imitation:
    """`one(tokens, first_child, next_sibling, best)` of one text; `text_of`: which text a program looks at."""

    def does(
        grid: Any, tokens: Tensor, nodes: int, first: Tensor, after: Tensor, best: Tensor, path: Tensor, extra: Tensor
    ) -> None:
        for b in range(grid[0]):
            at = text_of(b)
            kept, last = one(*(held[at].tolist() for held in (tokens, first, after, best)))
            path[b, : len(kept)], extra[b] = torch.tensor(kept, dtype=torch.long), last

    return Imitation(does)


def _children(node: int, first: list[int], after: list[int]) -> list[int]:
    found, child = [], first[node]
    while child >= 0:
        found.append(child)
        child = after[child]
    return found


def _path(tokens: list[int], first: list[int], after: list[int], best: list[int], among: Any = _children) -> list[int]:
    kept = [0]
    while hits := [c for c in among(kept[-1], first, after) if tokens[c] == best[kept[-1]]]:
        kept.append(hits[0])
    return kept


def _told(change: Callable[[list[int], list[int], list[int]], Path], among: Any = _children) -> Callable[..., Path]:
    """A walk whose path (kept, tokens, best) is told otherwise."""
    return lambda tokens, first, after, best: change(_path(tokens, first, after, best, among), tokens, best)


WALKS = (  # kernel[texts,](tokens, nodes, first_child, next_sibling, best, path, extra)
    Suspect(
        "Only first children are tried: where one does not match, its next sibling may.",
        _walked(
            _told(
                lambda kept, tokens, best: (kept, best[kept[-1]]),
                lambda n, first, after: _children(n, first, after)[:1],
            )
        ),
    ),
    Suspect(
        "Every program walks in the first text: program_id(0) must choose the text, in every address.",
        _walked(_told(lambda kept, tokens, best: (kept, best[kept[-1]])), lambda b: 0),
    ),
    Suspect(
        "The root is left out: the path begins with node 0, and the accepted drafts follow.",
        _walked(_told(lambda kept, tokens, best: (kept[1:], best[kept[-1]]))),
    ),
    Suspect(
        "These are tokens, and the path holds the indices of nodes.",
        _walked(_told(lambda kept, tokens, best: ([tokens[node] for node in kept], best[kept[-1]]))),
    ),
    Suspect(
        "The extra token is the choice after the root. It is the target's choice after the last accepted node.",
        _walked(_told(lambda kept, tokens, best: (kept, best[0]))),
    ),
    Suspect(
        "The extra token is the last accepted draft once more. It should be the target's choice after that draft.",
        _walked(_told(lambda kept, tokens, best: (kept, tokens[kept[-1]]))),
    ),
    Suspect(
        "The walk takes one step and ends: after an accepted child it goes on from there.",
        _walked(_told(lambda kept, tokens, best: (kept[:2], best[kept[:2][-1]]))),
    ),
    Suspect(
        "The last accepted node is missing: the walk includes it.",
        _walked(_told(lambda kept, tokens, best: (kept[:-1] or kept, best[kept[-1]]))),
    ),
)
