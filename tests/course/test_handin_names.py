"""Whose a file is and of which exercise, as five platforms name what they give out; nobody gets another's work."""

import json
import os
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from exercise_runner import load
from hostile import NAME, solved
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

from specdec_course.grader.classroom import Collected, _chosen, _File, _uploads, collect
from specdec_course.grader.names import Identity, Upload, as_student, parse, settled
from specdec_course.grader.students import Students

RELEASES = {name: load("exercises", name) for name in ("02_verification", NAME)}
RIGHT = json.dumps(solved()).encode()
OTHER = json.dumps(RELEASES["02_verification"]).encode()
WHEN = "2026-11-20-10-11-12"


@pytest.mark.parametrize(
    ("name", "folder", "platform", "user", "attempt", "late"),
    [
        (f"lovelaceada_567_890_{NAME}.ipynb", False, "canvas", "567", "890".zfill(20), False),
        (f"lovelaceada_LATE_567_890_{NAME}-1.ipynb", False, "canvas", "567", "890".zfill(20), True),
        ("лавлейсада_567_890_x_11_22_y.ipynb", False, "canvas", "567", "890".zfill(20), False),
        ("anon_Ab12c_890_homework.ipynb", False, "canvas", "anon_Ab12c", "890".zfill(20), False),
        ("lovelaceada_567_text.html", False, "canvas", "567", "0" * 20, False),
        ("Ada Lovelace_1234_assignsubmission_file_", True, "moodle", "1234", "", False),
        ("Ada Lovelace_1234_assignsubmission_file", True, "moodle", "1234", "", False),
        (f"Ada Lovelace_1234_assignsubmission_file_{NAME}.ipynb", False, "moodle", "1234", "", False),
        ("Group A-Ada Lovelace_1234_assignsubmission_onlinetext_", True, "moodle", "1234", "", False),
        ("Participant_1234_assignsubmission_file_", True, "moodle", "1234", "", False),
        (f"{NAME}_alovelace_attempt_{WHEN}_my file.ipynb", False, "blackboard", "alovelace", WHEN, False),
        (f"{NAME}_alovelace_attempt_{WHEN}_x_attempt_2099-01-01-00-00-00_y.ipynb", False, "blackboard", "alovelace", WHEN, False),
        ("1234-567 - Ada Lovelace - Nov 20, 2026 1011 AM", True, "brightspace", "1234", "2026-11-20-10-11-00", False),
        ("1234-567 - Mary-Ann Smith - Sep 24, 2024 926 PM", True, "brightspace", "1234", "2024-09-24-21-26-00", False),
        ("ada", True, "plain", "ada", "", False),
        (f"ada_{NAME}.ipynb", False, "plain", "ada", "", False),
        (f"{NAME}_ada.ipynb", False, "plain", "ada", "", False),
        (f"ada_LATE_{NAME}.ipynb", False, "plain", "ada", "", True),
        ("ada.zip", False, "plain", "ada", "", False),
    ],
)  # fmt: skip
def test_documented_names_of_each_platform(
    name: str, folder: bool, platform: str, user: str, attempt: str, late: bool
) -> None:
    found = parse(name, RELEASES, folder=folder)
    assert found is not None
    (found,) = settled([found], {})
    assert (found.who.platform, found.who.user, found.attempt, found.late) == (platform, user, attempt, late)


@pytest.mark.parametrize("name", [f"{NAME}.ipynb", f"{NAME} (1).ipynb", f"{NAME}-1.zip"])
def test_a_name_that_is_only_the_exercise_names_nobody(name: str) -> None:
    assert parse(name, RELEASES, folder=False) is None


def test_a_name_made_to_look_like_somebody_else_s_is_refused_or_kept_apart() -> None:
    with pytest.raises(ValueError, match="more than one student"):
        parse("Bob_11_assignsubmission_file_x_1234_assignsubmission_file_a.ipynb", RELEASES, folder=False)
    forged = parse("Bob_11_assignsubmission_file_x_1234_assignsubmission_file_", RELEASES, folder=True)
    assert forged is not None
    assert forged.who.user == "1234"


HONEST = {
    "canvas": f"hoppergrace_568_891_{NAME}.ipynb",
    "moodle": f"Grace Hopper_568_assignsubmission_file_{NAME}.ipynb",
    "blackboard": f"Week 3_hopper_attempt_{WHEN}_{NAME}.ipynb",
}
# Files that Ada (567, alovelace) named so that another platform's pattern finds somebody else, or another time, in them.
FORGED = [
    ("canvas", "567", "lovelaceada_LATE_567_890_568_attempt_2020-01-01-00-00-00_x.ipynb"),
    ("canvas", "567", "lovelaceada_LATE_567_890_567_attempt_2020-01-01-00-00-00_x.ipynb"),
    ("canvas", "567", "lovelaceada_567_890_x_568_assignsubmission_file_y.ipynb"),
    ("blackboard", "alovelace", f"Week 3_alovelace_attempt_{WHEN}_x_568_assignsubmission_file_y.ipynb"),
    ("blackboard", "alovelace", f"Week 3_alovelace_attempt_{WHEN}_568_891_y.ipynb"),
    ("moodle", "567", f"Ada Lovelace_567_assignsubmission_file_568_attempt_{WHEN}_y.ipynb"),
    ("moodle", "567", "Ada Lovelace_567_assignsubmission_file_568_891_y.ipynb"),
]


@pytest.mark.parametrize(("platform", "user", "name"), FORGED)
def test_a_student_s_own_file_name_never_makes_it_another_s_work(
    tmp_path: Path, platform: str, user: str, name: str
) -> None:
    """Beside a classmate's file the platform is clear. Alone, the name is refused."""
    write(tmp_path / "alone" / name)
    told, found = collected(tmp_path, tmp_path / "alone")
    assert told == {}
    assert "so it is not clear whose it is" in found.aside[0]

    write(tmp_path / "in" / name)
    write(tmp_path / "in" / HONEST[platform])
    _, found = collected(tmp_path)
    (ada,) = [each for each in found.hand_ins if each.file == tmp_path / "in" / name]
    who = Students(tmp_path / "students.json").of(ada.student)
    assert (who.platform, who.user) == (platform, user)
    assert ada.late == ("LATE" in name)
    assert len({each.student for each in found.hand_ins}) == 2
    assert not ada.when.startswith("2020")


def test_where_names_of_two_platforms_lie_together_a_name_that_fits_both_is_refused(tmp_path: Path) -> None:
    for name in (HONEST["canvas"], HONEST["moodle"], FORGED[2][2]):
        write(tmp_path / "in" / name)
    told, found = collected(tmp_path)
    assert set(told) == {"hoppergrace_568", "Grace-Hopper_568"}
    assert "its name fits Canvas and Moodle" in found.aside[0]


def test_an_assignment_whose_name_looks_like_canvas_s_numbers_is_blackboard_s(tmp_path: Path) -> None:
    """Canvas gives no two files the same number."""
    for user in ("ada", "bob"):
        write(tmp_path / "in" / f"Week_3_4_{user}_attempt_{WHEN}_x.ipynb")
    assert set(collected(tmp_path)[0]) == {"ada", "bob"}


def test_a_display_name_of_moodle_that_looks_like_brightspace_s_is_still_moodle_s(tmp_path: Path) -> None:
    write(tmp_path / "in" / "12-34 - Bob_99_assignsubmission_file_" / "x.ipynb")
    assert collected(tmp_path)[0] == {}
    write(tmp_path / "in" / "Ada_98_assignsubmission_file_" / "x.ipynb")
    assert set(collected(tmp_path)[0]) == {"12-34---Bob_99", "Ada_98"}


def test_a_time_that_does_not_exist_ends_nobody_s_grading(tmp_path: Path) -> None:
    write(tmp_path / "in" / HONEST["canvas"])
    write(tmp_path / "in" / "lovelaceada_567_890_x_attempt_2026-99-99-99-99-99_y.ipynb")
    assert set(collected(tmp_path)[0]) == {"hoppergrace_568", "lovelaceada_567"}
    write(tmp_path / "other" / "Week 3_ada_attempt_2026-99-99-99-99-99_y.ipynb")
    told, found = collected(tmp_path, tmp_path / "other")
    assert told == {}
    assert "the time in its name does not exist" in found.aside[0]


PIECES = st.sampled_from(
    ["ada", "_", "567", "890", "LATE", "_assignsubmission_file_", "_attempt_", WHEN, "2026-99-99-99-99-99", "0000-00-00-00-00-00",
     " - ", "-", "Nov 31, 2026 1011 AM", "Nov 3, 9999 2561 PM", "text.html", ".ipynb", ".zip", "\u0661", "\u202e", "\udc80", "Ω", NAME],
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(names=st.lists(st.lists(PIECES, min_size=1, max_size=9).map("".join), min_size=1, max_size=3, unique=True))
def test_no_file_name_ends_the_run(names: list[str]) -> None:
    """Each name ends up as a hand-in, or set aside with a reason."""
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            write(Path(place) / "in" / name)
        found = Collected()
        uploads = _uploads(Path(place) / "in", RELEASES, found)
        for top, upload in uploads:
            file = _File(top, NAME, upload, 1e20, 0.0)  # a date that no calendar has
            assert isinstance(_chosen(upload.who.folder(), NAME, [file], []).when, str)
        receipts = [name for name in os.listdir(Path(place) / "in") if name.endswith(".txt")]
        assert len(uploads) + len(found.aside) + len(receipts) == len(names)


def test_user_names_with_underscores_are_found_by_the_assignment_or_the_receipt() -> None:
    heads = ["Week 3_a_b", "Week 3_a_c", "Week 3_d"]
    uploads = [Upload(Identity("blackboard", head, ""), "x.ipynb", WHEN) for head in heads]
    assert [each.who.user for each in settled(uploads, {})] == ["a_b", "a_c", "d"]
    assert settled(uploads[:1], {"Week 3_a_b": "a_b"})[0].who.user == "a_b"


def test_brightspace_s_user_number_is_the_one_that_is_not_everybody_s() -> None:
    names = [
        "77-1 - Ada - Nov 20, 2026 1011 AM",
        "77-2 - Bob - Nov 20, 2026 1011 AM",
        "77-3 - Bob - Nov 20, 2026 1011 AM",
    ]
    uploads = [upload for name in names if (upload := parse(name, RELEASES, folder=True)) is not None]
    assert [each.who for each in settled(uploads, {})] == [
        Identity("brightspace", "1", "Ada"),
        Identity("brightspace", "2", "Bob"),
        Identity("brightspace", "3", "Bob"),
    ]


def test_folder_names_keep_marks_and_merge_nobody(tmp_path: Path) -> None:
    """हि and ह differ by a combining vowel alone; two spellings of one name in Unicode are the same."""
    assert as_student("हि") != as_student("ह")
    assert as_student(unicodedata.normalize("NFD", "Zoë")) == as_student("Zoë") == "Zoë"
    assert not set(as_student("\x1b[2J=1+1/../..\u202e")) & set("\x1b=/\u202e+")
    people = [Identity("plain", name, "") for name in ("a b", "a-b", "A-B", "a+b")]
    first = Students(tmp_path / "students.json")
    folders = first.folders(people)
    assert len({folder.casefold() for folder in folders.values()}) == 4
    later = Students(tmp_path / "students.json").folders([people[2]])
    assert later[people[2]] == folders[people[2]], "whoever comes alone the next time keeps their folder"
    assert len(as_student("x" * 5000).encode()) <= 100


def write(path: Path, data: bytes = RIGHT, when: float = 1e9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (when, when))


def packed(path: Path, files: dict[str, bytes], year: int = 2020) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), data)


def collected(tmp_path: Path, *sources: Path, default: str | None = None) -> tuple[dict[str, str], Collected]:
    """Student -> "exercise, file", and all of it."""
    (tmp_path / "scratch").mkdir(exist_ok=True)
    students = Students(tmp_path / "students.json")
    found = collect(list(sources) or [tmp_path / "in"], RELEASES, tmp_path / "scratch", students, default)
    return {h.student: f"{h.exercise}, {h.file.name if h.file else None}" for h in found.hand_ins}, found


def test_every_platform_s_names_are_read_and_every_file_is_accounted_for(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "ada" / f"{NAME}.ipynb")
    write(folder / "Ida Rhodes_1234_assignsubmission_file_" / "homework.ipynb")
    write(folder / f"hopper_LATE_567_890_{NAME}-1.ipynb")
    write(folder / "eve" / f"{NAME}.ipynb", when=1e9)
    write(folder / "eve" / f"{NAME} (1).ipynb", when=2e9)
    write(folder / "bob" / "essay.pdf", b"%PDF")
    write(folder / "mal" / "homework.ipynb", b"{}")
    (folder / "mal" / f"{NAME}.ipynb").symlink_to(__file__)
    (folder / "nobody").mkdir()
    write(folder / f"{NAME}.ipynb")
    packed(folder / "zoe.zip", {f"work/{NAME}.ipynb": RIGHT, "__MACOSX/._x": b""})
    write(folder / "broken.zip", b"PK\x03\x04 no archive")
    told, found = collected(tmp_path)
    assert told == {
        "ada": f"{NAME}, {NAME}.ipynb",
        "Ida-Rhodes_1234": f"{NAME}, homework.ipynb",
        "hopper_567": f"{NAME}, hopper_LATE_567_890_{NAME}-1.ipynb",
        "eve": f"{NAME}, {NAME} (1).ipynb",
        "bob": f"{NAME}, None",
        "mal": f"{NAME}, homework.ipynb",
        "zoe": f"{NAME}, {NAME}.ipynb",
        "broken": f"{NAME}, None",
    }
    notes = {each.student: each.note for each in found.hand_ins}
    assert "recognised as 04_ngram by its cells" in notes["Ida-Rhodes_1234"]
    assert "handed in 2 notebooks" in notes["eve"]
    assert "essay.pdf" in notes["bob"]
    assert "cannot be opened" in notes["broken"]
    assert notes["ada"] == notes["hopper_567"] == notes["zoe"] == ""
    assert {each.student for each in found.hand_ins if each.late} == {"hopper_567"}
    aside = "\n".join(found.aside)
    for words in (
        f"mal: {NAME}.ipynb: a link", "nobody: an empty folder", f"{NAME}.ipynb: its name names no student", "is not the latest",
    ):  # fmt: skip
        assert words in aside


def test_among_several_exercises_a_file_that_names_none_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "in" / "ada" / f"{NAME}.ipynb")
    write(tmp_path / "in" / "ida" / "02_verification.ipynb", OTHER)
    write(tmp_path / "in" / "bob" / "essay.pdf")
    told, found = collected(tmp_path)
    assert set(told) == {"ada", "ida"}
    assert found.aside == ["bob: essay.pdf: of no exercise"]


def test_an_archive_belongs_to_its_uploader_whatever_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "in" / f"bobby_11_22_{NAME}.ipynb")
    packed(tmp_path / "in" / "eve_33_44_all.zip", {f"bobby_11_22/bobby_11_22_{NAME}.ipynb": RIGHT}, 2099)
    packed(tmp_path / "in" / "mal" / "x.zip", {f"../../bobby_11_22_{NAME}.ipynb": RIGHT}, 2099)
    told, found = collected(tmp_path)
    assert set(told) == {"bobby_11", "eve_33", "mal"}
    (bobby,) = [each for each in found.hand_ins if each.student == "bobby_11"]
    assert bobby.file == tmp_path / "in" / f"bobby_11_22_{NAME}.ipynb"


def test_three_flat_archives_are_three_students(tmp_path: Path) -> None:
    for name in ("ada", "bob", "eve"):
        packed(tmp_path / "in" / f"{name}.zip", {f"{NAME}.ipynb": RIGHT})
    assert set(collected(tmp_path)[0]) == {"ada", "bob", "eve"}


def test_attempts_collapse_into_one_student_and_the_latest_counts(tmp_path: Path) -> None:
    """Also where the file of the older attempt carries a later date."""
    folder = tmp_path / "in"
    for at, day in ((3e9, "01"), (1e9, "02")):
        write(folder / f"{NAME}_a_b_attempt_2026-11-{day}-10-00-00_{day}.ipynb", when=at)
        (folder / f"{NAME}_a_b_attempt_2026-11-{day}-10-00-00.txt").write_text("Name: A B (a_b)\nAssignment: x\n")
        write(folder / f"9-7 - Ida - Nov {int(day)}, 2026 926 PM" / f"{day}.ipynb", when=at)
    write(folder / "8-7 - Ida - Nov 1, 2026 926 PM" / "x.ipynb")
    told, found = collected(tmp_path)
    assert told == {
        "a_b": f"{NAME}, {NAME}_a_b_attempt_2026-11-02-10-00-00_02.ipynb",
        "Ida_9": f"{NAME}, 02.ipynb",
        "Ida_8": f"{NAME}, x.ipynb",
    }
    assert {each.when for each in found.hand_ins} == {
        "2026-11-02T10:00:00",
        "2026-11-02T21:26:00",
        "2026-11-01T21:26:00",
    }


def test_the_folder_that_nbgrader_collects_into_is_read_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "in" / "ada" / NAME / f"{NAME}.ipynb")
    write(tmp_path / "in" / "ada" / NAME / "timestamp.txt", b"2026-11-20 10:11:12 UTC")
    write(tmp_path / "in" / "ada" / "02_verification" / "02_verification.ipynb", OTHER)
    told, found = collected(tmp_path)
    assert [(each.student, each.exercise) for each in found.hand_ins] == [("ada", "02_verification"), ("ada", NAME)]
    assert told == {"ada": f"{NAME}, {NAME}.ipynb"}


def test_two_people_of_one_name_stay_two(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / "in" / f"Jan Smit_{number}_assignsubmission_file_" / "x.ipynb")
    assert set(collected(tmp_path)[0]) == {"Jan-Smit_1", "Jan-Smit_2"}


def test_a_platform_s_archive_is_opened_as_such_and_several_may_be_given(tmp_path: Path) -> None:
    packed(
        tmp_path / "moodle.zip",
        {"Ada L_1_assignsubmission_file_/a.ipynb": RIGHT, "Bob_2_assignsubmission_file_/b.ipynb": b"{}"},
    )
    packed(tmp_path / "canvas.zip", {f"hopper_567_890_{NAME}.ipynb": RIGHT, "李雷_568_891_x.ipynb": RIGHT})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "week3.zip").write_bytes((tmp_path / "canvas.zip").read_bytes())
    told, found = collected(tmp_path, tmp_path / "moodle.zip", tmp_path / "canvas.zip", tmp_path / "in")
    (aside,) = found.aside
    assert aside.startswith("week3.zip: the names in this archive look like those of several students")
    assert "If a student handed it in, do not" in aside, "whoever packs an archive chooses the names in it"
    assert set(told) == {"Ada-L_1", "Bob_2", "hopper_567", "李雷_568"}
