"""Zip archives opened with care: of a class's download everything, of a student's archive the notebooks.

Nothing is believed that an archive says of itself: bytes are counted as they come out, and a damaged file costs that
file alone. `zipfile` writes nothing outside the folder and makes no links.
"""

import os
import shutil
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

__all__ = ["CLASS_BYTES", "STUDENT_BYTES", "Unpacked", "names_in", "unpack", "unpack_class"]

CLASS_BYTES, STUDENT_BYTES = (
    20_000_000_000,
    250_000_000,
)  # unpacked: of all of a class's files; of one archive's notebooks
CLASS_FILES, STUDENT_FILES = 50_000, 2_000
CHUNK = 1 << 20
IGNORED = {"__MACOSX", ".ipynb_checkpoints", ".git", ".DS_Store"}


@dataclass(slots=True)
class Unpacked:
    """Files that came out, names of those that were left in, and what went wrong, a sentence each."""

    files: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)


def unpack(archive: Path, into: Path, most: int = STUDENT_BYTES) -> Unpacked:
    """The notebooks of a student's archive, `most` bytes of them."""
    return _unpack(archive, into, most, STUDENT_FILES, notebooks_only=True)


def unpack_class(archive: Path, into: Path) -> Unpacked:
    """All of a platform's download."""
    return _unpack(archive, into, CLASS_BYTES, CLASS_FILES, notebooks_only=False)


def names_in(archive: Path) -> list[str]:
    """The names of its files, as many as are looked at; none if it cannot be opened."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return [_name(member) for member in opened.infolist()[:STUDENT_FILES]]
    except Exception:  # noqa: BLE001  (`unpack` says what is the matter)
        return []


def _unpack(archive: Path, into: Path, most: int, files: int, *, notebooks_only: bool) -> Unpacked:
    done = Unpacked()
    into.mkdir(parents=True, exist_ok=True)
    try:
        opened = zipfile.ZipFile(archive)
    except Exception as error:  # noqa: BLE001  (a damaged directory raises whatever struct or the codecs raise)
        done.trouble.append(f"it cannot be opened ({_reason(error)})")
        return done
    with opened:
        members = [each for each in opened.infolist() if not each.is_dir()]
        if len(members) > files:
            done.trouble.append(f"it holds {len(members):,} files; {files:,} are the most")
        for member in members[:files]:
            path = PurePosixPath(_name(member))
            if IGNORED & {*path.parts}:
                continue
            if notebooks_only and path.suffix.lower() != ".ipynb":
                done.others.append(path.name)
                continue
            try:
                most -= _write(opened, member, place := _place(into, path), most)
            except Exception as error:  # noqa: BLE001  (of this file; the next may be whole)
                done.trouble.append(f"{path.name} in it cannot be read ({_reason(error)})")
            else:
                done.files.append(place)
    return done


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path, most: int) -> int:
    """Write one file; returns its bytes. Raises if it has more than `most`, and leaves nothing then."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _require(shutil.disk_usage(place.parent).free > 2 * CHUNK + min(member.file_size, most), "the disk is full")
    written = 0
    try:
        with opened.open(member) as stream, place.open("xb") as target:
            while chunk := stream.read(CHUNK):
                written += len(chunk)
                _require(written <= most, "the archive unpacks to too many bytes")
                target.write(chunk)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    with suppress(ValueError, OverflowError, OSError):  # a date that is none: it keeps that of now
        when = datetime(*member.date_time).timestamp()
        os.utime(place, (when, when))
    return written


def _require(met: bool, why: str) -> None:
    if not met:
        raise ValueError(why)


def _name(member: zipfile.ZipInfo) -> str:
    """Without the flag for UTF-8, `zipfile` takes a name for code page 437; many programs forget the flag."""
    name = member.filename
    if not member.flag_bits & 0x800:
        try:
            return name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return name


def _place(into: Path, path: PurePosixPath) -> Path:
    """Below `into`, whatever the name says, and free."""
    parts = [part.replace("\\", "_").replace("\0", "_")[-150:] for part in path.parts if part not in ("..", "/", ".")]
    place = into.joinpath(*parts[-20:] or ["unnamed"])
    number = 1
    while place.exists():
        place = place.with_name(f"{place.stem} ({number}){place.suffix}")
        number += 1
    return place


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
