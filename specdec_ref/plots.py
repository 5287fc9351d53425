"""Plots of measurements in one look: the colours of `palette.py`, units on every axis, few bytes.

Each function takes plain numbers and returns a `Picture`: PNG bytes and the same in words, for readers who see no
picture. Figures are made without pyplot, so nothing global changes and a slider can redraw in milliseconds.
Of this package, the only file that imports matplotlib; the drawings that teach are in `specdec_course/plots.py` and
`specdec_course/memory.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specdec_ref.palette import PALETTE

__all__ = [
    "GREY",
    "GROUND",
    "MARKERS",
    "SHADES",
    "STYLE",
    "Number",
    "Picture",
    "bars",
    "lines",
    "load_curves",
    "render",
    "training_curves",
]

Number = int | float  # a checker of types takes `float` at its word
GREY = "#6b6b6b"  # for what is neither target nor draft: axes, guides, prompts; 5 : 1 on white
SHADES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {  # several curves of one thing: dark, as in the palette, light
        "target": ("#00344f", PALETTE["target"], "#74b7de"),
        "draft": ("#7a5400", PALETTE["draft"], "#f5cf85"),
    }
)
STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "axes.labelcolor": "#333333", "xtick.color": "#333333", "ytick.color": "#333333", "axes.grid": True,
    "grid.color": "#e4e4e4", "grid.linewidth": 0.8, "axes.axisbelow": True, "lines.linewidth": 2.0,
    "lines.markersize": 6, "legend.frameon": False, "legend.fontsize": 9, "axes.titlesize": 10,
    "axes.titlelocation": "left", "figure.facecolor": "white",
}  # fmt: skip
GROUND = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # guides pass behind a number or a name
MARKERS = "os^Dv"  # colour never stands alone: each line has its marker as well


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG and what it shows, in words. A notebook displays it as it is."""

    png: bytes
    alt: str

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.png, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def as_colour(name: str) -> str:
    """A name of the palette, a colour of its own (#...), or grey."""
    return name if name.startswith("#") else PALETTE.get(name, GREY)


def render(figure: Figure, alt: str, *, fit: bool = False) -> Picture:
    """The figure as a picture. `fit`: leave room for long labels, which draws twice: too slow behind a slider."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight" if fit else None, pad_inches=0.08)
    return Picture(buffer.getvalue(), alt)


def new_figure(width: float = 7.2, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.85 / width, right=1 - 0.12 / width, top=1 - 0.12 / height, bottom=0.5 / height)
    axes.yaxis.set_label_coords(-0.65 / (width - 0.97), 0.5)  # however long the numbers: behind a slider nothing jumps
    return figure, axes


def lines(
    curves: Mapping[str, tuple[Sequence[Number], Sequence[Number]]],
    *,
    x: str,
    y: str,
    alt: str,
    colours: Sequence[str] = ("target", "draft", "accepted", "rejected", "bonus"),
    log: str = "",
    guide: Number | None = None,
    mark: tuple[Number, str] | None = None,
    dashed: Sequence[str] = (),
    top: Number | None = None,
) -> Picture:
    """Curves by name. `x`, `y`: labels with units; `log`: "x", "y" or "xy"; `guide`: a level; `mark`: a place on x.

    `top`: upper end of y, so that pictures behind a slider can be compared.
    """
    with rc_context(STYLE):
        figure, axes = new_figure()
        for i, (name, (at, values)) in enumerate(curves.items()):
            colour = as_colour(colours[i % len(colours)])
            style: dict[str, Any] = {"linestyle": "--"} if name in dashed else {"marker": MARKERS[i % len(MARKERS)]}
            axes.plot(at, values, color=colour, label=name, **style)
        if guide is not None:
            axes.axhline(guide, color=GREY, linewidth=1, linestyle=":")
        if mark is not None:
            axes.axvline(mark[0], color=GREY, linewidth=1, linestyle=":")
            axes.annotate(
                mark[1],
                (mark[0], 1.0),
                (4, -2),
                xycoords=("data", "axes fraction"),
                va="top",
                fontsize=9,
                textcoords="offset points",
                color=GREY,
            )
        scales(axes, log)
        if mark is not None and "y" not in log:
            axes.set_ylim(top=1.12 * axes.get_ylim()[1])  # its words stand above the curves
        if all(isinstance(place, int) for at, _ in curves.values() for place in at) and "x" not in log:
            axes.locator_params(axis="x", integer=True)  # positions: there is no 1.5th
        if top is not None:
            axes.set_ylim(top=top)
        axes.set(xlabel=x, ylabel=y)
        if len(curves) > 1:
            axes.legend()
        return render(figure, alt)


def scales(axes: Axes, log: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if "x" in log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(plain)
    if "y" in log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(plain)
    else:
        axes.set_ylim(bottom=0)
    axes.minorticks_off()


def bars(
    values: Mapping[str, Number],
    *,
    x: str,
    alt: str,
    colours: Sequence[str] | None = None,
    guide: Number | None = None,
    form: str = "{:.2f}",
) -> Picture:
    """Horizontal bars with their values written at the end. `guide`: a vertical line, e.g. at a speed-up of 1."""
    with rc_context(STYLE):
        figure, axes = new_figure(height=0.55 + 0.42 * len(values))
        paint = [as_colour(colour) for colour in colours or ["target"] * len(values)]
        drawn = axes.barh(list(values), list(values.values()), color=paint, height=0.62)
        axes.bar_label(drawn, [form.format(value) for value in values.values()], padding=4, bbox=GROUND)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.12)
        if guide is not None:
            axes.axvline(guide, color=GREY, linewidth=1, linestyle=":")
        axes.set_xlabel(x)
        return render(figure, alt, fit=True)


def load_curves(rows: Sequence[Mapping[str, Any]], crossing: float | None = None) -> Picture:
    """Rows of a load test: throughput by concurrency, and latency per token (median, up to the 90th percentile).

    `crossing`: the concurrency at which the plain server takes the lead, to be marked.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.2), layout="constrained")
        speed, latency = figure.subplots(1, 2)
        for i, method in enumerate(methods):
            mine = [row for row in rows if row["method"] == method]
            style = {
                "marker": MARKERS[i],
                "color": as_colour("target" if method == "plain" else "draft"),
                "label": method,
            }
            rates, middles = [row["tokens_per_s"] for row in mine], [row["tpot_ms"][0] for row in mine]
            speed.plot([row["concurrency"] for row in mine], rates, **style)
            slow = [row["tpot_ms"][1] - middle for row, middle in zip(mine, middles, strict=True)]
            latency.errorbar(rates, middles, yerr=[[0.0] * len(slow), slow], capsize=3, elinewidth=1, **style)
            for row, rate, middle in zip(mine, rates, middles, strict=True):
                latency.annotate(
                    str(row["concurrency"]), (rate, middle), (6, -10), textcoords="offset points", fontsize=8
                )
        if crossing is not None:
            speed.axvline(crossing, color=GREY, linewidth=1, linestyle=":")
        scales(speed, "x")
        scales(latency, "")
        speed.set(xlabel="requests at the same time", ylabel="throughput (tokens/s)")
        latency.set(xlabel="throughput (tokens/s)", ylabel="time per token of a request (ms)")
        speed.legend()
        told = "; ".join(
            f"{row['concurrency']} at the same time, {row['method']}: {row['tokens_per_s']:.0f} tokens/s, "
            f"{row['tpot_ms'][0]:.0f} ms per token"
            for row in rows
        )
        where = "" if crossing is None else f" The curves cross at {crossing:.1f}."
        return render(figure, f"Load test. {told}.{where}")


def training_curves(log: Sequence[Mapping[str, Any]]) -> dict[str, Picture]:
    """A run of `specdec train` from its log: "agreement" on held-out text and "loss", both by draft position."""
    pictures = {}
    for key, name, unit in (
        ("chain", "agreement", "share of drafts right so far"), ("loss", "loss", "cross-entropy (nats a token)"),
    ):  # fmt: skip
        deepest = max(len(line[key]) for line in log)
        curves = {}
        for position in range(min(deepest, len(MARKERS))):
            rows = [line for line in log if len(line[key]) > position]
            curves[f"position {position + 1}"] = (
                [line["tokens"] / 1e6 for line in rows], [line[key][position] for line in rows]
            )  # fmt: skip
        last = ", ".join(f"{values[-1]:.2f}" for _, values in curves.values())
        alt = f"{name.capitalize()} by draft position over training; at the end: {last}."
        pictures[name] = lines(curves, x="response tokens trained on (millions)", y=unit, alt=alt)
    return pictures
