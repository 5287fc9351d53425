"""A platform's list of students: read it, whatever wrote it, and find each student's row before anything is graded.

One student gets one row and one row gets one student, or neither gets anything: a wrong mark is worse than none.
"""

import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from specdec_course.grader.names import Identity

__all__ = ["Roster", "match", "read_roster"]

MOST_BYTES, MOST_ROWS = 20_000_000, 50_000
FULL_NAME = ("full name", "name", "student", "student name", "display name")
# Where a platform's user id or shown name is in its own lists: (column, "user" or "name"), the first that is there.
COLUMNS = {
    "canvas": (("id", "user"),),
    "moodle": (("identifier", "user"), ("", "name")),
    "blackboard": (("username", "user"),),
    "brightspace": (("", "name"),),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Roster:
    """`kind`: "canvas", "moodle", "blackboard", "brightspace" or "plain", by its header. All rows have its length."""

    header: list[str]
    rows: list[list[str]]
    kind: str
    delimiter: str
    encoding: str

    def column(self, name: str) -> int:
        """Where a column is. Raises ValueError if none or several are called so."""
        found = [at for at, title in enumerate(self.header) if _folded(title) == _folded(name)]
        if len(found) != 1:
            columns = ", ".join(title for title in self.header if title.strip())
            raise ValueError(f"the roster has {len(found) or 'no'} columns called {name!r}; its columns are: {columns}")
        return found[0]


def read_roster(data: bytes) -> Roster:
    """A CSV in the dialects that spreadsheets and platforms write. Raises ValueError with what to do."""
    if data[:4] == b"PK\x03\x04" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise ValueError("the roster is an Excel workbook: save it as CSV in Excel, and give that file")
    if len(data) > MOST_BYTES:
        raise ValueError(f"the roster has {len(data) / 1e6:.0f} MB; {MOST_BYTES // 10**6} MB are the most")
    encoding = _encoding(data)
    text = data.decode(encoding).lstrip("\ufeff")
    first, _, rest = text.partition("\n")
    told = first.strip().lower().removeprefix("sep=") if first.lower().startswith("sep=") else ""
    text = rest if told else text
    delimiter = told if told in (",", ";", "\t") else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header, *rows = [row for row in reader if any(cell.strip() for cell in row)] or [[]]
    except csv.Error as error:
        raise ValueError(f"the roster cannot be read as a table, at line {reader.line_num}: {error}") from error
    if len(header) < 1 or not rows:
        raise ValueError("the roster has no rows: it needs a header and a row per student")
    if len(rows) > MOST_ROWS:
        raise ValueError(f"the roster has {len(rows):,} rows; {MOST_ROWS:,} are the most")
    whole = [_as_long(row, len(header), number) for number, row in enumerate(rows, 2)]
    return Roster(header, whole, _kind({_folded(title) for title in header}), delimiter, encoding)


def match(roster: Roster, people: Mapping[str, Identity], column: str = "") -> tuple[dict[str, int], list[str]]:
    """(student's folder -> number of their row, problems). Raises ValueError if no student at all has a row."""
    if column:
        roster.column(column)
    rows: dict[str, list[int]] = {}
    for platform in sorted({who.platform for who in people.values()}):
        rows |= _rows(
            roster, {folder: who for folder, who in people.items() if who.platform == platform}, platform, column
        )
    owners: dict[int, list[str]] = defaultdict(list)
    for folder, found in rows.items():
        for row in found:
            owners[row].append(folder)
    if people and not owners:
        columns = ", ".join(title for title in roster.header if title.strip())
        some = ", ".join(sorted(people)[:3])
        raise ValueError(
            f"no student ({some}, ...) is in the roster; name the column to look in: --match, one of {columns}"
        )
    problems, fits = [], {}
    for folder, found in sorted(rows.items()):
        rivals = sorted({other for row in found for other in owners[row]} - {folder})
        if not found:
            problems.append(f"{folder}: is in no row of the roster")
        elif len(found) > 1:
            where = " and ".join(f"“{_about(roster, row)}”" for row in found)
            problems.append(f"{folder}: fits {len(found)} rows of the roster, {where}; nothing is entered there")
        elif rivals:
            problems.append(
                f"{folder}: fits the row “{_about(roster, found[0])}”, and so does {', '.join(rivals)}; "
                "nothing is entered there"
            )
        else:
            fits[folder] = found[0]
    return fits, problems


def _rows(roster: Roster, people: Mapping[str, Identity], platform: str, column: str) -> dict[str, list[int]]:
    """Student -> all rows that fit, by the one column, or the one way, that fits this platform."""
    user: Callable[[Identity], str] = lambda who: who.user  # noqa: E731
    name: Callable[[Identity], str] = lambda who: who.name or who.user  # noqa: E731
    ways = []
    if column:
        cells = [row[roster.column(column)] for row in roster.rows]
        ways = [([[_key(cell)] for cell in cells], user), ([[_name(cell)] for cell in cells], name)]
    elif platform == "plain":
        ways = [([[_key(row[at])] for row in roster.rows], user) for at in range(len(roster.header))]
    for title, kind in () if column else COLUMNS.get(platform, ()):
        if kind == "name":
            ways.append(([_names(roster, row) for row in roster.rows], name))
        elif [_folded(each) for each in roster.header].count(title) == 1:
            ways.append(([[_key(row[roster.column(title)])] for row in roster.rows], user))
    tried = [_fitting(people, cells, told, _name if told is name else _key) for cells, told in ways]
    best: dict[str, list[int]] = max(
        tried, key=lambda found: sum(map(bool, found.values())), default={folder: [] for folder in people}
    )
    return best if any(best.values()) else {folder: [] for folder in people}


def _fitting(
    people: Mapping[str, Identity],
    cells: Sequence[Sequence[str]],
    told: Callable[[Identity], str],
    key: Callable[[str], str],
) -> dict[str, list[int]]:
    where: dict[str, list[int]] = defaultdict(list)
    for number, keys in enumerate(cells):
        for each in {*keys} - {""}:
            where[each].append(number)
    return {folder: where.get(key(told(who)), []) for folder, who in people.items()}


def _names(roster: Roster, row: Sequence[str]) -> list[str]:
    """The forms in which a row has its person's name."""
    cells = {_folded(title): cell for title, cell in zip(roster.header, row, strict=True)}
    first = cells.get("first name", "")
    last = cells.get("last name", "") or cells.get("surname", "")
    return [_name(cells[title]) for title in FULL_NAME if title in cells] + [_name(f"{first} {last}")]


def _name(text: str) -> str:
    """`Hopper, Grace` and `Grace Hopper` are the same."""
    last, comma, first = text.partition(",")
    return " ".join(_folded(f"{first} {last}" if comma else text).split())


def _key(text: str) -> str:
    """Brightspace writes #1234, so that Excel leaves it alone; Moodle writes Participant 1234."""
    return _folded(text).removeprefix("participant ").removeprefix("#").strip()


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().casefold()


def _about(roster: Roster, row: int) -> str:
    return next((cell.strip() for cell in roster.rows[row] if cell.strip()), "")


def _kind(titles: set[str]) -> str:
    if {"orgdefinedid", "end-of-line indicator"} & titles:
        return "brightspace"
    if {"student", "id", "section"} <= titles:
        return "canvas"
    if {"identifier", "grade"} <= titles:
        return "moodle"
    if {"username", "last name"} <= titles and {"student id", "availability", "last access"} & titles:
        return "blackboard"
    return "plain"


def _encoding(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        tries = ["utf-16"]
    elif data[:3] == b"\xef\xbb\xbf":
        tries = ["utf-8-sig"]
    elif b"\0" in data[:2000]:
        tries = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    else:
        tries = ["utf-8", "cp1252"]
    for encoding in tries:
        try:
            if "\0" not in data.decode(encoding):
                return encoding
        except UnicodeDecodeError:
            continue
    raise ValueError("the roster is not text in UTF-8, UTF-16 or Windows's code page 1252: save it as CSV UTF-8")


def _delimiter(text: str) -> str:
    header = next((line for line in text.splitlines() if line.strip()), "")
    try:
        return max((",", ";", "\t"), key=lambda sign: len(next(csv.reader([header], delimiter=sign))))
    except (csv.Error, StopIteration):
        return ","


def _as_long(row: list[str], length: int, number: int) -> list[str]:
    if any(cell.strip() for cell in row[length:]):
        raise ValueError(f"row {number} of the roster has {len(row)} cells, and its header {length}")
    return row[:length] + [""] * (length - len(row))
