"""The bank of plausible wrong answers: each must fail its own task, no other, and be told why.

`wrong_answers_NN.py` holds those of exercise NN as `ANSWERS`, and is found by its name. They are written as learners
write them, not as variants of our code. `told` is in the report of no right answer.

`python tests/course/wrong_answers.py` prints them as a table: that is docs/WRONG_ANSWERS.md.
"""

import sys
from importlib import import_module
from itertools import groupby
from pathlib import Path

from wrong import Wrong

__all__ = ["BANK", "table"]

_MODULES = sorted(path.stem for path in Path(__file__).parent.glob("wrong_answers_[0-9][0-9].py"))
BANK: tuple[Wrong, ...] = tuple(wrong for name in _MODULES for wrong in import_module(name).ANSWERS)

INTRODUCTION = """# Wrong answers

{count} answers that people give to the exercises, and what their report says about each. Tests run all of them, each among right answers to the
other tasks (`pytest tests/course/test_exercises.py -k wrong`): it fails its own task and no other, and it is told the reason that is quoted here in part.
They are in `tests/course/wrong_answers_NN.py`; `python tests/course/wrong_answers.py > docs/WRONG_ANSWERS.md` writes this page.

| exercise | wrong answers | by task |
|---|---|---|
"""


def table() -> str:
    """The bank as a page: how many a task, then each with a piece of what it is told."""
    found = [(name, list(group)) for name, group in groupby(BANK, key=lambda wrong: wrong.exercise)]
    lines = [INTRODUCTION.format(count=len(BANK)).rstrip()]
    for name, group in found:
        tasks = dict.fromkeys(wrong.task for wrong in group)
        counts = ", ".join(f"{task} {sum(wrong.task == task for wrong in group)}" for task in tasks)
        lines.append(f"| {name} | {len(group)} | {counts} |")
    for name, group in found:
        lines += ["", f"## {name}", "", "| task | wrong answer | its report says |", "|---|---|---|"]
        lines += [f"| {wrong.task} | {wrong.name} | … {wrong.told.replace('|', '&#124;')} … |" for wrong in group]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
