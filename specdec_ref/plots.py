"""The course's pictures, in one look: colours of `palette.py`, units on every axis, few bytes.

Each function takes plain numbers and returns a `Picture`: PNG bytes and the same in words, for readers who see no
picture. Figures are made without pyplot, so nothing global changes and a slider can redraw in milliseconds.
The only file that imports matplotlib.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from specdec_ref.palette import PALETTE

__all__ = [
    "GREY", "Box", "Number", "Picture", "bars", "laws", "lines", "overlap", "pattern", "render", "roofline", "strip",
    "training_curves",
]  # fmt: skip

Number = int | float  # a checker of types takes `float` at its word
GREY = "#6b6b6b"  # for what is neither target nor draft: axes, guides, prompts; 5 : 1 on white
SHADES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {  # several curves of one thing: dark, as in the palette, light
        "target": ("#00344f", PALETTE["target"], "#74b7de"),
        "draft": ("#7a5400", PALETTE["draft"], "#f5cf85"),
    }
)
_STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "axes.labelcolor": "#333333", "xtick.color": "#333333", "ytick.color": "#333333", "axes.grid": True,
    "grid.color": "#e4e4e4", "grid.linewidth": 0.8, "axes.axisbelow": True, "lines.linewidth": 2.0,
    "lines.markersize": 6, "legend.frameon": False, "legend.fontsize": 9, "axes.titlesize": 10,
    "axes.titlelocation": "left", "figure.facecolor": "white",
}  # fmt: skip
_GROUND = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # guides pass behind a number or a name
_MARKERS = "os^Dv"  # colour never stands alone: each line has its marker as well


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG and what it shows, in words. A notebook displays it as it is."""

    png: bytes
    alt: str

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.png, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


@dataclass(frozen=True, slots=True)
class Box:
    """A token in a strip. `kind` is a key of the palette, or "prompt"; `note` stands below it."""

    text: str
    kind: str
    note: str = ""


def _colour(name: str) -> str:
    """A name of the palette, a colour of its own (#...), or grey."""
    return name if name.startswith("#") else PALETTE.get(name, GREY)


def render(figure: Figure, alt: str, *, fit: bool = False) -> Picture:
    """The figure as a picture. `fit`: leave room for long labels, which draws twice: too slow behind a slider."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight" if fit else None, pad_inches=0.08)
    return Picture(buffer.getvalue(), alt)


def _figure(width: float = 7.2, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.85 / width, right=1 - 0.12 / width, top=1 - 0.12 / height, bottom=0.5 / height)
    axes.yaxis.set_label_coords(-0.65 / (width - 0.97), 0.5)  # however long the numbers: behind a slider nothing jumps
    return figure, axes


def lines(
    curves: Mapping[str, tuple[Sequence[Number], Sequence[Number]]], *, x: str, y: str, alt: str,
    colours: Sequence[str] = ("target", "draft", "accepted", "rejected", "bonus"), log: str = "",
    guide: Number | None = None, mark: tuple[Number, str] | None = None, dashed: Sequence[str] = (),
    top: Number | None = None,
) -> Picture:  # fmt: skip
    """Curves by name. `x`, `y`: labels with units; `log`: "x", "y" or "xy"; `guide`: a level; `mark`: a place on x.

    `top`: upper end of y, so that pictures behind a slider can be compared.
    """
    with rc_context(_STYLE):
        figure, axes = _figure()
        for i, (name, (at, values)) in enumerate(curves.items()):
            colour = _colour(colours[i % len(colours)])
            style: dict[str, Any] = {"linestyle": "--"} if name in dashed else {"marker": _MARKERS[i % len(_MARKERS)]}
            axes.plot(at, values, color=colour, label=name, **style)
        if guide is not None:
            axes.axhline(guide, color=GREY, linewidth=1, linestyle=":")
        if mark is not None:
            axes.axvline(mark[0], color=GREY, linewidth=1, linestyle=":")
            axes.annotate(mark[1], (mark[0], 1.0), (4, -2), xycoords=("data", "axes fraction"), va="top", fontsize=9,
                          textcoords="offset points", color=GREY)  # fmt: skip
        _scales(axes, log)
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


def _scales(axes: Axes, log: str) -> None:
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
    values: Mapping[str, Number], *, x: str, alt: str, colours: Sequence[str] | None = None,
    guide: Number | None = None, form: str = "{:.2f}",
) -> Picture:  # fmt: skip
    """Horizontal bars with their values written at the end. `guide`: a vertical line, e.g. at a speed-up of 1."""
    with rc_context(_STYLE):
        figure, axes = _figure(height=0.55 + 0.42 * len(values))
        paint = [_colour(colour) for colour in colours or ["target"] * len(values)]
        drawn = axes.barh(list(values), list(values.values()), color=paint, height=0.62)
        axes.bar_label(drawn, [form.format(value) for value in values.values()], padding=4, bbox=_GROUND)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.12)
        if guide is not None:
            axes.axvline(guide, color=GREY, linewidth=1, linestyle=":")
        axes.set_xlabel(x)
        return render(figure, alt, fit=True)


def overlap(
    p: Sequence[Number], q: Sequence[Number], names: Sequence[str], *, alt: str, emitted: Sequence[Number] | None = None
) -> Picture:
    """Target p and draft q side by side, their common part hatched; `emitted`: measured frequencies as black dots."""
    with rc_context(_STYLE):
        figure, axes = _figure(height=3.3)
        figure.subplots_adjust(top=0.88)
        at = range(len(p))
        common = [min(a, b) for a, b in zip(p, q, strict=True)]
        axes.bar([i - 0.2 for i in at], p, 0.4, color=PALETTE["target"], label="p, the target's law")
        axes.bar([i + 0.2 for i in at], q, 0.4, color=PALETTE["draft"], label="q, the draft's law")
        axes.bar(at, common, 0.8, facecolor="none", edgecolor="white", hatch="///", linewidth=0)
        axes.bar(
            at, common, 0.8, facecolor="none", edgecolor=PALETTE["accepted"], linewidth=1.6, label="min(p, q): accepted"
        )
        if emitted is not None:
            axes.plot([i - 0.2 for i in at], emitted, "o", color="black", markersize=4, label="emitted, simulated")
        axes.set_xticks(list(at), list(names))
        highest = max(*p, *q, *(emitted or ()))
        axes.set(xlabel="token", ylabel="probability", ylim=(0, 0.4 if highest < 0.4 else 1.05))  # two scales, no more
        axes.grid(axis="x", visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.03, 1.0), ncols=4, columnspacing=1.0, handlelength=1.2,
                    handletextpad=0.5)  # fmt: skip
        return render(figure, alt)


def laws(wanted: Sequence[Number], got: Mapping[str, Sequence[Number]], names: Sequence[str], *, alt: str) -> Picture:
    """The law that should come out beside the laws that do, outcome by outcome."""
    with rc_context(_STYLE):
        figure, axes = _figure(height=2.7)
        width = 0.8 / (len(got) + 1)
        series = {"the target's law": wanted, **got}
        for i, (name, law) in enumerate(series.items()):
            colour = _colour(("target", "rejected", "grey", "bonus", "draft")[i % 5])
            hatch = ("", "//", "..", "xx", "\\\\")[i % 5]
            axes.bar([x + (i - len(got) / 2) * width for x in range(len(wanted))], law, width, color=colour, label=name,
                     hatch=hatch, edgecolor="white", linewidth=0.5)  # fmt: skip
        axes.set_xticks(range(len(names)), list(names))
        axes.set(xlabel="emitted text", ylabel="probability")
        axes.grid(axis="x", visible=False)
        axes.legend()
        return render(figure, alt)


def pattern(
    blocks: Mapping[str, Sequence[Sequence[bool]]], *, x: str, y: str, alt: str, colours: Sequence[str]
) -> Picture:
    """Who may look at whom: blocks of a mask side by side, by name; a filled cell of row i, column j: i sees j."""
    with rc_context(_STYLE):
        rows, left = len(next(iter(blocks.values()))), 0.0
        wide = sum(len(block[0]) for block in blocks.values()) + 0.6 * (len(blocks) - 1)
        figure = Figure(figsize=(0.42 * wide + 0.9, 0.42 * rows + 0.95))
        axes = figure.add_subplot()
        for (name, block), colour in zip(blocks.items(), colours, strict=True):
            for i, j in ((i, j) for i in range(rows) for j in range(len(block[0]))):
                axes.add_patch(Rectangle((left + j, i), 1, 1, facecolor=_colour(colour) if block[i][j] else "white",
                                         edgecolor="#dddddd"))  # fmt: skip
            for j in range(len(block[0])):
                axes.text(left + j + 0.5, rows + 0.35, str(j), ha="center", va="center", fontsize=9)
            axes.text(left, -0.35, name, fontsize=9)
            left += len(block[0]) + 0.6
        axes.set(xlim=(-0.05, wide + 0.05), ylim=(rows + 0.7, -0.9), xlabel=x, ylabel=y, aspect="equal")
        axes.set_yticks([i + 0.5 for i in range(rows)], list(map(str, range(rows))))
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        return render(figure, alt, fit=True)


def roofline(
    intensities: Sequence[Number], roof: Sequence[Number], points: Mapping[str, tuple[Number, Number]],
    ridge: Number, *, alt: str,
) -> Picture:  # fmt: skip
    """Attainable GFLOP/s over FLOP a byte, and where measured work stands below that roof."""
    with rc_context(_STYLE):
        figure, axes = _figure(height=3.3)
        axes.plot(intensities, roof, color=PALETTE["target"], label="roof: min(peak, bandwidth * intensity)")
        axes.axvline(ridge, color=GREY, linewidth=1, linestyle=":")
        for i, (name, (x, y)) in enumerate(points.items()):
            axes.plot(x, y, _MARKERS[i % 5], color=PALETTE["accepted"], markersize=7)
            axes.annotate(name, (x, y), (7, -9), textcoords="offset points", fontsize=9, bbox=_GROUND)
        _scales(axes, "xy")
        axes.margins(y=0.12)
        axes.set(xlabel="arithmetic intensity (FLOP per byte moved)", ylabel="speed (GFLOP/s)")
        axes.legend(loc="lower right")
        return render(figure, alt)


def strip(rows: Sequence[tuple[str, Sequence[Box]]], *, alt: str, width: float = 8.6) -> Picture:
    """Rows of token boxes: a title, then its boxes. Rejected ones are struck through, a bonus has a thick edge."""
    with rc_context(_STYLE):
        tall = 0.62 + 0.22 * any(box.note for _, boxes in rows for box in boxes)
        figure, axes = _figure(width, tall * len(rows) + 0.1)
        axes.set_axis_off()
        axes.set_position((0.0, 0.0, 1.0, 1.0))
        for row, (title, boxes) in enumerate(rows):
            axes.text(0, -row * tall, title, va="center", ha="left", fontsize=9, color="#333333")
            left = 1.7
            for box in boxes:
                left = _box(axes, box, left, -row * tall) + 0.07
        axes.set(xlim=(0, width), ylim=(-tall * len(rows) + 0.3 * tall, 0.35))
        return render(figure, alt)


def _box(axes: Axes, box: Box, left: float, middle: float) -> float:
    """Draw one token; returns its right edge. A character is about 0.085 inch wide at this size."""
    text = (box.text.strip(" ") or "␣").replace("\n", "⏎").replace("$", r"\$")
    wide = max(0.3, 0.085 * len(text) + 0.16)
    colour = PALETTE.get(box.kind, GREY)
    edge = 2.6 if box.kind == "bonus" else 1.4
    axes.add_patch(FancyBboxPatch((left, middle - 0.15), wide, 0.3, boxstyle="round,pad=0,rounding_size=0.06",
                                  facecolor=colour + "22", edgecolor=colour, linewidth=edge))  # fmt: skip
    axes.text(left + wide / 2, middle - 0.01, text, ha="center", va="center", fontsize=9, family="monospace")
    if box.kind == "rejected":
        axes.plot([left + 0.05, left + wide - 0.05], [middle, middle], color=colour, linewidth=1.6, alpha=0.6, zorder=1)
    if box.note:
        axes.text(left + wide / 2, middle - 0.27, box.note, ha="center", va="center", fontsize=8, color=GREY)
    return left + wide


def training_curves(log: Sequence[Mapping[str, Any]]) -> dict[str, Picture]:
    """A run of `specdec train` from its log: "agreement" on held-out text and "loss", both by draft position."""
    pictures = {}
    for key, name, unit in (
        ("chain", "agreement", "share of drafts right so far"), ("loss", "loss", "cross-entropy (nats a token)"),
    ):  # fmt: skip
        deepest = max(len(line[key]) for line in log)
        curves = {}
        for position in range(min(deepest, len(_MARKERS))):
            rows = [line for line in log if len(line[key]) > position]
            curves[f"position {position + 1}"] = (
                [line["tokens"] / 1e6 for line in rows], [line[key][position] for line in rows]
            )  # fmt: skip
        last = ", ".join(f"{values[-1]:.2f}" for _, values in curves.values())
        alt = f"{name.capitalize()} by draft position over training; at the end: {last}."
        pictures[name] = lines(curves, x="response tokens trained on (millions)", y=unit, alt=alt)
    return pictures
