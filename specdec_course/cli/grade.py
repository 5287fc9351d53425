"""`specdec grade`: release the exercises, grade what comes back, and say who has how many points."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from specdec_ref.cli.shared import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "release, grade and report the exercises (needs the extra `instructor`)"
DESCRIPTION = """\
The exercises' way from the instructor to the students and back:

  release      solutions/ -> exercises/, without solutions and hidden tests.
               --check writes nothing, and fails where exercises/ is not what
               solutions/ generates
  bundle       the course as a zip archive for students (FILE, default
               build/specdec-course.zip): all but solutions and tests
  class        FOLDERs or zip archives of hand-ins, as a learning platform
               gives them, in one go: check the roster, grade what is new,
               write feedback and grades.csv
  autograde    one hand-in: PATH, hidden tests included. Without PATH, all that
               was handed in before is graded again
  mark         written answers, which only a person can judge: the queue of
               those that are to be read, with how to mark them; with --student
               and --points it enters what one is worth
  report       points by student and task; --feedback writes the pages again
  export       grades.csv: a row a student, a column an exercise

Student code runs in a sandbox where the system has namespaces (Linux), else
under limits only; docs/INSTRUCTORS.md says what each keeps out.

Exit code: 0 if every hand-in was graded; 1 if one could not be (it counts as
empty, is listed as NOT GRADED, and is tried again next time); 2 if nothing was
graded, since the roster or an argument is wrong.
"""
EPILOG = """\
examples:
  $ specdec grade release --check
  $ specdec grade class ~/Downloads/submissions.zip --roster students.csv
  $ specdec grade class week3/ --match "SIS Login ID" --roster students.csv
  $ specdec grade autograde exercises/02_verification/02_verification.ipynb
  $ specdec grade autograde ada/02_verification.ipynb --student ada
  $ specdec grade mark 02_verification
  $ specdec grade mark 02_verification --student ada --points 1.5
  $ specdec grade report --feedback
"""
ACTIONS = ("release", "bundle", "class", "autograde", "mark", "report", "export")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("action", choices=ACTIONS, help="what to do, see above")
    parser.add_argument("what", nargs="*", metavar="WHAT", help="exercises (default: all), PATHs, FOLDERs or FILE")
    parser.add_argument("--check", action="store_true", help="release: compare only; exit code 1 if it differs")
    parser.add_argument("--exercise", metavar="NAME", help="class, export: this exercise only")
    parser.add_argument("--regrade", action="store_true", help="class: grade again what has not changed, too")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="class: hand-ins at a time (default 1)")
    parser.add_argument("--roster", type=Path, metavar="CSV", help="class, export: the platform's list of students")
    parser.add_argument(
        "--match", default="", metavar="COLUMN", help="class, export: the roster's column that identifies them"
    )
    parser.add_argument("--due", type=_moment, metavar="WHEN", help="class, export: when it was due, 2026-11-20T23:59")
    parser.add_argument(
        "--late-percent", type=float, default=0.0, metavar="X", help="class, export: less per day late (default 0)"
    )
    parser.add_argument("--unread", action="store_true", help="class, export: answers nobody has read count as 0")
    parser.add_argument("--student", metavar="NAME", help="class, autograde, mark: whose work (autograde: default me)")
    parser.add_argument("--points", type=float, metavar="X", help="mark: what the written answer is worth")
    parser.add_argument("--comment", metavar="TEXT", help="mark: a sentence for the student's feedback page")
    parser.add_argument("--feedback", action="store_true", help="report: write a page for each hand-in, too")
    parser.add_argument("--json", action="store_true", help="report: a JSON object a graded cell, on stdout")
    parser.add_argument(
        "--course", type=Path, default=Path(), metavar="DIR", help="the course's folder (default: here)"
    )
    parser.add_argument("--private", type=Path, metavar="DIR", help="your own hidden tests: DIR/EXERCISE.py")
    limits = parser.add_argument_group("limits", "Of one hand-in, while it is graded.")
    for flag, value, text in (
        ("--cell-seconds", 60, "a cell"), ("--cpu-seconds", 180, "CPU time of all cells"),
        ("--wall-seconds", 300, "all cells"), ("--memory-gb", 4, "memory that it may write to"),
    ):  # fmt: skip
        limits.add_argument(flag, type=int, default=value, metavar="N", help=f"{text} (default {value})")
    limits.add_argument("--no-sandbox", action="store_true", help="limits only, no namespaces")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment: write 2026-11-20 or 2026-11-20T23:59") from None


def run(args: argparse.Namespace) -> int:
    """Do it; 1 if something is stale or could not be graded."""
    try:
        from specdec_course.grader.confine import Allowance
        from specdec_course.grader.course import Course
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is missing: pip install 'specdec-ref[instructor]'") from error
    from specdec_course.cli import grading

    limits = Allowance(
        args.cell_seconds, args.cpu_seconds, args.wall_seconds, args.memory_gb * 10**9, boxed=not args.no_sandbox
    )
    course = Course(args.course.resolve(), limits, args.private)
    if not course.names():
        raise UsageError(
            f"no solutions/NAME/NAME.ipynb in {course.root}: go to the course's folder, or name it: --course"
        )
    if args.exercise is not None and args.exercise not in course.names():
        raise UsageError(f"--exercise {args.exercise}: there are {', '.join(course.names())}")
    if args.private is not None and not args.private.is_dir():
        raise UsageError(f"--private {args.private} is no folder")
    actions: dict[str, Callable[[], int]] = {
        "release": lambda: grading.release(course, args.what or course.names(), check=args.check),
        "bundle": lambda: grading.bundle(course, args.what),
        "class": lambda: grading.whole_class(course, args),
        "autograde": lambda: grading.autograde(course, args.what, args.student),
        "mark": lambda: grading.mark(course, args.what or course.names(), args.student, args.points, args.comment),
        "report": lambda: grading.report(course, feedback=args.feedback, as_json=args.json),
        "export": lambda: grading.export(course, args),
    }
    return actions[args.action]()
