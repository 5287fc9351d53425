"""Student code that means harm, graded as a class: by the user who runs the tests and, if that is root, by another one.

Each act gets the marks that it deserves and a page that says why, and the run goes on to the next.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile import ACTS, FILES, FULL, NAME, Act, File, acts, solved, with_code

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
ORDINARY = 61_000  # a user id that owns nothing here
# Seen by that user: Python and this repository, also where they lie in root's closed home.
AS_ORDINARY = """
set -e
keep=$(mktemp -d); i=0
for place in $PLACES; do i=$((i + 1)); mkdir $keep/$i; mount --bind $place $keep/$i; done
[ -z "$CLOSED" ] || mount -t tmpfs -o mode=755 tmpfs $CLOSED
i=0
for place in $PLACES; do i=$((i + 1)); mkdir -p $place; mount --bind $keep/$i $place; umount $keep/$i; done
exec setpriv --reuid $USER_ID --regid $USER_ID --clear-groups "$@"
"""


@dataclass(frozen=True)
class Graded:
    """A course after the run: the command's exit code and output."""

    root: Path
    code: int
    said: str

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
    probe = subprocess.run([*prefix, sys.executable, "-c", "pass"], env={**os.environ, **environment}, check=False, capture_output=True, text=True)  # fmt: skip
    if probe.returncode:
        pytest.skip(f"this machine cannot run Python as another user: {probe.stderr.strip()}")
    return prefix, environment


def class_folder(root: Path) -> None:
    """The course, and what was handed in to it."""
    for folder in ("solutions", "exercises"):
        shutil.copytree(ROOT / folder / NAME, root / folder / NAME)
    (root / "home").mkdir()
    right = solved()
    by_notebook: dict[str, dict[str, str]] = {}
    for each in acts(str(root)):
        by_notebook.setdefault(each.notebook, {})[each.task] = each.code
    for notebook, answers in by_notebook.items():
        write(root / "in" / notebook / f"{NAME}.ipynb", json.dumps(with_code(right, answers)).encode())
    for file in FILES:
        write(root / "in" / file.name.replace(" ", "-") / file.file, file.change(right) or b"")
    write(root / "in" / "good" / f"{NAME}.ipynb", json.dumps(right).encode())


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


@pytest.fixture(scope="module", params=["this user", "an ordinary user", "without namespaces"])
def graded(request: pytest.FixtureRequest) -> Iterator[Graded]:
    root = Path(tempfile.mkdtemp(prefix="course-"))
    root.chmod(0o755)
    prefix, environment = ordinary(root / "home") if request.param == "an ordinary user" else ([], {})
    class_folder(root)
    if prefix:
        for path in [root, *root.rglob("*")]:
            os.chown(path, ORDINARY, ORDINARY)
    course = ["--course", str(root)]
    limits = ["--cell-seconds", "8", "--memory-gb", "2", "--jobs", "2"]
    limits += ["--no-sandbox"] if request.param == "without namespaces" else []
    specdec = [*prefix, sys.executable, "-m", "specdec_ref.cli", "grade"]
    env = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*specdec, "class", str(root / "in"), *course, *limits], env=env, cwd=root, capture_output=True, text=True, check=False)  # fmt: skip
    marks = subprocess.run([*specdec, "report", "--json", *course], env=env, cwd=root, capture_output=True, text=True, check=True)  # fmt: skip
    (root / "marks.jsonl").write_text(marks.stdout)
    yield Graded(root, done.returncode, done.stdout + done.stderr)
    shutil.rmtree(root)


def test_the_run_goes_to_its_end_and_the_good_notebook_is_not_harmed(graded: Graded) -> None:
    assert graded.code == 0, graded.said
    assert f"{len(FILES) + len({each.notebook for each in ACTS}) + 1} graded, 0 unchanged, 0 failed" in graded.said
    assert graded.points("good") == FULL
    assert "sandbox here" not in graded.said or "--no-sandbox" in graded.said or sys.platform != "linux"


@pytest.mark.parametrize("act", ACTS, ids=[each.name.replace(" ", "_") for each in ACTS])
def test_an_act_earns_nothing_and_is_told_why(act: Act, graded: Graded) -> None:
    points = graded.points(act.notebook)
    assert {task: points[task] for task in act.loses} == dict.fromkeys(act.loses, 0.0), graded.page(act.notebook)
    assert act.told in graded.page(act.notebook)
    spoiled = {task for each in ACTS if each.notebook == act.notebook for task in each.loses}
    assert {task: points[task] for task in FULL if task not in spoiled} == {
        t: p for t, p in FULL.items() if t not in spoiled
    }


@pytest.mark.parametrize("file", FILES, ids=[each.name.replace(" ", "_") for each in FILES])
def test_a_file_that_is_odd_gets_its_marks_and_a_message(file: File, graded: Graded) -> None:
    student = file.name.replace(" ", "-")
    assert graded.points(student) == file.points
    assert file.told in graded.page(student)


def test_a_person_is_shown_what_to_look_at(graded: Graded) -> None:
    for words in ("sys", "torch.allclose = ...", "get_ipython", "exec, open", "socket", "specdec_ref.drafters.trie"):
        assert words in graded.said


def test_no_process_and_no_scratch_folder_is_left(graded: Graded) -> None:
    assert list(Path(tempfile.gettempdir()).glob("specdec-grade-*")) == []
