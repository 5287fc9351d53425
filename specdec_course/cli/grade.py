"""`specdec grade`: release the exercises, grade what comes back, and say who has how many points."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from specdec_ref.cli.shared import Action, UsageError, add_actions

if TYPE_CHECKING:
    from collections.abc import Callable

    from specdec_ref.cli.shared import Parser

__all__ = ["ACTIONS", "DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "release the exercises, grade what students hand in, report points"
DESCRIPTION = """\
Release the course's exercises to students, grade what they hand in, and report
their points. Run it in the course's folder, which contains solutions/, or name
that folder with --course. It needs the extra `instructor`.

Student code runs in a sandbox where the system offers one (Linux namespaces).
Elsewhere it runs under limits alone. docs/INSTRUCTORS.md lists what each of the
two prevents, and shows a whole term from the first release to the grades.
"""
EPILOG = """\
examples:
  $ specdec grade release --check
  $ specdec grade class ~/Downloads/submissions.zip --roster students.csv
  $ specdec grade mark 02_verification
  $ specdec grade report

exit codes:
  0   done
  1   a hand-in could not be graded: it is listed as NOT GRADED, counts as
      empty, and is tried again next time; or `release --check` found a
      difference
  2   nothing was graded: an argument or the roster is wrong

`specdec grade ACTION --help` shows the options of an action.
"""

_CHECKED = """\
Student code runs in a sandbox, or under limits alone if the system offers no
Linux namespaces: a warning says so.
"""
ACTIONS = {
    "release": Action(
        "write exercises/ from solutions/",
        """\
Write exercises/ from solutions/: the same notebooks, without the solutions and
without the hidden tests. An exercise that would not grade as it should is
refused, with the reason. On stdout: the folders that were written.
""",
        """\
examples:
  $ specdec grade release                          all exercises
  $ specdec grade release 02_verification
  $ specdec grade release --check                  for CI: exit code 1 if stale
""",
    ),
    "bundle": Action(
        "pack the course for students into a zip archive",
        """\
Pack the course into a zip archive for students: everything except solutions
and tests. exercises/ must be up to date (`specdec grade release`).
""",
        """\
examples:
  $ specdec grade bundle                           build/specdec-course.zip
  $ specdec grade bundle ~/course.zip
""",
    ),
    "class": Action(
        "grade all hand-ins of a class, from the download to grades.csv",
        f"""\
Grade the hand-ins of a class: match them with the roster, grade those that are
new or changed, write a feedback page for each and gradebook/grades.csv.
SOURCE is the folder or zip archive that Moodle, Canvas, Blackboard or
Brightspace gives you, or a folder with one folder per student.

{_CHECKED}""",
        """\
examples:
  $ specdec grade class ~/Downloads/submissions.zip --roster students.csv
  $ specdec grade class week3/ --match "SIS Login ID" --roster students.csv
  $ specdec grade class week3/ --exercise 03_eagle --due 2026-11-20T23:59 \\
      --late-percent 10

exit code 1: a hand-in could not be graded. It is listed as NOT GRADED, counts
as empty, and is tried again next time.
""",
    ),
    "autograde": Action(
        "grade one hand-in, with the hidden tests",
        f"""\
Grade single hand-ins, hidden tests included, and print the points per task.
NOTEBOOK is a file whose name is that of its exercise. Without one, everything
that was handed in before is graded again, or the named exercises of it.

{_CHECKED}""",
        """\
examples:
  $ specdec grade autograde exercises/02_verification/02_verification.ipynb
  $ specdec grade autograde ada/02_verification.ipynb --student ada
  $ specdec grade autograde 02_verification        all hand-ins of it, again
""",
    ),
    "mark": Action(
        "mark written answers",
        """\
Mark the written answers, which only a person can judge. Without options, it
prints each answer that is still to be read, with our own and how to mark it;
in a terminal it then asks for the points. --student with --points enters the
points of one answer, and --student alone prints that answer.
""",
        """\
examples:
  $ specdec grade mark 02_verification
  $ specdec grade mark 02_verification --student ada --points 1.5 \\
      --comment "The reason is missing."
""",
    ),
    "report": Action(
        "print the points per student and task",
        """\
Print the points of everybody, per exercise and task. Written answers that
nobody has read are listed as such.
""",
        """\
examples:
  $ specdec grade report
  $ specdec grade report --feedback                after marking: the pages again
  $ specdec grade report --json > marks.jsonl
""",
    ),
    "export": Action(
        "write gradebook/grades.csv",
        """\
Write gradebook/grades.csv from the points so far: one row per student and one
column per exercise, in the form that the roster's platform imports.
""",
        """\
examples:
  $ specdec grade export --roster students.csv
  $ specdec grade export --roster moodle.csv --exercise 02_verification
""",
    ),
}


def add_arguments(parser: "Parser") -> None:
    """The actions, each with its own arguments."""
    parser.set_defaults(
        cell_seconds=60, cpu_seconds=180, wall_seconds=300, memory_gb=4, no_sandbox=False, private=None, exercise=None
    )
    each = add_actions(parser, ACTIONS)
    for name, metavar, text in (
        ("release", "EXERCISE", "exercises to write (default: all)"),
        ("bundle", "FILE", "the archive (default: build/specdec-course.zip)"),
        ("class", "SOURCE", "folders or zip archives of hand-ins"),
        ("autograde", "NOTEBOOK", "hand-ins, or names of exercises (default: all that was handed in before)"),
        ("mark", "EXERCISE", "exercises whose answers are to be marked (default: all)"),
    ):
        nargs = "?" if name == "bundle" else "*"
        each[name].add_argument("what", nargs=nargs, metavar=metavar, help=text)
    each["release"].add_argument(
        "--check", action="store_true", help="write nothing; list what is not as generated, exit code 1 if anything is"
    )
    each["class"].add_argument("--student", metavar="NAME", help="grade this student alone")
    each["class"].add_argument("--regrade", action="store_true", help="also grade again what has not changed")
    each["class"].add_argument("--jobs", type=int, default=1, metavar="N", help="hand-ins at a time (default 1)")
    each["autograde"].add_argument("--student", metavar="NAME", help="whose work it is (default me)")
    mark = each["mark"]
    mark.add_argument("--student", metavar="NAME", help="whose answer (default with --points: me)")
    mark.add_argument("--points", type=float, metavar="X", help="what the answer is worth; needs one EXERCISE")
    mark.add_argument("--comment", metavar="TEXT", help="a sentence for the student's feedback page")
    each["report"].add_argument("--feedback", action="store_true", help="also write the feedback pages again")
    each["report"].add_argument("--json", action="store_true", help="one JSON object per graded task, nothing else")
    for name in ("class", "export"):
        _add_table(each[name])
    for name, sub in each.items():
        sub.add_argument("--course", type=Path, default=Path(), metavar="DIR", help="the course's folder (default: .)")
        if name in ("class", "autograde", "bundle"):
            text = "a folder to leave out as well" if name == "bundle" else "your own hidden tests, DIR/EXERCISE.py"
            sub.add_argument("--private", type=Path, metavar="DIR", help=text)
        if name in ("class", "autograde"):
            _add_limits(sub)


def _add_table(parser: "Parser") -> None:
    group = parser.add_argument_group("grades")
    group.add_argument("--roster", type=Path, metavar="CSV", help="the list of students that the platform exports")
    group.add_argument("--match", default="", metavar="COLUMN", help="the roster's column that identifies a student "
                       "(default: the platform's own)")  # fmt: skip
    group.add_argument("--exercise", metavar="NAME", help="this exercise only (default: all)")
    group.add_argument("--due", type=_moment, metavar="WHEN", help="when it was due, for example 2026-11-20T23:59")
    group.add_argument("--late-percent", type=float, default=0.0, metavar="X",
                       help="percent to take off per day late (default 0)")  # fmt: skip
    group.add_argument("--unread", action="store_true", help="written answers that nobody has read count as 0 "
                       "(default: their cell stays empty)")  # fmt: skip


def _add_limits(parser: "Parser") -> None:
    group = parser.add_argument_group("limits", "For each hand-in, while its code runs.")
    for flag, value, text in (
        ("--cell-seconds", 60, "seconds per cell"), ("--cpu-seconds", 180, "processor seconds of all cells"),
        ("--wall-seconds", 300, "seconds of all cells"), ("--memory-gb", 4, "gigabytes of memory it may write to"),
    ):  # fmt: skip
        group.add_argument(flag, type=int, default=value, metavar="N", help=f"{text} (default {value})")
    group.add_argument("--no-sandbox", action="store_true", help="use the limits alone, no sandbox")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date: write 2026-11-20 or 2026-11-20T23:59") from None


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
            f"{course.root} has no solutions/NAME/NAME.ipynb: go to the course's folder, or name it with --course"
        )
    if args.exercise is not None and args.exercise not in course.names():
        raise UsageError(f"--exercise: there is no {args.exercise!r}; choose from {', '.join(course.names())}")
    if args.private is not None and not args.private.is_dir():
        raise UsageError(f"--private: there is no folder {args.private}")
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
