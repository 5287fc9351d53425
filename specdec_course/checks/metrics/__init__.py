"""Self-checks of exercise 06: a run counted, what acceptance promises, the best length at a batch, two controllers.

What is right comes from elsewhere than the formula that is asked for: pages that a server would publish, the outcomes
of a round one by one, the package's controller.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, examine, numbers, same
from specdec_course.checks.metrics import suspects as wrong
from specdec_course.checks.report import Report
from specdec_ref.adaptive import EmaTiers
from specdec_ref.config import DraftBudget
from specdec_ref.exposition import exposition, parse
from specdec_ref.metrics import RunStats, StepRecord

__all__ = ["best_length", "counts", "lengths", "mended", "record", "tau"]

Round = tuple[int, int, bool]  # drafted, accepted, whether the text ended inside the draft
Run = tuple[str, Sequence[Round]]

NODES = 4
RUNS: tuple[Run, ...] = (
    ("every draft full", ((3, 3, False), (3, 0, False), (3, 1, False), (3, 3, False))),
    ("rounds without a draft", ((0, 0, False), (3, 2, False), (0, 0, False), (2, 0, False), (0, 0, False))),
    ("a text that ends inside a draft", ((3, 1, False), (3, 3, False), (3, 2, True))),
    ("short drafts", ((2, 1, False), (1, 1, False), (2, 0, False))),
    ("no draft in any round", ((0, 0, False), (0, 0, False))),
)
KEYS = ("tau", "alpha", "sglang_rate", "vllm_length", "vllm_rate", "shares")


def record(drafted: int, accepted: int, ended: bool = False) -> StepRecord:
    """A round: so many drafts in a chain, so many accepted; `ended`: the last of these ends the text."""
    tested = accepted if ended else min(drafted, accepted + 1)
    return StepRecord(0, drafted, tested, accepted, accepted + (not ended), drafted)


def published(records: Sequence[StepRecord], nodes: int) -> dict[str, float | list[float]]:
    """What servers would publish about these rounds."""
    stats = RunStats.from_records(records)
    page = parse(exposition(stats, DraftBudget(nodes - 1)))
    prefix = "vllm:spec_decode_num_"
    drafts, accepted = page[f"{prefix}drafts_total"], page[f"{prefix}accepted_tokens_total"]
    drafted = page[f"{prefix}draft_tokens_total"]
    return {
        "tau": page["specdec:tau"], "alpha": page["specdec:alpha"], "sglang_rate": page["sglang:spec_accept_rate"],
        "vllm_length": 1 + accepted / drafts if drafts else 0.0, "vllm_rate": accepted / drafted if drafted else 0.0,
        "shares": [count / stats.rounds for count in stats.accepted_per_position],
    }  # fmt: skip


def counts(function: Callable[..., Any], runs: Sequence[Run] = RUNS) -> Report:
    """Of `function(records, nodes)`: a dict with `KEYS`."""
    made = [(about, [record(*each) for each in rounds]) for about, rounds in runs]

    def said(code: Any, records: Sequence[StepRecord]) -> Mapping[str, Any]:
        came = attempt(code, list(records), NODES)
        if not isinstance(came, Mapping) or not set(KEYS) <= set(came):
            raise Trouble(f"it returned {came!r}, and a dict with the keys {', '.join(KEYS)} was expected")
        return came

    def trial(key: str) -> Trial:
        rights = [published(records, NODES)[key] for _, records in made]

        def outcome(code: Any) -> list[Any]:
            return [_numbers(said(code, records)[key], key == "shares") for _, records in made]

        def judge(came: list[Any]) -> tuple[bool, str]:
            for (about, _), value, right in zip(made, came, rights, strict=True):
                if not same(value, right if isinstance(right, list) else [right]):
                    gave = ", ".join(f"{x:.4g}" for x in value)
                    due = ", ".join(f"{x:.4g}" for x in (right if isinstance(right, list) else [right]))
                    return False, f"for {about} it gave {gave or 'an empty list'}, and the definition gives {due}"
            return True, f"as counted, for {', '.join(about for about, _ in made)}"

        return Trial(key, outcome, judge)

    def nothing(code: Any) -> list[Any]:
        came = said(code, [])
        return [_numbers(came[key], key == "shares") for key in KEYS]

    empty = Trial(
        "A run without rounds",
        nothing,
        lambda came: (
            not any(map(any, came)),
            "all numbers are 0" if not any(map(any, came)) else "something is not 0",
        ),
    )
    return examine("Task 1, one run", function, [*map(trial, KEYS), empty], wrong.COUNTS)


def _numbers(value: Any, listed: bool) -> list[float]:
    """A list of numbers, or one number as a list."""
    if not listed:
        return numbers(value, 1)
    if not isinstance(value, list | tuple):
        raise Trouble(f"shares is {value!r}, and a list was expected")
    return [number for each in value for number in numbers(each, 1)]


def courses(chances: Sequence[float]) -> Iterator[tuple[float, int]]:
    """(probability, accepted drafts) of everything that can happen in a round."""
    reached = 1.0
    for accepted, chance in enumerate(chances):
        yield reached * (1 - chance), accepted
        reached *= chance
    yield reached, len(chances)


CHANCES: tuple[Sequence[float], ...] = ((0.8, 0.8, 0.8, 0.8), (0.73, 0.71, 0.67), (1.0, 1.0, 1.0), (0.6, 0.0, 0.9), ())


def tau(function: Callable[..., Any], cases: Sequence[Sequence[float]] = CHANCES) -> Report:
    """Of `function(chances)`: mean tokens per round."""

    def trial(chances: Sequence[float]) -> Trial:
        right = sum(chance * (accepted + 1) for chance, accepted in courses(chances))

        def judge(came: float) -> tuple[bool, str]:
            good = abs(came - right) <= CLOSE
            return good, f"it gave {came:.4g}" + (
                "" if good else f", and the mean over all outcomes of a round is {right:.4g}"
            )

        words = ", ".join(f"{chance:g}" for chance in chances) or "no draft at all"
        return Trial(words, lambda code: numbers(attempt(code, list(chances)), 1)[0], judge)

    return examine("Task 2, what acceptance promises", function, [trial(each) for each in cases], wrong.TAUS)


Forward = Callable[[int], float]
Place = tuple[str, Sequence[float], float, tuple[float, float, int], int]  # chances, draft, forward's shape, rows

PLACES: tuple[Place, ...] = (
    ("one text", (0.8, 0.7, 0.7, 0.6), 2.0, (20.0, 1.5, 4), 1),
    ("the same, eight texts", (0.8, 0.7, 0.7, 0.6), 4.0, (20.0, 1.5, 4), 8),
    ("a check that costs nothing more", (0.6, 0.5, 0.5), 1.0, (20.0, 0.0, 4), 4),
    ("an expensive draft", (0.6, 0.5), 18.0, (20.0, 1.0, 2), 1),
    ("two texts, a good draft", (0.9, 0.9, 0.9, 0.9, 0.9), 3.0, (20.0, 2.0, 4), 2),
)


def forward_of(least: float, slope: float, flat: int) -> Forward:
    """Milliseconds of a forward over n tokens: `least` up to `flat` of them, then `slope` more for each."""
    return lambda n: least + slope * max(0, n - flat)


def best_length(function: Callable[..., Any], places: Sequence[Place] = PLACES) -> Report:
    """Of `function(chances, draft, forward, rows)`: (length, speed-up over plain decoding of the same batch)."""

    def trial(about: str, chances: Sequence[float], draft: float, shape: tuple[float, float, int], rows: int) -> Trial:
        forward = forward_of(*shape)
        gains: dict[float, float] = {}
        for length in range(len(chances) + 1):
            tokens = rows * sum(chance * (accepted + 1) for chance, accepted in courses(chances[:length]))
            gains[length] = tokens / (length * draft + forward(rows * (length + 1))) / (rows / forward(rows))

        def outcome(code: Any) -> tuple[float, float]:
            length, gain = numbers(attempt(code, list(chances), draft, forward, rows), 2)
            return length, gain

        def judge(came: tuple[float, float]) -> tuple[bool, str]:
            length, gain = came
            gave = f"it chose length {length:g} with a speed-up of {gain:.3f}"
            if length not in gains:
                return False, f"{gave}, and lengths go from 0 to {len(chances)}"
            if gains[length] < max(gains.values()) - CLOSE:
                return (
                    False,
                    f"{gave}, but another length is faster: this one gives {gains[length]:.3f}",
                )
            good = abs(gain - gains[length]) <= CLOSE
            return good, gave if good else f"{gave}: the length is right, but its speed-up is {gains[length]:.3f}"

        told = f"a draft token {draft:g} ms, forward({rows}) {forward(rows):g} ms"
        words = f"{about}: {rows} row{'s' * (rows > 1)}, {told}"
        return Trial(words, outcome, judge)

    return examine("Task 3, the best length", function, [trial(*place) for place in places], wrong.LENGTHS)


Text = tuple[str, Callable[[int], int | None], int]  # about, what holds in the n-th draft (None: no draft), rounds
TIERS = (0, 2, 4, 8)

TEXTS: tuple[Text, ...] = (
    ("every guess holds", lambda n: 99, 25),
    ("no guess ever holds", lambda n: 0, 30),
    ("nothing holds, then everything does", lambda n: 0 if n < 12 else 99, 50),
    ("one or two hold", lambda n: 1 + n % 2, 25),
    ("one holds", lambda n: 1, 25),
    ("four drafts fail, and the fifth holds", lambda n: 99 if n % 5 == 4 else 0, 30),
    ("three or four hold", lambda n: (3, 3, 4, 3, 4, 3, 4, 4, 4, 3)[n % 10], 40),
    ("nothing holds, then no draft is found, then all holds", lambda n: 0 if n < 5 else None if n < 10 else 99, 35),
    ("a draft is found in every third round only", lambda n: None if n % 3 else 2, 30),
)


def lengths(function: Callable[..., Any], texts: Sequence[Text] = TEXTS) -> Report:
    """Of `function(draft, rounds, tiers)`: the length of every round."""

    def trial(about: str, holds: Callable[[int], int | None], rounds: int) -> Trial:
        right = controlled(holds, rounds)

        def outcome(code: Any) -> list[float]:
            came = attempt(code, _World(holds), rounds, TIERS)
            if not isinstance(came, list | tuple):
                raise Trouble(f"it returned {came!r}, and a list of lengths was expected")
            return numbers(came, rounds)

        def judge(came: list[float]) -> tuple[bool, str]:
            shown = " ".join(f"{length:g}" for length in came)
            if same(came, [float(length) for length in right]):
                return True, f"lengths {shown}"
            at = next(i for i, (ours, theirs) in enumerate(zip(right, came, strict=True)) if ours != theirs)
            return False, f"lengths {shown}: right until round {at}, but round {at + 1} should have length {right[at]}"

        return Trial(about, outcome, judge)

    return examine("Task 4, a controller", function, [trial(*text) for text in texts], wrong.CONTROLS)


class _World:
    """Drafts when it is called, and returns how many guesses were accepted."""

    def __init__(self, holds: Callable[[int], int | None]) -> None:
        self.holds, self.drafts = holds, 0

    def __call__(self, length: int) -> int | None:
        if length <= 0:
            return 0
        held, self.drafts = self.holds(self.drafts), self.drafts + 1
        return None if held is None else min(length, held)


def controlled(holds: Callable[[int], int | None], rounds: int) -> list[int]:
    """The package's tiers with the exercise's numbers."""
    control = EmaTiers(TIERS, smoothing=0.5, warmup=0, every=5, up=0.25, down=-0.25, tier=2, mean=4.0)
    world, made = _World(holds), []
    for _ in range(rounds):
        (length,) = control.depths([0], max(TIERS))
        made.append(length)
        held = world(length)
        control.observe([record(0 if held is None else length, held or 0)])
    return made


Drafts = Sequence[tuple[int, int]]  # drafted, accepted

STREAMS: tuple[tuple[str, Drafts], ...] = (
    ("drafts as long as asked for, all accepted", ((5, 5), (7, 7), (9, 9), (11, 11))),
    ("drafts that come short, all accepted", ((3, 3), (4, 4), (2, 2), (6, 6))),
    ("some rejected", ((5, 4), (4, 4), (6, 0), (5, 2), (4, 1))),
    ("never right", ((5, 0), (4, 0), (3, 0), (2, 0), (1, 0), (1, 0))),
    ("rounds without a draft", ((0, 0), (5, 5), (0, 0), (0, 0), (3, 1), (0, 0), (2, 2))),
)


def mended(function: Callable[..., Any], streams: Sequence[tuple[str, Drafts]] = STREAMS) -> Report:
    """Of `function(rounds, first)`: the length that each round asks for."""

    def trial(about: str, rounds: Drafts) -> Trial:
        right = wrong.asked_for(rounds, 5)

        def judge(came: list[float]) -> tuple[bool, str]:
            gave = f"it asked for {', '.join(f'{length:g}' for length in came)}"
            good = same(came, [float(length) for length in right])
            held = ", ".join(f"{accepted} of {drafted}" for drafted, accepted in rounds)
            return good, gave if good else f"{gave}, where the rounds accepted {held}"

        weight = 4.0 if "short" in about else 1.0  # what the code that shipped gets wrong
        return Trial(about, lambda code: numbers(attempt(code, list(rounds), 5), len(rounds)), judge, weight)

    return examine("Task 5, find the bug", function, [trial(*stream) for stream in streams], wrong.HEURISTICS)
