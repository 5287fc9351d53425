"""Self-check of exercise 08, task 5: a load test of two servers, read for a plan.

What is right is written beside each table and was read off by hand; a test holds it against `bench.load.crossing`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specdec_course.checks.examine import Suspect, Trial, Trouble, attempt, examine
from specdec_course.checks.report import Report

__all__ = ["SUSPECTS", "TABLES", "capacity", "load_rows"]

Number = int | float
Figures = tuple[Number, Number, Number, Number]  # tokens per second; time per token: percentiles 50, 90, 99 in ms
Row = Mapping[str, Any]
Levels = Sequence[tuple[int, Figures, Figures]]  # concurrency, plain server, speculating server
Table = tuple[str, Levels, Number, int, tuple[str, int]]  # about, levels, limit, speculation pays up to, plan

TABLES: tuple[Table, ...] = (
    ("a lead that shrinks", (
        (1, (30, 32, 33, 35), (42, 23, 25, 31)),
        (2, (52, 37, 39, 44), (63, 36.5, 40, 48)),
        (4, (80, 48, 52, 75), (76, 49, 56, 83)),
        (8, (96, 58, 90, 140), (82, 62, 104, 170)),
    ), 60.0, 2, ("plain", 4)),
    ("no lead at all", (
        (1, (50, 19, 20, 22), (40, 24, 25, 27)),
        (2, (70, 27, 28, 36), (60, 29, 31, 40)),
        (4, (90, 29, 44, 52), (85, 29.5, 48, 60)),
    ), 30.0, 0, ("plain", 2)),
    ("a lead at every level", (
        (4, (100, 38, 41, 50), (140, 27, 32, 47)),
        (1, (30, 32, 33, 34), (44, 22, 24, 29)),
        (8, (180, 43, 47, 60), (220, 34, 40, 58)),
        (2, (55, 35, 37, 39), (80, 24, 28, 33)),
    ), 40.0, 8, ("eagle", 8)),
    ("behind once, then ahead again", (
        (1, (40, 24, 26, 28), (52, 20.5, 21, 26)),
        (2, (66, 29, 31, 35), (60, 33, 36, 39)),
        (4, (90, 43, 46, 55), (97, 40, 44, 58)),
    ), 20.0, 1, ("none", 0)),
    ("overload at 16", (
        (16, (48, 260, 420, 600), (38, 340, 490, 900)),
        (4, (70, 55, 61, 80), (66, 58, 66, 95)),
        (1, (31, 31, 32, 34), (35, 28, 30, 33)),
    ), 500.0, 1, ("plain", 4)),
)  # fmt: skip


def load_rows(levels: Levels, order: Sequence[str] = ("plain", "eagle")) -> list[dict[str, Any]]:
    """Rows as `specdec bench --endpoint --load --json` prints them, those that this task needs."""
    return [
        {"concurrency": level, "method": method, "tokens_per_s": float(figures[0]),
         "ttft_ms": [6.0 * figures[1], 7.0 * figures[2], 8.0 * figures[3]], "tpot_ms": [float(x) for x in figures[1:]]}
        for level, *both in levels
        for method, figures in sorted(zip(("plain", "eagle"), both, strict=True), key=lambda pair: order.index(pair[0]))
    ]  # fmt: skip


def capacity(function: Callable[..., Any], tables: Sequence[Table] = TABLES) -> Report:
    """Of `function(rows, limit)`: (level up to which speculation pays, (method, concurrency) to run)."""

    def trials(number: int, about: str, levels: Levels, limit: Number, pays: int, plan: tuple[str, int]) -> list[Trial]:
        rows = load_rows(levels, ("plain", "eagle") if number % 2 == 0 else ("eagle", "plain"))

        def came(code: Any) -> tuple[Any, tuple[Any, Any]]:
            found = attempt(code, [dict(row) for row in rows], limit)
            if not (isinstance(found, tuple | list) and len(found) == 2
                    and isinstance(found[1], tuple | list) and len(found[1]) == 2):  # fmt: skip
                raise Trouble(f"it returned {found!r}, and (level, (method, level)) was expected")
            return found[0], (found[1][0], found[1][1])

        return [
            Trial(f"{about}: speculation pays up to", lambda code: came(code)[0], _level(pays)),
            Trial(
                f"{about}: the plan, at most {limit:g} ms per token",
                lambda code: came(code)[1],
                _plan(rows, limit, plan),
            ),
        ]

    found = [trial for number, table in enumerate(tables) for trial in trials(number, *table)]
    return examine("Task 5, a load test", function, found, SUSPECTS)


def _level(right: int) -> Callable[[Any], tuple[bool, str]]:
    def judge(level: Any) -> tuple[bool, str]:
        return bool(level == right), f"it gave {level!r}" + ("" if level == right else f", and the rows give {right}")

    return judge


def _plan(rows: Sequence[Row], limit: Number, right: tuple[str, int]) -> Callable[[Any], tuple[bool, str]]:
    def judge(plan: tuple[Any, Any]) -> tuple[bool, str]:
        gave = f"it gave {plan!r}"
        if plan == right:
            return True, gave
        chosen = [row for row in rows if (row["method"], row["concurrency"]) == plan]
        if not chosen:
            return False, f"{gave}, and there is a row that keeps the promise" if plan == ("none", 0) else (
                f"{gave}, and no row has that method and level")  # fmt: skip
        slow = chosen[0]["tpot_ms"][1]
        why = f"one request in ten needs more than {slow:g} ms per token there" if slow > limit else (
            "another row that keeps the promise has a higher throughput")  # fmt: skip
        return False, f"{gave}, and {why}"

    return judge


def _by_level(rows: Sequence[Row], *, key: Callable[[Row], Number]) -> list[tuple[int, Number, Number]]:
    """[(level, plain server, speculating server), ...] from the lowest level up."""
    levels = sorted({row["concurrency"] for row in rows})
    found = {(row["concurrency"], row["method"] == "plain"): key(row) for row in rows}
    return [(level, found[level, True], found[level, False]) for level in levels]


def _speed(row: Row) -> float:
    return float(row["tokens_per_s"])


def _lead(rows: Sequence[Row], key: Callable[[Row], Number] = _speed) -> int:
    best = 0
    for level, plain, other in _by_level(rows, key=key):
        if other <= plain:
            break
        best = level
    return best


def _anywhere(rows: Sequence[Row]) -> int:
    return max((level for level, plain, other in _by_level(rows, key=_speed) if other > plain), default=0)


def _first_behind(rows: Sequence[Row]) -> int:
    levels = _by_level(rows, key=_speed)
    return next((level for level, plain, other in levels if other <= plain), levels[-1][0])


def _count(rows: Sequence[Row]) -> int:
    return sum(level <= _lead(rows) for level, _, _ in _by_level(rows, key=_speed))


def _as_given(rows: Sequence[Row]) -> int:
    best = 0
    speeds = {(row["concurrency"], row["method"] == "plain"): row["tokens_per_s"] for row in rows}
    for level in dict.fromkeys(row["concurrency"] for row in rows):
        if speeds[level, False] <= speeds[level, True]:
            break
        best = level
    return best


def _peak(rows: Sequence[Row]) -> int:
    return int(max((row for row in rows if row["method"] != "plain"), key=_speed)["concurrency"])


def _best(
    rows: Sequence[Row], limit: Number,
    slow: Callable[[Row], Number] = lambda row: float(row["tpot_ms"][1]),
    key: Callable[[Row], Number] = _speed,
    keeps: Callable[[Number, Number], bool] = lambda slow, limit: slow <= limit,
) -> tuple[str, int]:  # fmt: skip
    """The plan, right but for what is given."""
    kept = [row for row in rows if keeps(slow(row), limit)]
    best = max(kept, key=key, default=None)
    return ("none", 0) if best is None else (best["method"], best["concurrency"])


def _pays(lead: Callable[[Sequence[Row]], int]) -> Callable[[Sequence[Row], Number], Any]:
    return lambda rows, limit: (lead(rows), _best(rows, limit))


def _plans(plan: Callable[[Sequence[Row], Number], Any]) -> Callable[[Sequence[Row], Number], Any]:
    return lambda rows, limit: (_lead(rows), plan(rows, limit))


def _speculating(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["method"] != "plain"]


SUSPECTS = (  # (rows, limit) -> level, (method, level)
    Suspect("The highest level with a lead is taken, although the plain server is ahead at a lower one. One lead after "
            "a loss is more likely noise than a gain: stop at the first level without a lead.", _pays(_anywhere)),
    Suspect("The first level without a lead is returned. Asked for is the last one that still has it.",
            _pays(_first_behind)),
    Suspect("Levels are counted here. Asked for is the level itself, the number of requests in flight.", _pays(_count)),
    Suspect("The rows are taken in the order in which they come. Sort the levels first.", _pays(_as_given)),
    Suspect("Time per token is compared. Whether speculation pays is read from the throughput here.",
            _pays(lambda rows: _lead(rows, lambda row: -float(row["tpot_ms"][1])))),
    Suspect("This is the level at which the speculating server is fastest. Compare it with the plain server, level by "
            "level.", _pays(_peak)),
    Suspect("The median is held against the limit. Half of the requests may then be slower; the promise is about nine "
            "in ten.", _plans(lambda rows, limit: _best(rows, limit, lambda row: row["tpot_ms"][0]))),
    Suspect("The 99th percentile is held against the limit. The promise allows one request in ten to be slower.",
            _plans(lambda rows, limit: _best(rows, limit, lambda row: row["tpot_ms"][2]))),
    Suspect("The time to the first token is held against the limit. The promise is about the time per token.",
            _plans(lambda rows, limit: _best(rows, limit, lambda row: row["ttft_ms"][1]))),
    Suspect("The promise is left out: the fastest row is taken, however long a token takes there.",
            _plans(lambda rows, limit: _best(rows, limit, keeps=lambda slow, limit: True))),
    Suspect("A row at the limit itself is refused. \"At most\" includes it.",
            _plans(lambda rows, limit: _best(rows, limit, keeps=lambda slow, limit: slow < limit))),
    Suspect("The highest level that keeps the promise is taken. An overloaded server can have more requests in flight "
            "and a lower throughput.",
            _plans(lambda rows, limit: _best(rows, limit, key=lambda row: row["concurrency"]))),
    Suspect("The row with the shortest time per token is taken. Among rows that keep the promise, the throughput "
            "decides.", _plans(lambda rows, limit: _best(rows, limit, key=lambda row: -row["tpot_ms"][1]))),
    Suspect("Only the speculating server is considered. The plain one may keep the promise at a higher throughput.",
            _plans(lambda rows, limit: _best(_speculating(rows), limit))),
    Suspect("Only the plain server is considered.",
            _plans(lambda rows, limit: _best([row for row in rows if row["method"] == "plain"], limit))),
    Suspect("\"none\" is never the answer. Where no row keeps the promise, no plan does.",
            _plans(lambda rows, limit: _best(rows, max(limit, min(row["tpot_ms"][1] for row in rows))))),
)  # fmt: skip
