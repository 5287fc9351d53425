"""What a round costs on one idle machine: the v(k) and c that the chapters quote beside what they measure live.

    python -m benchmarks.costs > specdec_ref/bench/rows/costs.jsonl

A line about the machine, then a row per number format and drafter: `RoundCosts`, in seconds (`specdec_ref.calibrate`).
"""

import json
import sys
from datetime import UTC, datetime

import torch

from specdec_ref.calibrate import calibrate
from specdec_ref.config import DraftBudget
from specdec_ref.drafters import build_drafter
from specdec_ref.machine import machine_line
from specdec_ref.session import Session

__all__ = ["main"]

DRAFTERS = ("ngram", "eagle", "draft")


def main() -> None:
    """Measure and print."""
    about = {
        "command": "python -m benchmarks.costs", "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_line(), "threads": torch.get_num_threads(), "target": "smollm2-135m",
        "torch": torch.__version__,
    }  # fmt: skip
    sys.stdout.write(json.dumps(about) + "\n")
    for dtype in ("float32", "bfloat16"):
        lab = Session.open(dtype=dtype)
        rows = [(name, build_drafter(name, lab.target), DraftBudget()) for name in DRAFTERS]
        for name, cost in calibrate(lab, rows, fresh=True).items():
            sys.stdout.write(json.dumps({"dtype": dtype, "drafter": name, "costs": cost.to_dict()}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
