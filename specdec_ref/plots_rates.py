"""Speed-up against draft length beside the verify curve: what a formula says, and what was measured."""

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from specdec_ref.palette import PALETTE
from specdec_ref.plots import _MARKERS, _STYLE, GREY, Number, Picture, render

__all__ = ["Curve", "gains"]

Curve = tuple[Sequence[Number], Sequence[Number]]
SCALES = (2, 3, 5, 8, 14)  # upper ends of y: few, so that pictures behind a slider can be compared
_KINDS = ("draft", "accepted", "bonus", "rejected")


def gains(speedup: Curve, price: Curve, measured: Mapping[str, Curve], prices: Curve, gamma: Number, *,
          alt: str) -> Picture:  # fmt: skip
    """`speedup` by draft length, `measured` as points by name, `gamma` marked; beside it v(k), `prices` as points."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 3.2))
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        figure.subplots_adjust(left=0.075, right=0.985, top=0.89, bottom=0.155, wspace=0.22)
        left.plot(*speedup, color=PALETTE["target"], label="formula")
        for i, (name, (at, values)) in enumerate(measured.items()):
            colour = PALETTE[_KINDS[i % len(_KINDS)]]
            left.plot(at, values, _MARKERS[i % len(_MARKERS)], color=colour, label=name)
        left.axhline(1, color=GREY, linewidth=1, linestyle=":")
        left.axvline(gamma, color=GREY, linewidth=1, linestyle=":")
        left.set(xlabel="draft length (tokens)", ylabel="speed-up (times plain)")
        right.plot(*price, color=PALETTE["target"], label="sliders")
        if prices[0]:
            right.plot(*prices, "s", color=PALETTE["target"], markerfacecolor="white", label="measured")
        right.set(xlabel="tokens checked, k", ylabel="v(k) (plain steps)")
        _framed(left)
        _framed(right)
        return render(figure, alt)


def _framed(axes: Axes) -> None:
    highest = axes.dataLim.ymax
    axes.set_ylim(0, next((top for top in SCALES if top >= 1.05 * highest), 1.05 * highest))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Above: inside it would hide points, and looking for a free place takes as long as all the rest.
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=4, columnspacing=1.0, handlelength=1.4,
                handletextpad=0.4, borderaxespad=0)  # fmt: skip
