"""grades.csv: the table that goes back to the learning platform, in the form in which each of them reads it."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil

from specdec_course.grader.harmless import cell
from specdec_course.grader.marks import Mark
from specdec_course.grader.roster import Roster

__all__ = ["kept_share", "table"]

Pair = tuple[str, str]  # student, exercise
DAY = 86_400
# What a new column for an exercise is called, so that the platform takes it for one.
TITLES = {"blackboard": "{name} [Total Pts: {out_of:g}]", "brightspace": "{name} Points Grade", "canvas": "{name}"}


def table(
    marks: Sequence[Mark],
    everybody: Sequence[str] = (),
    roster: Roster | None = None,
    rows: Mapping[str, int] | None = None,
    *,
    unread: bool = False,
    shares: Mapping[Pair, float] | None = None,
) -> tuple[bytes, list[str]]:
    """(a CSV, warnings). Without a roster: a row per student, a column per exercise, and the sum.

    With one: its columns, rows, separator and encoding. An exercise's points go into the column that has its name, or
    into a new one. A cell stays as it is where nothing was handed in or no row fits, or where an answer is still to be
    read, unless `unread`. `shares`: what lateness leaves of the points.
    """
    names = sorted({mark.exercise for mark in marks})
    points = {
        pair: _sum(marks, pair, unread, (shares or {}).get(pair, 1.0))
        for pair in {(mark.student, mark.exercise) for mark in marks}
    }
    out_of = {name: sum({mark.task: mark.out_of for mark in marks if mark.exercise == name}.values()) for name in names}
    warnings = list[str]()
    if roster is None:
        people = sorted({*everybody, *(mark.student for mark in marks)})
        roster = Roster(["Student"], [[student] for student in people], "plain", ",", "utf-8")
        rows = {student: at for at, student in enumerate(people)}
    grid = [[*row] for row in [roster.header, *roster.rows]]
    where = {name: _column(grid, roster.kind, name, out_of[name], names, warnings) for name in names}
    for student, at in (rows or {}).items():
        for name in names:
            if points.get((student, name), ""):
                grid[at + 1][where[name]] = points[student, name]
    if roster.kind == "plain":
        _totals(grid, [where[name] for name in names])
    waiting = sum(mark.points is None for mark in marks)
    if waiting and not unread:
        warnings.append(
            f"{waiting} answers are to be read (`specdec grade mark`): until then their exercises stay empty"
        )
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=roster.delimiter, lineterminator="\n")
    writer.writerow(grid[0])
    writer.writerows([cell(each) for each in row] for row in grid[1:])
    return text.getvalue().encode(roster.encoding, "replace"), warnings


def _column(
    grid: list[list[str]], kind: str, name: str, out_of: float, names: Sequence[str], warnings: list[str]
) -> int:
    """Where an exercise's points go: the column that names it, or a new one."""
    if kind == "moodle":
        if len(names) > 1:
            raise ValueError(f"Moodle's worksheet is of one assignment: add --exercise, one of {', '.join(names)}")
        titles = [title.strip().casefold() for title in grid[0]]
        if "maximum grade" in titles:
            most = {row[titles.index("maximum grade")].strip().replace(",", ".") for row in grid[1:]} - {"", "-"}
            warnings += [
                f"Moodle's maximum grade is {each}, and {name} has {out_of:g} points: set it there"
                for each in sorted(most)
                if not _same(each, out_of)
            ]
        return titles.index("grade")
    wanted = {name.casefold(), name.casefold().replace("_", " ")}
    found = [at for at, title in enumerate(grid[0]) if any(each in title.casefold() for each in wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        warnings.append(f"{name}: {len(found)} columns of the roster have this in their name; a new one was added")
    at = len(grid[0])
    if kind == "brightspace" and grid[0][-1].strip().casefold() == "end-of-line indicator":
        at -= 1
    for number, row in enumerate(grid):
        possible = kind == "canvas" and row[0].strip().casefold() == "points possible"
        title = TITLES.get(kind, "{name} (of {out_of:g})").format(name=name, out_of=out_of)
        row.insert(at, f"{out_of:g}" if possible else "" if number else title)
    return at


def _totals(grid: list[list[str]], columns: Sequence[int]) -> None:
    grid[0].append("Total")
    for row in grid[1:]:
        known = [float(row[at]) for at in columns if _number(row[at])]
        row.append(f"{sum(known):g}" if known else "")


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _same(text: str, value: float) -> bool:
    return _number(text) and float(text) == value


def _sum(marks: Sequence[Mark], pair: Pair, unread: bool, share: float) -> str:
    own = [mark.points for mark in marks if (mark.student, mark.exercise) == pair]
    return "" if None in own and not unread else f"{round(sum(points or 0.0 for points in own) * share, 2):g}"


def kept_share(when: str, late: bool, due: datetime | None, percent: float) -> float:
    """What is left of the points of work handed in at `when`: `percent` less for each day begun after `due`.

    A platform that says no more than that it was late counts as one day.
    """
    days = 0
    if due is not None and when:
        days = max(0, ceil((datetime.fromisoformat(when) - due).total_seconds() / DAY))
    return max(0.0, 1 - max(days, int(late)) * percent / 100)
