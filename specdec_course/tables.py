"""Results as a table: HTML in a notebook, aligned columns where there is none.

table({"word": ["yes", "no"], "p": [0.6, 0.3]})        floats are shown with two digits unless `form` differs
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Table", "table"]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name, all cells already text. A notebook displays it as it is."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def _repr_html_(self) -> str:
        columns = zip(self.names, *self.rows, strict=True)
        sides = ["left" if not place or _words(column[1:]) else "right" for place, column in enumerate(columns)]

        def line(cells: Sequence[str], tag: str) -> str:
            parts = (
                f"<{tag} style='text-align:{side};padding:2px 14px 2px 4px'>{escape(cell)}</{tag}>"
                for cell, side in zip(cells, sides, strict=True)
            )
            return f"<tr>{''.join(parts)}</tr>"

        body = "".join(line(row, "td") for row in self.rows)
        return f"<table><thead>{line(self.names, 'th')}</thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.names, *self.rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in (self.names, *self.rows)
        ]
        return "\n".join(line.rstrip() for line in lines)


def _words(column: Sequence[str]) -> bool:
    """Whether a column holds words to read, which begin at the left, rather than numbers to compare."""
    words = [cell for cell in column if cell and not any(sign.isdigit() for sign in cell[:2])]
    return any(len(cell) > 16 for cell in words) or 2 * len(words) > len(column)


def table(columns: Mapping[str, Sequence[object]], *, form: str = "{:.2f}") -> Table:
    """A table of these columns. `form` is how floats are written. Raises ValueError if columns differ in length."""
    texts = [
        [form.format(cell) if isinstance(cell, float) else str(cell) for cell in cells] for cells in columns.values()
    ]
    return Table(tuple(columns), tuple(zip(*texts, strict=True)))
