"""Which method, how long a draft, and why: the decision guide on measured numbers. "Do not speculate" is an answer.

    tau(gamma)      = 1 + alive_1 + ... + alive_gamma        alive_j: share of rounds in which draft j was accepted
    speed-up(gamma) = tau(gamma) / (s cost(gamma) + 1 - s)   cost: a round with gamma drafts, in plain steps
                                                             s: share of rounds that draft at all; the rest are plain

The questions, in this order: is checking several tokens cheap at this batch; is there anything to copy; is there a
draft trained for this very target; and does the best of them promise enough. Latency is no question of its own: at a
small batch speculation lowers it, and where it does not, the numbers say so. Task, temperature and batch change the
answer, so acceptance has to be of one's own task: `bench.known` has ours. Source: Leviathan et al. 2023, Thm. 3.8.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from specdec_ref.cost_model import Machine, ModelShape, RoundCosts, ideal_curve

__all__ = [
    "MARGIN", "METHODS", "SCENARIOS", "SHAPES", "Choice", "Option", "Weighed", "choose", "measured_cost",
    "roofline_cost",
]  # fmt: skip

MARGIN = 1.05  # a prediction below this is not worth the trouble: it is wrong by that much now and then
METHODS: Mapping[str, str] = MappingProxyType(  # what each needs, beside the target
    {
        "ngram": "nothing: it copies from the text, and where nothing repeats a round is a plain step",
        "trie": "nothing but memory: it copies from all texts so far",
        "suffix": "nothing but memory: it copies from the request and from past answers",
        "draft": "a smaller model with the target's vocabulary, and its own KV cache",
        "eagle": "a head of one layer, trained for this very target",
        "hybrid": "the same head, and a trie",
    }
)
SCENARIOS: Mapping[str, tuple[str, str]] = MappingProxyType(  # name -> (our task nearest to it, what is often advised)
    {
        "code completion": ("code", "EAGLE, 5 to 8 drafts"),
        "chat": ("chat", "EAGLE, 3 to 5 drafts"),
        "document processing": ("editing", "n-grams, 4 to 6 drafts"),
        "real-time translation": ("translation", "no speculation"),
    }
)
SHAPES: Mapping[str, ModelShape] = MappingProxyType(  # Llama 3.1's, as published; no input embedding
    {"8b": ModelShape(7_504_924_672, 32, 32, 8, 128), "70b": ModelShape(69_503_000_000, 80, 64, 8, 128)}
)


@dataclass(frozen=True, slots=True)
class Option:
    """A drafter that one might use. `alive`, `drafts` (s above): measured; `cost(gamma)`: a round, in plain steps."""

    name: str
    alive: tuple[float, ...]
    cost: Callable[[int], float]
    drafts: float = 1.0

    def __post_init__(self) -> None:
        shares = (*self.alive, self.drafts)
        if not all(0.0 <= share <= 1.0 for share in shares) or list(self.alive) != sorted(self.alive, reverse=True):
            raise ValueError(f"{self.name}: shares of rounds by position lie in [0, 1] and never rise, got {shares}")

    def weigh(self, gamma: int) -> "Weighed":
        """What a round with that many drafts brings and costs."""
        tau, cost = 1.0 + sum(self.alive[:gamma]), self.drafts * self.cost(gamma) + 1.0 - self.drafts
        return Weighed(self.name, gamma, tau if gamma else 1.0, cost if gamma else 1.0)

    def best(self) -> "Weighed":
        """The length from 1 up that promises most."""
        return max((self.weigh(gamma) for gamma in range(1, len(self.alive) + 1)), key=lambda way: way.speedup)


@dataclass(frozen=True, slots=True)
class Weighed:
    """An option at one length."""

    name: str
    gamma: int
    tau: float
    cost: float

    @property
    def speedup(self) -> float:
        """Over plain decoding, predicted."""
        return self.tau / self.cost


@dataclass(frozen=True, slots=True)
class Choice:
    """`method` "none", gamma 0: decode plainly. `weighed`: every option at its best length, the best first."""

    method: str
    gamma: int
    speedup: float
    reasons: tuple[str, ...]
    weighed: tuple[Weighed, ...]


def choose(options: Sequence[Option], v: Callable[[int], float], *, batch: int = 1, margin: float = MARGIN) -> Choice:
    """The best of `options`, or none of them. `v`: price of checking k tokens per text, at this batch."""
    by_name = {option.name: option for option in options if option.alive}
    ways = sorted((option.best() for option in by_name.values()), key=lambda way: -way.speedup)
    reasons = [_price(v, batch), *(_account(by_name[way.name], way) for way in ways)]
    if not ways:
        return Choice("none", 0, 1.0, (*reasons, "There is no draft to use, so decode plainly."), ())
    best = ways[0]
    if best.speedup < margin:
        reasons.append(
            f"Do not speculate: the best, {best.name}, promises {best.speedup:.2f} times plain, and below {margin:.2f} "
            "a prediction is not worth its risk."
        )
        return Choice("none", 0, 1.0, tuple(reasons), tuple(ways))
    needs = METHODS.get(best.name, "what it is made of")
    reasons.append(f"Use {best.name} with {_many(best.gamma)}. It needs {needs}.")
    if len(ways) > 1 and ways[1].speedup > 0.95 * best.speedup:
        reasons.append(f"{ways[1].name} is as good as that within 5 %: take whichever is easier to keep.")
    return Choice(best.name, best.gamma, best.speedup, tuple(reasons), tuple(ways))


def measured_cost(costs: RoundCosts, batch: int = 1) -> tuple[Callable[[int], float], Callable[[int], float]]:
    """(cost of a round by gamma, v by k) of this machine, in plain steps of that batch."""
    plain = costs.round(0, 1, batch)
    return lambda gamma: costs.round(gamma, gamma + 1, batch), lambda k: costs.round(0, k, batch) - plain + 1


def roofline_cost(
    shape: ModelShape, machine: Machine, c: float, batch: int = 1, context: int = 0
) -> tuple[Callable[[int], float], Callable[[int], float]]:
    """The same of a machine that is not there, from its data sheet: a model, not a measurement."""
    v = ideal_curve(shape, machine, batch, context)
    return lambda gamma: gamma * c + v(gamma + 1), v


def _price(v: Callable[[int], float], batch: int) -> str:
    """Question one: is a wide forward cheap?"""
    five = v(5)
    if five < 1.5:
        side = "cheap, because the time goes into moving bytes, not into arithmetic"
    elif five <= 3:
        side = "not free, because arithmetic begins to count"
    else:
        side = "expensive, because the time goes into arithmetic"
    return f"At batch {batch}, checking 5 tokens per text costs {five:.2f} plain steps: {side}."


def _account(option: Option, way: Weighed) -> str:
    """What an option brings, what it costs, and why its draft is not longer."""
    shares = ", ".join(f"{share:.2f}" for share in option.alive)
    seldom = f" It drafts in {option.drafts:.0%} of rounds, the rest are plain." if option.drafts < 0.95 else ""
    text = (
        f"{option.name}: draft 1, 2, ... is accepted in {shares} of rounds. Best with {_many(way.gamma)}: {way.tau:.2f}"
        f" tokens for {way.cost:.2f} plain steps, {way.speedup:.2f} times plain.{seldom}"
    )
    if way.gamma < len(option.alive):
        longer = option.weigh(way.gamma + 1)
        more, price = longer.tau - way.tau, longer.cost - way.cost
        text += f" One more draft would add {more:.2f} tokens and {price:.2f} steps, and does not pay."
    return text


def _many(gamma: int) -> str:
    return "1 draft" if gamma == 1 else f"{gamma} drafts"
