"""Folders and archives of what a class handed in -> one hand-in per student and exercise.

Whose a file is, is told by the name that the platform gave it (`names`); a zip archive inside belongs to whoever handed
it in, whatever it holds. Which exercise it is, is told by the notebook's cells, else by its name. Each student's files
are looked at in a process of their own (`isolated`). Every file ends up in a hand-in or in `Collected.aside`, with a
reason: nothing is lost.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from specdec_course.grader.archives import CLASS_BYTES, IGNORED, STUDENT_BYTES, names_in, unpack, unpack_class
from specdec_course.grader.handin import MAX_BYTES, recognised
from specdec_course.grader.harmless import shown
from specdec_course.grader.isolated import Bounds, Job, isolated, run_all
from specdec_course.grader.names import COPY, TIME, Identity, Upload, parse, platform_of, readings, settled
from specdec_course.grader.students import Students

__all__ = ["Collected", "HandIn", "collect"]

SURVEY, OPENING = Bounds(60, 60), Bounds(1800, 900, file_bytes=CLASS_BYTES)
MOST_FILES = 500  # of one student that are looked at
OF_MANY = (
    "the names in this archive look like those of several students. If you downloaded it from your platform, give it "
    "to the command by itself. If a student handed it in, do not: that student chose these names"
)
RECEIPT = re.compile(r"^Name: .*\((?P<user>[^()]+)\)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HandIn:
    """`file` is None if there was none; `note` is then, and for other oddities, a sentence for the student."""

    student: str
    exercise: str
    file: Path | None
    note: str = ""
    when: str = ""  # it was handed in, as far as is known
    late: bool = False  # the platform says so


@dataclass(slots=True)
class Collected:
    """All of it. `aside`: files that are no hand-in, with the reason."""

    hand_ins: list[HandIn] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _File:
    """One file of a student's. `written`: its own date, which may be of the student's choosing."""

    path: Path
    exercise: str | None
    upload: Upload
    handed_in: float
    written: float
    trouble: str = ""


def collect(
    sources: Sequence[Path],
    releases: Mapping[str, Any],
    scratch: Path,
    students: Students,
    default: str | None = None,
    jobs: int = 1,
) -> Collected:
    """Sort these folders and archives. `default`: the exercise of whoever handed in nothing that names one."""
    found = Collected()
    folders_in = [_folder(source, scratch / f"in{at}", found) for at, source in enumerate(sources)]
    uploads = [pair for folder in folders_in for pair in _uploads(folder, releases, found)]
    folders = students.folders({upload.who for _, upload in uploads})
    files: dict[str, list[_File]] = defaultdict(list)
    each = min(STUDENT_BYTES, CLASS_BYTES // max(1, len(uploads)))  # so that all archives together have a limit
    todo = [Job((at, pair), _survey, (*pair, scratch / f"u{at}", releases, each)) for at, pair in enumerate(uploads)]
    for (_, (top, upload)), theirs in _surveyed(todo, jobs, releases, found):
        if not theirs and top.is_dir():
            found.aside.append(f"{top.name}: an empty folder")
        files[folders[upload.who]] += theirs
    told = {each.exercise for theirs in files.values() for each in theirs if each.exercise}
    only = default or (next(iter(told)) if len(told) == 1 else None)
    for student, theirs in sorted(files.items()):
        _sort(student, theirs, only, found)
    found.hand_ins.sort(key=lambda each: (each.student, each.exercise))
    found.aside = [shown(line) for line in found.aside]
    return found


def _folder(source: Path, into: Path, found: Collected) -> Path:
    """The folder that it is, or what a platform's archive holds."""
    if source.is_dir():
        return source
    done = isolated(_open, source, into, bounds=OPENING)
    found.aside += [f"{source.name}: {why}" for why in [done.error] if why] + [
        f"{source.name}: {why}" for why in done.value or []
    ]
    into.mkdir(parents=True, exist_ok=True)
    return into


def _open(source: Path, into: Path) -> list[str]:
    return unpack_class(source, into).trouble


def _uploads(folder: Path, releases: Mapping[str, Any], found: Collected) -> list[tuple[Path, Upload]]:
    """The files and folders directly below, each with whose it is."""
    named, receipts = list[tuple[Path, Upload]](), dict[str, str]()
    tops = [top for top in sorted(folder.iterdir()) if top.name not in IGNORED and top.name != "index.html"]
    platform = platform_of((top.name, top.is_dir()) for top in tops)
    for top in tops:
        if top.is_symlink() or not (top.is_dir() or top.is_file()):
            found.aside.append(f"{top.name}: a link or no file, which is not followed")
            continue
        try:
            upload = parse(top.name, releases, folder=top.is_dir(), platform=platform)
        except ValueError as error:
            found.aside.append(f"{top.name}: {error}")
            continue
        if upload is None:
            found.aside.append(f"{top.name}: its name names no student")
        elif upload.who.platform == "plain" and top.suffix.lower() == ".zip" and isolated(_of_many, top).value:
            found.aside.append(f"{top.name}: {OF_MANY}")
        elif upload.who.platform == "blackboard" and not upload.file:
            receipts |= _receipt(top, upload.who.user)
        else:
            named.append((top, upload))
    return list(zip((top for top, _ in named), settled([upload for _, upload in named], receipts), strict=True))


def _of_many(archive: Path) -> bool:
    """Whether an archive holds what a platform gives out, rather than one student's files."""
    people: dict[str, set[Identity]] = defaultdict(set)
    for name in names_in(archive):
        top, slash, _ = name.partition("/")
        with suppress(ValueError):
            for platform, upload in readings(top, folder=bool(slash)).items():
                people[platform].add(upload.who)
    return any(len(each) > 1 for each in people.values())


def _receipt(path: Path, head: str) -> dict[str, str]:
    """Blackboard writes the student's user name into the text file of an attempt."""
    with path.open("rb") as stream:
        said = RECEIPT.search(stream.read(2000).decode("utf-8-sig", "replace"))
    return {head: said["user"]} if said and head.endswith(f"_{said['user']}") else {}


def _survey(top: Path, upload: Upload, into: Path, releases: Mapping[str, Any], left: int) -> list[list[Any]]:
    """What one upload holds: [path, exercise, written, what is wrong], of each file. `left`: bytes to unpack."""
    paths = (
        [top]
        if top.is_file()
        else [path for path in sorted(top.rglob("*")) if not IGNORED & {*path.relative_to(top).parts}]
    )
    rows = list[list[Any]]()
    paths = [path for path in paths if path.is_symlink() or not path.is_dir()]
    if len(paths) > MOST_FILES:
        rows.append([str(top), None, 0.0, f"of its {len(paths):,} files {MOST_FILES} were looked at"])
    for at, path in enumerate(paths[:MOST_FILES]):
        if path.is_symlink() or not path.is_file():
            rows.append([str(path), None, 0.0, "a link or no file, which is not followed"])
        elif path.suffix.lower() != ".zip":
            rows.append([str(path), _exercise(path, upload.file or path.name, releases), path.stat().st_mtime, ""])
        else:
            inner = unpack(path, into / str(at), left)
            left -= sum(file.stat().st_size for file in inner.files)
            rows += [
                [str(file), _exercise(file, file.name, releases), file.stat().st_mtime, ""] for file in inner.files
            ]
            if inner.trouble or not inner.files:
                why = (
                    "; ".join(inner.trouble[:3])
                    or f"it holds no notebook but {', '.join(inner.others[:5]) or 'nothing'}"
                )
                rows.append([str(path), _by_name(upload.file or path.name, releases), path.stat().st_mtime, why])
    return rows


def _surveyed(
    todo: Sequence[Job], jobs: int, releases: Mapping[str, Any], found: Collected
) -> Iterator[tuple[Any, list[_File]]]:
    for job, done in run_all(todo, jobs, SURVEY):
        top, upload, into, *_ = job.args
        rows = done.value
        if done.error:
            rows = [[str(top), _by_name(upload.file or top.name, releases), 0.0, f"it could not be read: {done.error}"]]
        theirs = []
        for path, exercise, written, trouble in rows:
            about = upload if not Path(path).is_relative_to(into) else replace(upload, file=Path(path).name)
            outer = Path(path) if about is upload else top
            theirs.append(_File(Path(path), exercise, about, outer.lstat().st_mtime, written, trouble))
        yield job.key, theirs


def _exercise(path: Path, name: str, releases: Mapping[str, Any]) -> str | None:
    """By its cells, else by its name: also that of a file that is no notebook."""
    if path.suffix.lower() == ".ipynb" and path.stat().st_size <= MAX_BYTES:
        by_cells = recognised(path.read_bytes(), dict(releases))
        if by_cells is not None:
            return by_cells
    return _by_name(name, releases)


def _by_name(name: str, releases: Mapping[str, Any]) -> str | None:
    return next((each for each in releases if each.lower() in name.lower()), None)


def _sort(student: str, files: Sequence[_File], only: str | None, found: Collected) -> None:
    """One student's files: a hand-in for each exercise that they name. Those that name none are of the only one."""
    told: dict[str, list[_File]] = defaultdict(list)
    for each in files:
        if each.exercise:
            told[each.exercise].append(each)
    for each in files:
        if (
            not each.exercise
            and not told
            and only
            and not (each.trouble and each.written == 0.0 and each.path.is_symlink())
        ):
            told[only].append(each)
    placed = {id(each) for theirs in told.values() for each in theirs}
    for each in files:
        if id(each) not in placed:
            found.aside.append(f"{student}: {each.path.name}: {each.trouble or 'of no exercise'}")
    found.hand_ins += [_chosen(student, name, theirs, found.aside) for name, theirs in told.items()]


def _chosen(student: str, name: str, files: Sequence[_File], aside: list[str]) -> HandIn:
    """Of several notebooks that of the latest attempt, then the one that was written last; without any, a note."""
    notebooks = [each for each in files if each.path.suffix.lower() == ".ipynb" and not each.trouble]
    broken = [f"{_called(each)}: {each.trouble}" for each in files if each.trouble]
    if not notebooks:
        called = ", ".join(broken or [_called(each) for each in files])
        last = max(files, key=_order)
        why = f"What you handed in ({called}) has no notebook that can be read. Hand in {name}.ipynb itself."
        return HandIn(student, name, None, shown(why), _when(last), last.upload.late)
    latest = max(notebooks, key=_order)
    own = _called(latest)
    aside += [f"{student}, {name}: {_called(each)} is not the latest notebook" for each in files if each is not latest]
    plain = COPY.sub("", Path(own).stem)
    notes = (
        []
        if name.lower() in plain.lower()
        else [f"Your file was called {own}; it was recognised as {name} by its cells."]
    )
    if len(notebooks) > 1:
        notes.append(f"You handed in {len(notebooks)} notebooks; the one handed in or written last counts, {own}.")
    notes += [f"Something that you handed in could not be read: {why}." for why in broken]
    return HandIn(student, name, latest.path, shown(" ".join(notes)), _when(latest), latest.upload.late)


def _called(each: _File) -> str:
    return each.upload.file or each.path.name


def _order(each: _File) -> tuple[str, float, str]:
    return each.upload.attempt, each.written, each.path.name


def _when(each: _File) -> str:
    """The platform's time of the attempt if it gives one, else the date of the file that it gave."""
    if each.upload.attempt.count("-") == 5:
        return datetime.strptime(each.upload.attempt, TIME).isoformat()
    try:
        return datetime.fromtimestamp(each.handed_in).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # a date that no calendar has
        return ""
