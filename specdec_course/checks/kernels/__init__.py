"""Self-checks of exercise 07: bytes, and four Triton kernels, each run in the interpreter and held to its tensors.

A kernel is right if it stores what float64 arithmetic, or the walk's own rules, give. Between the rows lie somebody
else's numbers, so that a lane without a mask is always caught.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.bottleneck import against, empty, size
from specdec_course.checks.examine import Trial, Trouble, attempt, examine, numbers
from specdec_course.checks.kernels import suspects as wrong
from specdec_course.checks.kernels.stats_suspects import STATS as STATS_SUSPECTS
from specdec_course.checks.report import Report
from specdec_ref.kernels import ops

__all__ = ["FAR", "block_max", "bytes_moved", "coins", "row_stats", "walk"]

FAR = 2**30  # numbers from row to row: the third row is beyond what 32 bits can count
MOST = 2_000  # loads, and stores, of one launch: the tests' tensors are small, and where it is graded each takes 1 ms
FOREIGN = 99.0  # somebody else's numbers, around and between the rows
INF = math.inf


def room(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows of logits as a part of something larger."""
    logits = torch.tensor(rows, dtype=torch.float32)
    buffer = torch.full((len(rows) + 2, logits.shape[1] + 5), FOREIGN)
    buffer[1:-1, : logits.shape[1]] = logits
    return buffer[1:-1, : logits.shape[1]]


def spare(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A place for `count` answers, away from all else."""
    return torch.full((count + 64,), -7, dtype=dtype)[32:-32]


def launch(
    kernel: Any, grid: tuple[int, ...], pitch: int | None, named: dict[str, Tensor], *rest: Any, **block: int
) -> Any:
    """Start it as a student's kernel: tensors first, the pitch behind the first. Returns numbers loaded, by tensor.

    Raises Trouble where it strays, or raises an error itself.
    """
    from specdec_ref.kernels.bounds import Region, StrayError, confined

    (first, logits), *others = named.items()
    arguments = [logits, pitch or logits.stride(0), *(tensor for _, tensor in others)]

    def run() -> Any:
        if not wrong.is_kernel(kernel):
            raise Trouble("it is not a kernel: the line @triton.jit above it is missing")
        with confined([Region(first, logits, pitch), *(Region(*other) for other in others)], MOST) as loaded:
            try:
                kernel[grid](*arguments, *rest, **block)
            except Exception as error:  # noqa: BLE001  (`attempt` makes a sentence of it)
                cause = error.__cause__ or error
                raise Trouble(str(cause)) if isinstance(cause, StrayError) else cause from None
        return loaded

    return attempt(run)


def bytes_moved(
    function: Callable[..., tuple[float, float]], cases: Sequence[tuple[int, int, int]] = ((49152, 2, 4), (32000, 4, 1))
) -> Report:
    """Of `function(vocab, size, gamma)`: bytes with stored probabilities, and from raw logits."""

    def trial(which: int, vocab: int, width: int, gamma: int) -> Trial:
        kind = {2: torch.bfloat16, 4: torch.float32}[width]
        scores, wide = empty(gamma + 1, vocab, dtype=kind), empty(gamma + 1, vocab, dtype=torch.float32)
        stored = [scores, wide, wide] + 2 * [wide[0], wide[0]]
        raw = [scores[:gamma], scores[gamma]]
        right = size((stored, raw)[which])
        name = ("probabilities stored", "from raw logits")[which]
        return Trial(
            f"{name}: {vocab:,} tokens of {width} bytes, {gamma} draft{'s' * (gamma > 1)}",
            lambda code: numbers(attempt(code, vocab, width, gamma), 2)[which],
            lambda value: against(value, right, "bytes"),
        )

    trials = [trial(which, *case) for which in (0, 1) for case in cases]
    return examine("Task 1, bytes", function, trials, wrong.BYTES)


Maxima = tuple[str, Sequence[Sequence[float]], int | None]  # what it is, logits, numbers from row to row

MAXIMA: tuple[Maxima, ...] = (
    ("Two rows of two whole blocks", ((0.5, 3, -1, 2, 7, 1, -2, 4), (1, 1, 2, -3, -5, -4, -9, -6)), None),
    ("The last block hangs over the end", ((-3, -1, -2, -5, -4, -6), (2, 5, 1, 3, -2, -8)), None),
    ("Rows 2^30 numbers apart", ((-1, -2, -3, -4, -5), (5, 1, 2, 3, -4), (2, 2, 1, 0, -6)), FAR),
)


def block_max(kernel: Any, cases: Sequence[Maxima] = MAXIMA, block: int = 4) -> Report:
    """Of `kernel[rows, blocks](x, stride, peak, vocab, blocks, BLOCK)`: the maximum of each block."""

    def trial(name: str, rows: Sequence[Sequence[float]], pitch: int | None) -> Trial:
        logits, vocab = torch.tensor(rows), len(rows[0])
        blocks = -(-vocab // block)
        right = [float(part.max()) for row in logits for part in row.split(block)]

        def outcome(code: Any) -> list[float]:
            peak = spare(len(rows) * blocks)
            named = {"x": room(rows), "peak": peak}
            launch(code, (len(rows), blocks), pitch, named, vocab, blocks, BLOCK=block)
            return peak.tolist()

        def judge(came: list[float]) -> tuple[bool, str]:
            for i, (got, want) in enumerate(zip(came, right, strict=True)):
                if got != want:
                    lanes = min(block, vocab - i % blocks * block)
                    where = f"row {i // blocks}, block {i % blocks}, {lanes} of whose {block} lanes lie in the row"
                    return False, f"{where}: peak holds {got:g}, which is not the largest logit there"
            return True, f"all {len(right)} blocks have their maximum"

        return Trial(f"{name} ({vocab} logits, blocks of {block})", outcome, judge)

    return examine("Task 2, block maxima", kernel, [trial(*case) for case in cases], wrong.MAXIMA)


Stats = tuple[str, Sequence[Sequence[float]], float, int, int | None]  # name, logits, temperature, block, pitch

STATS: tuple[Stats, ...] = (
    ("One block", ((1.0, -2.0, 0.5, 2.0, 1.5), (-1, -3, -2.5, -0.5, -4)), 1.0, 8, None),
    ("The maximum comes late", ((-4, -3, -2, -1, 0, 1, 2, 3, 4), (-9, -8, -7, -6, -5, -6, -5, -4, -5)), 1.0, 4, None),
    ("The maximum comes early", ((4, 3, 2.5, 1, 0.5, 0, 3.5), (1.0, 0.5, -1, 0.25, 0, -1.5, -3)), 1.0, 4, None),
    ("Large logits", ((1000, 998, 1001, 999.5, 1002, 990), (-800, -801, -799, -802, -805, -799.5)), 1.0, 4, None),
    ("Logits far below zero", ((-3e4, -30002, -30001, -3e4, -30003), (-5e4, -5e4, -5e4, -5e4, -50001)), 1.0, 4, None),
    ("Temperature 0.5", ((0.5, 1, -1, 0.25, 2, 1.75, -0.5), (-1, -2, -3, -1.5, -1.25, -2.5, -0.5)), 0.5, 4, None),
    ("A block emptied by top-k", ((-INF, -INF, -INF, -INF, 1, 2, 0), (3, -INF, 1, 2, -INF, -INF, -INF)), 1, 4, None),
    ("Equal maxima", ((1, 3, 3, 0, 3, 2), (2, 0, 1, 0, 2, 2)), 1.0, 4, None),
    ("Rows 2^30 numbers apart", ((-1, -2, -3, -4, -5), (5, 1, 2, 3, -4), (2, 2, 1, 0, -6)), 1.0, 4, FAR),
)  # fmt: skip


def row_stats(kernel: Any, cases: Sequence[Stats] = STATS) -> Report:
    """Of `kernel[rows,](x, stride, peak, mass, best, vocab, temperature, BLOCK)`: max, sum-exp and argmax of a row."""
    trials = [_stats(*case) for case in cases]
    return examine("Task 3, a row's statistics", kernel, [*trials, _read_once()], STATS_SUSPECTS)


def _run_stats(code: Any, rows: Sequence[Sequence[float]], t: float, block: int, pitch: int | None) -> tuple[Any, Any]:
    """(rows of peak, mass, best, to four digits, numbers loaded)."""
    count = len(rows)
    out = {"peak": spare(count), "mass": spare(count), "best": spare(count, torch.int64)}
    loaded = launch(code, (count,), pitch, {"x": room(rows), **out}, len(rows[0]), t, BLOCK=block)
    kept = zip(*(out[name].tolist() for name in ("peak", "mass", "best")), strict=True)
    return [[float(f"{value:.4g}") for value in row] for row in kept], loaded


def _stats(name: str, rows: Sequence[Sequence[float]], t: float, block: int, pitch: int | None) -> Trial:
    logits = torch.tensor(rows, dtype=torch.float64)
    top = logits.max(-1).values
    sums = ((logits - top[:, None]) / t).exp().sum(-1)
    wanted = list(zip(top.tolist(), sums.tolist(), (logits == top[:, None]).int().argmax(-1).tolist(), strict=True))

    def judge(came: list[list[float]]) -> tuple[bool, str]:
        for i, (got, want) in enumerate(zip(came, wanted, strict=True)):
            off = [
                f"{what} is {g:g}, {_off(g, w)}"
                for what, g, w in zip(("peak", "mass", "best"), got, want, strict=True)
                if not math.isclose(g, w, rel_tol=1e-3, abs_tol=1e-6)
            ]
            if off:
                return False, f"row {i}: {'; '.join(off)}"
        return True, f"all {len(rows)} rows are right"

    blocks = -(-len(rows[0]) // block)
    asks = f"{name} ({len(rows[0])} logits, {blocks} block{'s' * (blocks > 1)})"
    return Trial(asks, lambda code: _run_stats(code, rows, t, block, pitch)[0], judge)


def _off(got: float, want: float) -> str:
    return "which is not a number (NaN)" if got != got else "too large" if got > want else "too small"


def _read_once() -> Trial:
    rows = torch.linspace(-2, 2, 33).view(1, 33).tolist()

    def outcome(code: Any) -> wrong.Answers:
        answers, loaded = _run_stats(code, rows, 1.0, 8, None)
        return wrong.Answers(answers, loaded["x"] / 33)

    def judge(came: wrong.Answers) -> tuple[bool, str]:
        return came.reads == 1, f"each logit of a row was read {came.reads:.2f} times"

    return Trial("Each logit is read once", outcome, judge, side=True)


Coins = tuple[str, Sequence[float], int, int | None]  # name, logits of a row, the draft, pitch
COINS: tuple[Coins, ...] = (
    ("A row that fills its block", (0.5, 1.0, -1.0, 0.25, 0.0, 2.0, -0.5, 1.5), 5, None),
    ("A row that does not", (-1.0, -2.0, -0.5, -3.0, -1.5), 2, None),
    ("Rows 2^30 numbers apart", (0.3, -0.7, 1.1, 0.2, -1.3), 0, FAR),
)


def coins(kernel: Any, cases: Sequence[Coins] = COINS, many: int = 64, block: int = 8) -> Report:
    """Of `kernel[rows,](logits, stride, drafts, coins, kept, vocab, BLOCK)`: 1 where a coin keeps a draft, else 0."""

    def run(code: Any, row: Sequence[float], draft: int, tossed: list[float], pitch: int | None) -> list[int]:
        count = len(tossed)
        drafts, thrown, kept = spare(count, torch.int64), spare(count), spare(count, torch.int64)
        drafts[:], thrown[:] = draft, torch.tensor(tossed)
        named = {"logits": room([row] * count), "drafts": drafts, "coins": thrown, "kept": kept}
        launch(code, (count,), pitch, named, len(row), BLOCK=block)
        return kept.tolist()

    def share(name: str, row: Sequence[float], draft: int, pitch: int | None) -> Trial:
        p = float(torch.tensor(row, dtype=torch.float64).softmax(-1)[draft])
        tossed = [(i + 0.5) / many for i in range(many)] if pitch is None else [0.9, 0.1, 0.4, 0.05, 0.6]
        wanted = [int(u < p) for u in tossed]

        def judge(came: list[int]) -> tuple[bool, str]:
            odd = [value for value in came if value not in (0, 1)]
            if odd:
                return False, f"kept holds {odd[0]}, and 1 or 0 was expected"
            return came == wanted, f"of {len(tossed)} coins {sum(came)} keep the draft, by p it should be {sum(wanted)}"

        return Trial(name, lambda code: run(code, row, draft, tossed, pitch), judge)

    never = Trial(
        "A token with probability 0, and a coin of 0",
        lambda code: run(code, (0.0, -INF, 1.0, 0.5, 0.25, 0.0, 0.0, 0.0), 1, [0.0], None),
        lambda came: (came == [0], f"kept is {came[0]}, and p of the draft is 0"),
    )
    small = Trial(  # p is 6.1e-7, and the coin 3e-7
        "A token with a very small probability, and a smaller coin",
        lambda code: run(code, (14.3, 0.0, -INF, -INF, -INF, -INF, -INF, -INF), 1, [3e-7], None),
        lambda came: (came == [1], f"kept is {came[0]}, and the coin, 3e-7, is below p of the draft, 6.2e-7"),
    )
    return examine("Task 4, the bugs", kernel, [*(share(*case) for case in cases), never, small], wrong.COINS)


Walk = tuple[str, Sequence[Sequence[int]], Sequence[Sequence[int]], Sequence[Sequence[int]]]  # tokens, parents, best
WALKS: tuple[Walk, ...] = (
    ("A chain", [[9, 5, 6, 7]], [[-1, 0, 1, 2]], [[5, 6, 8, 1]]),
    ("Siblings", [[9, 5, 6, 7, 5, 8]], [[-1, 0, 0, 0, 2, 2]], [[6, 1, 8, 4, 5, 3]]),
    ("The root alone", [[9]], [[-1]], [[4]]),
    (
        "Three texts",
        [[9, 5, 6, 7, 8], [3, 6, 5, 5, 2], [1, 4, 7, 2, 6]],
        [[-1, 0, 1, 1, 3], [-1, 0, 0, 2, 3], [-1, 0, 1, 2, 3]],
        [[5, 7, 0, 8, 1], [5, 0, 5, 7, 2], [4, 7, 2, 6, 8]],
    ),
)


def walk(kernel: Any, cases: Sequence[Walk] = WALKS) -> Report:
    """Of `kernel[texts,](tokens, nodes, first_child, next_sibling, best, path, extra)`: the walk of each text."""
    return examine("Task 5, the walk", kernel, [_walk(*case) for case in cases], wrong.WALKS)


def _walk(name: str, tokens: Any, parents: Any, best: Any) -> Trial:
    texts, nodes = len(tokens), len(tokens[0])
    links = ops("torch").tree_links(torch.tensor(tokens), torch.tensor(parents), torch.zeros(texts, dtype=torch.long))

    def outcome(code: Any) -> tuple[list[list[int]], list[int]]:
        grids = (torch.tensor(tokens), links.next_token, links.next_sibling, torch.tensor(best))
        held = [
            torch.cat([torch.full((99,), 77), g.flatten(), torch.full((99,), 77)])[99:-99].view(texts, nodes)
            for g in grids
        ]
        path, extra = spare(texts * nodes, torch.int64).fill_(-1).view(texts, nodes), spare(texts, torch.int64)
        names = ("tokens", "first_child", "next_sibling", "best", "path", "extra")
        launch(code, (texts,), None, dict(zip(names, (*held, path, extra), strict=True)))
        return path.tolist(), extra.tolist()

    def judge(came: tuple[list[list[int]], list[int]]) -> tuple[bool, str]:
        for text, (path, extra) in enumerate(zip(*came, strict=True)):
            fault = _broken(path, extra, tokens[text], parents[text], best[text])
            if fault:
                return False, f"text {text}: path {path}, extra {extra}: {fault}"
        return True, f"path {came[0][0]}" if texts == 1 else "all paths follow the target's choices to the end"

    return Trial(f"{name} ({nodes} node{'s' * (nodes > 1)})", outcome, judge)


def _broken(path: list[int], extra: int, tokens: Sequence[int], parents: Sequence[int], best: Sequence[int]) -> str:
    """The first rule of the walk that a path breaks; "" if it breaks none."""
    kept = path[: path.index(-1)] if -1 in path else path
    if not kept or kept[0] != 0:
        return "it does not begin with the root, node 0"
    if any(node != -1 for node in path[len(kept) :]) or not all(0 <= node < len(tokens) for node in kept):
        return "these are not the indices of nodes, followed by -1"
    for above, node in pairwise(kept):
        if parents[node] != above:
            return f"node {node} is no child of node {above}"
        if tokens[node] != best[above]:
            return f"node {node} holds {tokens[node]}, but the target's choice after node {above} is {best[above]}"
    last = kept[-1]
    if any(parents[node] == last and tokens[node] == best[last] for node in range(len(tokens))):
        return f"it stops at node {last}, a child of which holds the target's choice"
    return "" if extra == best[last] else f"extra is not the target's choice after node {last}"
