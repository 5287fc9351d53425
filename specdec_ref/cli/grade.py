"""`specdec grade`: release the exercises, grade what comes back, and say who has how many points."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specdec_ref.grading.course import Course, Mark

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "release, grade and report the exercises (needs the extra `instructor`)"
DESCRIPTION = """\
The exercises' way from the instructor to the students and back:

  release      solutions/ -> exercises/, without solutions and hidden tests.
               --check writes nothing, and fails where exercises/ is not what
               solutions/ generates
  autograde    run what was handed in, hidden tests included. PATHs are copied
               to gradebook/submitted/STUDENT/ first; without PATHs, all that
               lies there is graded
  mark         the written answers, which only a person can judge: prints them,
               and with --points enters what an answer is worth
  report       points by student and task; --feedback writes a page each

Student code runs in a process of its own, with limits on time and memory, but
it is no sandbox: it can read what you can read.
"""
EPILOG = """\
examples:
  $ specdec grade release --check
  $ specdec grade autograde exercises/02_verification/02_verification.ipynb
  $ specdec grade autograde ada/02_verification.ipynb --student ada
  $ specdec grade mark 02_verification --student ada
  $ specdec grade mark 02_verification --student ada --points 1.5
  $ specdec grade report --feedback
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("action", choices=("release", "autograde", "mark", "report"), help="what to do, see above")
    parser.add_argument("what", nargs="*", metavar="EXERCISE", help="exercises (default: all), or PATHs of notebooks")
    parser.add_argument("--check", action="store_true", help="release: compare only; exit code 1 if it differs")
    parser.add_argument("--student", metavar="NAME", help="autograde, mark: whose work (default: me)")
    parser.add_argument("--points", type=float, metavar="X", help="mark: what the written answer is worth")
    parser.add_argument("--comment", metavar="TEXT", help="mark: a sentence for the student's feedback page")
    parser.add_argument("--feedback", action="store_true", help="report: write a page for each hand-in, too")
    parser.add_argument("--json", action="store_true", help="report: a JSON object a graded cell, on stdout")
    parser.add_argument(
        "--course", type=Path, default=Path(), metavar="DIR", help="the course's folder (default: here)"
    )
    limits = parser.add_argument_group("limits", "Of one hand-in, while it is graded.")
    for flag, value, text in (
        ("--cell-seconds", 60, "a cell"), ("--cpu-seconds", 180, "CPU time of all cells"),
        ("--wall-seconds", 300, "all cells"), ("--memory-gb", 4, "memory that it may write to"),
    ):  # fmt: skip
        limits.add_argument(flag, type=int, default=value, metavar="N", help=f"{text} (default {value})")


def run(args: argparse.Namespace) -> int:
    """Do it; 1 if something is stale or could not be graded."""
    course = _course(args)
    if args.action == "release":
        return _release(course, args.what or course.names(), check=args.check)
    if args.action == "autograde":
        return _autograde(course, args.what, args.student)
    if args.action == "mark":
        return _mark(course, args.what or course.names(), args.student or "me", args.points, args.comment)
    return _report(course, feedback=args.feedback, as_json=args.json)


def _course(args: argparse.Namespace) -> "Course":
    from specdec_ref.cli.shared import UsageError

    try:
        from specdec_ref.grading.course import Course
        from specdec_ref.grading.submission import Allowance
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is missing: pip install 'specdec-ref[instructor]'") from error
    limits = Allowance(args.cell_seconds, args.cpu_seconds, args.wall_seconds, args.memory_gb * 10**9)
    course = Course(args.course.resolve(), limits)
    if not course.names():
        raise UsageError(
            f"no solutions/NAME/NAME.ipynb in {course.root}: go to the course's folder, or name it: --course"
        )
    return course


def _release(course: "Course", names: Sequence[str], *, check: bool) -> int:
    from specdec_ref.cli.shared import plural, say

    if not check:
        for folder in course.release(names):
            print(folder.relative_to(course.root))
        return 0
    stale = course.stale(names)
    for line in stale:
        print(line)
    say("run `specdec grade release`" if stale else f"{plural(len(names), 'exercise')} as generated", style="")
    return 1 if stale else 0


def _autograde(course: "Course", what: Sequence[str], student: str | None) -> int:
    from specdec_ref.cli.shared import UsageError, say

    paths = [Path(name) for name in what if name.endswith(".ipynb")]
    names = [name for name in what if not name.endswith(".ipynb")]
    todo = [(student or "me", course.hand_in(path, student or "me")) for path in paths]
    if names or not paths:
        todo += course.submissions(names or course.names(), student)
    if not todo:
        raise UsageError("nothing was handed in: give PATHs, or put them into gradebook/submitted/STUDENT/EXERCISE/")
    failed = 0
    for whose, name in todo:
        try:
            notes = course.autograde(whose, name)
        except RuntimeError as error:
            say(f"error: {error}", style="")
            failed += 1
        else:
            for note in notes:
                say(f"{whose}, {name}: {note}", style="")
    _table([mark for mark in course.marks() if (mark.student, mark.exercise) in todo])
    return 1 if failed else 0


def _mark(course: "Course", names: Sequence[str], student: str, points: float | None, comment: str | None) -> int:
    """Each exercise asks for one answer in words."""
    from specdec_ref.cli.shared import UsageError

    if points is not None and len(names) != 1:
        raise UsageError("--points are for one exercise: name it")
    for name in names:
        for task, text in course.answers(student, name).items():
            if points is None:
                print(f"{student}  {name}, {task}:\n{text}\n")
            else:
                course.mark(student, name, task, points, comment)
    if points is not None:
        _table([mark for mark in course.marks() if (mark.student, mark.exercise) == (student, names[0])])
    return 0


def _report(course: "Course", *, feedback: bool, as_json: bool) -> int:
    from specdec_ref.cli.shared import say

    marks = course.marks()
    if not marks:
        say("nothing is graded yet: `specdec grade autograde PATH`", style="")
    if feedback:
        for student, name in sorted({(mark.student, mark.exercise) for mark in marks}):
            print(course.feedback(student, name).relative_to(course.root))
    if as_json:
        for mark in marks:
            print(json.dumps(asdict(mark)))
    else:
        _table(marks)
    return 0


def _table(marks: Sequence["Mark"]) -> None:
    for (student, exercise), group in groupby(marks, key=lambda mark: (mark.student, mark.exercise)):
        tasks = list(group)
        known = [mark for mark in tasks if mark.points is not None]
        total, out_of = sum(mark.points or 0.0 for mark in known), sum(mark.out_of for mark in known)
        print(f"{student}  {exercise}: {total:g} of {out_of:g} points")
        for mark in tasks:
            earned = "to be read by a person" if mark.points is None else f"{mark.points:g}"
            print(f"  {mark.task.removesuffix('-tests'):16} {earned:>6} of {mark.out_of:g}")
