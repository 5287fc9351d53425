"""nbgrader, driven so that nobody meets its traps: the release, the grading and the marks of a course folder.

    solutions/NAME/NAME.ipynb               the source       -> exercises/NAME/NAME.ipynb     what students get
    gradebook/submitted/STUDENT/NAME/       what they hand in -> gradebook/autograded, gradebook/feedback, gradebook.db

In-process, with a configuration made here: nbgrader reads no file that could fail silently, finds alembic, writes no
widget state into the release, and its log is read for us.
"""

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGraderAPI
from nbgrader.converters import Autograde, GenerateAssignment
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

from specdec_ref.grading.sources import faults, role
from specdec_ref.grading.submission import Allowance, LimitedExecute

__all__ = ["Course", "Mark"]

STUB = 'raise NotImplementedError("your code here")'


@dataclass(frozen=True, slots=True)
class Mark:
    """One graded cell of one hand-in. `points` is None while a person has to read the answer."""

    student: str
    exercise: str
    task: str
    points: float | None
    out_of: float


@dataclass(frozen=True, slots=True)
class Course:
    """A folder with `solutions/` and `exercises/` in it, and what a submission may use while it is graded."""

    root: Path
    allowance: Allowance = Allowance()

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

    def hand_in(self, notebook: Path, student: str) -> str:
        """Copy a notebook to where submissions are looked for; returns the exercise's name."""
        if notebook.stem not in self.names():
            raise ValueError(f"{notebook.name} is none of the exercises: {', '.join(self.names())}")
        folder = self._book / "submitted" / student / notebook.stem
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(notebook, folder / notebook.name)
        return notebook.stem

    def submissions(self, names: Sequence[str], student: str | None = None) -> list[tuple[str, str]]:
        """(student, exercise) of all that was handed in."""
        pattern = f"submitted/{student or '*'}/*/*.ipynb"
        found = {(path.parent.parent.name, path.parent.name) for path in self._book.glob(pattern)}
        return sorted(pair for pair in found if pair[1] in names)

    def autograde(self, student: str, name: str) -> list[str]:
        """Grade one hand-in; returns what a person should know. Raises RuntimeError if it cannot be graded."""
        notes = self._inspected(self._book / "submitted" / student / name / f"{name}.ipynb")
        with tempfile.TemporaryDirectory() as scratch:
            self._generate(name, Path(scratch), gradebook=True)
        with self._api() as api:
            _require(api.autograde(name, student), f"{student}, {name}")
        return notes

    def feedback(self, student: str, name: str) -> Path:
        """Write the page that shows a student cell by cell what was earned; returns its folder."""
        with self._api() as api:
            _require(api.generate_feedback(name, student), f"{student}, {name}")
        return self._book / "feedback" / student / name

    def answers(self, student: str, name: str) -> dict[str, str]:
        """What a student wrote where a person has to read it: task -> text, from the graded copy."""
        path = self._book / "autograded" / student / name / f"{name}.ipynb"
        if not path.is_file():
            raise ValueError(f"{student} has no graded {name}: `specdec grade autograde` first")
        cells = nbformat.read(path, as_version=4).cells
        return {cell.metadata.nbgrader["grade_id"]: cell.source for cell in cells if role(cell) == "manual"}

    def mark(self, student: str, name: str, task: str, points: float, comment: str | None = None) -> None:
        """Enter what a written answer is worth. Raises ValueError if the task has no such points."""
        with _own_programs(), Gradebook(self._database, "specdec") as book:
            try:
                grade = book.find_grade(task, name, name, student)
            except MissingEntry as error:
                raise ValueError(f"{student} has nothing to mark in {name}, {task}: {error}") from error
            if not 0 <= points <= grade.max_score:
                raise ValueError(f"{task} is worth 0 to {grade.max_score:g} points, not {points:g}")
            grade.manual_score, grade.needs_manual_grade = points, False
            if comment is not None:
                book.find_comment(task, name, name, student).manual_comment = comment
            book.db.commit()

    def marks(self) -> list[Mark]:
        """All graded cells of all hand-ins, in the order of the exercises and their tasks."""
        order = {(name, task): at for name in self.names() for at, task in enumerate(self._tasks(name))}
        with _own_programs(), Gradebook(self._database, "specdec") as book:
            found = [
                Mark(submission.student.id, submission.assignment.name, grade.name, _points(grade), grade.max_score)
                for name in self.names()
                for submission in book.assignment_submissions(name)
                for notebook in submission.notebooks
                for grade in notebook.grades
            ]
        return sorted(found, key=lambda mark: (mark.student, mark.exercise, order.get((mark.exercise, mark.task), 0)))

    @property
    def _book(self) -> Path:
        return self.root / "gradebook"

    @property
    def _database(self) -> str:
        self._book.mkdir(exist_ok=True)
        return f"sqlite:///{self._book / 'gradebook.db'}"

    def _source(self, name: str) -> dict[str, Any]:
        notebook: dict[str, Any] = nbformat.read(self.root / "solutions" / name / f"{name}.ipynb", as_version=4)
        return notebook

    def _tasks(self, name: str) -> list[str]:
        graded = [cell for cell in self._source(name)["cells"] if role(cell) in ("tests", "manual")]
        return [cell["metadata"]["nbgrader"]["grade_id"] for cell in graded]

    def _generate(self, name: str, into: Path, *, gradebook: bool = False) -> None:
        """One release. With `gradebook` it also tells nbgrader's database which cells are graded, and how."""
        if name not in self.names():
            raise ValueError(f"there is no solutions/{name}/{name}.ipynb; there are: {', '.join(self.names())}")
        if wrong := faults(self._source(name)):
            raise ValueError(f"solutions/{name}/{name}.ipynb: " + "; ".join(wrong))
        with self._api(release=into, gradebook=gradebook) as api:
            _require(api.generate_assignment(name), name)

    @contextmanager
    def _api(self, release: Path | None = None, *, gradebook: bool = True) -> Iterator[NbGraderAPI]:
        """nbgrader in this process."""
        config = _config(self.allowance)
        where, book = config.CourseDirectory, self._book
        where.course_id, where.root, where.source_directory = "specdec", str(self.root), "solutions"
        where.release_directory = str(release or self.root / "exercises")
        where.submitted_directory, where.autograded_directory = str(book / "submitted"), str(book / "autograded")
        where.feedback_directory, where.db_url = str(book / "feedback"), self._database if gradebook else "sqlite://"
        config.GenerateAssignment.no_database = not gradebook
        config.SaveCells.enabled = gradebook
        with _own_programs(), warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # of nbgrader's own queries, about objects it adds later
            yield NbGraderAPI(config=config)

    def _inspected(self, notebook: Path) -> list[str]:
        """What is odd about a hand-in, in sentences. Raises RuntimeError if it is no notebook at all."""
        try:
            cells = nbformat.read(notebook, as_version=4).cells
        except (OSError, ValueError) as error:
            raise RuntimeError(f"{notebook} is no notebook that can be read: {error}") from error
        ids = [cell.metadata.nbgrader["grade_id"] for cell in cells if role(cell)]
        wanted = [
            cell["metadata"]["nbgrader"]["grade_id"] for cell in self._source(notebook.stem)["cells"] if role(cell)
        ]
        notes = [
            f"cell {name} is there {ids.count(name)} times: the last one counts"
            for name in {*ids}
            if ids.count(name) > 1
        ]
        return notes + [f"cell {name} is missing" for name in wanted if name not in ids]


@contextmanager
def _own_programs() -> Iterator[None]:
    """The programs that nbgrader calls (alembic, for a new gradebook) are those of this environment."""
    path = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _config(allowance: Allowance) -> Config:
    config = Config()
    config.ClearSolutions.code_stub = {"python": STUB}
    config.ClearSolutions.text_stub = "*Write your answer here.*"
    config.GenerateAssignment.preprocessors = [*GenerateAssignment().preprocessors, ClearMetadataPreprocessor]
    config.ClearMetadataPreprocessor.enabled = True
    config.ClearMetadataPreprocessor.clear_cell_metadata = False
    config.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec", "language_info"}
    steps = Autograde().autograde_preprocessors
    config.Autograde.autograde_preprocessors = [
        LimitedExecute if step.__name__ == "Execute" else step for step in steps
    ]
    config.LimitedExecute.timeout = allowance.cell_seconds
    config.LimitedExecute.iopub_timeout = 10  # seconds to obey an interrupt
    config.LimitedExecute.wall_seconds = allowance.wall_seconds
    config.LimitedExecute.cpu_seconds = allowance.cpu_seconds
    config.LimitedExecute.memory_bytes = allowance.memory_bytes
    return config


def _require(done: dict[str, Any], what: str) -> None:
    """nbgrader reports failure in a dictionary; its log's errors are the readable part."""
    if not done["success"]:
        errors = [line for line in done.get("log", "").splitlines() if "[ERROR]" in line]
        raise RuntimeError(f"{what}: nbgrader failed: {' '.join(errors) or done.get('error', 'no reason given')}")


def _points(grade: Any) -> float | None:
    return None if grade.manual_score is None and grade.auto_score is None else float(grade.score)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
