"""Whose file is it? The names that learning platforms give to what students hand in, read back.

    lovelaceada_LATE_567_890_homework.ipynb                 Canvas: name, user id, file id, the student's own file name
    Ada Lovelace_1234_assignsubmission_file_/               Moodle: name, participant number (also without a folder)
    Homework_alovelace_attempt_2026-11-20-10-11-12_a.ipynb  Blackboard: assignment, user name, time of the attempt
    1234-567 - Ada Lovelace - Nov 20, 2026 1011 AM/         Brightspace: two numbers, name, time
    ada/ or ada_04_ngram.ipynb                              plain: a folder per student, or the name beside the exercise

Only the platform's part of a name counts, never the part that a student chose. A student's own part may look like
another platform's name. So the platform is the one whose pattern fits every name of a download; without it, a name that
fits two platforms or two people is refused.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile

__all__ = ["TIME", "Identity", "Upload", "as_student", "parse", "platform_of", "readings", "settled"]

CANVAS = re.compile(
    r"(?:(?P<name>[^\W_].*?)_)?(?P<late>(?:LATE|late)_)?(?:(?P<anonymous>anon_[A-Za-z0-9]+)|(?P<user>\d+))"
    r"_(?:(?P<file>\d+)_(?P<own>.+)|(?:text|link)\.html)"
)
MOODLE_FOLDER = re.compile(r"(?P<name>.+)_(?P<user>\d+)_assignsubmission_[a-z]+_?")
MOODLE_FILE = re.compile(r"(?P<name>.+?)_(?P<user>\d+)_assignsubmission_[a-z]+_(?P<own>.+)")
BLACKBOARD = re.compile(r"(?P<head>.+?)_attempt_(?P<when>[0-9]{4}(?:-[0-9]{2}){5})(?:_(?P<own>.+)|\.txt)")
BRIGHTSPACE = re.compile(r"(?P<first>\d+)-(?P<second>\d+) - (?P<name>.+?)(?: - (?P<when>[^-]*\b\d{4} \d{3,4} [AP]M))?")
COPY = re.compile(r"( ?\(\d+\)|-\d+)$")  # what browsers and platforms add to a name that is taken
TIME = "%Y-%m-%d-%H-%M-%S"  # of an attempt: it sorts as text
LONGEST = 100  # bytes of a student's folder name


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """A student as a platform knows them. `user` is unique there; `name` is what it shows, "" if it shows none."""

    platform: str
    user: str
    name: str

    def folder(self) -> str:
        """What their folder in the gradebook is called, unless somebody else has it already."""
        shown = self.user if self.platform in ("blackboard", "plain") else f"{self.name}_{self.user}"
        return as_student(shown)


@dataclass(frozen=True, slots=True)
class Upload:
    """A name, read. `file`: what the student called it, "" for a folder. `attempt`: its time, which sorts, or ""."""

    who: Identity
    file: str = ""
    attempt: str = ""
    late: bool = False


def readings(name: str, *, folder: bool) -> dict[str, Upload]:
    """Platform -> what its pattern makes of a name, for each that fits. Raises ValueError if it may be two people's."""
    name = unicodedata.normalize("NFC", name)
    if name.count("_assignsubmission_") > 1 and not MOODLE_FOLDER.fullmatch(name):
        raise ValueError("its name fits more than one student")
    if folder:
        found = [_moodle(MOODLE_FOLDER.fullmatch(name)), _brightspace(name)]
    else:
        found = [_moodle(MOODLE_FILE.fullmatch(name)), _blackboard(name), _canvas(name)]
    return {each.who.platform: each for each in found if each is not None}


def platform_of(names: Iterable[tuple[str, bool]]) -> str:
    """The one platform whose pattern fits all names (name, whether a folder) of a download that fit any; else "".

    A platform writes its part into every name, and a student changes only their own. Canvas numbers every file: names
    that share that number come from elsewhere.
    """
    fitting = list[dict[str, Upload]]()
    for name, folder in names:
        try:
            found = readings(name, folder=folder)
        except ValueError:  # `parse` refuses it
            continue
        fitting += [found] if found else []
    common = set.intersection(*map(set, fitting)) if fitting else set()
    files = [number for found in fitting if "canvas" in found if (number := found["canvas"].attempt).strip("0")]
    if len({*files}) < len(files):
        common.discard("canvas")
    return common.pop() if len(common) == 1 else ""


def parse(name: str, exercises: Iterable[str], *, folder: bool, platform: str = "") -> Upload | None:
    """Read the name of a file or folder; None if it names no student.

    `platform`: that of the whole download, from `platform_of`. Raises ValueError if the name fits two people or two
    platforms, or has a time that does not exist.
    """
    fits = readings(name, folder=folder)
    if platform in fits:
        return fits[platform]
    if len(fits) > 1:
        raise ValueError(
            f"its name fits {' and '.join(each.capitalize() for each in sorted(fits))}, "
            "so it is not clear whose it is: rename it to STUDENT_EXERCISE.ipynb"
        )
    name = unicodedata.normalize("NFC", name)
    if not fits and not folder and BLACKBOARD.fullmatch(name):
        raise ValueError("the time in its name does not exist")
    return next(iter(fits.values()), None) or (_plain_folder(name) if folder else _plain_file(name, exercises))


def _moodle(found: re.Match[str] | None) -> Upload | None:
    if found is None:
        return None
    return Upload(Identity("moodle", found["user"], found["name"].strip()), found.groupdict().get("own") or "")


def _canvas(name: str) -> Upload | None:
    found = CANVAS.fullmatch(name)
    if found is None or not (found["name"] or found["anonymous"]):
        return None
    who = Identity("canvas", found["user"] or found["anonymous"], found["name"] or "")
    return Upload(who, found["own"] or "text.html", (found["file"] or "").zfill(20), bool(found["late"]))


def _blackboard(name: str) -> Upload | None:
    """The user name is the end of the head. Where it begins, `settled` finds out: both may have underscores."""
    found = BLACKBOARD.fullmatch(name)
    if found is None or not _exists(found["when"]):
        return None
    return Upload(Identity("blackboard", found["head"], ""), found["own"] or "", found["when"])


def _exists(when: str) -> bool:
    try:
        datetime.strptime(when, TIME)
    except ValueError:
        return False
    return True


def _brightspace(name: str) -> Upload | None:
    found = BRIGHTSPACE.fullmatch(name)
    if found is None:
        return None
    who = Identity("brightspace", f"{found['first']}-{found['second']}", " ".join(found["name"].split()))
    return Upload(who, "", _brightspace_time(found["when"] or ""))


def _brightspace_time(text: str) -> str:
    """`Sep 24, 2024 926 PM` -> `2024-09-24-21-26-00`; "" if it is written another way."""
    padded = re.sub(r" (\d{3}) ", r" 0\1 ", text.strip())
    for form in ("%b %d, %Y %I%M %p", "%B %d, %Y %I%M %p", "%d %B, %Y %I%M %p", "%d %b, %Y %I%M %p"):
        try:
            return datetime.strptime(padded, form).strftime(TIME)
        except ValueError:
            continue
    return ""


def _plain_folder(name: str) -> Upload:
    return Upload(Identity("plain", name.strip(), ""))


def _plain_file(name: str, exercises: Iterable[str]) -> Upload | None:
    """Without the exercise's name and what stands between. Nothing is left of 04_ngram.ipynb: it names nobody."""
    stem, late = os.path.splitext(name)[0], False
    for exercise in exercises:
        before, found, after = (
            stem[: (at := stem.lower().find(exercise.lower()))],
            at >= 0,
            stem[at + len(exercise) :],
        )
        if found:
            stem = f"{before}{COPY.sub('', after)}" if before.strip("_- ") else COPY.sub("", after)
    if re.search(r"_(LATE|late)(?=_|$)", stem):
        stem, late = re.sub(r"_(LATE|late)(?=_|$)", "", stem), True
    stem = stem.strip("_- .")
    return Upload(Identity("plain", stem, ""), name, late=late) if stem else None


def settled(uploads: Sequence[Upload], receipts: Mapping[str, str]) -> list[Upload]:
    """The same uploads, of one download, where the names of all of them settle what one of them leaves open.

    `receipts`: Blackboard's head of a file name -> user name, from the text file that it puts beside each attempt.
    """
    heads = {each.who.user for each in uploads if each.who.platform == "blackboard"}
    users = {**_blackboard_users(heads), **receipts}
    numbers = _varying({each.who for each in uploads if each.who.platform == "brightspace"})
    return [
        replace(each, who=replace(each.who, user=users[each.who.user]))
        if each.who.platform == "blackboard"
        else replace(each, who=replace(each.who, user=numbers[each.who]))
        if each.who.platform == "brightspace"
        else each
        for each in uploads
    ]


def _blackboard_users(heads: set[str]) -> dict[str, str]:
    """Head -> user: all heads begin with the assignment's name. A single one is cut at its last underscore."""
    if len(heads) == 1:
        return {head: head.rpartition("_")[2] or head for head in heads}
    words = [head.split("_") for head in heads]
    alike = sum(1 for _ in takewhile(lambda same: len({*same}) == 1, zip(*words, strict=False)))
    return {head: "_".join(head.split("_")[alike:]) or head for head in heads}


def _varying(people: set[Identity]) -> dict[Identity, str]:
    """Brightspace's user number: of its two numbers the one that is not the same for everybody, as the folder's is."""
    pairs = {who: who.user.split("-") for who in people}
    kept = [at for at in (0, 1) if len({pair[at] for pair in pairs.values()}) > 1]
    if len({who.name for who in people}) == 1:
        kept = [0]
    return {who: "-".join(pair[at] for at in kept) for who, pair in pairs.items()}


def as_student(name: str) -> str:
    """A name as that of a folder: letters of any alphabet with their marks, digits and a few signs."""
    kept = [
        sign if sign in "_.@-" or unicodedata.category(sign)[0] in "LMN" else " "
        for sign in unicodedata.normalize("NFC", name)
    ]
    safe = re.sub(r" +", "-", "".join(kept)).strip("-_.@ ")
    if len(safe.encode()) > LONGEST:
        safe = safe.encode()[: LONGEST - 9].decode(errors="ignore") + "-" + short_hash(name)
    return safe or "unnamed"


def short_hash(text: str) -> str:
    """Eight hexadecimal digits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
