"""What `specdec grade` does, action by action."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from specdec_course.cli.exports import Exports
from specdec_course.grader import bundle as bundles
from specdec_course.grader.classroom import HandIn
from specdec_course.grader.classrun import (
    ClassRun,
    Options,
    again_one,
    alike,
    bounds,
    grade_class,
    grade_one,
    write_pages,
)
from specdec_course.grader.course import Course
from specdec_course.grader.forked import warm
from specdec_course.grader.harmless import shown
from specdec_course.grader.isolated import isolated
from specdec_course.grader.marks import Mark
from specdec_course.grader.names import as_student
from specdec_course.grader.policy import namespaces
from specdec_ref.cli.shared import UsageError, plural, say

__all__ = ["autograde", "bundle", "export", "mark", "release", "report", "whole_class"]


def release(course: Course, names: Sequence[str], *, check: bool) -> int:
    """Generate what students get, or say where it is not what is generated."""
    if not check:
        for folder in course.release(names):
            print(folder.relative_to(course.root))
        return 0
    stale = course.stale(names)
    for line in stale:
        print(line)
    say(
        "these differ from solutions/: run `specdec grade release`"
        if stale
        else f"{plural(len(names), 'exercise')} as generated",
        style="",
    )
    return 1 if stale else 0


def bundle(course: Course, file: str | None) -> int:
    """The course as a zip archive."""
    if stale := course.stale(course.names()):
        raise UsageError(f"{stale[0]}: run `specdec grade release` first")
    path = Path(file) if file else course.root / "build" / "specdec-course.zip"
    count = bundles.bundle(course.root, path, course.private)
    print(f"{path}: {count} files, {path.stat().st_size / 1e6:.0f} MB")
    return 0


def whole_class(course: Course, args: argparse.Namespace) -> int:
    """Folders and archives of hand-ins, from collecting to grades.csv."""
    sources = [Path(name) for name in args.what]
    for source in sources:
        if not source.is_dir() and not (source.is_file() and source.suffix.lower() == ".zip"):
            raise UsageError(f"{source} is neither a folder nor a zip archive: name what the platform gives you")
    if not sources:
        raise UsageError("name the folder or the zip archive of the hand-ins; see `specdec grade class --help`")
    known = Exports(course, args)  # the roster is read before anything is graded
    _say_how_safe(course)
    done = grade_class(
        course,
        sources,
        Options(args.exercise, args.student, args.regrade, args.jobs),
        check=known.check,
        tell=lambda line: say(line, style=""),
    )
    _summary(course, done)
    known.write(done.everybody)
    return 1 if done.failed else 0


def _summary(course: Course, done: ClassRun) -> None:
    touched = {*done.graded, *done.unchanged}
    marks = {pair: [*group] for pair, group in groupby(course.marks(), key=lambda mark: (mark.student, mark.exercise))}
    for student, name in sorted(touched):
        tasks = marks.get((student, name), [])
        each = " ".join("?" if mark.points is None else f"{mark.points:g}" for mark in tasks)
        total, out_of = sum(mark.points or 0.0 for mark in tasks), sum(mark.out_of for mark in tasks)
        print(f"{student:24} {name:18} {total:5g} of {out_of:<4g} {each}")
        about = course.about(student, name)
        for line in [*about.get("notes", []), *(f"look at it: {look}" for look in about.get("looks", []))]:
            print(f"    {shown(line)}")
    for line in alike(course, sorted({name for _, name in touched})):
        print(line)
    for line in done.aside:
        print(f"set aside  {shown(line)}")
    for (student, name), why in done.failed.items():
        print(f"NOT GRADED  {student}, {name}: {shown(why)}")
    counts = f"{len(done.graded) - len(done.failed)} graded, {len(done.unchanged)} unchanged, {len(done.failed)} failed"
    print(f"{counts}, {len(done.aside)} set aside; pages in {course.root / 'gradebook' / 'feedback'}")


def _say_how_safe(course: Course) -> None:
    why = namespaces() if course.allowance.boxed else "--no-sandbox"
    if why:
        say(f"student code runs under limits but in no sandbox here ({why}): docs/INSTRUCTORS.md", style="")


def export(course: Course, args: argparse.Namespace) -> int:
    """The table for the learning platform."""
    Exports(course, args).write({})
    return 0


def autograde(course: Course, what: Sequence[str], student: str | None) -> int:
    """Hand-ins one by one."""
    paths = [Path(name) for name in what if name.endswith(".ipynb")]
    names = [name for name in what if not name.endswith(".ipynb")]
    whose = as_student(student or "me")
    todo = []
    for path in paths:
        if path.stem not in course.names():
            raise ValueError(
                f"{path.name} has no exercise's name: rename it to NAME.ipynb, NAME from {', '.join(course.names())}"
            )
        todo.append(HandIn(whose, path.stem, path))
    if names or not paths:
        todo += [HandIn(who, name, None) for who, name in course.submissions(names or course.names(), student)]
    if not todo:
        raise UsageError("nothing was handed in before: name a NOTEBOOK, or give a folder to `specdec grade class`")
    for name in sorted({each.exercise for each in todo}):
        course.prepare(name)
    _say_how_safe(course)
    failed = 0
    with warm(course.allowance.boxed and len(todo) > 1):
        for each in todo:
            function = again_one if each.file is None else grade_one
            done = isolated(function, course, each, True, bounds=bounds(course))
            failed += bool(done.error)
            about = course.about(each.student, each.exercise).get("notes", [])
            for line in [f"error: {done.error}"] if done.error else about:
                say(shown(f"{each.student}, {each.exercise}: {line}"), style="")
    pairs = {(each.student, each.exercise) for each in todo}
    _table([mark for mark in course.marks() if (mark.student, mark.exercise) in pairs])
    return 1 if failed else 0


def mark(course: Course, names: Sequence[str], student: str | None, points: float | None, comment: str | None) -> int:
    """Each exercise asks for one answer in words."""
    if points is None and student is None:
        return _queue(course, names)
    whose = student or "me"
    if points is not None and len(names) != 1:
        raise UsageError("--points enters the points of one answer: name its EXERCISE")
    for name in names:
        for task, text in course.answers(whose, name).items():
            if points is None:
                print(f"{whose}  {name}, {task}:\n{shown(text, lines=True)}\n")
            else:
                course.mark(whose, name, task, points, comment)
    if points is not None:
        write_pages(course, [(whose, names[0])])
        _table([each for each in course.marks() if (each.student, each.exercise) == (whose, names[0])])
    return 0


def _queue(course: Course, names: Sequence[str]) -> int:
    """All that is to be read, exercise by exercise. On a terminal it asks for each answer's points."""
    unread = [each for each in course.marks() if each.points is None and each.exercise in names]
    for name, group in groupby(sorted(unread, key=lambda each: each.exercise), key=lambda each: each.exercise):
        for task, text in course.rubric(name).items():
            print(f"=== {name}, {task}: our answer, and how to mark\n{text}\n")
        for each in group:
            print(f"--- {each.student}, {each.task}, {each.out_of:g} points\n{_answer(course, each)}\n")
            if sys.stdin.isatty():
                _ask(course, each)
    say(f"{plural(len(unread), 'answer')} to be read" if unread else "no answer is left to be read", style="")
    return 0


def _answer(course: Course, each: Mark) -> str:
    return shown(course.answers(each.student, each.exercise)[each.task], lines=True)


def _ask(course: Course, each: Mark) -> None:
    while given := input(f"points, 0 to {each.out_of:g} (nothing: later): ").strip():
        try:
            comment = input("a sentence for the student (nothing: none): ").strip()
            course.mark(each.student, each.exercise, each.task, float(given), comment or None)
        except ValueError as error:
            print(error)
        else:
            write_pages(course, [(each.student, each.exercise)])
            return


def report(course: Course, *, feedback: bool, as_json: bool) -> int:
    """Who has how many points."""
    marks = course.marks()
    if not marks:
        say("nothing is graded yet: `specdec grade autograde PATH`", style="")
    if feedback:
        pages, trouble = write_pages(course, sorted({(each.student, each.exercise) for each in marks}))
        for line in [*(str(path.parent.relative_to(course.root)) for path in pages), *trouble]:
            print(line)
    if as_json:
        for each in marks:
            print(json.dumps(asdict(each)))
    else:
        _table(marks)
    return 0


def _table(marks: Sequence[Mark]) -> None:
    for (student, exercise), group in groupby(marks, key=lambda mark: (mark.student, mark.exercise)):
        tasks = list(group)
        known = [mark for mark in tasks if mark.points is not None]
        total, out_of = sum(mark.points or 0.0 for mark in known), sum(mark.out_of for mark in known)
        print(f"{student}  {exercise}: {total:g} of {out_of:g} points")
        for mark in tasks:
            earned = "to be read by a person" if mark.points is None else f"{mark.points:g}"
            print(f"  {mark.task.removesuffix('-tests'):16} {earned:>6} of {mark.out_of:g}")
