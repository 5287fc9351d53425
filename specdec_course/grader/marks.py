"""Marks in nbgrader's database: read them, and enter those that a person gave."""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook, MissingEntry

from specdec_course.grader.policy import PACKAGES

__all__ = ["Mark", "checks_hash", "enter", "keep_manual", "marks", "own_programs"]

NOT_CHECKS = ("cli", "widgets", "plots.py")  # parts of the two packages that decide no mark


@dataclass(frozen=True, slots=True)
class Mark:
    """One graded cell of one hand-in. `points` is None while a person has to read the answer."""

    student: str
    exercise: str
    task: str
    points: float | None
    out_of: float
    comment: str = ""


def marks(database: str, names: Sequence[str], only: tuple[str, str] | None = None) -> list[Mark]:
    """All graded cells of these exercises; with `only`, of one student's hand-in of one exercise."""
    with own_programs(), Gradebook(database, "specdec") as book:
        found = []
        for name in names:
            if only is None:
                submissions = book.assignment_submissions(name)
            else:
                try:
                    submissions = [book.find_submission(only[1], only[0])] if name == only[1] else []
                except MissingEntry:
                    submissions = []
            found += [mark for submission in submissions for mark in _of(submission, name)]
    return found


def _of(submission: Any, name: str) -> Iterator[Mark]:
    for notebook in submission.notebooks:
        comments = {each.name: each.comment or "" for each in notebook.comments}
        for grade in notebook.grades:
            yield Mark(
                submission.student.id, name, grade.name, _points(grade), grade.max_score, comments.get(grade.name, "")
            )


def enter(database: str, mark: Mark, comment: str | None) -> None:
    """Enter what a written answer is worth. Raises ValueError if the task has no such points."""
    student, name, task, points = mark.student, mark.exercise, mark.task, mark.points or 0.0
    with own_programs(), Gradebook(database, "specdec") as book:
        try:
            grade = book.find_grade(task, name, name, student)
        except MissingEntry as error:
            raise ValueError(f"{student} has nothing to mark in {name}, {task}: {error}") from error
        if not 0 <= points <= grade.max_score:
            raise ValueError(f"{task} is worth 0 to {grade.max_score:g} points, not {points:g}")
        grade.manual_score, grade.needs_manual_grade = points, False
        if comment is not None:
            book.find_comment(task, name, name, student).manual_comment = comment
        book.db.commit()


def keep_manual(database: str, student: str, name: str, task: str) -> None:
    """nbgrader asks to read every answer again that was graded again; one that is the same keeps its mark."""
    with own_programs(), Gradebook(database, "specdec") as book:
        grade = book.find_grade(task, name, name, student)
        if grade.manual_score is not None:
            grade.needs_manual_grade = False
            book.db.commit()


@cache
def checks_hash() -> bytes:
    """Of the code that decides marks: the checks, the reference that they compare with, and the grader."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            inside = path.relative_to(package)
            if inside.parts[0] not in NOT_CHECKS:
                digest.update(f"{package.name}/{inside.as_posix()}".encode() + b"\0" + path.read_bytes())
    return digest.digest()


@contextmanager
def own_programs() -> Iterator[None]:
    """The programs that nbgrader calls (alembic, for a new gradebook) are those of this environment."""
    path = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _points(grade: Any) -> float | None:
    unread = grade.needs_manual_grade or (grade.manual_score is None and grade.auto_score is None)
    return None if unread else float(grade.score)
