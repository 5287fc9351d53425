"""What a round takes on this machine, in about ten seconds: v(k), the draft's c by depth, and everything else.

    verify     seconds of one forward over k tokens                                      `measure_verify_curve`
    row        what each further row adds to that, beyond its tokens                     forwards of four rows
    cached     what each cached token of a row adds, and again for each node             forwards behind 1,024 tokens
    draft      seconds of `Drafter.propose` by the depth that was asked for              real rounds, depths in turn
    per_row    what each further row adds to that                                        rounds of four rows
    overhead   seconds of a round that are neither: verifying, committing, counting      the same rounds

Kept in the cache, a file per machine, model, number format and torch: `cost_model.RoundCosts` predicts from it, the
optimal controller of `adaptive.py` decides by it. On a busy machine it is measured in too few passes to be good:
`specdec doctor --calibrate` measures again when it is idle.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from specdec_ref.adaptive import LengthControl, Optimal, adapt
from specdec_ref.config import DraftBudget
from specdec_ref.core import Drafter, DraftTree, SupportsUnread
from specdec_ref.cost_model import RoundCosts, VerifyCurve
from specdec_ref.machine import machine_line
from specdec_ref.metrics import StepRecord
from specdec_ref.models.hub import cache_dir
from specdec_ref.models.target import Target
from specdec_ref.workloads import load_prompts

if TYPE_CHECKING:
    from specdec_ref.session import Session

__all__ = ["WIDTHS", "calibrate", "controller", "costs_of", "measure_verify_curve", "rising"]

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 32)  # what a reader looks at
FINE_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64)  # what predictions interpolate between
DEPTHS = (1, 2, 4, 8)
ROWS = 4
LONG = 1024  # cached tokens behind which a forward is measured again
SECONDS = 10.0  # what it may take in all


def measure_verify_curve(
    target: Target,
    widths: Sequence[int] = WIDTHS,
    *,
    rows: int = 1,
    context: int = RoundCosts.CONTEXT,
    passes: int = 9,
    seconds: float = 10.0,
    tick: Callable[[], None] = lambda: None,
) -> dict[int, float]:
    """Median seconds of one forward over a chain of k nodes a row, behind `context` cached tokens, for every k.

    The widths are interleaved, so that a busy moment of the machine meets them alike; a first pass is thrown away.
    Ends after `passes`, or with the pass that passes `seconds`. `tick` is called after every pass.
    """
    target.feature_layers = ()
    prompt = [token % target.vocab_size for token in range(context)]
    target.start([prompt] * rows, capacity=context + max(widths))
    chains = {k: DraftTree(torch.arange(k) % target.vocab_size, torch.arange(-1, k - 1)) for k in widths}
    taken: dict[int, list[float]] = {k: [] for k in widths}
    started = perf_counter()
    for _ in range(passes + 1):
        for k, chain in chains.items():
            begin = perf_counter()
            float(target.forward([chain] * rows).logits[0, -1, 0])  # reading a number waits for a GPU to finish
            taken[k].append(perf_counter() - begin)
        tick()
        if perf_counter() - started > seconds:
            break
    return {k: median(times[1:] or times) for k, times in taken.items()}


def measure_rows_and_context(
    target: Target, verify: Mapping[int, float], *, seconds: float = 10.0
) -> tuple[float, float, float]:
    """`RoundCosts.row`, `.cached` and `.cached_node`: seconds over what `verify` says of one row in a short text."""
    known = VerifyCurve(verify)
    few, many = 1, 4  # nodes a row
    wide = measure_verify_curve(target, (few, many), rows=ROWS, seconds=seconds / 2)
    row = median((wide[k] - verify[1] * known(min(ROWS * k, max(verify)))) / (ROWS - 1) for k in (few, many))
    long = min(LONG, (target.max_positions or LONG) - many)
    beyond = long - RoundCosts.CONTEXT
    if beyond <= 0:
        return max(0.0, row), 0.0, 0.0
    behind = measure_verify_curve(target, (few, many), context=long, seconds=seconds / 2)
    slope = {k: max(0.0, behind[k] - verify[1] * known(k)) / beyond for k in (few, many)}
    a_node = max(0.0, (slope[many] - slope[few]) / (many - few))
    return max(0.0, row), max(0.0, slope[few] - a_node), a_node


class _Turns:
    """A controller that goes through `DEPTHS` in turn."""

    def __init__(self) -> None:
        self.turn = 0

    def start(self, rows: Sequence[int]) -> None:
        """Nothing to forget."""

    def depths(self, rows: Sequence[int], most: int) -> list[int]:
        """Whose turn it is."""
        return [min(most, DEPTHS[self.turn % len(DEPTHS)])] * len(rows)

    def observe(self, records: Sequence[StepRecord]) -> None:
        """Next, please."""
        self.turn += 1


def measure_drafting(
    session: "Session",
    drafter: Drafter,
    budget: DraftBudget,
    verify: Mapping[int, float],
    seconds: float,
    rows: int = 1,
) -> tuple[dict[int, float], float]:
    """Median seconds of proposing by depth for so many rows, and of what is neither drafting nor the forward.

    Each is taken as a share of its own round's forward, times what `verify` says of that: the machine may have become
    slower or faster since the curve was measured.
    """
    turns = _Turns()
    prompts = [session.encode(prompt.prompt, raw=True)[:64] for prompt in load_prompts()[:rows]]
    room = (session.target.max_positions or 1000) - max(map(len, prompts))
    limits = session.limits(min(400, room), ignore_eos=True)
    wide = DraftBudget(max(DEPTHS), budget.topk, budget.nodes, budget.min_confidence)
    engine = session.engine(drafter, budget=wide, limits=limits, control=turns)
    taken: dict[int, list[float]] = defaultdict(list)
    curve = VerifyCurve(verify)
    rest: list[float] = []
    started = perf_counter()
    try:
        engine.start(prompts)
        while len(engine.requests) == rows and (turns.turn < 4 * len(DEPTHS) or perf_counter() - started < seconds):
            depth, warm = turns.depths([0], max(DEPTHS))[0], turns.turn >= len(DEPTHS)
            record, *others = engine.step()
            if warm and len(engine.requests) == rows:  # the last rounds of a request are cut short
                tokens = rows * (1 + max(each.drafted for each in (record, *others)))  # as wide as the widest row
                pace = curve(min(tokens, max(verify))) * verify[1] / record.forward_s
                taken[depth].append(record.propose_s * pace)
                rest.append((record.step_s - record.propose_s - record.forward_s) * pace)
    finally:
        engine.close()
    return {depth: median(times) for depth, times in taken.items()}, median(rest)


def calibrate(
    session: "Session",
    drafters: Sequence[tuple[str, Drafter, DraftBudget]],
    *,
    fresh: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, RoundCosts]:
    """Costs by the drafters' names, from the cache where they are known and `fresh` does not ask for new ones."""
    file = _file(session)
    known = {} if fresh else _read(file)
    missing = [row for row in drafters if _key(row[0], row[2]) not in known.get("drafters", {})]
    if "cached_node" not in known:
        known = {"machine": machine_line(session.target.device), "target": session.name, "drafters": {}}
        known["verify"] = rising(measure_verify_curve(session.target, FINE_WIDTHS, seconds=SECONDS / 2, tick=tick))
        extras = measure_rows_and_context(session.target, known["verify"], seconds=SECONDS / 4)
        known |= zip(("row", "cached", "cached_node"), extras, strict=True)
    common = {name: known[name] for name in ("verify", "row", "cached", "cached_node")}
    verify = {int(k): t for k, t in known["verify"].items()}  # JSON makes strings of keys
    for name, drafter, budget in missing:
        share = SECONDS / 4 / len(missing)
        draft, overhead = measure_drafting(session, drafter, budget, verify, share)
        many, _ = measure_drafting(session, drafter, budget, verify, share, ROWS)
        per_row = {depth: max(0.0, many[depth] - draft[depth]) / (ROWS - 1) for depth in draft.keys() & many.keys()}
        entry = {"draft": rising(draft), "overhead": overhead, "per_row": rising(per_row)}
        known["drafters"][_key(name, budget)] = entry
        tick()
    if missing:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".new")
        partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
        partial.replace(file)
    return {name: RoundCosts.from_dict(common | known["drafters"][_key(name, budget)]) for name, _, budget in drafters}


def rising(seconds: Mapping[int, float]) -> dict[int, float]:
    """The nearest curve that never falls (pool adjacent violators): more work takes no less time, the rest is noise."""
    blocks: list[tuple[float, list[int]]] = []  # mean, and the points that share it
    for k in sorted(seconds):
        blocks.append((seconds[k], [k]))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (right, after), (left, before) = blocks.pop(), blocks.pop()
            mean = (left * len(before) + right * len(after)) / (len(before) + len(after))
            blocks.append((mean, before + after))
    return {k: mean for mean, points in blocks for k in points}


def costs_of(session: "Session", name: str, drafter: Drafter, budget: DraftBudget) -> RoundCosts:
    """What rounds of this drafter take, measured now if it never was. `name` tells drafters apart in the cache."""
    return calibrate(session, [(name, drafter, budget)])[name]


def controller(
    adaptive: str, session: "Session", name: str, drafter: Drafter, budget: DraftBudget
) -> tuple[LengthControl | None, DraftBudget]:
    """The controller of that name for this drafter on this machine, and the budget to use it with: see `adapt`."""
    control, limited = adapt(
        adaptive, budget, costs_of(session, name, drafter, budget) if adaptive == "optimal" else None
    )
    if isinstance(control, Optimal):
        control.unread = drafter.unread if isinstance(drafter, SupportsUnread) else None
    return control, limited


def _key(name: str, budget: DraftBudget) -> str:
    return name if budget.topk == 1 else f"{name}, topk {budget.topk}, {budget.max_nodes} nodes"


def _file(session: "Session") -> Path:
    """One file for everything that changes what a step takes."""
    target = session.target
    told = [machine_line(target.device), session.name, str(target.dtype), target.backend, torch.__version__]
    told += [target.forward_note] if target.fast else []
    name = hashlib.sha256("|".join(told).encode()).hexdigest()[:16]
    return cache_dir() / "calibration" / f"{name}.json"


def _read(file: Path) -> dict[str, Any]:
    """What is known; nothing, if the file is missing or damaged: it can be measured again."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        for entry in known["drafters"].values():
            RoundCosts.from_dict(known | entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return dict(known)
