"""The page of the mutation run, docs/MUTANTS.md, from its results. It needs nothing but the results and the bank.

`python tests/course/mutant_page.py` writes it; `mutants.py` does so after each run.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutant_equivalents import EQUIVALENT, NOT_COVERED
from wrong_answers import BANK

__all__ = ["MOST", "PAGE", "RESULTS", "Row", "figures", "page", "rate", "results", "write"]

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "mutants"
PAGE = ROOT / "docs" / "MUTANTS.md"
NAMES = sorted(path.parent.name for path in (ROOT / "solutions").glob("*/*.ipynb"))
MOST = 16  # mutants of one task; of more, so many are drawn
Row = dict[str, Any]


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
each trial of the visible test that failed, and passes those that passed. For the answers of [the bank](WRONG_ANSWERS.md) the right cause is known. For a
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
    lines, found = [INTRODUCTION.format(most=MOST).rstrip()], {name: figures(name) for name in NAMES}
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
    for name in NAMES:
        for row in of(results(name), "mutant"):
            if row["visible"]:
                why = why_equivalent(name, row)
                missed = NOT_COVERED.get((name, row["task"]), {}).get(row["about"], "")
                about = row["about"].replace("|", "&#124;")
                lines.append(f"| {name} | {row['task']} | {about} | {'passes' if row['hidden'] else 'fails'} | "
                             f"{f'equivalent: {why}' if why else f'not covered: {missed}'} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def rate(f: dict[str, float]) -> float:
    """Share of the mutants that differ from the reference that the visible tests kill."""
    return f["visible"] / max(1, f["mutants"] - f["equivalent"])


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
