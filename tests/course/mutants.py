"""Mutation run over the exercises: does each wrong answer fail its check, and is the cause that it names the right one?

`python tests/course/mutants.py` runs what has no result yet and writes docs/MUTANTS.md; `--again 02` starts exercise 02
anew, `--page` only writes the page. Results are lines in `tests/course/mutants/`, so that a run can be stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from exercise_runner import EXERCISES, ROOT
from mutant_equivalents import EQUIVALENT
from mutant_runs import Judged, Task, judge_all, prepare
from mutation import mutants
from right_answers import RIGHT
from wrong_answers import BANK

__all__ = ["Row", "answers", "figures", "page", "results"]

RESULTS = Path(__file__).parent / "mutants"
PAGE = ROOT / "docs" / "MUTANTS.md"
MOST = 16  # mutants of one task; of more, so many are drawn
Row = dict[str, Any]


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


def results(exercise: str) -> list[Row]:
    """What is known of an exercise; of a repeated answer the last."""
    path = RESULTS / f"{exercise}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return list({(row["task"], row["about"]): row for row in rows}.values())


def kind(row: Row) -> str:
    return str(row["about"].partition(":")[0]) if row["about"].startswith(("bank:", "right:")) else "mutant"


def of(rows: Sequence[Row], wanted: str) -> list[Row]:
    return [row for row in rows if kind(row) == wanted]


def why_equivalent(exercise: str, row: Row) -> str:
    """Why no test can tell this mutant from the reference, or ""."""
    return EQUIVALENT.get((exercise, row["task"]), {}).get(row["about"], "")


def told(exercise: str, row: Row) -> str:
    """The words that the cause of an answer from the bank must hold; "" if another check than a cause holds them."""
    return next(
        w.told for w in BANK if (w.exercise, w.task, f"bank: {w.name}") == (exercise, row["task"], row["about"])
    )


def figures(exercise: str) -> dict[str, float]:
    """Counts of one exercise: mutants and who killed them, causes right, none and false."""
    rows = results(exercise)
    made = of(rows, "mutant")
    same = [row for row in made if why_equivalent(exercise, row)]
    bank = of(rows, "bank")
    right = [row for row in bank if row["cause"] and told(exercise, row) in row["cause"]]
    named = [row for row in made if row["cause"]]
    other = [row for row in bank if row["cause"] and row not in right]
    return {
        "mutants": len(made), "equivalent": len(same), "visible": sum(not row["visible"] for row in made),
        "hidden": sum(not row["hidden"] for row in made),
        "either": sum(not (row["visible"] and row["hidden"]) for row in made),
        "bank": len(bank), "bank right": len(right), "bank other": len(other),
        "bank false": sum(row["false"] for row in bank), "bank none": sum(not row["cause"] for row in bank),
        "cause right": sum(not row["false"] for row in named), "cause false": sum(row["false"] for row in named),
        "cause none": sum(not row["visible"] and not row["cause"] for row in made),
        "slowest": max((row["seconds"] for row in rows), default=0.0),
    }  # fmt: skip


INTRODUCTION = """# Mutants of the reference solutions

A mutant is a reference solution with one small change: another operator, comparison or constant, an index one further, a
dropped statement, swapped arguments. `python tests/course/mutants.py` makes them ([how](../tests/course/mutation.py)), draws at
most {most} for each task with a fixed seed, puts each through the visible and the hidden test of its task, and writes this page.
A mutant is *killed* by a test that does not pass it completely.

| exercise | mutants | equivalent | killed by visible tests | of those that differ | killed by hidden tests | by either | slowest visible test |
|---|---|---|---|---|---|---|---|
"""

CAUSES = """
## Named causes

Where an answer fails, its report may name a likely cause. A common mistake is named only if it gives the outcome of the answer in
every trial of the visible test, passed or failed. For the answers of [the bank](WRONG_ANSWERS.md) the right cause is known. For a
mutant, a named cause counts as *false* if the named mistake, put through the visible **and the hidden** trials, gives another
outcome than the mutant in any of them. The hidden trials take no part in naming it. Some answers of the bank fail with an
observation that explains them (an error, a wrong type) and need no cause: these are among "none".

| exercise | bank: right | another that agrees | none | false | killed mutants: right | none | false |
|---|---|---|---|---|---|---|---|
"""

SURVIVORS = """
## Mutants that pass the visible tests

"Equivalent" means that no correct test can fail it; the reason follows.

| exercise | task | change | hidden test | why it passes |
|---|---|---|---|---|
"""


def page() -> str:
    """The results as a page."""
    lines, found = [INTRODUCTION.format(most=MOST).rstrip()], {name: figures(name) for name in EXERCISES}
    whole = {key: sum(each[key] for each in found.values()) for key in next(iter(found.values()))}
    whole["slowest"] = max(each["slowest"] for each in found.values())
    for name, f in (*found.items(), ("all", whole)):
        if not f["mutants"]:
            lines.append(f"| {name} | not run yet | | | | | | |")
            continue
        lines.append(
            f"| {name} | {f['mutants']} | {f['equivalent']} | {f['visible']} | {rate(f):.1%} | {f['hidden']} "
            f"| {f['either']} | {f['slowest']:.1f} s |"
        )
    lines.append(CAUSES.rstrip())
    for name, f in (*found.items(), ("all", whole)):
        if not f["mutants"]:
            continue
        lines.append(
            f"| {name} | {f['bank right']} of {f['bank']} | {f['bank other'] - f['bank false']} | {f['bank none']} "
            f"| {f['bank false']} | {f['cause right']} | {f['cause none']} | {f['cause false']} |"
        )
    lines.append(SURVIVORS.rstrip())
    for name in EXERCISES:
        for row in of(results(name), "mutant"):
            if row["visible"]:
                why = why_equivalent(name, row)
                about = row["about"].replace("|", "&#124;")
                lines.append(f"| {name} | {row['task']} | {about} | {'passes' if row['hidden'] else 'fails'} | "
                             f"{f'equivalent: {why}' if why else 'not covered'} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def rate(f: dict[str, float]) -> float:
    """Share of the mutants that differ from the reference that the visible tests kill."""
    return f["visible"] / max(1, f["mutants"] - f["equivalent"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", nargs="*", default=[], help="exercises that start anew, as 02")
    parser.add_argument("--only", default="", help="one exercise, in this process")
    parser.add_argument("--some", default="", help="only answers with these words in their task or name")
    parser.add_argument("--most", type=int, default=MOST, help="mutants of one task")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds of processor time of one exercise")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page", action="store_true", help="write the page and run nothing")
    args = parser.parse_args()
    for name in EXERCISES:
        if name[:2] in args.again:
            (RESULTS / f"{name}.jsonl").unlink(missing_ok=True)
    if args.only:
        run(args.only, args.processes, args.most, args.budget, args.some)
    elif not args.page:
        for name in EXERCISES:
            own = ["--only", name, "--most", str(args.most), "--budget", str(args.budget), "--some", args.some]
            subprocess.run([sys.executable, __file__, *own, "--processes", str(args.processes)], check=True)
    if not args.only:
        PAGE.write_text(page(), encoding="utf-8")
