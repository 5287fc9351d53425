"""docs/COVERAGE.md and docs/MISTAKES.md against the chapters: each section and cell they name is there, the cell in that section."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "COVERAGE.md"
TEXT = PAGE.read_text(encoding="utf-8")
MISTAKES = (ROOT / "docs" / "MISTAKES.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#\s]+)(?:#([^)\s]+))?\)((?:\s`[\w-]+`)*)")
HEADING = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor that GitHub and MyST make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def chapter(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """anchor -> heading of a notebook; cell id -> (the anchor it stands under, kind)."""
    anchors: dict[str, str] = {}
    cells, below = {}, ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        headings = HEADING.findall("".join(cell["source"])) if cell["cell_type"] == "markdown" else []
        runs = "```python\n" in "".join(cell["source"])  # a folded box: test_folded_code runs it
        kind = "code" if runs else cell["cell_type"]
        cells[cell["id"]] = (below, kind)  # its first lines still belong to what went before
        anchors |= {slug(heading): heading for heading in headings}
        below = slug(headings[-1]) if headings else below
    return anchors, cells


def faults(page: str) -> list[str]:
    """What the page names and the repository does not have, one line each."""
    found = []
    for words, target, anchor, ids in LINK.findall(page):
        path = (PAGE.parent / target).resolve()
        if not path.is_file():
            found.append(f"no file {target}")
        elif anchor and path.suffix == ".md":
            if anchor not in map(slug, HEADING.findall(path.read_text(encoding="utf-8"))):
                found.append(f"{target} has no heading #{anchor}")
        elif anchor:
            anchors, cells = chapter(path)
            if words != f"{path.name[:2]} · {anchors.get(anchor)}":
                found.append(f"{target} has no heading #{anchor} that reads {words!r}")
            names = [name for name in re.findall(r"[\w-]+", ids) if cells.get(name, ("",))[0] != anchor]
            found += [f"{target} has no cell {name} under #{anchor}" for name in names]
    return found


def table(title: str) -> list[str]:
    """Rows of the table below a heading of the page."""
    section = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_everything_that_it_names_is_there() -> None:
    assert len(LINK.findall(TEXT)) > 80
    assert faults(TEXT) == []
    assert len(LINK.findall(MISTAKES)) > 25
    assert faults(MISTAKES) == []


def test_each_mistake_says_what_is_right_and_has_a_cell_that_runs() -> None:
    entries = MISTAKES.split("\n### ")[1:]
    assert len(entries) == 17
    for entry in entries:
        claim, right, shown_in = (entry.find(f"\n**{name}:**") for name in ("The tutorial", "Right", "Shown in"))
        assert 0 < claim < right < shown_in, entry
        shown = [
            chapter((PAGE.parent / target).resolve())[1][name][1]
            for _, target, _, ids in LINK.findall(entry)
            for name in re.findall(r"[\w-]+", ids)
        ]
        assert "code" in shown, entry


def test_every_box_about_the_tutorial_is_in_a_section_that_an_entry_names() -> None:
    """A mistake that a chapter folds away but the page leaves out is found."""
    named = {(Path(target).name, anchor) for _, target, anchor, _ in LINK.findall(MISTAKES)}
    boxes = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        below = ""
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in (cell for cell in cells if cell["cell_type"] == "markdown"):
            for heading, box in re.findall(r"^#{1,3} (.+)$|(<summary><b>[^<]*tutorial)", "".join(cell["source"]), re.M):
                below = slug(heading) if heading else below
                boxes |= {(path.name, below)} if box else set()
    assert len(boxes) >= 8
    assert boxes - named == set()


def test_each_question_has_an_answer() -> None:
    rows = table("What users ask")
    assert [row.split("|")[1].strip() for row in rows] == [str(number) for number in range(1, 15)]
    assert all(LINK.search(row) for row in rows)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("02_verification.ipynb#the-rule", "02_verification.ipynb#the-ruler", "no heading"),
        ("[02 · The rule]", "[02 · The old rule]", "no heading"),
        ("`02-011`", "`02-999`", "no cell 02-999"),
        ("`02-011`", "`02-001`", "no cell 02-001 under"),
        ("04_ngram.ipynb#a-loop", "04_copying.ipynb#a-loop", "no file"),
        ("GLOSSARY.md#metrics", "GLOSSARY.md#measures", "no heading"),
    ],
)
def test_what_was_renamed_is_seen(old: str, new: str, word: str) -> None:
    assert old in TEXT
    assert any(word in fault for fault in faults(TEXT.replace(old, new)))
