"""What `specdec doctor` shows of its measurements: the verify curve, whether it falls, and what drafting costs."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specdec_ref.cost_model import RoundCosts

__all__ = ["chart", "falls", "prices"]

TOLERANCE = 0.05  # what medians of nine forwards differ by on an idle machine


def falls(curve: Mapping[int, float]) -> tuple[int, int] | None:
    """The first k and its successor between which the seconds fall by more than `TOLERANCE`; None if nowhere."""
    for few, more in pairwise(sorted(curve)):
        if curve[more] < (1 - TOLERANCE) * curve[few]:
            return few, more
    return None


def chart(curve: dict[int, float]) -> "RenderableType":
    """A bar for every k: how many plain steps it costs to check k tokens at once."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    from specdec_ref.palette import PALETTE

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("k", "ms", "v(k)", "us a token"):
        table.add_column(column, justify="right")
    table.add_column("each block is a quarter of a plain step")
    for k, seconds in curve.items():
        v = seconds / curve[1]
        bar = Text("█" * round(4 * v), PALETTE["target"])
        table.add_row(str(k), f"{1e3 * seconds:.1f}", f"{v:.2f}", f"{1e6 * seconds / k:.0f}", bar)
    words = Text(
        "v(k): checking k tokens in one forward, in plain steps. A free draft of gamma tokens pays once a round yields "
        f"more than v(gamma + 1) tokens: for gamma 4, once tau > {curve[5] / curve[1]:.2f}.",
        style="dim",
    )
    if fall := falls(curve):
        words.append(
            f"\n\nThis curve falls from k = {fall[0]} to k = {fall[1]}, in two measurements. Checking more tokens "
            "should not take less time: either other programs disturbed the measurement, or the processor uses a "
            "faster kernel there. Measure again on an idle machine before you rely on it.",
            style="bold not dim",
        )
    return Group(Rule("[bold]verify curve[/]", align="left", style="dim"), table, words)


def prices(costs: "dict[str, RoundCosts]") -> "RenderableType":
    """What drafting costs, and the length that pays best if guesses are right with probability alpha."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    from specdec_ref.cost_model import expected_tau

    alphas, table = (0.5, 0.7, 0.9), Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("drafter")
    for column in ("c, 1 guess", "c, 4 guesses", "the rest", *(f"alpha {alpha}" for alpha in alphas)):
        table.add_column(column, justify="right")
    for name, cost in costs.items():
        best = []
        for alpha in alphas:
            gain = {g: expected_tau(alpha, g) / cost.round(g, g + 1) for g in range(13)}
            gamma = max(gain, key=lambda g: gain[g])
            best.append(f"{gamma}: {gain[gamma]:.2f}" if gamma else "none")
        rest = cost.overhead / cost.verify[1]
        table.add_row(name, f"{cost.c(1):.3f}", f"{cost.c(4):.3f}", f"{rest:.3f}", *best)
    words = Text(
        "c, the rest: drafting, and all that is neither drafting nor the forward, in plain steps a round. Right: the "
        "chain length with the largest predicted speed-up, if each guess is right with probability alpha.",
        style="dim",
    )
    return Group(Rule("[bold]drafting[/]", align="left", style="dim"), table, words)
