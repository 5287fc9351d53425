"""Accept-rate explorer: what a draft is worth, from how often it holds, how long it is, and what a round costs.

    tau = (1 - alpha^(gamma+1)) / (1 - alpha)          v(k) = 1 + slope * max(0, k - flat)
    speed-up = tau / (gamma c + v(gamma + 1))

The points are this machine's: measured speed-ups by draft length, and its measured verify curve. The sliders start
where the curve fits them (`fitted`), so one sees what an assumption is worth, and then what would have to change.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from specdec_course.plots import Curve, Number, gains
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_ref.cost_model import best_gamma, expected_tau, speedup

__all__ = ["fitted", "rate_explorer", "rate_view"]

MOST = 12  # drafts
NOTHING: Mapping[Any, Any] = MappingProxyType({})
KNOBS = (
    Knob("acceptance", "alpha: of a draft, once it is tested", 0.0, 1.0, 0.7, 0.01),
    Knob("draft length", "gamma: guesses per round", 0, MOST, 4, 1, "tokens"),
    Knob("draft cost", "c: of one draft token", 0.0, 1.0, 0.1, 0.01, "steps"),
    Knob("checked for one", "how many tokens a forward checks at the price of one", 1, 8, 2, 1, "tokens"),
    Knob("each further one", "what each token beyond adds to the check", 0.0, 1.0, 0.1, 0.01, "steps"),
)


def fitted(prices: Mapping[int, float]) -> tuple[int, float]:
    """(flat, slope) of the two straight lines nearest to v(k) as measured, for the k that the explorer shows."""
    points = {k: v for k, v in prices.items() if k <= MOST + 1}

    def line(flat: int) -> tuple[float, float]:
        beyond = {k: max(0, k - flat) for k in points}
        weight = sum(x * x for x in beyond.values())
        slope = sum(beyond[k] * (v - 1) for k, v in points.items()) / weight if weight else 0.0
        slope = min(1.0, max(0.0, slope))
        return sum((1 + slope * beyond[k] - v) ** 2 for k, v in points.items()), slope

    best = min(range(1, int(KNOBS[3].high) + 1), key=lambda flat: line(flat)[0])
    return best, line(best)[1]


def rate_view(
    alpha: Number,
    gamma: Number,
    c: Number,
    flat: Number,
    slope: Number,
    *,
    points: Mapping[str, Curve] = NOTHING,
    prices: Mapping[int, float] = NOTHING,
) -> View:
    """tau, cost and speed-up there, the best length, and the accept rate that a dashboard would show."""

    def v(k: int) -> float:
        return 1.0 + slope * max(0.0, k - flat)

    length = round(gamma)
    tau, cost = expected_tau(alpha, length), length * c + v(length + 1)
    best, most = best_gamma([float(alpha)] * MOST, c, v)
    answer = f"Best is a draft of <b>{best}</b>: {most:.2f}." if best else "<b>No length gains: do not speculate.</b>"
    rate = f"{(tau - 1) / length:.0%} of those proposed" if length else "none is proposed"
    html = (
        f"<p>Drafts of {length}: <b>tau = {tau:.2f}</b> tokens per round. It takes {length} &times; {c:.2f} + "
        f"v({length + 1}) plain steps, <b>{cost:.2f}</b> in all: <b>{tau / cost:.2f}</b> times plain. {answer}</p>"
        f"<p>Accepted: {alpha:.0%} of the drafts tested (alpha), {rate} (the engines' accept rate). "
        f"The longest draft here, {MOST}, would need a check of {MOST + 1} tokens: {v(MOST + 1):.2f} steps.</p>"
    )
    lengths, widths = list(range(MOST + 1)), list(range(1, MOST + 2))
    curve = [speedup(expected_tau(alpha, g), g, c, v) for g in lengths]
    shown = {k: price for k, price in prices.items() if k <= MOST + 1}
    alt = f"Speed-up at acceptance {alpha:.2f}: {tau / cost:.2f} with {length} drafts, best with {best}."
    picture = gains(
        (lengths, curve), (widths, [v(k) for k in widths]), points, (list(shown), list(shown.values())), length, alt=alt
    )
    return View(html, picture)


def rate_explorer(
    points: Mapping[str, Curve] = NOTHING,
    prices: Mapping[int, float] = NOTHING,
    *,
    alpha: Number = 0.7,
    gamma: Number = 4,
    c: Number = 0.1,
) -> Explorer:
    """Five sliders. `points`: speed-ups measured by draft length, by name; `prices`: v(k) as measured; if any.

    `alpha`, `gamma`, `c`: where the sliders start; those of the verify curve start at its best fit.
    """
    flat, slope = fitted(prices) if prices else (KNOBS[3].value, KNOBS[4].value)
    first = (alpha, gamma, c, flat, max(KNOBS[4].step, slope))  # without a slope the slider before it does nothing
    knobs = [knob.starting_at(value) for knob, value in zip(KNOBS, first, strict=True)]
    return Explorer.build(knobs, lambda *at: rate_view(*at, points=points, prices=prices))
