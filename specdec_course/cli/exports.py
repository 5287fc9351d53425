"""gradebook/grades.csv, and the roster that it is made for."""

import argparse

from specdec_course.grader.course import Course
from specdec_course.grader.harmless import shown
from specdec_course.grader.names import Identity
from specdec_course.grader.roster import match, read_roster
from specdec_course.grader.table import kept_share, table
from specdec_ref.cli.shared import UsageError, say

__all__ = ["Exports"]


class Exports:
    """The roster is read at once, its rows are found before anything is graded, and the table comes at the end."""

    def __init__(self, course: Course, args: argparse.Namespace) -> None:
        self._course, self._args = course, args
        self._roster = None
        if args.match and args.roster is None:
            raise UsageError("--match names a column of the roster: give --roster, too")
        if args.roster is not None:
            try:
                self._roster = read_roster(args.roster.read_bytes())
            except (OSError, ValueError) as error:
                raise UsageError(f"{args.roster}: {error}") from error

    def check(self, everybody: dict[str, Identity]) -> None:
        """Say who has no row, or end the run if nobody has."""
        if self._roster is not None:
            if self._roster.kind == "moodle" and self._args.exercise is None and len(self._course.names()) > 1:
                raise UsageError("Moodle's worksheet is of one assignment: say of which, --exercise NAME")
            try:
                _, problems = match(self._roster, everybody, self._args.match)
            except ValueError as error:
                raise UsageError(str(error)) from error
            for line in problems:
                say(shown(line), style="")

    def write(self, everybody: dict[str, Identity]) -> None:
        """The table, of all that is in the gradebook."""
        course, args = self._course, self._args
        marks = [mark for mark in course.marks() if args.exercise in (None, mark.exercise)]
        people = course.students()
        known = {mark.student: people.of(mark.student) for mark in marks} | everybody
        rows, problems = match(self._roster, known, args.match) if self._roster and known else ({}, [])
        shares = {pair: self._share(pair) for pair in {(mark.student, mark.exercise) for mark in marks}}
        text, warnings = table(marks, [*known], self._roster, rows, unread=args.unread, shares=shares)
        path = course.root / "gradebook" / "grades.csv"
        path.write_bytes(text)
        for line in [*problems, *warnings]:
            say(shown(line), style="")
        print(path)

    def _share(self, pair: tuple[str, str]) -> float:
        about = self._course.about(*pair)
        return kept_share(about.get("when", ""), about.get("late", False), self._args.due, self._args.late_percent)
