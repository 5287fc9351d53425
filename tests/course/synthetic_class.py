"""A class of forty, graded in one command and compared with what it deserves: `python tests/course/synthetic_class.py`.

Perfect, partly wrong, untouched, broken and hostile hand-ins, named as three platforms name them, some of them zipped.
It prints the command's own output, then what differs from the marks that were expected (nothing), and the time.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from exercise_runner import EXERCISES, ROOT, grade_id, load
from hostile import ACTS, FILES, FULL, acts, solved, with_code
from hostile import NAME as QUICK
from malformed import ARCHIVES, NOTEBOOKS, READABLE
from wrong_answers import BANK

from specdec_course.grader.sources import role, source

SIZE = 40


@dataclass(frozen=True)
class Student:
    """A hand-in. `at_least` and `below`: task -> points that it must reach, or stay under."""

    name: str
    exercise: str
    file: str
    data: bytes
    at_least: dict[str, float]
    below: dict[str, float]


def full(exercise: str) -> dict[str, float]:
    """Task -> points, of the graded code cells."""
    return {
        grade_id(cell).removesuffix("-tests"): float(cell["metadata"]["nbgrader"]["points"])
        for cell in load("solutions", exercise)["cells"]
        if role(cell) == "tests"
    }


def right(exercise: str) -> dict[str, Any]:
    ours = {grade_id(cell): source(cell) for cell in load("solutions", exercise)["cells"] if role(cell) == "solution"}
    return with_code(load("exercises", exercise), {task: code for task, code in ours.items() if task in full(exercise)})


def packed(notebook: dict[str, Any]) -> bytes:
    return json.dumps(notebook).encode()


def students(course: Path, exercises: Sequence[str], size: int = SIZE) -> Iterator[Student]:
    """Forty of them, or fewer if there are fewer exercises; beyond the whole bank of wrong answers, right ones."""
    left = size - len(FILES) - len({act.notebook for act in ACTS}) - 1 - len(exercises)
    for exercise in exercises:
        yield Student(
            f"perfect-{exercise[:2]}", exercise, f"{exercise}.ipynb", packed(right(exercise)), full(exercise), {}
        )
    yield Student("untouched", QUICK, f"{QUICK}.ipynb", packed(load("exercises", QUICK)), {}, dict.fromkeys(FULL, 0.01))
    bank = [wrong for wrong in BANK if wrong.exercise in exercises]
    for number, wrong in enumerate(bank[:: max(1, len(bank) // left)][:left]):
        notebook = with_code(right(wrong.exercise), {wrong.task: wrong.code})
        others = {task: points for task, points in full(wrong.exercise).items() if task != wrong.task}
        own = {wrong.task: full(wrong.exercise)[wrong.task]}
        yield Student(f"partial-{number}", wrong.exercise, f"{wrong.exercise}.ipynb", packed(notebook), others, own)
    for number in range(left - len(bank)):
        exercise = exercises[number % len(exercises)]
        yield Student(f"more-{number}", exercise, f"{exercise}.ipynb", packed(right(exercise)), full(exercise), {})
    for file in FILES:
        earned = {task: points for task, points in file.points.items() if points}
        lost = {task: 0.01 for task, points in file.points.items() if not points}
        yield Student(file.name.replace(" ", "-"), QUICK, file.file, file.change(solved()) or b"", earned, lost)
    hostile: dict[str, dict[str, str]] = {}
    spoilt: dict[str, set[str]] = {}
    for act in acts(str(course)):
        hostile.setdefault(act.notebook, {})[act.task] = act.code
        spoilt.setdefault(act.notebook, set()).update(act.loses)
    for name, codes in hostile.items():
        kept = {task: points for task, points in FULL.items() if task not in spoilt[name]}
        lost = dict.fromkeys(spoilt[name], 0.01)
        yield Student(f"hostile-{name}", QUICK, f"{QUICK}.ipynb", packed(with_code(solved(), codes)), kept, lost)


def damaged() -> Iterator[Student]:
    """A student for each malformed notebook and archive. Where every answer can be read it must get all the points."""
    for at, (name, data) in enumerate(NOTEBOOKS.items()):
        earned = FULL if name in READABLE else {}
        yield Student(f"notebook-{at}", QUICK, f"{QUICK}.ipynb", data, earned, {})
    for at, data in enumerate(ARCHIVES.values()):
        yield Student(f"archive-{at}", QUICK, "work.zip", data, {}, {})


def write(folder: Path, everybody: Sequence[Student]) -> dict[str, Student]:
    """The folder as it comes from a platform; student as they are called then -> student."""
    known = {}
    for number, each in enumerate(everybody):
        name, path = each.name, folder / each.name / each.file
        if number % 5 == 1 and each.file == f"{each.exercise}.ipynb":  # as Canvas has it: no folders
            name = f"{each.name}_{number}"
            path = folder / f"{name}_900{number}_{each.file}"
        elif number % 5 == 2:  # as Moodle has it
            name = f"{each.name}_{number}"
            path = folder / f"{name}_assignsubmission_file_" / each.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 5 == 3 and not each.file.endswith(".zip"):
            with zipfile.ZipFile(path.with_name("all of it.zip"), "w") as archive:
                archive.writestr(each.file, each.data)
        else:
            path.write_bytes(each.data)
        known[name] = each
    return known


def differences(known: dict[str, Student], marks: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is not as it should be."""
    earned = {
        (mark["student"], mark["exercise"], mark["task"].removesuffix("-tests")): mark["points"] for mark in marks
    }
    for name, each in known.items():
        for task, points in each.at_least.items():
            if (earned.get((name, each.exercise, task)) or 0.0) != points:
                yield f"{name}: {task} earned {earned.get((name, each.exercise, task))}, not {points:g}"
        for task, points in each.below.items():
            if earned.get((name, each.exercise, task), points) >= points:
                yield f"{name}: {task} earned {earned.get((name, each.exercise, task))}, which is not below {points:g}"
    for name in {mark["student"] for mark in marks} ^ set(known):
        yield f"{name}: lost, or not of this class"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default="2", help="hand-ins at a time (default 2)")
    parser.add_argument("--size", type=int, default=SIZE, help="hand-ins (default 40)")
    parser.add_argument("--malformed", action="store_true", help="instead, each malformed file of malformed.py")
    parser.add_argument(
        "--keep", type=Path, help="do it in this folder, and leave it there (default: a scratch folder)"
    )
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="class-"))
    course = folder / "course"
    for part in ("solutions", "exercises"):
        shutil.copytree(ROOT / part, course / part)
    everybody = damaged() if args.malformed else students(course, EXERCISES, args.size)
    known = write(folder / "in", list(everybody))
    specdec = [sys.executable, "-m", "specdec_ref", "grade"]
    began = perf_counter()
    done = subprocess.run(
        [*specdec, "class", str(folder / "in"), "--course", str(course), "--jobs", args.jobs, "--cell-seconds", "20"],
        check=False,
    )
    seconds = perf_counter() - began
    report = subprocess.run(
        [*specdec, "report", "--json", "--course", str(course)], check=True, capture_output=True, text=True
    )
    wrong = list(differences(known, [json.loads(line) for line in report.stdout.splitlines()]))
    pages = len(list(course.glob("gradebook/feedback/*/*/*.html")))
    said = [*wrong, f"{len(known)} hand-ins in {seconds:.0f} s, {pages} pages, {len(wrong)} marks not as expected"]
    sys.stdout.write("\n".join(said) + "\n")
    if args.keep is None:
        shutil.rmtree(folder)
    return 1 if wrong or done.returncode or pages != len(known) else 0


if __name__ == "__main__":
    sys.exit(main())
