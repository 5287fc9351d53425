"""`python -m specdec_ref.kernels [--json]`: what is proven of the kernels on this machine, with or without a GPU.

Interpreter or compiler is decided when a kernel is decorated, so each part runs in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from specdec_ref.kernels.tables import DTYPES, byte_table, compiled_table, equality_table, matrix, render

Table = list[dict[str, Any]]
PARTS: dict[str, Callable[[], Table]] = {"equal": equality_table, "compiled": compiled_table, "bytes": byte_table}


def _in_own_process(part: str, *options: str) -> Table:
    """One part. Triton's cache is empty there, so that the time to compile is measured."""
    command = [sys.executable, "-W", "ignore", "-m", "specdec_ref.kernels", "--json", "--part", part, *options]
    with tempfile.TemporaryDirectory() as cache:
        interpret = "0" if part == "compiled" else "1"
        environment = {**os.environ, "TRITON_INTERPRET": interpret, "TRITON_CACHE_DIR": cache}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{part}: {run.stderr}")
    rows: Table = json.loads(run.stdout)[part]
    return rows


def main() -> None:
    """Print the tables; exit with an error if a kernel differs from its twin."""
    parser = argparse.ArgumentParser(prog="python -m specdec_ref.kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    parser.add_argument("--part", choices=PARTS, help="this part alone, in this process")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="compile for these number formats alone")
    parser.add_argument("--target", action="append", help="compile for these GPUs alone, e.g. sm_90")
    parser.add_argument("--matrix", action="store_true", help="the compiled part as the table of docs/GPU.md")
    chosen = parser.parse_args()
    if chosen.matrix:
        from specdec_ref.kernels.aot import TARGETS

        formats = [f"--dtype={dtype}" for dtype in chosen.dtype or ()]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # a process per target
            compiled = [
                pool.submit(_in_own_process, "compiled", f"--target={name}", *formats)
                for name in chosen.target or TARGETS
            ]
            sys.stdout.write(matrix([row for table in compiled for row in table.result()]) + "\n")
        return
    if chosen.part == "compiled":
        tables = {"compiled": compiled_table(chosen.target or (), chosen.dtype or tuple(DTYPES))}
    else:
        parts = [chosen.part] if chosen.part else PARTS
        tables = {part: PARTS[part]() if chosen.part else _in_own_process(part) for part in parts}
    if chosen.json:
        sys.stdout.write(json.dumps(tables) + "\n")
    else:
        sys.stdout.write("\n\n".join(f"{part}\n{render(rows)}" for part, rows in tables.items()) + "\n")
    if not all(row["equal"] for row in tables.get("equal", [])):
        sys.exit("a kernel differs from its twin")


if __name__ == "__main__":
    main()
