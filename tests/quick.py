"""What `make quick` runs (`pytest --quick`): these files, and of the long ones every eighth test. All on tiny models.

And what `make test` samples, since a worker starts for each: `WHOLE=1 make test` runs all of it, as the nightly run does.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

Case = TypeVar("Case")

QUICK = (
    "test_architecture", "test_benchmarks_page", "test_cell_names", "test_cli_errors", "test_cost_model",
    "test_coverage_page", "test_device", "test_exact", "test_exporters", "test_habits", "test_harness", "test_identity",
    "test_kv_cache", "test_ngram", "test_notebooks_hygiene", "test_packaging", "test_packing", "test_sampling",
    "test_target", "test_task_rows", "test_trees", "test_workloads",
)  # fmt: skip
SAMPLED, EVERY = ("test_exact", "test_identity"), 8


def sampled(cases: Sequence[Case], every: int) -> Sequence[Case]:
    """Each `every`-th of them; all with WHOLE=1."""
    return cases if os.environ.get("WHOLE") else cases[::every]
