"""Student code that means harm, graded as a class: by the user who runs the tests and, if that is root, by another one.

Each act gets the marks that it deserves and a page that says why, and the run goes on to the next.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hostile import ACTS, FILES, FULL, NAME, Act, File, acts, solved, with_code

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ORDINARY = 61_000  # a user id that owns nothing here
# Seen by that user: Python and this repository, also where they lie in root's closed home.
AS_ORDINARY = """
set -e
keep=$(mktemp -d); i=0
for place in $PLACES; do i=$((i + 1)); mkdir $keep/$i; mount --bind $place $keep/$i; done
[ -z "$CLOSED" ] || mount -t tmpfs -o mode=755 tmpfs $CLOSED
i=0
for place in $PLACES; do i=$((i + 1)); mkdir -p $place; mount --bind $keep/$i $place; umount $keep/$i; rmdir $keep/$i; done
rmdir $keep
exec setpriv --reuid $USER_ID --regid $USER_ID --clear-groups "$@"
"""


# Who grades -> which acts are handed in to them, and whether the spoilt files are: those run no code of a student's.
# Without namespaces, those that limits and clocks stop: nothing keeps such code from files, processes or the network.
EVERY = frozenset(act.notebook for act in ACTS)
MODES = {
    "this user": (EVERY, FILES), "an ordinary user": (EVERY, ()),
    "without namespaces": (frozenset({"one"}), ()),
}  # fmt: skip
each_mode = pytest.mark.parametrize("graded", MODES, indirect=True)


@dataclass(frozen=True)
class Graded:
    """A course after the run: the command's exit code and output."""

    root: Path
    code: int
    said: str
    handed_in: int

    def points(self, student: str) -> dict[str, float]:
        return {t: p for s, t, p in self._marks() if s == student}

    def _marks(self) -> list[tuple[str, str, float]]:
        rows = [json.loads(line) for line in (self.root / "marks.jsonl").read_text().splitlines()]
        return [
            (r["student"], r["task"].removesuffix("-tests"), r["points"]) for r in rows if r["task"] != "prediction"
        ]

    def page(self, student: str) -> str:
        return (self.root / "gradebook" / "feedback" / student / NAME / f"{NAME}.html").read_text(encoding="utf-8")


def ordinary(home: Path) -> tuple[list[str], dict[str, str]]:
    """(prefix of a command, environment) that runs it as an ordinary user. Skips where that cannot be done."""
    if os.geteuid():
        pytest.skip("only root can run it as another user, too")
    places = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
    closed = {p for place in places for p in place.parents if not p.stat().st_mode & 1}
    if len(closed) > 1:
        pytest.skip(f"an ordinary user can reach neither of {closed}")
    hidden = "".join(map(str, closed))
    inside = sorted({str(p) for p in places if hidden and str(p).startswith(hidden + os.sep)})
    environment = {"PLACES": " ".join(inside), "CLOSED": hidden, "HOME": str(home), "USER_ID": str(ORDINARY)}
    prefix = ["unshare", "--mount", "sh", "-c", AS_ORDINARY, "sh"]
    probe = subprocess.run(
        [*prefix, sys.executable, "-c", "pass"],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    if probe.returncode:
        pytest.skip(f"this machine cannot run Python as another user: {probe.stderr.strip()}")
    return prefix, environment


def class_folder(root: Path, notebooks: Collection[str], files: Sequence[File]) -> int:
    """The course, and what was handed in to it; returns how many that are."""
    for folder in ("solutions", "exercises"):
        shutil.copytree(ROOT / folder / NAME, root / folder / NAME)
    (root / "home").mkdir()
    (root / "tmp").mkdir()
    right = solved()
    by_notebook: dict[str, dict[str, str]] = {}
    for each in (act for act in acts(str(root)) if act.notebook in notebooks):
        by_notebook.setdefault(each.notebook, {})[each.task] = each.code
    for notebook, answers in by_notebook.items():
        write(root / "in" / notebook / f"{NAME}.ipynb", json.dumps(with_code(right, answers)).encode())
    for file in files:
        write(root / "in" / file.name.replace(" ", "-") / file.file, file.change(right) or b"")
    write(root / "in" / "good" / f"{NAME}.ipynb", json.dumps(right).encode())
    return len(by_notebook) + len(files) + 1


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def runs() -> Iterator[Callable[[str], Graded]]:
    """Mode -> its run, made once: whatever the tests' order, each class is graded one time."""
    done: dict[str, Graded] = {}

    def run(mode: str) -> Graded:
        if mode not in done:
            done[mode] = grade(mode)
        return done[mode]

    yield run
    for each in done.values():
        shutil.rmtree(each.root)


@pytest.fixture
def graded(request: pytest.FixtureRequest, runs: Callable[[str], Graded]) -> Graded:
    return runs(request.param)


def grade(mode: str) -> Graded:
    root = Path(tempfile.mkdtemp(prefix="course-"))
    root.chmod(0o755)
    prefix, environment = ordinary(root / "home") if mode == "an ordinary user" else ([], {})
    handed_in = class_folder(root, *MODES[mode])
    if prefix:
        for path in [root, *root.rglob("*")]:
            os.chown(path, ORDINARY, ORDINARY)
    course = ["--course", str(root)]
    limits = ["--cell-seconds", "8", "--memory-gb", "2", "--jobs", "3"]
    limits += ["--no-sandbox"] if mode == "without namespaces" else []
    specdec = [*prefix, sys.executable, "-m", "specdec_ref", "grade"]
    env = {**os.environ, **environment, "OMP_NUM_THREADS": "1", "TMPDIR": str(root / "tmp")}
    done = subprocess.run(
        [*specdec, "class", str(root / "in"), *course, *limits],
        env=env,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    marks = subprocess.run(
        [*specdec, "report", "--json", *course], env=env, cwd=root, capture_output=True, text=True, check=True
    )
    (root / "marks.jsonl").write_text(marks.stdout)
    return Graded(root, done.returncode, done.stdout + done.stderr, handed_in)


@each_mode
def test_the_run_goes_to_its_end_and_the_good_notebook_is_not_harmed(graded: Graded) -> None:
    assert graded.code == 0, graded.said
    assert f"{graded.handed_in} graded, 0 unchanged, 0 failed" in graded.said
    assert graded.points("good") == FULL
    assert "sandbox here" not in graded.said or "--no-sandbox" in graded.said or sys.platform != "linux"


@pytest.mark.parametrize(
    ("graded", "act"),
    [
        pytest.param(mode, act, id=f"{mode}-{act.name}".replace(" ", "_"))
        for mode, (notebooks, _) in MODES.items()
        for act in ACTS
        if act.notebook in notebooks
    ],
    indirect=["graded"],
)
def test_an_act_earns_nothing_and_is_told_why(act: Act, graded: Graded) -> None:
    points = graded.points(act.notebook)
    assert {task: points[task] for task in act.loses} == dict.fromkeys(act.loses, 0.0), graded.page(act.notebook)
    assert re.search(act.told, graded.page(act.notebook))
    spoiled = {task for each in ACTS if each.notebook == act.notebook for task in each.loses}
    assert {task: points[task] for task in FULL if task not in spoiled} == {
        t: p for t, p in FULL.items() if t not in spoiled
    }


@pytest.mark.parametrize("graded", ["this user"], indirect=True)
@pytest.mark.parametrize("file", FILES, ids=[each.name.replace(" ", "_") for each in FILES])
def test_a_file_that_is_odd_gets_its_marks_and_a_message(file: File, graded: Graded) -> None:
    student = file.name.replace(" ", "-")
    assert graded.points(student) == file.points
    assert file.told in graded.page(student)


@pytest.mark.parametrize("graded", ["this user", "an ordinary user"], indirect=True)
def test_a_person_is_shown_what_to_look_at(graded: Graded) -> None:
    for words in ("“lookup” uses open", "“grams” uses exec, open", "socket", "subprocess"):
        assert words in graded.said


@each_mode
def test_no_process_and_no_scratch_folder_is_left(graded: Graded) -> None:
    assert list((graded.root / "tmp").iterdir()) == []
    running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert len(running) > 1
    assert [line for line in running if any(str(graded.root) in word for word in line)] == []
