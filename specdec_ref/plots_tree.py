"""A draft tree as a picture, in the look of `plots.py`: boxes from left to right, a level a column."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from specdec_ref.palette import PALETTE
from specdec_ref.plots import _STYLE, Box, Picture, _box, render

__all__ = ["tree"]

ROW, GAP = 0.37, 0.5  # inches between two leaves, and between two levels


def tree(boxes: Sequence[Box], parents: Sequence[int], *, alt: str, title: str = "") -> Picture:
    """Token boxes, each linked to its parent; siblings from top to bottom, node 0 is the root."""
    depths, rows, leaves = _places(parents)
    above = 0.2 + 0.3 * bool(title)
    with rc_context(_STYLE):
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
