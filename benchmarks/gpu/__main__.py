"""`python -m benchmarks.gpu STEP`: what only a GPU can show, in steps of a few minutes. docs/GPU.md says how.

    1   the self-test of the kernels, and the tests marked `gpu`
    2   microseconds of every kernel: fewest bytes possible, twin, torch.compile
    3   the engine: identity with kernels on and off, tokens per second of every method, waits per round
    4   an EAGLE head from more text than a laptop can write: corpus, training, tau
    5   all of it as a report
    pack FOLDER   a copy of this tree with the model in pieces, for a machine without a network

Each step can be given again: it goes on where it was, and ends before --minutes are over. No GPU has run this yet.
`--dry-run` walks the same way on a CPU, in Triton's interpreter and on toy sizes: its times mean nothing.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.gpu import bundle

__all__ = ["main"]


def main() -> int:
    """Run one step. Exit code 0: it is complete; 3: give the command again."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("1", "2", "3", "4", "5", "pack"))
    parser.add_argument("folder", type=Path, nargs="?", help="pack: where to")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, in the interpreter: times mean nothing")
    parser.add_argument("--minutes", type=float, default=8.0, help="how long a visit may take (default 8)")
    parser.add_argument("--out", type=Path, help="where the small files go (default build/gpu, or build/gpu-dry)")
    parser.add_argument("--eagle", metavar="HEAD", help="step 3: a head of your own, with --target")
    parser.add_argument("--target", metavar="MODEL", help="steps 3 and 4: another model than the embedded one")
    parser.add_argument("--tokens", type=int, default=10_000_000, help="step 4: response tokens of the corpus")
    chosen = parser.parse_args()
    if (chosen.folder is not None) != (chosen.step == "pack"):
        parser.error("pack needs a FOLDER, and the steps take none")
    if chosen.step == "pack":
        bundle.pack(chosen.folder)
        return 0
    bundle.here()
    if chosen.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    import torch

    if not chosen.dry_run and not torch.cuda.is_available():
        parser.error("no CUDA device: torch.cuda.is_available() is false. Without one: --dry-run")
    chosen.out = chosen.out or Path("build/gpu-dry" if chosen.dry_run else "build/gpu")
    return _run(chosen)


def _run(chosen: argparse.Namespace) -> int:
    from benchmarks.gpu import checks, engine, kernels, report, training
    from benchmarks.gpu.journal import Journal
    from specdec_ref.models.hub import EMBEDDED

    device = "cpu" if chosen.dry_run else "cuda"
    journal = Journal(chosen.out, device, chosen.minutes)
    if chosen.step == "5":
        path = chosen.out / "report.md"
        path.write_text(report.written(journal, chosen.dry_run), encoding="utf-8")
        sys.stdout.write(f"{path}\n")
        return 0
    name = chosen.target or EMBEDDED
    models = engine.Toy("toy", "cpu", None) if chosen.dry_run else engine.Models(name, device, chosen.eagle)
    units = {
        "1": lambda: checks.units(device),
        "2": lambda: kernels.units(device),
        "3": lambda: engine.units(models),
        "4": lambda: training.units(training.Plan(name, device, chosen.out / "head", chosen.tokens)),
    }[chosen.step]()
    return 3 if journal.run(f"step{chosen.step}", units) else 0


if __name__ == "__main__":
    sys.exit(main())
