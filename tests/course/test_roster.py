"""Rosters in every dialect, each student's one row, and the tables that five platforms read back."""

import csv
import io
from datetime import datetime

import pytest
from hostile import FULL, NAME

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

from specdec_course.grader.marks import Mark
from specdec_course.grader.names import Identity, parse
from specdec_course.grader.roster import match, read_roster
from specdec_course.grader.table import kept_share, table


def marks(student: str, *points: float | None) -> list[Mark]:
    return [Mark(student, NAME, task, got, 4.0) for task, got in zip(FULL, points, strict=False)]


def rows(data: bytes, encoding: str = "utf-8", delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(encoding), newline=""), delimiter=delimiter))


LIST = 'Student,ID\n"Hopper, Grace",567\n"Lovelace, Ada",ada\nÉmilie,9\n'
DIALECTS = {
    "UTF-8": (LIST.encode(), "utf-8"),
    "UTF-8 with a mark": (LIST.encode("utf-8-sig"), "utf-8-sig"),
    "semicolons in code page 1252": (LIST.replace('"Hopper, Grace"', "Hopper, Grace").replace('"Lovelace, Ada"', "Lovelace, Ada").replace("Grace,5", "Grace;5").replace("Ada,a", "Ada;a").replace("e,9", "e;9").replace("t,I", "t;I").encode("cp1252"), "cp1252"),
    "tabs in UTF-16": (LIST.replace(",567", "\t567").replace(",ada", "\tada").replace(",9", "\t9").replace("t,I", "t\tI").encode("utf-16"), "utf-16"),
    "UTF-16 without a mark": (LIST.encode("utf-16-le"), "utf-16-le"),
    "Windows line ends": (LIST.replace("\n", "\r\n").encode(), "utf-8"),
    "Excel's first line": (b"sep=,\r\n" + LIST.encode(), "utf-8"),
    "empty lines": (b"\n" + LIST.replace("\n", "\n\n").encode(), "utf-8"),
    "cells too many, empty": (LIST.replace("\n", ",,\n").encode(), "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_roster_is_read_in_the_dialects_that_spreadsheets_write(dialect: str) -> None:
    data, encoding = DIALECTS[dialect]
    roster = read_roster(data)
    assert roster.header[:2] == ["Student", "ID"]
    assert [row[:2] for row in roster.rows] == [["Hopper, Grace", "567"], ["Lovelace, Ada", "ada"], ["Émilie", "9"]]
    assert roster.encoding == encoding
    text, _ = table(marks("567", 4.0), (), roster, {"567": 0})
    assert rows(text, encoding, roster.delimiter)[1][-1] == "4", "written as it was read"


MALFORMED = {
    "an Excel workbook": b"PK\x03\x04" + b"x" * 50, "an old workbook": b"\xd0\xcf\x11\xe0" + b"x" * 50, "empty": b"",
    "a header alone": b"Student,ID\n", "no text": bytes(range(256)) * 4, "zeros": bytes(5000),
    "a quote that never ends": b'Student,ID\n"Ada,1\nBob,2\n', "a quote inside": b'Student,ID\n"Ada"x,1\n',
    "a longer row": b"Student,ID\nAda,1,2,3\n", "too large": b"a,b\n" + b"1,2\n" * 6_000_000,
    "an odd number of UTF-16 bytes": "Student,ID\nAda,1\n".encode("utf-16") + b"x", "a picture": b"\x89PNG\r\n\x1a\n" + bytes(99),
    "a cell without an end": b"Student,ID\n" + b'"' + b"x" * 200_000 + b'",1\n',
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_roster_that_is_none_is_refused_with_a_reason(what: str) -> None:
    with pytest.raises(ValueError, match=r"roster"):
        match(read_roster(MALFORMED[what]), {"ada": Identity("plain", "ada", "")})


def test_one_row_one_student_or_nothing() -> None:
    """Two hand-ins that fit a row, and a hand-in that fits two rows: neither is entered, and both are named."""
    roster = read_roster(b"Name,Login\nAda,a\nBob,b\nCem,c\nCem,c\n")
    people = {
        "a": Identity("plain", "a", ""), "A-2": Identity("plain", "A", ""), "b": Identity("plain", "b", ""),
        "c": Identity("plain", "c", ""), "z": Identity("plain", "z", ""),
    }  # fmt: skip
    fits, problems = match(roster, people, "Login")
    assert fits == {"b": 1}
    told = "\n".join(problems)
    for words in ("A-2: fits the row “Ada”, and so does a", "c: fits 2 rows", "z: is in no row"):
        assert words in told


def test_a_number_of_a_file_or_of_another_column_matches_nobody() -> None:
    """Grace's file id is Ada's user id, and Bob's number on the platform is Ada's number at the university."""
    roster = read_roster(
        b"Student,ID,SIS User ID,SIS Login ID,Section\nAda,890,55,ada,A\nGrace,567,56,grace,A\nBob,55,57,bob,A\n"
    )
    people = {}
    for name in ("hoppergrace_567_890_x.ipynb", "bob_55_891_x.ipynb"):
        upload = parse(name, [NAME], folder=False)
        assert upload is not None
        people[name[:3]] = upload.who
    assert match(roster, people) == ({"hop": 1, "bob": 2}, [])
    assert match(roster, people, "SIS User ID")[0] == {"bob": 0}, "as told: --match is the instructor's word"


def test_two_identities_of_one_number_get_nothing() -> None:
    roster = read_roster(b"Student,ID,Section\nBobby,11,A\n")
    people = {"a": Identity("canvas", "11", "bobby"), "b": Identity("canvas", "11", "bobbyx")}
    fits, problems = match(roster, people)
    assert fits == {}
    assert len(problems) == 2


def test_people_of_one_name_get_nothing_by_name_and_their_own_by_number() -> None:
    roster = read_roster(b"Identifier,Full name,Grade\nParticipant 1,Jan Smit,\nParticipant 2,Jan Smit,\n")
    people = {f"j{n}": Identity("moodle", str(n), "Jan Smit") for n in (1, 2)}
    assert match(roster, people)[0] == {"j1": 0, "j2": 1}
    assert match(roster, people, "Full name")[0] == {}


def test_a_roster_without_any_of_the_students_ends_the_run() -> None:
    with pytest.raises(ValueError, match=r"--match, one of Name, ID"):
        match(read_roster(b"Name,ID\nX,1\n"), {"ada": Identity("plain", "ada", "")})
    with pytest.raises(ValueError, match="no columns called 'Login'"):
        match(read_roster(b"Name,ID\nX,1\n"), {"ada": Identity("plain", "ada", "")}, "Login")


# A platform's export with one student -> the name of their hand-in there, and the export with their points in it.
PLATFORMS: dict[str, tuple[str, str, str]] = {
    "canvas": ("hoppergrace_567_890_x.ipynb",
        'Student,ID,SIS User ID,SIS Login ID,Section\n    Points Possible,,,,\n"Hopper, Grace",567,s1,grace,A\nOther,568,s2,other,A\n',
        'Student,ID,SIS User ID,SIS Login ID,Section,04_ngram\n    Points Possible,,,,,16\n"Hopper, Grace",567,s1,grace,A,6.5\nOther,568,s2,other,A,\n'),
    "canvas, the assignment is there": ("hoppergrace_567_890_x.ipynb",
        'Student,ID,SIS User ID,SIS Login ID,Section,04 ngram (77)\nPoints Possible,,,,,16\n"Hopper, Grace",567,s1,grace,A,\nOther,568,s2,other,A,3\n',
        'Student,ID,SIS User ID,SIS Login ID,Section,04 ngram (77)\nPoints Possible,,,,,16\n"Hopper, Grace",567,s1,grace,A,6.5\nOther,568,s2,other,A,3\n'),
    "moodle": ("Grace Hopper_1234_assignsubmission_file_",
        'Identifier,Full name,Email address,Status,Grade,Maximum Grade,Feedback comments\nParticipant 1234,Grace Hopper,g@x.org,Submitted,,16,\nParticipant 9,Other,o@x.org,-,,16,\n',
        'Identifier,Full name,Email address,Status,Grade,Maximum Grade,Feedback comments\nParticipant 1234,Grace Hopper,g@x.org,Submitted,6.5,16,\nParticipant 9,Other,o@x.org,-,,16,\n'),
    "blackboard": ("04_ngram_ghopper_attempt_2026-11-20-10-11-12_x.ipynb",
        'Last Name,First Name,Username,Student ID,Last Access,Availability\nHopper,Grace,ghopper,1,,Yes\nOther,O,other,2,,Yes\n',
        'Last Name,First Name,Username,Student ID,Last Access,Availability,04_ngram [Total Pts: 16]\nHopper,Grace,ghopper,1,,Yes,6.5\nOther,O,other,2,,Yes,\n'),
    "brightspace": ("12-34 - Grace Hopper - Nov 20, 2026 1011 AM",
        'OrgDefinedId,Username,Last Name,First Name,End-of-Line Indicator\n#1,#gh,Hopper,Grace,#\n#2,#o,Other,O,#\n',
        'OrgDefinedId,Username,Last Name,First Name,04_ngram Points Grade,End-of-Line Indicator\n#1,#gh,Hopper,Grace,6.5,#\n#2,#o,Other,O,,#\n'),
    "plain": ("grace", 'Name,Login\nGrace,grace\nOther,other\n', 'Name,Login,04_ngram (of 16),Total\nGrace,grace,6.5,6.5\nOther,other,,\n'),
}  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_platform_s_list_comes_back_with_points_in_the_form_that_it_imports(platform: str) -> None:
    name, given, wanted = PLATFORMS[platform]
    upload = parse(name, [NAME], folder="." not in name)
    assert upload is not None
    who = upload.who if upload.who.platform != "blackboard" else Identity("blackboard", "ghopper", "")
    student = who.folder()
    own = marks(student, 4.0, 2.5, 0.0, 0.0)
    roster = read_roster(given.encode())
    assert roster.kind == platform.partition(",")[0]
    fits, problems = match(roster, {student: who})
    assert problems == []
    text, warnings = table(own, [student], roster, fits)
    assert (text.decode(), warnings) == (wanted, [])
    again = read_roster(text)
    fits, problems = match(again, {student: who})
    assert problems == []
    if platform != "plain":
        assert table(own, [student], again, fits)[0] == text, (
            "what is imported and exported again gets no second column"
        )


def test_blackboard_s_file_keeps_its_tabs_and_its_encoding() -> None:
    given = PLATFORMS["blackboard"][1].replace(",", "\t").encode("utf-16")
    roster = read_roster(given)
    text, _ = table(marks("g", 1.0, 1.0, 1.0, 1.0), (), roster, {"g": 0})
    assert rows(text, "utf-16", "\t")[1] == ["Hopper", "Grace", "ghopper", "1", "", "Yes", "4"]


def test_moodle_s_worksheet_takes_one_exercise_and_says_if_the_maximum_differs() -> None:
    roster = read_roster(PLATFORMS["moodle"][1].replace(",16,", ",100,").encode())
    assert "Moodle's maximum grade is 100" in table(marks("g", 1.0, 1.0, 1.0, 1.0), (), roster, {"g": 0})[1][0]
    both = [*marks("g", 1.0), Mark("g", "02_verification", "x", 1.0, 2.0)]
    with pytest.raises(ValueError, match="--exercise"):
        table(both, (), roster, {"g": 0})


def test_the_table_leaves_unread_work_empty_and_has_a_row_for_everybody() -> None:
    own = marks("ada", 4.0, None)
    text, warnings = table(own, ["ada", "never graded"])
    assert rows(text)[1:] == [["ada", "", ""], ["never graded", "", ""]]
    assert "1 answers are to be read" in warnings[0]
    assert rows(table(own, ["ada"], unread=True)[0])[1] == ["ada", "4", "4"]


def test_no_cell_is_a_formula() -> None:
    evil = ["=1+1", "+cmd|'/c calc'!A1", "@SUM(A1)", "-2+3", "\t=1", "\x1b[2J=1"]
    roster = read_roster(("Name,Login\n" + "".join(f'"{name}",u{at}\n' for at, name in enumerate(evil))).encode())
    text, _ = table(marks("u0", 1.0), (), roster, {"u0": 0})
    cells = [row[0] for row in rows(text)[1:]]
    assert all(cell.startswith(("'", "[2J")) for cell in cells)
    assert "\x1b" not in text.decode()
    kept = read_roster(b"Name,Grade\n-,-1.5\n+49 170 123,3 %\n")
    assert rows(table(marks("x", 1.0), (), kept, {})[0])[1:] == [["-", "-1.5", "", ""], ["+49 170 123", "3 %", "", ""]]


@pytest.mark.parametrize(
    ("when", "late", "share"),
    [("2026-11-20T23:59:00", False, 1.0), ("2026-11-21T00:00:00", False, 0.9), ("2026-11-22T23:59:00", False, 0.8),
     ("2027-11-22T23:59:00", False, 0.0), ("", True, 0.9), ("", False, 1.0)],
)  # fmt: skip
def test_late_work_loses_its_share_for_each_day_begun(when: str, late: bool, share: float) -> None:
    assert kept_share(when, late, datetime(2026, 11, 20, 23, 59), 10.0) == pytest.approx(share)
    shares = {("g", NAME): share}
    assert float(rows(table(marks("g", 4.0, 4.0), ["g"], shares=shares)[0])[1][1]) == pytest.approx(8 * share)
