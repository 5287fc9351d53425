"""Self-checks of exercise 08: a metrics page, an engine's flags, a choice, an accept rate with a bug, a load test.

What is right is not computed by the formula that is asked for: pages are made of rounds that are counted, flags go
through the engine's rules and back to a set-up, choices through `choose`, load tests are read by hand.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, examine, numbers, same, unaided
from specdec_course.checks.production import suspects as wrong
from specdec_course.checks.production.loads import capacity, load_rows
from specdec_course.checks.report import Report
from specdec_ref.choose import Option, choose
from specdec_ref.config import DraftBudget
from specdec_ref.exporters import explain
from specdec_ref.exposition import exposition, parse
from specdec_ref.metrics import RunStats, StepRecord

__all__ = ["capacity", "choice", "flags", "load_rows", "metrics", "reading"]

Rounds = Sequence[int]  # accepted drafts of each round

RUNS: tuple[Rounds, ...] = ((3, 0, 1, 3, 0), (0, 0, 0), (11, 2, 5))
DEPTH = 3  # drafts a round, unless more of them were accepted


def run_of(accepted: Rounds, depth: int = DEPTH) -> RunStats:
    """A run whose rounds draft `depth` tokens and accept so many of them."""
    return RunStats.from_records(StepRecord(0, depth, min(depth, a + 1), a, a + 1, depth) for a in accepted)


def reading(function: Callable[..., Any], runs: Sequence[Rounds] = RUNS) -> Report:
    """Of `function(page)`: (tau, accepted over proposed, [share of rounds that accepted draft 1, 2, ...])."""

    def trials(accepted: Rounds) -> list[Trial]:
        depth = max(DEPTH, *accepted)
        stats = run_of(accepted, depth)
        page = {k: v for k, v in parse(exposition(stats, DraftBudget(depth))).items() if k.startswith("vllm:")}
        shares = [count / stats.rounds for count in stats.accepted_per_position]
        about = f"rounds that accepted {', '.join(map(str, accepted))} of {depth} drafts"

        def part(which: int, count: int) -> Callable[[Any], Any]:
            def outcome(code: Any) -> Any:
                came = attempt(code, dict(page))
                if not isinstance(came, tuple | list) or len(came) != 3:
                    raise Trouble(
                        f"it returned {came!r}, and three things were expected: tau, a rate, a list of shares"
                    )
                return numbers(came[which], count)

            return outcome

        rights: tuple[list[float], ...] = ([stats.tau], [stats.acceptance_rate], shares)
        names = ("tau", "accepted over proposed", "shares by position")
        return [
            Trial(f"{name}, {about}", part(which, len(right)), _equals(right))
            for which, (name, right) in enumerate(zip(names, rights, strict=True))
        ]

    own = unaided(function, exposition)
    return examine("Task 1, reading a page", own, [t for run in runs for t in trials(run)], wrong.READINGS)


def _equals(right: Sequence[float]) -> Callable[[Any], tuple[bool, str]]:
    """By counting, with how far off it is."""

    def judge(came: Sequence[float]) -> tuple[bool, str]:
        gave = f"it gave {', '.join(f'{value:.4g}' for value in came)}"
        if same(list(came), list(right)):
            return True, f"{gave}, as counted"
        return False, f"{gave}; counting in those rounds gives {', '.join(f'{value:.4g}' for value in right)}"

    return judge


Budget = tuple[int, int, int | None]  # depth, children of a node, nodes; None: not said

BUDGETS: tuple[Budget, ...] = (
    (5, 1, None),
    (3, 1, 4),
    (3, 4, 12),
    (3, 2, 10),
    (3, 2, 11),
    (3, 1, 8),
    (3, 2, 12),
    (2, 2, 9),
    (5, 1, 4),
)
NAMES = ("--speculative-num-steps", "--speculative-eagle-topk", "--speculative-num-draft-tokens")


def flags(function: Callable[..., Any], budgets: Sequence[Budget] = BUDGETS) -> Report:
    """Of `function(depth, topk, nodes)`: SGLang's three flags by name, or ValueError for what it refuses or changes."""

    def outcome(budget: Budget) -> Callable[[Any], Any]:
        def run(code: Any) -> Any:
            came = attempt(_refusing(code), *budget)
            if isinstance(came, Exception):
                raise Trouble(f"it returned a {type(came).__name__}: an error is raised, not returned")
            if came != "refused" and not (isinstance(came, Mapping) and set(came) == set(NAMES)):
                raise Trouble(f"it returned {came!r}, and a dict with the keys {', '.join(NAMES)} was expected")
            return came if came == "refused" else dict(came)

        return run

    trials = [
        Trial(
            f"depth {depth}, {topk} child{'ren' * (topk > 1)} a node, nodes {'not said' if nodes is None else nodes}",
            outcome((depth, topk, nodes)),
            _engine_takes((depth, topk, nodes)),
            side=not _possible((depth, topk, nodes)),  # a function that always refuses fulfils it
        )
        for depth, topk, nodes in budgets
    ]
    return examine("Task 2, three flags", function, trials, wrong.FLAGS)


def _refusing(code: Any) -> Callable[..., Any]:
    """ValueError is an answer here."""

    def run(*args: Any) -> Any:
        try:
            came = code(*args)
        except ValueError:
            return "refused"
        if isinstance(came, str):
            raise Trouble(f"it returned {came!r}: a refusal is a ValueError that is raised")
        return came

    return run


def command(given: Mapping[str, Any]) -> str:
    """A launch command with these flags."""
    words = " ".join(f"{flag} {value}" for flag, value in given.items())
    return f"python -m sglang.launch_server --speculative-algorithm EAGLE3 --speculative-draft-model-path head {words}"


def _possible(budget: Budget) -> bool:
    """Whether the engine takes it as it is."""
    depth, topk, nodes = budget
    told = dict(zip(NAMES, (depth, topk, depth + 1 if nodes is None else nodes), strict=True))
    return all(finding.kind not in ("refused", "changed") for finding in explain(command(told)).findings)


def _engine_takes(budget: Budget) -> Callable[[Any], tuple[bool, str]]:
    """Through the engine's rules, and back to a budget of ours."""
    depth, topk, nodes = budget
    possible = _possible(budget)

    def judge(came: Any) -> tuple[bool, str]:
        if came == "refused":
            return not possible, "it refused" + (", and the engine would take it as it is" if possible else ", rightly")
        found = explain(command(came))
        against = [finding.text for finding in found.findings if finding.kind in ("refused", "changed")]
        gave = f"it gave {', '.join(f'{flag[14:]} {value}' for flag, value in came.items())}"
        if against:
            return False, f"{gave}, and of that the engine says: {against[0]}"
        wanted = DraftBudget(depth, topk, (depth + 1 if nodes is None else nodes) if topk > 1 else 0)
        right = possible and found.config is not None and found.config.budget == wanted
        return right, gave if right else f"{gave}, which is another draft than the one that was asked for"

    return judge


Drafters = Mapping[
    str, tuple[tuple[float, ...], float, float]
]  # name -> shares by position, c, share of rounds drafting

OFFERS: tuple[tuple[str, Drafters, float], ...] = (
    ("a cheap check", {"head": ((0.56, 0.30, 0.18, 0.11), 0.08, 1.0), "copies": ((0.11, 0.09, 0.04), 0.0, 0.2)}, 0.05),
    ("a dear check", {"head": ((0.56, 0.30, 0.18, 0.11), 0.08, 1.0), "copies": ((0.2, 0.19, 0.18), 0.0, 0.25)}, 0.4),
    ("a large batch", {"head": ((0.56, 0.30, 0.18, 0.11), 0.08, 1.0), "copies": ((0.05, 0.02), 0.0, 0.2)}, 0.9),
    ("a dear draft", {"model": ((0.8, 0.7, 0.6), 0.55, 1.0), "head": ((0.5, 0.3, 0.2), 0.05, 1.0)}, 0.05),
    ("a small gain", {"head": ((0.3, 0.05), 0.15, 1.0)}, 0.12),
    ("two close ones", {"head": ((0.66, 0.30), 0.05, 1.0), "copies": ((0.2, 0.19, 0.18), 0.0, 0.25)}, 0.4),
    ("good drafts", {"head": ((0.9, 0.8, 0.3), 0.05, 1.0)}, 0.1),
    ("two that are often silent", {"model": ((0.68, 0.36), 0.05, 0.35), "head": ((0.65, 0.57, 0.49), 0.1, 0.5)}, 0.4),
    ("silent half of the time", {"model": ((0.4, 0.3), 0.2, 0.5), "head": ((0.4,), 0.07, 1.0)}, 0.05),
)
MARGIN = 1.05


def choice(function: Callable[..., Any], offers: Sequence[tuple[str, Drafters, float]] = OFFERS) -> Report:
    """Of `function(drafters, v, margin)`: (name, draft length) of the best, ("none", 0) where none promises enough."""

    def trial(about: str, drafters: Drafters, slope: float) -> Trial:
        def v(k: int) -> float:
            return 1.0 + slope * (k - 1)

        options = [
            Option(name, alive, lambda gamma, c=c: gamma * c + v(gamma + 1), drafts)  # type: ignore[misc]
            for name, (alive, c, drafts) in drafters.items()
        ]
        best = choose(options, v, margin=MARGIN)
        speeds = {(o.name, g): o.weigh(g).speedup for o in options for g in range(1, len(o.alive) + 1)}

        def outcome(code: Any) -> Any:
            came = attempt(code, dict(drafters), v, MARGIN)
            if not isinstance(came, tuple | list) or len(came) != 2 or not isinstance(came[0], str):
                raise Trouble(f"it returned {came!r}, and a name and a length were expected")
            length = numbers(came[1], 1)[0]
            if not length.is_integer():
                raise Trouble(f"it returned {came!r}, and a length is a whole number")
            return came[0], length

        def judge(came: tuple[str, float]) -> tuple[bool, str]:
            name, length = came[0], round(came[1])
            gave = f"it chose {name} with {length}"
            if name == "none":
                right = best.method == "none" and length == 0
                return right, gave if right else f"{gave}, and something here promises {max(speeds.values()):.2f}"
            if (name, length) not in speeds:
                return False, f"{gave}, which is not on offer"
            promised = speeds[name, length]
            if best.method == "none":
                return False, f"{gave}, which promises {promised:.2f}: less than the margin of {MARGIN}"
            right = promised >= best.speedup * (1 - CLOSE)
            return right, f"{gave}, {promised:.2f} times plain" + ("" if right else ", and better is on offer")

        return Trial(f"{about} (v(5) = {v(5):.2f})", outcome, judge)

    return examine("Task 3, a choice", function, [trial(*offer) for offer in offers], wrong.CHOICES)


def metrics(
    function: Callable[..., Any], runs: Sequence[tuple[Rounds, int]] = (((3, 3, 3), 4), ((2, 0, 1, 3), 4))
) -> Report:
    """Of `function(emitted, num_draft_tokens)`: (accept length, accept rate) as SGLang defines them today."""

    def trial(which: int, accepted: Rounds, nodes: int) -> Trial:
        stats = run_of(accepted, nodes - 1)
        page = parse(exposition(stats, DraftBudget(nodes - 1)))
        right = (page["sglang:spec_accept_length"], page["sglang:spec_accept_rate"])[which]
        emitted = [a + 1 for a in accepted]

        def outcome(code: Any) -> Any:
            return numbers(attempt(code, list(emitted), nodes), 2)[which]

        def judge(value: float) -> tuple[bool, str]:
            over = ": a share of drafts above 1" if which == 1 and value > 1 else ""
            good = abs(value - right) <= CLOSE
            return good, f"it gave {value:.4g}{over}" + (", as counted" if good else f"; counting gives {right:.4g}")

        return Trial(
            f"{('length', 'rate')[which]}, rounds of {', '.join(map(str, emitted))} tokens, {nodes} nodes",
            outcome,
            judge,
            weight=(1.0, 3.0)[which],
        )

    trials = [trial(which, *run) for run in runs for which in (0, 1)]
    return examine("Task 4, find the bug", unaided(function, exposition), trials, wrong.RATES)
