"""Pictures of measurements: points against a diagonal, intervals, a table in colours."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from matplotlib import rc_context
from matplotlib.figure import Figure

from specdec_ref.palette import PALETTE
from specdec_ref.plots import GREY, MARKERS, STYLE, Number, Picture, as_colour, new_figure, render

__all__ = ["heat", "intervals", "scatter"]


def scatter(
    points: Mapping[str, tuple[Sequence[Number], Sequence[Number]]], *, x: str, y: str, alt: str, named: bool = False
) -> Picture:
    """Points against a diagonal, on which both numbers agree. `named`: names at the points, no legend."""
    with rc_context(STYLE):
        figure, axes = new_figure(width=6.4 if named else 5.6, height=4.0)
        ends = [f([value for series in points.values() for numbers in series for value in numbers]) for f in (min, max)]
        low, high = 0.9 * ends[0], 1.08 * ends[1]
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":")
        colours = ("target", "draft", "accepted", "rejected", "bonus", "grey")
        labelled: list[tuple[Number, Number]] = []
        for i, (name, (at, values)) in enumerate(points.items()):
            axes.plot(at, values, (MARKERS + "X")[i % 6], color=as_colour(colours[i % 6]), label=name)
            if named:
                here, reach = (at[0], values[0]), 0.05 * (high - low)
                crowded = any(abs(here[0] - a) < 3 * reach and abs(here[1] - b) < reach for a, b in labelled)
                offset, side = ((-7, -3), "right") if crowded else ((7, -3), "left")
                axes.annotate(name, here, offset, textcoords="offset points", fontsize=9, ha=side)
                labelled.append(here)
        axes.set(xlabel=x, ylabel=y, xlim=(low, high * (1.15 if named else 1)), ylim=(low, high))
        if not named:
            axes.legend(fontsize=8)
        return render(figure, alt)


def intervals(
    rows: Mapping[str, tuple[Number, Number, Number]], *, x: str, alt: str, guide: Number | None = None,
    claims: Mapping[str, tuple[Number, Number]] = MappingProxyType({}),
) -> Picture:  # fmt: skip
    """A dot per row with its interval (low, value, high); `claims`: a range beside it, which somebody else gives."""
    with rc_context(STYLE):
        figure, axes = new_figure(height=0.65 + 0.3 * len(rows))
        for place, (name, (low, value, high)) in enumerate(rows.items()):
            axes.plot([low, high], [place, place], color=PALETTE["target"], linewidth=1.6)
            axes.plot([value], [place], "o", color=PALETTE["target"], label="" if place else "measured, 95 % interval")
            if name in claims:
                first, last = claims[name]
                axes.plot([first, last], [place - 0.28] * 2, color=PALETTE["draft"], linewidth=3, marker="|",
                          markersize=9, markeredgewidth=3, label="" if place else "claimed")  # fmt: skip
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        if guide is not None:
            axes.axvline(guide, color=GREY, linewidth=1, linestyle=":")
        if claims:
            axes.legend()
        axes.set_xlabel(x)
        return render(figure, alt, fit=True)


def heat(cells: Mapping[str, Sequence[Number | None]], columns: Sequence[str], *, alt: str) -> Picture:
    """A table in colours: blue above 1, orange below; None leaves a cell empty."""
    with rc_context(STYLE):
        figure = Figure(figsize=(1.9 + 0.9 * len(columns), 0.4 + 0.27 * len(cells)))
        axes = figure.add_subplot()
        for y, values in enumerate(cells.values()):
            for x, value in enumerate(values):
                if value is not None:
                    strength = min(0.85, abs(value - 1))
                    colour = PALETTE["target"] if value >= 1 else PALETTE["draft"]
                    axes.barh(y, 0.94, 0.9, x - 0.47, color=colour, alpha=strength)
                    axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, color="black")
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(cells) - 0.45, -0.55))
        axes.set_xticks(range(len(columns)), list(columns))
        axes.set_yticks(range(len(cells)), list(cells))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        return render(figure, alt, fit=True)
