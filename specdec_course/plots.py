"""The drawings that teach: distributions, masks, strips of tokens, draft trees, rooflines.

Each function takes plain numbers and returns a `Picture`: PNG bytes and the same in words, in the look of
`specdec_ref.plots`. That module's `lines` and `bars` are exported here too, so a chapter needs one import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator

from specdec_course.measured import heat, intervals, scatter
from specdec_ref.palette import PALETTE
from specdec_ref.plots import (
    GREY,
    GROUND,
    MARKERS,
    SHADES,
    STYLE,
    Number,
    Picture,
    as_colour,
    bars,
    lines,
    new_figure,
    render,
    scales,
    training_curves,
)

__all__ = [
    "GREY",
    "SHADES",
    "Box",
    "Curve",
    "Number",
    "Picture",
    "bars",
    "distributions",
    "gains",
    "heat",
    "intervals",
    "lines",
    "overlap",
    "pattern",
    "render",
    "roofline",
    "scatter",
    "stacked",
    "strip",
    "training_curves",
    "tree",
]  # fmt: skip

Curve = tuple[Sequence[Number], Sequence[Number]]
SCALES = (2, 3, 5, 8, 14)  # upper ends of y: few, so that pictures behind a slider can be compared
_KINDS = ("draft", "accepted", "bonus", "rejected")


@dataclass(frozen=True, slots=True)
class Box:
    """A token in a strip. `kind` is a key of the palette, or "prompt"; `note` stands below it."""

    text: str
    kind: str
    note: str = ""


def overlap(
    p: Sequence[Number], q: Sequence[Number], names: Sequence[str], *, alt: str, emitted: Sequence[Number] | None = None
) -> Picture:
    """Target p and draft q side by side, their common part hatched; `emitted`: measured frequencies as black dots."""
    with rc_context(STYLE):
        figure, axes = new_figure(height=3.3)
        figure.subplots_adjust(top=0.88)
        at = range(len(p))
        common = [min(a, b) for a, b in zip(p, q, strict=True)]
        axes.bar([i - 0.2 for i in at], p, 0.4, color=PALETTE["target"], label="p, the target")
        axes.bar([i + 0.2 for i in at], q, 0.4, color=PALETTE["draft"], label="q, the draft")
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


def distributions(
    wanted: Sequence[Number], got: Mapping[str, Sequence[Number]], names: Sequence[str], *, alt: str,
    colours: Sequence[str] = ("rejected", "grey", "bonus", "draft"),
) -> Picture:  # fmt: skip
    """The distribution that should come out beside the distributions that do, outcome by outcome."""
    with rc_context(STYLE):
        figure, axes = new_figure(height=2.7)
        width = 0.8 / (len(got) + 1)
        series = {"the target's distribution": wanted, **got}
        for i, (name, dist) in enumerate(series.items()):
            colour = as_colour(("target", *colours)[i % (1 + len(colours))])
            hatch = ("", "//", "..", "xx", "\\\\")[i % 5]
            at = [x + (i - len(got) / 2) * width for x in range(len(wanted))]
            axes.bar(at, dist, width, color=colour, label=name,
                     hatch=hatch, edgecolor="white", linewidth=0.5)  # fmt: skip
        axes.set_xticks(range(len(names)), list(names))
        axes.set(xlabel="emitted text", ylabel="probability")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2)
        return render(figure, alt, fit=True)


def stacked(
    parts: Mapping[str, Sequence[Number]], names: Sequence[str], *, x: str, y: str, alt: str, colours: Sequence[str]
) -> Picture:
    """Bars piled up, one per name: what a quantity is made of. The last part is hatched as well."""
    with rc_context(STYLE):
        figure, axes = new_figure(height=2.7)
        foot = [0.0] * len(names)
        for i, ((label, values), colour) in enumerate(zip(parts.items(), colours, strict=True)):
            hatch = "//" if i == len(parts) - 1 else ""
            axes.bar(range(len(names)), values, 0.55, bottom=foot, color=as_colour(colour), label=label,
                     hatch=hatch, edgecolor="white", linewidth=0.5)  # fmt: skip
            foot = [low + float(value) for low, value in zip(foot, values, strict=True)]
        axes.set_xticks(range(len(names)), list(names))
        axes.set(xlabel=x, ylabel=y)
        axes.grid(axis="x", visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=len(parts))
        return render(figure, alt, fit=True)


def pattern(
    blocks: Mapping[str, Sequence[Sequence[bool]]], *, x: str, y: str, alt: str, colours: Sequence[str]
) -> Picture:
    """Who may look at whom: blocks of a mask side by side, by name; a filled cell of row i, column j: i sees j."""
    with rc_context(STYLE):
        rows, left = len(next(iter(blocks.values()))), 0.0
        wide = sum(len(block[0]) for block in blocks.values()) + 0.6 * (len(blocks) - 1)
        figure = Figure(figsize=(0.42 * wide + 0.9, 0.42 * rows + 0.95))
        axes = figure.add_subplot()
        for (name, block), colour in zip(blocks.items(), colours, strict=True):
            for i, j in ((i, j) for i in range(rows) for j in range(len(block[0]))):
                axes.add_patch(Rectangle((left + j, i), 1, 1, facecolor=as_colour(colour) if block[i][j] else "white",
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
    with rc_context(STYLE):
        figure, axes = new_figure(height=3.3)
        axes.plot(intensities, roof, color=PALETTE["target"], label="roof: min(peak, bandwidth * intensity)")
        axes.axvline(ridge, color=GREY, linewidth=1, linestyle=":")
        for i, (name, (x, y)) in enumerate(points.items()):
            axes.plot(x, y, MARKERS[i % 5], color=PALETTE["accepted"], markersize=7)
            axes.annotate(name, (x, y), (7, -9), textcoords="offset points", fontsize=9, bbox=GROUND)
        scales(axes, "xy")
        axes.margins(y=0.12)
        axes.set(xlabel="arithmetic intensity (FLOP per byte moved)", ylabel="speed (GFLOP/s)")
        axes.legend(loc="lower right")
        return render(figure, alt)


EDGE = 0.1  # inches left of a strip's titles, which would else touch a dark page


def strip(rows: Sequence[tuple[str, Sequence[Box]]], *, alt: str, width: float = 8.6) -> Picture:
    """Rows of token boxes: a title, then its boxes. Rejected ones are struck through, a bonus has a thick border."""
    with rc_context(STYLE):
        tall = 0.62 + 0.22 * any(box.note for _, boxes in rows for box in boxes)
        figure, axes = new_figure(width + EDGE, tall * len(rows) + 0.1)
        axes.set_axis_off()
        axes.set_position((0.0, 0.0, 1.0, 1.0))
        for row, (title, boxes) in enumerate(rows):
            axes.text(0, -row * tall, title, va="center", ha="left", fontsize=9, color="#333333")
            left = 1.7
            for box in boxes:
                left = _box(axes, box, left, -row * tall) + 0.07
        axes.set(xlim=(-EDGE, width), ylim=(-tall * len(rows) + 0.3 * tall, 0.35))
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


def gains(speedup: Curve, price: Curve, measured: Mapping[str, Curve], prices: Curve, gamma: Number, *,
          alt: str) -> Picture:  # fmt: skip
    """`speedup` by draft length, `measured` as points by name, `gamma` marked; beside it v(k), `prices` as points."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.2))
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        figure.subplots_adjust(left=0.075, right=0.985, top=0.89, bottom=0.155, wspace=0.22)
        left.plot(*speedup, color=PALETTE["target"], label="formula")
        for i, (name, (at, values)) in enumerate(measured.items()):
            colour = PALETTE[_KINDS[i % len(_KINDS)]]
            left.plot(at, values, MARKERS[i % len(MARKERS)], color=colour, label=name)
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


ROW, GAP = 0.37, 0.5  # inches between two leaves, and between two levels


def tree(boxes: Sequence[Box], parents: Sequence[int], *, alt: str, title: str = "") -> Picture:
    """Token boxes, each linked to its parent; siblings from top to bottom, node 0 is the root."""
    depths, rows, leaves = _places(parents)
    above = 0.2 + 0.3 * bool(title)
    with rc_context(STYLE):
        figure = Figure()
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.text(0.1, 0.34, title, va="center", fontsize=9, color="#333333")
        left, right = 0.1, [0.0] * len(boxes)
        ends: list[list[tuple[float, float]]] = []
        kinds: list[str] = []
        for depth in range(max(depths) + 1):
            column = [node for node, at in enumerate(depths) if at == depth]
            for node in column:
                right[node] = _box(axes, boxes[node], left, -ROW * rows[node])
                if node:
                    ends.append([(right[parents[node]], -ROW * rows[parents[node]]), (left, -ROW * rows[node])])
                    kinds.append(boxes[node].kind)
            left = max(right[node] for node in column) + GAP
        stays = [kind in ("accepted", "bonus") for kind in kinds]
        paint = [PALETTE[kind] if stay else "#b0b0b0" for kind, stay in zip(kinds, stays, strict=True)]
        axes.add_collection(LineCollection(ends, colors=paint, linewidths=[1 + stay for stay in stays]))
        wide, tall = max(left - GAP + 0.1, 0.2 + 0.075 * len(title)), ROW * (leaves - 1) + 0.2 + above
        figure.set_size_inches(wide, tall)
        axes.set(xlim=(0, wide), ylim=(above - tall, above))
        return render(figure, alt)


def _places(parents: Sequence[int]) -> tuple[list[int], list[float], int]:
    """(depths, rows, number of leaves): a leaf has a row of its own, other nodes the middle of their children's."""
    depths, rows = [0] * len(parents), [0.0] * len(parents)

    def place(node: int, free: int) -> int:
        """Returns the next free row."""
        children, first = [child for child, parent in enumerate(parents) if parent == node], free
        for child in children:
            depths[child] = depths[node] + 1
            free = place(child, free)
        rows[node] = (rows[children[0]] + rows[children[-1]]) / 2 if children else float(first)
        return free if children else first + 1

    return depths, rows, place(0, 0)
