"""`specdec doctor`: what this machine has, what is missing and how to get it, and what checking k tokens costs here."""

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from specdec_ref.cli.curve import chart, falls, prices
from specdec_ref.cli.flags import add_model
from specdec_ref.cli.shared import console, give_way, version

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from specdec_ref.cost_model import RoundCosts

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "Check", "add_arguments", "run"]

HELP = "show what this machine can do, what is missing, and its verify curve"
DESCRIPTION = """\
Show versions, processor, number format and the reason for it, the model cache,
what is missing and how to get it, and a block to paste into a report. Also
measure v(k), the cost of checking k tokens in one forward. Ten to twenty
seconds; nothing is downloaded or changed.

--calibrate also measures what each drafter costs and keeps it in the cache, for
--adaptive optimal and the predictions of `specdec bench`.
"""
EPILOG = """\
Exit code 1 if something that `specdec generate` needs is missing.
"""

_EXTRAS = {
    "models": "to run real models",
    "cli": "for this command",
    "kernels": "for Triton kernels, on Linux",
    "llamacpp": "for `specdec serve`",
    "notebooks": "for the course's notebooks",
    "dev": "for the tests",
}
_NEEDED = ("models", "cli")


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is installed or not, and how to get it. `needed`: `specdec generate` does not run without it."""

    what: str
    ok: bool
    how: str = ""
    needed: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_model(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--no-measure", action="store_true", help="leave out the verify curve")
    group.add_argument("--calibrate", action="store_true", help="also measure what drafting costs, and keep it")
    group.add_argument("--drafter", action="append", metavar="NAME[=PATH]", help="only these; repeatable")
    group.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")


def run(args: argparse.Namespace) -> int:
    """Collect, then print."""
    from specdec_ref.models.hub import pick_device, pick_dtype

    pick_dtype(args.dtype, pick_device(args.device))  # refuses unknown names first
    give_way()  # before the number of threads is written down
    facts = _facts(args)
    checks = [*_packages(), _gpu(), _model(args.target)]
    curve: dict[int, float] = {}
    costs: dict[str, RoundCosts] = {}
    if not args.no_measure and checks[-1].ok:
        curve, costs, failed = _measure(args, facts)
        checks += failed
    facts["kernels"] = _kernels(args)  # after measuring, which is a device's first decode
    if args.json:
        rows = [{"k": k, "seconds": round(t, 6), "v": round(t / curve[1], 4)} for k, t in curve.items()]
        kept = {"costs": {name: cost.to_dict() for name, cost in costs.items()}} if args.calibrate else {}
        report = {"facts": facts, "verify_curve": rows, "verify_curve_falls": falls(curve)}
        print(json.dumps(report | {"checks": [asdict(check) for check in checks]} | kept))
    else:
        _print(facts, curve, costs, checks, console())
    return int(any(check.needed and not check.ok for check in checks))


def _facts(args: argparse.Namespace) -> dict[str, str]:
    from specdec_ref.machine import cpu_features, cpu_name, machine_line, memory_gb
    from specdec_ref.models.hub import cache_dir, describe_dtype, pick_device

    device, memory = pick_device(args.device), memory_gb()
    found = {name: _version_of(name) for name in ("torch", "transformers", "triton")}
    return {
        "specdec-ref": version(),
        "python": f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}",
        **found,
        "processor": f"{cpu_name()} ({', '.join(cpu_features())})",
        "runs on": f"{device}: {machine_line(device)}",
        "memory": "unknown" if memory is None else f"{memory:.0f} GB",
        "dtype": describe_dtype(args.dtype, device),
        "target": args.target,
        "model cache": str(cache_dir()),
    }


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _packages() -> list[Check]:
    """One check for each extra, read from the installed package's own metadata."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires("specdec-ref") or []]
    except metadata.PackageNotFoundError:
        how = "in the source tree: pip install -e '.[models,cli]'"
        return [Check("specdec-ref, installed as a package", False, how, needed=False)]
    checks = []
    for extra, purpose in _EXTRAS.items():
        rows = [row for row in wanted if row.marker and row.marker.evaluate({"extra": extra})]
        missing = [f"{row.name}{row.specifier}" for row in rows if not _satisfied(row.name, row.specifier)]
        what = f"{extra}, {purpose}: {', '.join(missing or [row.name for row in rows])}"
        checks.append(Check(what, not missing, f"pip install 'specdec-ref[{extra}]'", needed=extra in _NEEDED))
    return checks


def _satisfied(name: str, specifier: Any) -> bool:
    try:
        return bool(specifier.contains(metadata.version(name), prereleases=True))
    except metadata.PackageNotFoundError:
        return False


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check(f"GPU: {torch.cuda.get_device_name()}", True, needed=False)
    how = "not needed; larger models and compiled Triton kernels want one, and a PyTorch built for it"
    return Check("GPU that PyTorch can use", False, how, needed=False)


def _kernels(args: argparse.Namespace) -> str:
    """Whether this device uses the Triton kernels, and what its self-test found."""
    import torch

    from specdec_ref.kernels.verdicts import describe, device_key
    from specdec_ref.models.hub import pick_device, pick_dtype

    device = pick_device(args.device)
    if device.type != "cuda":
        return f"PyTorch's own operations: the Triton kernels run on a GPU, and this is {device.type}"
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"self-test {describe(device_key(torch.device('cuda', index), pick_dtype(args.dtype, device)))}"


def _model(name: str) -> Check:
    """The embedded model's copy in the cache, by size; other models show when they are loaded."""
    from specdec_ref.models.hub import SOURCES, check_embedded

    if name not in SOURCES:
        return Check(f"target {name}: not the embedded model, loaded on use", True)
    damage = check_embedded(name)
    if damage is None:
        return Check(f"embedded model {name}: in the cache, and whole (specdec fetch --verify looks closer)", True)
    return Check(f"embedded model {name}: {damage}", False, "specdec fetch")


def _measure(
    args: argparse.Namespace, facts: dict[str, str]
) -> "tuple[dict[int, float], dict[str, RoundCosts], list[Check]]":
    """The verify curve, drafting costs if asked for; or, where the model cannot be loaded, a check that says why.

    Adds to `facts` which forward the target runs.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    from specdec_ref.bench.sides import usable_drafters
    from specdec_ref.calibrate import calibrate, measure_verify_curve
    from specdec_ref.config import DraftBudget
    from specdec_ref.models.hub import ModelError
    from specdec_ref.models.probe import exact_rows
    from specdec_ref.session import Session

    passes = 9
    columns = (TextColumn("specdec: {task.description}"), BarColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("loading the model, then measuring", total=passes + 2)
        try:
            session = Session.open(args.target, dtype=args.dtype, device=args.device, lean=True)
        except (ModelError, ValueError) as error:
            return {}, {}, [Check(f"target {args.target} can be loaded", False, str(error))]
        bar.advance(task)
        exact = "bit for bit" if exact_rows(session.target) else "but for rounding"
        facts["short forward"] = f"{session.target.forward_note}; checks drafts as plain decoding would, {exact}"
        if not args.calibrate:
            curve = measure_verify_curve(session.target, passes=passes, tick=lambda: bar.advance(task))
            if falls(curve) is not None:  # other programs disturbed it, most likely
                curve = measure_verify_curve(session.target, passes=passes, tick=lambda: bar.advance(task))
            return curve, {}, []
        drafters, _ = usable_drafters(session, args.drafter or ())
        rows = [(name, drafter, DraftBudget()) for name, drafter in drafters.items()]
        costs = calibrate(session, rows, fresh=True, tick=lambda: bar.advance(task))
        return dict(next(iter(costs.values())).verify), costs, []


def _print(
    facts: dict[str, str], curve: dict[int, float], costs: "dict[str, RoundCosts]", checks: list[Check], out: "Console"
) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    out.print(grid)
    if curve:
        out.print(chart(curve))
    if costs:
        out.print(prices(costs))
    out.rule("[bold]what is there[/]", align="left", style="dim")
    for check in checks:
        out.print(_line(check))
    out.rule("[bold]to paste into a report[/]", align="left", style="dim")
    out.print(Text(_block(facts, curve, checks)), soft_wrap=True)


def _line(check: Check) -> "RenderableType":
    from rich.text import Text

    from specdec_ref.palette import PALETTE

    word = "OK" if check.ok else "MISSING" if check.needed else "OPTIONAL"
    colour = {"OK": PALETTE["accepted"], "MISSING": PALETTE["rejected"], "OPTIONAL": ""}[word]
    mark = Text(f"[{word}]".ljust(11), f"bold {colour}".strip())
    how = "" if check.ok else f"\n           -> {check.how}"
    return Text.assemble(mark, f"{check.what}{', not found' * (word == 'OPTIONAL')}", (how, "dim"))


def _block(facts: dict[str, str], curve: dict[int, float], checks: list[Check]) -> str:
    """Plain text, for a bug report."""
    lines = [f"{name}: {value}" for name, value in facts.items()]
    if curve:
        lines.append("v(k): " + " ".join(f"{k}:{seconds / curve[1]:.2f}" for k, seconds in curve.items()))
        lines.append(f"one step: {1e3 * curve[1]:.1f} ms")
    if fall := falls(curve):
        lines.append(f"v(k) falls from k = {fall[0]} to k = {fall[1]}, measured twice")
    lines += [f"{'missing' if check.needed else 'not found'}: {check.what}" for check in checks if not check.ok]
    return "\n".join(["```", *lines, "```"])
