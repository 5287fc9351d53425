"""A folder of what a class handed in -> one hand-in a student and exercise, whatever the files are called.

Read as it comes from a learning platform, folders and zip archives in it included:

    STUDENT/02_verification.ipynb                              a folder a student, as nbgrader's own
    Ada Lovelace_1234_assignsubmission_file_/homework.ipynb    Moodle
    lovelaceada_LATE_567_890_02_verification-1.ipynb           Canvas: one folder, names in front

The exercise is told by the file's name or, if that was changed, by the notebook's cells. Every file ends up in a
hand-in or in `Collected.aside`, with a reason: nothing is lost.
"""

import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from specdec_course.grader.handin import MAX_BYTES, recognised

__all__ = ["Collected", "HandIn", "as_student", "collect"]

ARCHIVE_FILES, ARCHIVE_BYTES = 2_000, 2_000_000_000
MOODLE = re.compile(r"_assignsubmission_\w*$")
PLATFORM = {"__MACOSX", ".ipynb_checkpoints", ".git", ".DS_Store"}


@dataclass(frozen=True, slots=True)
class HandIn:
    """`file` is None if there was none; `note` is then, and for other oddities, a sentence for the student."""

    student: str
    exercise: str
    file: Path | None
    note: str = ""


@dataclass(slots=True)
class Collected:
    """All of it. `aside`: files that are no hand-in, with the reason."""

    hand_ins: list[HandIn] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)


def collect(folder: Path, releases: Mapping[str, Any], scratch: Path, default: str | None = None) -> Collected:
    """Sort a folder's files. `default`: the exercise of whoever handed in nothing that names one."""
    found = Collected()
    by_student: dict[str, list[Path]] = defaultdict(list)
    for top, path in _files(folder, scratch, found.aside):
        by_student[_student(top, path, releases)].append(path)
    told: dict[tuple[str, str], list[Path]] = defaultdict(list)
    others: dict[str, list[Path]] = defaultdict(list)
    for student, paths in sorted(by_student.items()):
        for path in paths:
            name = _exercise(path, releases)
            (told[student, name] if name else others[student]).append(path)
    only = default or _only({name for _, name in told})
    for (student, name), paths in told.items():
        found.hand_ins.append(_chosen(student, name, paths, found.aside))
    for student, paths in others.items():
        _without_name(student, paths, only, found)
    found.hand_ins.sort(key=lambda each: (each.student, each.exercise))
    return found


def _files(folder: Path, scratch: Path, aside: list[str]) -> Iterator[tuple[str, Path]]:
    """(name of the first folder below, or "", file), archives unpacked. A folder without files counts as empty file."""
    for top in sorted(folder.iterdir()):
        paths = sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top]
        if top.is_dir() and not any(path.is_file() for path in paths):
            aside.append(f"{top.name}: an empty folder")
        for path in paths:
            about = str(path.relative_to(folder))
            if PLATFORM & {*path.relative_to(folder).parts}:
                continue
            if path.is_symlink():
                aside.append(f"{about}: a link, which is not followed")
            elif path.is_file() and path.suffix.lower() == ".zip":
                inner = scratch / f"{len(list(scratch.iterdir()))}" / path.stem
                if why := _unpack(path, inner):
                    aside.append(f"{about}: {why}")
                elif top.is_dir():
                    yield from ((top.name, file) for file in sorted(inner.rglob("*")) if file.is_file())
                else:
                    yield from _files(inner, scratch, aside)
            elif path.is_file():
                yield (top.name if top.is_dir() else ""), path


def _unpack(archive: Path, into: Path) -> str:
    """Why not, or "". `zipfile` itself takes nothing out of the folder and makes no links."""
    into.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > ARCHIVE_FILES or sum(member.file_size for member in members) > ARCHIVE_BYTES:
                return "an archive of too many or too large files"
            for member in members:
                when = datetime(*member.date_time).timestamp()
                os.utime(opened.extract(member, into), (when, when))
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        return f"an archive that cannot be read ({error})"
    return ""


def _student(top: str, path: Path, releases: Mapping[str, Any]) -> str:
    if top:
        name = MOODLE.sub("", top)
    else:
        whole = path.stem
        at = max((whole.lower().rfind(each.lower()) for each in releases), default=-1)
        name = whole[:at] if at > 0 else whole
    return as_student(re.sub(r"_(LATE|late)(?=_|$)", "", name))


def as_student(name: str) -> str:
    """A name as that of a folder: letters of any alphabet, digits and a few signs."""
    return re.sub(r"[^\w.@-]+", "-", name).strip("-_.") or "unnamed"


def _exercise(path: Path, releases: Mapping[str, Any]) -> str | None:
    """By its cells, else by its name: also that of a file that is no notebook."""
    if path.suffix.lower() == ".ipynb" and path.stat().st_size <= MAX_BYTES:
        by_cells = recognised(path.read_bytes(), dict(releases))
        if by_cells is not None:
            return by_cells
    return next((name for name in releases if name.lower() in path.stem.lower()), None)


def _only(names: set[str]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


def _chosen(student: str, name: str, paths: Sequence[Path], aside: list[str]) -> HandIn:
    """Of several notebooks the one that was written last; without any, nothing and a note."""
    notebooks = [path for path in paths if path.suffix.lower() == ".ipynb"]
    if not notebooks:
        files = ", ".join(path.name for path in paths)
        return HandIn(
            student, name, None, f"What you handed in ({files}) has no notebook. Hand in {name}.ipynb itself."
        )
    latest = max(notebooks, key=lambda path: (path.stat().st_mtime, path.name))
    aside += [f"{student}, {name}: {path.name} is not the latest notebook" for path in paths if path != latest]
    plain = re.sub(r"( ?\(\d+\)|-\d+)$", "", latest.stem)
    called = f"Your file was called {latest.name}; it was recognised as {name} by its cells."
    notes = [called] if not plain.lower().endswith(name.lower()) else []
    if len(notebooks) > 1:
        notes.append(f"You handed in {len(notebooks)} notebooks; the one written last counts, {latest.name}.")
    return HandIn(student, name, latest, " ".join(notes))


def _without_name(student: str, paths: Sequence[Path], only: str | None, found: Collected) -> None:
    """Files that name no exercise. Who has handed in nothing else gets a mark and a page all the same."""
    if only is None or any(each.student == student for each in found.hand_ins):
        found.aside.append(f"{student}: {', '.join(path.name for path in paths)}: of no exercise")
    else:
        found.hand_ins.append(_chosen(student, only, paths, found.aside))
