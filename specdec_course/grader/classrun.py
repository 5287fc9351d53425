"""A whole class in one go: collect, check the roster, grade what is new, write pages. One hand-in's failure is its own.

Each hand-in is received, judged and rendered in a process of its own (`isolated`). If that process raises, it is tried
again alone, since two may have met in the database. If it dies, hangs or fails again, the hand-in becomes one without
answers, whose note gives the reason, and the next run tries the file again.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from specdec_course.grader.classroom import HandIn, collect
from specdec_course.grader.course import Course
from specdec_course.grader.feedback import page, plain_page
from specdec_course.grader.forked import warm
from specdec_course.grader.harmless import shown
from specdec_course.grader.isolated import Bounds, Job, Outcome, isolated, run_all
from specdec_course.grader.names import Identity
from specdec_course.grader.similar import similar

__all__ = ["ClassRun", "Options", "again_one", "alike", "bounds", "grade_class", "grade_one", "write_pages"]

Pair = tuple[str, str]  # student, exercise
PAGE = Bounds(60, 60, 2_000_000_000)
START_SECONDS = 300  # for a kernel to start, on a busy machine


@dataclass(frozen=True, slots=True)
class Options:
    """`exercise`, `student`: only these. `again`: also what has not changed. `jobs`: hand-ins at a time."""

    exercise: str | None = None
    student: str | None = None
    again: bool = False
    jobs: int = 1


@dataclass(slots=True)
class ClassRun:
    """What was done. `failed`: hand-ins that count as empty because grading them failed, with reasons."""

    graded: list[Pair] = field(default_factory=list)
    unchanged: list[Pair] = field(default_factory=list)
    failed: dict[Pair, str] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)
    everybody: dict[str, Identity] = field(default_factory=dict)  # who handed in anything


def grade_class(
    course: Course,
    sources: Sequence[Path],
    options: Options,
    *,
    check: Callable[[dict[str, Identity]], None],
    tell: Callable[[str], None],
) -> ClassRun:
    """Grade folders and archives of hand-ins. What was graded before, the same bytes by the same tests, is left.

    `check` is given everybody before anything is graded; what it raises ends the run.
    """
    done = ClassRun()
    names = [options.exercise] if options.exercise else course.names()
    with warm(course.allowance.boxed), tempfile.TemporaryDirectory(prefix="specdec-class-") as scratch:
        for name in names:
            course.prepare(name)
        Path(scratch).chmod(0o711)
        students = course.students()
        releases = {name: course.released(name) for name in names}
        found = collect(sources, releases, Path(scratch), students, options.exercise, options.jobs)
        done.aside = found.aside
        wanted = students.called(options.student) if options.student else None
        hand_ins = [each for each in found.hand_ins if wanted is None or each.student in wanted]
        if options.student and not hand_ins:
            raise ValueError(f"nothing there was handed in by {options.student}")
        done.everybody = {each.student: students.of(each.student) for each in found.hand_ins}
        check(done.everybody)
        _grade_all(course, hand_ins, options, done, tell)
    return done


def _grade_all(
    course: Course, hand_ins: Sequence[HandIn], options: Options, done: ClassRun, tell: Callable[[str], None]
) -> None:
    course.preload(sorted({each.exercise for each in hand_ins}))
    jobs = [Job(each, grade_one, (course, each, options.again)) for each in hand_ins]
    failed = list[tuple[HandIn, Outcome]]()
    for number, (job, outcome) in enumerate(run_all(jobs, options.jobs, bounds(course)), 1):
        pair = (job.key.student, job.key.exercise)
        tell(f"[{number} of {len(jobs)}] {pair[0]}, {pair[1]}{': ' + shown(outcome.error) if outcome.error else ''}")
        if outcome.error:
            failed.append((job.key, outcome))
        else:
            (done.graded if outcome.value else done.unchanged).append(pair)
    for each, outcome in failed:
        again = isolated(grade_one, course, each, True, bounds=bounds(course)) if outcome.raised else outcome
        if again.error:
            done.failed[each.student, each.exercise] = shown(_emptied(course, each, again.error))
        done.graded.append((each.student, each.exercise))
    done.graded.sort()
    rendered = [*done.graded, *(pair for pair in done.unchanged if not course.page(*pair).is_file())]
    done.aside += write_pages(course, rendered, options.jobs)[1]


def bounds(course: Course) -> Bounds:
    """Of the process that grades one hand-in; the box in which its code runs has the limits of `Allowance`."""
    limits = course.allowance
    seconds = START_SECONDS + limits.wall_seconds + 2 * limits.cell_seconds
    return Bounds(seconds, seconds)


def grade_one(course: Course, each: HandIn, again: bool) -> bool:
    """Receive, judge and render one hand-in; False if just this is graded already."""
    pair = (each.student, each.exercise)
    new = course.hand_in(*pair, each.file, each.note, when=each.when, late=each.late)
    if not new and not again:
        return False
    course.page(*pair).unlink(missing_ok=True)  # if this run ends here, the next one makes it
    course.autograde(*pair)
    return True


def again_one(course: Course, each: HandIn, _: bool) -> bool:
    """Judge once more what was received before."""
    course.autograde(each.student, each.exercise)
    return True


def _emptied(course: Course, each: HandIn, why: str) -> str:
    """Grade it as a hand-in without answers. Returns the reason, or reasons."""
    last = shown((why.strip().splitlines() or [""])[-1])  # of a traceback, what was raised
    note = f"What you handed in could not be graded ({last}). It counts as empty until somebody has looked at it."
    done = isolated(_grade_empty, course, each, note, bounds=bounds(course))
    return f"{why}; and neither could an empty one be graded: {done.error}" if done.error else why


def _grade_empty(course: Course, each: HandIn, note: str) -> None:
    pair = (each.student, each.exercise)
    course.hand_in(*pair, None, note, final=False, when=each.when, late=each.late)
    course.autograde(*pair)


def write_pages(course: Course, pairs: Sequence[Pair], jobs: int = 1) -> tuple[list[Path], list[str]]:
    """(gradebook/feedback/STUDENT/NAME/NAME.html of these hand-ins, what went wrong).

    A page that cannot be made becomes a plain one with the points.
    """
    trouble = []
    for job, outcome in run_all([Job(pair, _render, (course, *pair)) for pair in pairs], jobs, PAGE):
        why = outcome.error and isolated(_render_plainly, course, *job.key, outcome.error, bounds=PAGE).error
        if why:
            trouble.append(shown(f"{', '.join(job.key)}: its page could not be written ({why})"))
    return [course.page(*pair) for pair in pairs], trouble


def _render(course: Course, student: str, name: str) -> None:
    notebook = nbformat.read(course.graded(student, name), as_version=4)
    text = page(notebook, student, course.marks((student, name)), course.about(student, name).get("notes", []))
    _put(course.page(student, name), text)


def _render_plainly(course: Course, student: str, name: str, why: str) -> None:
    said = [*course.about(student, name).get("notes", []), f"The whole page could not be made ({shown(why)})."]
    _put(course.page(student, name), plain_page(name, student, course.marks((student, name)), said))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8", errors="replace")
    new.replace(path)


def alike(course: Course, names: Sequence[str]) -> list[str]:
    """Hints at answers that students share, a line each; and where answers could not be compared."""
    found = list[str]()
    for name in names:
        done = isolated(_alike, course, name)
        found += [f"look at both  {line}" for line in done.value or []]
        found += [f"not compared  {name}: {shown(done.error)}"] if done.error else []
    return found


def _alike(course: Course, name: str) -> list[str]:
    hand_ins = {
        student: json.loads(course.submitted(student, name).read_text(encoding="utf-8"))
        for student, _ in course.submissions([name])
    }
    ours = [course.released(name), course.source(name)]
    return [
        f"{one} and {other}, {name}: {share:.0%} of the answers alike" for one, other, share in similar(hand_ins, ours)
    ]
