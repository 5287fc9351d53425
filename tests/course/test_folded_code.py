"""Code in the folded boxes of a chapter: it runs as it stands, and prints what the box shows below it."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FOLDED = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
CHAPTERS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


def boxes(chapter: str) -> list[tuple[str, str]]:
    """(code, output shown) of every box, in the order of the page."""
    cells = nbformat.read(NOTEBOOKS / chapter, 4).cells
    return [pair for cell in cells if cell.cell_type == "markdown" for pair in FOLDED.findall(cell.source)]


def wrong_boxes(shown: list[tuple[str, str]]) -> list[str]:
    """What each box prints if it differs from what is shown. A box may use names of the boxes before it."""
    names: dict[str, Any] = {}
    found = []
    for code, text in shown:
        with redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        if printed.getvalue() != text:
            found.append(printed.getvalue())
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_folded_code_prints_what_is_shown(chapter: str) -> None:
    assert wrong_boxes(boxes(chapter)) == []


def test_there_are_boxes_and_a_changed_one_is_found() -> None:
    assert [len(boxes(name)) for name in ("06_metrics.ipynb", "08_production.ipynb")] == [4, 1]
    code, text = boxes("06_metrics.ipynb")[0]
    assert wrong_boxes([(code.replace("mean + 1", "mean"), text)]) != []
