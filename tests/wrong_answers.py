"""The bank of plausible wrong answers: each must fail its own task, no other, and be told why.

`wrong_answers_NN.py` holds those of exercise NN as `ANSWERS`, and is found by its name. They are written as learners
write them, not as variants of our code. `told` is in the report of no right answer.
"""

from importlib import import_module
from pathlib import Path

from wrong import Wrong

__all__ = ["BANK"]

_MODULES = sorted(path.stem for path in Path(__file__).parent.glob("wrong_answers_[0-9][0-9].py"))
BANK: tuple[Wrong, ...] = tuple(wrong for name in _MODULES for wrong in import_module(name).ANSWERS)
