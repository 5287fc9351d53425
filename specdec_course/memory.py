"""Drawings of memory and lanes for chapter 07: which program reads which numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from specdec_course.plots import GREY, Picture, render
from specdec_ref.palette import PALETTE
from specdec_ref.plots import STYLE

__all__ = ["grids", "lanes"]

PAINT = (PALETTE["target"], PALETTE["draft"], PALETTE["accepted"], PALETTE["bonus"], "#56B4E9", PALETTE["rejected"])


def lanes(rows: Sequence[tuple[str, Sequence[str], Sequence[bool]]], *, alt: str, note: str = "") -> Picture:
    """A row per program: name, text of each lane, and whether the mask keeps the lane. Others are hatched."""
    wide = max(len(texts) for _, texts, _ in rows)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.9 + 0.52 * wide, 0.62 + 0.44 * len(rows) + 0.25 * bool(note)))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        for lane in range(wide):
            axes.text(lane + 0.5, -0.3, str(lane), ha="center", va="center", fontsize=8, color=GREY)
        axes.text(-0.15, -0.3, "lane", ha="right", va="center", fontsize=8, color=GREY)
        for row, (name, texts, kept) in enumerate(rows):
            colour = PAINT[row % len(PAINT)]
            axes.text(-0.15, row + 0.5, name, ha="right", va="center", fontsize=9, color="#333333")
            for lane, (text, real) in enumerate(zip(texts, kept, strict=True)):
                _cell(axes, lane, row, colour if real else "", text, hatch="" if real else "////")
        axes.text(0, len(rows) + 0.32, note, va="center", fontsize=8.5, color="#333333")
        axes.set(xlim=(-3.4, wide + 0.1), ylim=(len(rows) + 0.1 + 0.55 * bool(note), -0.65))
        return render(figure, alt)


def grids(
    panels: Mapping[str, Any], *, alt: str, names: Sequence[str] = (), cell: float = 0.3, texts: bool = False,
    colours: Sequence[str] = PAINT,
) -> Picture:  # fmt: skip
    """Grids of cells side by side, by title. A number paints a cell in that colour, -1 leaves it white.

    `names`: a legend; `cell`: inches of a side; `texts`: write the numbers into the cells.
    """
    gap, head, foot = 0.5 / cell, 0.4 / cell, (0.12 + 0.28 * bool(names)) / cell
    wide = sum(len(grid[0]) for grid in panels.values()) + gap * (len(panels) - 1)
    wide = max(wide, sum(_width(name) for name in names) / cell)
    tall = max(len(grid) for grid in panels.values())
    with rc_context(STYLE):
        figure = Figure(figsize=(cell * wide + 0.2, cell * (tall + head + foot)))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        left = 0.0
        for title, grid in panels.items():
            axes.text(left, -0.12 / cell, title, va="bottom", fontsize=9, color="#333333")
            for y, row in enumerate(grid):
                for x, number in enumerate(row):
                    colour = colours[number % len(colours)] if number >= 0 else ""
                    _cell(axes, left + x, y, colour, str(number) if texts and colour else "", solid=not texts)
            left += len(grid[0]) + gap
        at, low = 0.0, tall + 0.12 / cell
        for place, name in enumerate(names):
            axes.add_patch(Rectangle((at, low), 0.16 / cell, 0.16 / cell, facecolor=colours[place % len(colours)]))
            axes.text(at + 0.22 / cell, low + 0.08 / cell, name, va="center", fontsize=8.5, color="#333333")
            at += _width(name) / cell
        axes.set(xlim=(-0.1 / cell, wide + 0.1 / cell), ylim=(tall + foot, -head))
        return render(figure, alt)


def _width(name: str) -> float:
    """Inches that a name takes in the legend."""
    return 0.5 + 0.075 * len(name)


def _cell(axes: Axes, x: float, y: float, colour: str, text: str, *, hatch: str = "", solid: bool = False) -> None:
    face = colour if solid and colour else f"{colour}33" if colour else "white"
    edge = "white" if solid and colour else colour or "#c4c4c4"
    inset, width = (0.0, 0.5) if solid else (0.04, 0.9)
    axes.add_patch(Rectangle((x + inset, y + inset), 1 - 2 * inset, 1 - 2 * inset, facecolor=face, hatch=hatch,
                             linewidth=width, edgecolor=edge))  # fmt: skip
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=9, bbox=None if not hatch else
              {"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip
