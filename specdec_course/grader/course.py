"""nbgrader, driven so that nobody meets its traps: the release, the grading and the marks of a course folder.

    solutions/NAME/NAME.ipynb                the source       -> exercises/NAME/NAME.ipynb     what students get
    gradebook/received/STUDENT/NAME/         what they hand in, untouched
    gradebook/submitted/STUDENT/NAME/        the same, made readable (`handin`) -> gradebook/autograded, gradebook.db

In-process, with the settings of `setup`: nothing fails silently, alembic is found, and nbgrader's log is read for us.
"""

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.apps import NbGraderAPI
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

from specdec_course.grader.confine import Allowance
from specdec_course.grader.handin import MAX_BYTES, receive
from specdec_course.grader.judge import preload
from specdec_course.grader.marks import Mark, checks_hash, enter, keep_manual, marks, own_programs
from specdec_course.grader.names import as_student
from specdec_course.grader.overlay import overlaid
from specdec_course.grader.setup import ABOUT, configure
from specdec_course.grader.sources import faults, role, source
from specdec_course.grader.students import Students

__all__ = ["Course", "Mark"]


@dataclass(frozen=True, slots=True)
class Course:
    """A folder with `solutions/` and `exercises/`, what a submission may use, and a folder of private tests."""

    root: Path
    allowance: Allowance = Allowance()
    private: Path | None = None

    def names(self) -> list[str]:
        """The exercises, in order."""
        return sorted(
            path.parent.name for path in self.root.glob("solutions/*/*.ipynb") if path.stem == path.parent.name
        )

    def release(self, names: Sequence[str]) -> list[Path]:
        """Generate `exercises/` from `solutions/`. Raises ValueError with all faults of a source."""
        for name in names:
            self._generate(name, self.root / "exercises")
        return [self.root / "exercises" / name for name in names]

    def stale(self, names: Sequence[str]) -> list[str]:
        """Files of `exercises/` that are not what `solutions/` generates, with what is the matter."""
        found = []
        with tempfile.TemporaryDirectory() as scratch:
            for name in names:
                self._generate(name, Path(scratch))
                fresh, kept = _files(Path(scratch) / name), _files(self.root / "exercises" / name)
                for file in sorted({*fresh, *kept}):
                    if fresh.get(file) != kept.get(file):
                        what = "missing" if file not in kept else "not in solutions" if file not in fresh else "differs"
                        found.append(f"exercises/{name}/{file}: {what}")
        strangers = {path.parent.name for path in self.root.glob("exercises/*/*.ipynb")} - set(self.names())
        return found + [f"exercises/{name}: has no source in solutions" for name in sorted(strangers)]

    def prepare(self, name: str) -> None:
        """Tell nbgrader's database what is graded, and keep the release that hand-ins are measured against."""
        self._generate(name, self._book / "release", gradebook=True)

    def preload(self, names: Sequence[str]) -> None:
        """Import what the tests of these exercises need, once for all processes that this one forks."""
        cells = [cell for name in names for cell in self.source(name)["cells"] if role(cell) in ("locked", "tests")]
        preload([source(cell) for cell in cells if cell["cell_type"] == "code"])

    def released(self, name: str) -> dict[str, Any]:
        """The exercise as students get it, after `prepare`."""
        path = self._book / "release" / name / f"{name}.ipynb"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def hand_in(
        self, student: str, name: str, file: Path | None, note: str = "", *, final: bool = True, **about: Any
    ) -> bool:
        """Keep what was handed in, and make it a notebook that can be graded; False if just this is graded already.

        `note` is for the student. Without a file they get the exercise without answers, and the note. `about`: what
        else the graded copy should carry. Not `final`: the next run grades it again, whatever it is.
        """
        data = b""
        if file is not None:
            with file.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        digest = hashlib.sha256(data + note.encode(errors="replace") + self._fingerprint(name)).hexdigest()
        if final and self.about(student, name).get("digest") == digest:
            return False
        if file is not None and len(data) <= MAX_BYTES:
            self._keep(file, self._book / "received" / student / name)
        received = receive(None if file is None else data, self.released(name))
        about |= {
            "digest": digest if final else "",
            "notes": [*([note] if note else []), *received.notes],
            "looks": received.looks,
        }
        notebook = {**received.notebook, "metadata": {**received.notebook["metadata"], ABOUT: about}}
        place = self.submitted(student, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
        return True

    def submitted(self, student: str, name: str) -> Path:
        """Where the notebook is that is graded."""
        return self._book / "submitted" / student / name / f"{name}.ipynb"

    def graded(self, student: str, name: str) -> Path:
        """Where the graded copy is, or would be."""
        return self._book / "autograded" / student / name / f"{name}.ipynb"

    def about(self, student: str, name: str) -> dict[str, Any]:
        """What the graded copy says was odd: notes for the student, looks for a person; empty if there is none."""
        path = self.graded(student, name)
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"metadata": {}}
        about: dict[str, Any] = found["metadata"].get(ABOUT, {})
        return about

    def submissions(self, names: Sequence[str], student: str | None = None) -> list[tuple[str, str]]:
        """(student, exercise) of all that was handed in."""
        pattern = f"submitted/{student or '*'}/*/*.ipynb"
        found = {(path.parent.parent.name, path.parent.name) for path in self._book.glob(pattern)}
        return sorted(pair for pair in found if pair[1] in names)

    def autograde(self, student: str, name: str) -> None:
        """Grade one hand-in, after `prepare`. Raises RuntimeError if that failed through no fault of the student's."""
        before = self.answers(student, name) if self.graded(student, name).is_file() else {}
        with self._api() as api:
            _require(api.autograde(name, student), f"{student}, {name}")
        after = self.answers(student, name)
        for task in (task for task in after if after[task] == before.get(task)):
            keep_manual(self._database, student, name, task)

    def answers(self, student: str, name: str) -> dict[str, str]:
        """What a student wrote where a person has to read it: task -> text, from the graded copy."""
        path = self.graded(student, name)
        if not path.is_file():
            raise ValueError(f"{student} has no graded {name}: `specdec grade autograde` first")
        cells = nbformat.read(path, as_version=4).cells
        return {cell.metadata.nbgrader["grade_id"]: cell.source for cell in cells if role(cell) == "manual"}

    def rubric(self, name: str) -> dict[str, str]:
        """Our answers to what a person reads, each with how to mark it: task -> text, from the source."""
        cells = self.source(name)["cells"]
        return {cell["metadata"]["nbgrader"]["grade_id"]: cell["source"] for cell in cells if role(cell) == "manual"}

    def mark(self, student: str, name: str, task: str, points: float, comment: str | None = None) -> None:
        """Enter what a written answer is worth. Raises ValueError if the task has no such points."""
        enter(self._database, Mark(student, name, task, points, 0.0), comment)

    def marks(self, only: tuple[str, str] | None = None) -> list[Mark]:
        """All graded cells, in the order of the exercises and their tasks; or `only` those of (student, name)."""
        order = {(name, task): at for name in self.names() for at, task in enumerate(self._tasks(name))}
        found = marks(self._database, self.names(), only)
        return sorted(found, key=lambda mark: (mark.student, mark.exercise, order.get((mark.exercise, mark.task), 0)))

    def students(self) -> Students:
        """Who is who."""
        return Students(self._book / "students.json")

    def page(self, student: str, name: str) -> Path:
        """Where the student's page is, or would be."""
        return self._book / "feedback" / student / name / f"{name}.html"

    @property
    def _book(self) -> Path:
        return self.root / "gradebook"

    @property
    def _database(self) -> str:
        self._book.mkdir(exist_ok=True)
        return f"sqlite:///{self._book / 'gradebook.db'}"

    def _fingerprint(self, name: str) -> bytes:
        """Of all that decides what a hand-in earns: the exercise, private tests, and the code of the checks."""
        files = [self.root / "solutions" / name / f"{name}.ipynb", self._private(name)]
        return checks_hash() + b"".join(file.read_bytes() for file in files if file is not None)

    def _private(self, name: str) -> Path | None:
        path = None if self.private is None else self.private / f"{name}.py"
        return path if path is not None and path.is_file() else None

    @staticmethod
    def _keep(file: Path, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copyfile(file, folder / (as_student(file.stem) + file.suffix[:10]))

    def source(self, name: str) -> dict[str, Any]:
        """The exercise with our answers."""
        notebook: dict[str, Any] = nbformat.read(self.root / "solutions" / name / f"{name}.ipynb", as_version=4)
        return notebook

    def _tasks(self, name: str) -> list[str]:
        graded = [cell for cell in self.source(name)["cells"] if role(cell) in ("tests", "manual")]
        return [cell["metadata"]["nbgrader"]["grade_id"] for cell in graded]

    def _generate(self, name: str, into: Path, *, gradebook: bool = False) -> None:
        """One release. With `gradebook` it also tells nbgrader's database which cells are graded, and how."""
        if name not in self.names():
            raise ValueError(f"there is no solutions/{name}/{name}.ipynb; there are: {', '.join(self.names())}")
        if wrong := faults(self.source(name)):
            raise ValueError(f"solutions/{name}/{name}.ipynb: " + "; ".join(wrong))
        with self._sources(name, private=gradebook) as source, self._api(source, into, gradebook=gradebook) as api:
            _require(api.generate_assignment(name), name)

    @contextmanager
    def _sources(self, name: str, *, private: bool) -> Iterator[Path]:
        """The folder of sources; with private tests a copy that has them, too."""
        tests = self._private(name) if private else None
        if tests is None:
            yield self.root / "solutions"
            return
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copytree(self.root / "solutions" / name, Path(scratch) / name)
            try:
                merged = overlaid(self.source(name), tests.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{tests}: {error}") from error
            nbformat.write(nbformat.from_dict(merged), Path(scratch) / name / f"{name}.ipynb")
            yield Path(scratch)

    @contextmanager
    def _api(
        self, source: Path | None = None, release: Path | None = None, *, gradebook: bool = True
    ) -> Iterator[NbGraderAPI]:
        """nbgrader in this process."""
        config = Config()
        configure(config, self.root, self.allowance)
        if source is not None:
            config.CourseDirectory.source_directory = str(source)
        if release is not None:
            config.CourseDirectory.release_directory = str(release)
        config.CourseDirectory.db_url = self._database if gradebook else "sqlite://"
        config.GenerateAssignment.no_database = not gradebook
        config.SaveCells.enabled = gradebook
        with own_programs(), warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # of nbgrader's own queries, about objects it adds later
            yield NbGraderAPI(config=config)


def _require(done: dict[str, Any], what: str) -> None:
    """nbgrader reports failure in a dictionary: keep its log from the first error on, tracebacks included."""
    if not done["success"]:
        lines = done.get("log", "").splitlines()
        first = next((at for at, line in enumerate(lines) if "[ERROR]" in line), len(lines))
        said = "\n".join([*lines[first:], *str(done.get("error") or "").splitlines()])
        raise RuntimeError(f"{what}: nbgrader failed: {said or 'no reason given'}")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
