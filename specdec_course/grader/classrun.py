"""A whole class in one go: collect, grade what is new, write pages and table. One hand-in's failure is its own."""

import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import nbformat

from specdec_course.grader.classroom import as_student, collect
from specdec_course.grader.course import Course, Mark
from specdec_course.grader.feedback import page

__all__ = ["ClassRun", "grade_class", "table", "write_pages"]

Pair = tuple[str, str]  # student, exercise


@dataclass(slots=True)
class ClassRun:
    """What was done. `failed`: hand-ins that could not be graded, which is our fault or the machine's, with reasons."""

    graded: list[Pair] = field(default_factory=list)
    unchanged: list[Pair] = field(default_factory=list)
    failed: dict[Pair, str] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)


def grade_class(
    course: Course,
    folder: Path,
    *,
    exercise: str | None = None,
    again: bool = False,
    jobs: int = 1,
    tell: Callable[[str], None],
) -> ClassRun:
    """Grade a folder of hand-ins. What was graded before, the same bytes by the same tests, is left, unless `again`."""
    done = ClassRun()
    names = [exercise] if exercise else course.names()
    for name in names:
        course.prepare(name)
    with tempfile.TemporaryDirectory() as scratch:
        releases = {name: course.released(name) for name in names}
        found = collect(folder, releases, Path(scratch), exercise)
        done.aside = found.aside
        todo: list[Pair] = []
        for each in found.hand_ins:
            new = course.hand_in(each.student, each.exercise, each.file, each.note)
            (todo if new or again else done.unchanged).append((each.student, each.exercise))
    for number, (pair, error) in enumerate(_graded(course, todo, jobs), 1):
        tell(f"[{number} of {len(todo)}] {pair[0]}, {pair[1]}{': ' + error if error else ''}")
        if error:
            done.failed[pair] = error
    for pair in [*done.failed]:  # once more, alone: two processes may have met in the gradebook
        if not (error := _grade(course, pair)):
            del done.failed[pair]
        else:
            done.failed[pair] = error
    done.graded = [pair for pair in todo if pair not in done.failed]
    write_pages(course, done.graded)
    return done


def _graded(course: Course, todo: Sequence[Pair], jobs: int) -> Iterator[tuple[Pair, str]]:
    """Each with what went wrong, as it comes."""
    if jobs == 1 or len(todo) < 2:
        yield from ((pair, _grade(course, pair)) for pair in todo)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(_grade, course, pair): pair for pair in todo}
        for future in as_completed(running):
            yield running[future], future.result()


def _grade(course: Course, pair: Pair) -> str:
    try:
        course.autograde(*pair)
    except (RuntimeError, OSError) as error:
        return str(error)
    return ""


def write_pages(course: Course, pairs: Sequence[Pair]) -> list[Path]:
    """Feedback of these hand-ins: gradebook/feedback/STUDENT/NAME/NAME.html."""
    marks = course.marks()
    written = []
    for student, name in pairs:
        own = [mark for mark in marks if (mark.student, mark.exercise) == (student, name)]
        notebook = nbformat.read(course.graded(student, name), as_version=4)
        path = course.root / "gradebook" / "feedback" / student / name / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(notebook, student, own, course.about(student, name).get("notes", [])), encoding="utf-8")
        written.append(path)
    return written


def table(marks: Sequence[Mark], roster: str = "", *, unread: bool = False) -> tuple[str, list[str]]:
    """(a CSV, warnings): a row a student, a column an exercise, and the sum.

    `roster`: a CSV with a header, as a learning platform exports it. Its columns and order stay, and a student's row is
    the one with a cell that is the name of the hand-ins' folder, or a part of it between underscores. A cell stays
    empty where nothing was handed in, or where an answer is still to be read, unless `unread`.
    """
    names = sorted({mark.exercise for mark in marks})
    points = {pair: _sum(marks, pair, unread) for pair in {(mark.student, mark.exercise) for mark in marks}}
    students = sorted({mark.student for mark in marks})
    header, *rows = list(csv.reader(io.StringIO(roster))) or [["Student"], *([student] for student in students)]
    out_of = {name: sum({mark.task: mark.out_of for mark in marks if mark.exercise == name}.values()) for name in names}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, *(f"{name} (of {out_of[name]:g})" for name in names), "Total"])
    warnings, left = [], {*students}
    for row in rows:
        own = [student for student in students if _is(student, row)]
        if len(own) > 1:
            warnings.append(f"{', '.join(own)}: all fit the row of {row[0]}; none was entered")
        student = own[0] if len(own) == 1 else ""
        left -= {*own}
        cells = [points.get((student, name), "") for name in names]
        known = [float(cell) for cell in cells if cell]
        writer.writerow([*row, *cells, f"{sum(known):g}" if known else ""])
    warnings += [f"{student}: is in no row of the roster" for student in sorted(left)]
    waiting = sum(mark.points is None for mark in marks)
    if waiting and not unread:
        warnings.append(
            f"{waiting} answers are to be read (`specdec grade mark`): until then their exercises stay empty"
        )
    return text.getvalue(), warnings


def _sum(marks: Sequence[Mark], pair: Pair, unread: bool) -> str:
    own = [mark.points for mark in marks if (mark.student, mark.exercise) == pair]
    return "" if None in own and not unread else f"{sum(points or 0.0 for points in own):g}"


def _is(student: str, row: Sequence[str]) -> bool:
    names = {student, *student.split("_")}
    return any(as_student(cell) in names for cell in row if cell.strip())
