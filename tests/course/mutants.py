"""Mutation run over the exercises: does each wrong answer fail its check, and is the cause that it names the right one?

`python tests/course/mutants.py` runs what has no result yet and writes docs/MUTANTS.md; `--again 02` starts exercise 02
anew. Results are lines in `tests/course/mutants/`, so that a run can be stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from random import Random

from exercise_runner import EXERCISES
from mutant_page import MOST, RESULTS, results, write
from mutant_runs import Judged, Task, judge_all, prepare
from mutation import mutants
from right_answers import RIGHT
from wrong_answers import BANK

__all__ = ["answers", "run"]


def answers(exercise: str, task: Task, most: int = MOST) -> list[tuple[str, str]]:
    """(name, source) of the right answers, mutants and common mistakes that a task is tried with."""
    made = mutants(task.answer)
    chosen = sorted(Random(1).sample(range(len(made)), min(most, len(made))))
    right = [(f"right: {r.name}", r.code) for r in RIGHT if (r.exercise, r.task) == (exercise, task.name)]
    bank = [(f"bank: {w.name}", w.code) for w in BANK if (w.exercise, w.task) == (exercise, task.name)]
    return [*right, *((made[i].about, made[i].code) for i in chosen), *bank]


def run(exercise: str, processes: int, most: int, budget: float, only: str = "") -> None:
    """Try the answers of one exercise that have no result yet, until they have taken `budget` seconds."""
    space, tasks = prepare(exercise)
    there = {(row["task"], row["about"]) for row in results(exercise)}
    todo = [
        (task, about, code) for task in tasks for about, code in answers(exercise, task, most)
        if (task.name, about) not in there and only in f"{task.name} {about}"
    ]  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{exercise}.jsonl").open("a", encoding="utf-8") as file:

        def note(number: int, judged: Judged) -> None:
            task, about, _ = todo[number]
            row = {"task": task.name, "about": about, **vars(judged), "seconds": round(judged.seconds, 2)}
            if not ((about.startswith("right:") and not judged.hidden) or os.environ.get("VERBOSE")):
                del row["said"]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()

        judge_all(space, [(task, code) for task, _, code in todo], processes, note, budget)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", nargs="*", default=[], help="exercises that start anew, as 02")
    parser.add_argument("--only", default="", help="one exercise, in this process")
    parser.add_argument("--some", default="", help="only answers with these words in their task or name")
    parser.add_argument("--most", type=int, default=MOST, help="mutants of one task")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds of processor time of one exercise")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    for name in EXERCISES:
        if name[:2] in args.again:
            (RESULTS / f"{name}.jsonl").unlink(missing_ok=True)
    if args.only:
        run(args.only, args.processes, args.most, args.budget, args.some)
    else:
        for name in EXERCISES:
            own = ["--only", name, "--most", str(args.most), "--budget", str(args.budget), "--some", args.some]
            subprocess.run([sys.executable, __file__, *own, "--processes", str(args.processes)], check=True)
    if not args.only:
        write()
