"""What a round costs on one idle machine: the v(k) and c that the chapters quote beside what they measure live.

    python -m benchmarks.costs > specdec_ref/bench/rows/costs.jsonl

A line about the machine, then a row per number format and drafter: `RoundCosts`, in seconds (`specdec_ref.calibrate`).
Of two laps the one with the faster forwards is kept, since other programs only ever add time. It takes about a minute.
"""

import json
import sys
from datetime import UTC, datetime

import torch

from specdec_ref.calibrate import calibrate
from specdec_ref.config import DraftBudget
from specdec_ref.cost_model import RoundCosts
from specdec_ref.drafters import build_drafter
from specdec_ref.machine import machine_line
from specdec_ref.session import Session

__all__ = ["main"]

DRAFTERS = ("ngram", "eagle", "draft")
LAPS = 2


def measured(dtype: str) -> dict[str, RoundCosts]:
    """Drafter -> costs of the faster lap, in seconds."""
    lab = Session.open(dtype=dtype)
    rows = [(name, build_drafter(name, lab.target), DraftBudget()) for name in DRAFTERS]
    laps = [calibrate(lab, rows, fresh=True) for _ in range(LAPS)]
    return min(laps, key=lambda lap: sum(lap["eagle"].verify.values()))


def main() -> None:
    """Measure and print."""
    about = {
        "command": "python -m benchmarks.costs", "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_line(torch.device("cpu")), "threads": torch.get_num_threads(), "target": "smollm2-135m",
        "torch": torch.__version__,
    }  # fmt: skip
    sys.stdout.write(json.dumps(about) + "\n")
    for dtype in ("float32", "bfloat16"):
        for name, cost in measured(dtype).items():
            sys.stdout.write(json.dumps({"dtype": dtype, "drafter": name, "costs": cost.to_dict()}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
