"""The committed chapters, read as files: what nbval cannot see, or would pass vacuously.

nbval compares a cell only if it was executed, and not at all if it is tagged. So: every cell executed, once, in order;
few tags, each with its reason. GitHub refuses a notebook whose widget metadata lacks `state`; a path of the machine
that ran it helps nobody; a page too big is not shown.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHAPTERS = sorted(NOTEBOOKS.glob("*.ipynb"))
TAGS = {"nbval-ignore-output", "raises-exception"}  # the ones we use; a misspelt tag would do nothing
MAX_BYTES, MAX_CELL_LINES, MAX_PNG_BYTES = 1_000_000, 25, 60_000
PATHS = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|opt|var)/|[A-Z]:\\\\|/site-packages/|\.venv/")

FIRST_CELL = ("to read", "to run", "Prerequisites:", "GLOSSARY.md", "After this page you can")
LAST_CELLS = ("## Pitfalls", "## Summary", "**Sources.**")
RAW = re.compile(r"[{}]|^<| object at |\[[\d'\"][^\]]*,|\d\.\d{5}")  # of a dict, a list, an object, a float as it is
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
WORDS_A_MINUTE, LINES_A_MINUTE = 200, 15  # folded text included
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")

Notebook = dict[str, Any]


def text_of(field: str | list[str]) -> str:
    return field if isinstance(field, str) else "".join(field)


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tags_of(cell: dict[str, Any]) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def faults(notebook: Notebook) -> list[str]:
    """Everything wrong with a chapter, one line each."""
    cells = code_cells(notebook)
    found = []
    counts = [cell["execution_count"] for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        found.append(f"execution counts are {counts}, not 1..{len(cells)}: run it from the top")
    for number, cell in enumerate(cells, 1):
        found += [f"code cell {number}: {fault}" for fault in cell_faults(cell)]
    ignored = sum("nbval-ignore-output" in tags_of(cell) for cell in cells)
    if 3 * ignored > len(cells):
        found.append(f"{ignored} of {len(cells)} code cells are not compared: at most a third may be")
    words = [text_of(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    titles = [line for text in words for line in FENCED.sub("", text).splitlines() if line.startswith("# ")]
    if len(titles) != 1 or not words or not words[0].startswith("# "):
        found.append(f"needs one first-level heading, at the top; found {titles}")
    missing = [part for part in FIRST_CELL if not words or part not in words[0]]
    found += [f"the first cell does not say {part!r}" for part in missing]
    found += [f"nowhere says {part!r}" for part in LAST_CELLS if not any(part in text for text in words)]
    told = re.search(r"\*\*(\d+) minutes to read", words[0]) if words else None
    if told and abs(int(told[1]) - reading_minutes(notebook)) > 5:
        found.append(f"says {told[1]} minutes to read, and has text and code for {reading_minutes(notebook):.0f}")
    links = [link for text in words for link in LINK.findall(text)]
    found += [f"links to {link}, which is not there" for link in links if not (NOTEBOOKS / link).exists()]
    widgets = notebook["metadata"].get("widgets")
    if widgets is not None and any("state" not in views for views in widgets.values()):
        found.append("metadata.widgets lacks `state`: GitHub would refuse the whole page")
    if hit := PATHS.search(json.dumps([notebook["cells"], notebook["metadata"]])):
        found.append(f"holds a path of the machine that ran it, near {hit.group()!r}")
    return found


def cell_faults(cell: dict[str, Any]) -> list[str]:
    source, tags = text_of(cell["source"]), tags_of(cell)
    found = []
    if len(source.splitlines()) > MAX_CELL_LINES:
        found.append(f"{len(source.splitlines())} lines, at most {MAX_CELL_LINES}")
    if tags - TAGS:
        found.append(f"unknown tag {sorted(tags - TAGS)}")
    reasons = {tag for tag in tags & TAGS if re.search(rf"^# {tag}: \S+ \S+", source, re.MULTILINE)}
    found += [f"tag {tag} has no reason beside it: '# {tag}: why'" for tag in sorted(tags & TAGS - reasons)]
    if any(output["output_type"] == "error" for output in cell["outputs"]) and "raises-exception" not in tags:
        found.append("its stored output is an error")
    for output in cell["outputs"]:
        if output.get("execution_count", cell["execution_count"]) != cell["execution_count"]:
            found.append(f"its output says [{output['execution_count']}]")
        picture = output.get("data", {}).get("image/png", "")
        if picture and RAW.search(text := text_of(output["data"].get("text/plain", ""))):
            found.append(f"its picture's alternative text is no sentence: {text[:60]}")
        if len(picture) * 3 / 4 > MAX_PNG_BYTES:
            found.append(f"its picture has {len(picture) * 3 // 4} bytes, at most {MAX_PNG_BYTES}")
    return found


def reading_minutes(notebook: Notebook) -> float:
    """Prose at 200 words and code at 15 lines per minute."""
    prose = [text_of(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    code = [line for cell in code_cells(notebook) for line in text_of(cell["source"]).splitlines() if line.strip()]
    return sum(len(text.split()) for text in prose) / WORDS_A_MINUTE + len(code) / LINES_A_MINUTE


def results(notebook: Notebook) -> tuple[int, int]:
    """(results printed as bare text, tables and pictures); cells that wait for the reader's answer are left out."""
    bare = drawn = 0
    for cell in code_cells(notebook):
        if text_of(cell["source"]).startswith("# Your turn"):
            continue
        for output in cell["outputs"]:
            shown = set(output.get("data", {})) - {"text/plain"}
            bare, drawn = (bare, drawn + 1) if shown else (bare + 1, drawn)
    return bare, drawn


def test_there_are_chapters() -> None:
    assert CHAPTERS


def test_the_map_links_every_chapter() -> None:
    start = json.loads(CHAPTERS[0].read_text(encoding="utf-8"))
    linked = {link for cell in start["cells"] for link in LINK.findall(text_of(cell["source"]))}
    assert {path.name for path in CHAPTERS} - linked == set(), "link these in the map of chapter 00"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_clean(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    assert faults(json.loads(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_at_most_a_third_of_the_results_is_bare_text(path: Path) -> None:
    bare, drawn = results(json.loads(path.read_text(encoding="utf-8")))
    assert 3 * bare <= bare + drawn, f"{bare} printed, {drawn} tables and pictures"


@pytest.fixture
def sound() -> Notebook:
    words = "\n".join(["# T", *FIRST_CELL, *LAST_CELLS])
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": words}]
    code = {"cell_type": "code", "metadata": {}, "source": "1", "outputs": []}
    cells += [{**code, "execution_count": number} for number in (1, 2, 3)]
    return {"cells": cells, "metadata": {}}


def picture(alt: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {"image/png": "A", "text/plain": alt}}


def test_a_sound_notebook_has_no_faults(sound: Notebook) -> None:
    assert faults(sound) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda nb: nb["cells"][2].update(execution_count=None), "execution counts"),
        (lambda nb: nb["cells"][1].update(source="1\n" * 26), "26 lines"),
        (lambda nb: nb["cells"][1].update(metadata={"tags": ["nbval-ignore-output"]}), "no reason"),
        (lambda nb: nb["cells"][1].update(metadata={"tags": ["nbval-ignore"]}), "unknown tag"),
        (lambda nb: nb["cells"][1].update(outputs=[{"output_type": "error"}]), "an error"),
        (
            lambda nb: nb["cells"][1].update(outputs=[{"output_type": "execute_result", "execution_count": 99}]),
            "output says [99]",
        ),
        (lambda nb: nb["cells"][1].update(outputs=[{"output_type": "stream", "text": "/home/me/x"}]), "a path"),
        (lambda nb: nb["cells"][0].update(source=f"#{nb['cells'][0]['source']}"), "first-level heading"),
        (lambda nb: nb["cells"][0].update(source="# T"), "'to run'"),
        (lambda nb: nb["cells"][0].update(source="# T"), "'## Summary'"),
        (lambda nb: nb["cells"][0].update(source="# T [next](99_gone.ipynb)"), "links to 99_gone"),
        (lambda nb: nb["metadata"].update(widgets={"application/vnd": {}}), "state"),
        (
            lambda nb: nb["cells"][1].update(
                outputs=[{"output_type": "display_data", "data": {"image/png": "A" * 90_000}}]
            ),
            "bytes",
        ),
        (lambda nb: nb["cells"][0].update(source=f"{nb['cells'][0]['source']}\n**40 minutes to read**"), "40 minutes"),
        (lambda nb: nb["cells"][1].update(outputs=[picture("Shares: {'a': 0.5}")]), "no sentence"),
        (lambda nb: nb["cells"][1].update(outputs=[picture("Sizes [6, 6] of trees.")]), "no sentence"),
        (lambda nb: nb["cells"][1].update(outputs=[picture("<Figure size 640x480>")]), "no sentence"),
        (lambda nb: nb["cells"][1].update(outputs=[picture("A share of 0.6344086021505376.")]), "no sentence"),
    ],
)
def test_each_fault_is_seen(sound: Notebook, change: Any, word: str) -> None:
    change(sound)
    assert any(word in fault for fault in faults(sound)), faults(sound)


def test_results_are_counted_by_their_kind(sound: Notebook) -> None:
    printed = {"output_type": "stream", "text": "3"}
    table = {"output_type": "execute_result", "data": {"text/html": "<table></table>", "text/plain": "3"}}
    sound["cells"][1]["outputs"] = [printed, table, picture("A line.")]
    sound["cells"][2].update(source="# Your turn: guess.", outputs=[printed])
    assert results(sound) == (1, 2)


def test_the_share_of_ignored_cells_is_capped(sound: Notebook) -> None:
    reason = "# nbval-ignore-output: a measurement differs"
    for cell in sound["cells"][1:3]:
        cell.update(metadata={"tags": ["nbval-ignore-output"]}, source=reason)
    assert faults(sound) == ["2 of 3 code cells are not compared: at most a third may be"]
