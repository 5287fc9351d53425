"""`specdec prove`: the exact output distribution of every verifier, as it is and with a planted mistake.

The target is a table with three tokens, the draft model another table. Every possible outcome of `SpecEngine.step()`
is run (`exact.py`), so nothing is sampled or estimated: the distances are sums of products of probabilities.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from specdec_ref.cli.shared import console
from specdec_ref.config import DraftBudget, SamplingParams

if TYPE_CHECKING:
    from jaxtyping import Float
    from rich.console import Console
    from torch import Tensor

    from specdec_ref.core import DraftTree, Randomness, Verifier, VerifyResult

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "Proof", "add_arguments", "proofs", "run"]

HELP = "show that the output distribution is exact, by running every outcome"
DESCRIPTION = """\
Show that speculative decoding keeps the output distribution. A tiny target of
three tokens generates three of them, with drafts by another tiny model. Every
possible outcome of every random draw is run, through the engine that all other
commands use. This gives the probability of each text exactly, without sampling.
The table shows how far that distribution is from the target's own (total
variation: 0 equal, 1 disjoint): for each verifier as it is, and with a mistake
planted in it. A few seconds; no model is loaded.
"""
EPILOG = """\
Exit code 1 if a lossless verifier is not exact, or if a planted mistake is not
noticed.
"""
EXACT = 1e-12  # sums of a few thousand float64 products, each rounded at 1e-16
PROMPT, TOKENS, VOCAB = (0, 1, 2, 0, 1), 3, 3
CHAIN, TREE = DraftBudget(2), DraftBudget(2, 2, 5)
RESIDUAL, UNTESTED = "residual left out", "first guess untested"


@dataclass(frozen=True, slots=True)
class Proof:
    """One verifier's distance from the target's distribution, as it is and with `mistake` in it."""

    verifier: str
    drafts: str
    lossless: bool
    distance: float
    mistake: str = ""
    broken: float | None = None

    @property
    def holds(self) -> bool:
        """True if a lossless verifier is exact and its mistake is noticed; of a lossy one nothing is claimed."""
        return not self.lossless or (self.distance <= EXACT and self.broken is not None and self.broken > 1e-3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", action="store_true", help="one JSON object per verifier on stdout, nothing else")


def run(args: argparse.Namespace) -> int:
    """Enumerate, print."""
    import torch

    threads, started = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)  # tensors of a few numbers: a second thread would only wait
    found = []
    try:
        with console(stderr=True).status("running every outcome"):
            for proof in proofs():
                found.append(proof)
                if args.json:
                    print(json.dumps(asdict(proof) | {"holds": proof.holds}))
                    sys.stdout.flush()
    finally:
        torch.set_num_threads(threads)
    if not args.json:
        _print(found, time.perf_counter() - started, console())
    return int(not all(proof.holds for proof in found))


def proofs() -> Iterator[Proof]:
    """Every verifier by name, each with drafts that suit it; those that change the distribution come last."""
    from specdec_ref.verifiers import VERIFIERS

    for name, drafts, sampling, mistake in (
        ("greedy", "chain", SamplingParams(0.0), UNTESTED),
        ("rejection", "chain", SamplingParams(1.0), RESIDUAL),
        ("block", "chain", SamplingParams(1.0), RESIDUAL),
        ("target_only", "tree", SamplingParams(1.0), UNTESTED),
        ("multi_round", "drawn tree", SamplingParams(1.0), RESIDUAL),
    ):
        right = VERIFIERS[name]()
        broken = _distance(_Mistaken(right, mistake), drafts, sampling)
        yield Proof(name, drafts, True, _distance(right, drafts, sampling), mistake, broken)
    for name in ("typical", "threshold"):
        yield Proof(name, "tree", False, _distance(VERIFIERS[name](), "tree", SamplingParams(1.0)))


def _distance(verifier: "Verifier", drafts: str, sampling: SamplingParams) -> float:
    """Total variation between what the engine emits and the target's own distribution."""
    from specdec_ref.drafters.draft_model import DraftModelDrafter
    from specdec_ref.engine import SpecEngine
    from specdec_ref.exact import engine_distribution, table_distribution, total_variation
    from specdec_ref.models.target import Target
    from specdec_ref.models.toy import TableLM
    from specdec_ref.request import Limits
    from specdec_ref.trees.growth import static

    model = TableLM(VOCAB, seed=1)
    grow = static([-1, 0, 0], "without_replacement") if drafts == "drawn tree" else None
    engine = SpecEngine(
        Target(model),
        DraftModelDrafter(Target(TableLM(VOCAB, seed=2)), VOCAB, grow),
        budget=CHAIN if drafts == "chain" else TREE,
        sampling=sampling,
        verifier=verifier,
        limits=Limits(max_new_tokens=50),
        lossy=not verifier.lossless_for,
    )
    emitted = engine_distribution(engine, PROMPT, TOKENS, TOKENS)
    return total_variation(emitted, table_distribution(model, PROMPT, TOKENS, sampling))


class _Mistaken:
    """A verifier with one mistake in it."""

    def __init__(self, right: "Verifier", mistake: str) -> None:
        self.right, self.mistake, self.lossless_for = right, mistake, right.lossless_for

    def __call__(self, tree: "DraftTree", p: "Float[Tensor, 'nodes vocab']", rng: "Randomness") -> "VerifyResult":
        from specdec_ref.core import VerifyResult

        if self.mistake == RESIDUAL:
            path = self.right(tree, p, _NoDraw(rng.accept)).path
            return VerifyResult(path, rng.draw(p[path[-1] if path else 0]))
        result = self.right(tree, p, rng)
        if result.path or len(tree) == 1:
            return result
        return VerifyResult((1,), rng.draw(p[1]))


class _NoDraw:
    """Randomness for a verifier whose own last draw is thrown away."""

    def __init__(self, accept: Callable[[float], bool]) -> None:
        self.accept = accept

    def draw(self, weights: "Float[Tensor, ' n']") -> int:
        """The first possible value."""
        return int((weights > 0).int().argmax())


def _print(found: list[Proof], seconds: float, out: "Console") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("verifier", "drafts", "distance", "", "planted mistake", "distance", ""):
        table.add_column(column, justify="right" if column == "distance" else "left")
    for proof in found:
        state = "lossy" if not proof.lossless else "exact" if proof.distance <= EXACT else "NOT EXACT"
        noticed = "" if proof.broken is None else "caught" if proof.broken > 1e-3 else "NOT CAUGHT"
        broken = "" if proof.broken is None else f"{proof.broken:.2g}"
        table.add_row(proof.verifier, proof.drafts, f"{proof.distance:.2g}", state, proof.mistake, broken, noticed)
    out.print(table)
    out.print(
        f"\ndistance  total variation between the emitted distribution of {VOCAB**TOKENS} texts"
        f"\n          and the target's own; up to {EXACT:g} it is rounding of float64."
        "\n          Temperature 0 for greedy, else 1"
        "\nlossy     changes the distribution on purpose",
        style="dim",
    )
    lossless, wrong = [proof for proof in found if proof.lossless], [each.verifier for each in found if not each.holds]
    words = f"this does not hold for {', '.join(wrong)}: please report it"
    if not wrong:
        words = f"all {len(lossless)} lossless verifiers are exact, and each planted mistake is noticed"
    out.print(f"\nIn short: {words} ({seconds:.1f} s).", style="bold", markup=False)
