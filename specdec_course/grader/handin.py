"""What a student hands in, made into a notebook that can be graded: nothing is refused, and everything is said.

The result is the released notebook with the student's answers in it. So it has every cell once, in the right order,
with our tests, whatever was deleted, copied or edited; and a file that is no notebook becomes one without answers.
"""

import ast
import copy
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from specdec_course.grader.harmless import unicode_only
from specdec_course.grader.sources import role, source

__all__ = ["MAX_BYTES", "Received", "receive", "recognised"]

MAX_BYTES = 100_000_000  # outputs are left out, so that a notebook full of plots is read, too
LONGEST_CELL, MOST_OWN_CELLS, LARGEST_PICTURES = 1_000_000, 300, 5_000_000  # characters, cells, characters in base64
LONGEST_MAGIC = 50_000  # characters of a cell with magics: IPython reads it again for each of them
PICTURES = {"image/png", "image/jpeg", "image/gif"}
Cell = dict[str, Any]
Notebook = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Received:
    """A notebook to be graded; what its student should know; what a person should look at."""

    notebook: Notebook
    notes: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()


def receive(data: bytes | None, release: Notebook) -> Received:
    """The bytes of a hand-in, if there was one, with the cells of `release`, an exercise as students get it."""
    if data is None:
        return Received(_copied(release))
    try:
        given, unread = _read(data)
    except ValueError as error:
        why = f"Your file could not be read as a notebook ({error}), so there is nothing in it that could be graded."
        help_ = "Open it in JupyterLab; if that works, save it there and hand it in again."
        return Received(_copied(release), (f"{why} {help_}",))
    answers, own, notes = _sorted(given, release)
    if unread:
        notes.append(f"Damaged cells that could not be read: {unread}. All others were read.")
    cells: list[Cell] = [cell for cell in own[""] if cell["cell_type"] != "code"]
    late = [cell for cell in own[""] if cell["cell_type"] == "code"]  # behind our imports, whatever they are
    for cell in _marked(release):
        name = _id(cell)
        kept = copy.deepcopy(cell)
        if role(cell) in ("solution", "manual") and name in answers:
            kept["source"] = source(answers[name])
            if cell["cell_type"] == "markdown" and (pictures := _pictures(answers[name].get("attachments"))):
                kept["attachments"] = pictures
        cells += [kept, *late, *own[name]]
        late = []
    return Received({**_copied(release), "cells": _with_ids(cells)}, tuple(notes), tuple(_looks(cells, release)))


def recognised(data: bytes, releases: dict[str, Notebook]) -> str | None:
    """Which exercise a notebook is by its cells, whatever its file is called."""
    try:
        ids = {_id(cell) for cell in _read(data)[0]} - {""}
    except ValueError:
        return None
    shared = {name: len(ids & {_id(cell) for cell in _marked(nb)}) for name, nb in releases.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    return best if best is not None and shared[best] >= 2 else None


def _read(data: bytes) -> tuple[list[Cell], int]:
    """(its cells, how many more cannot be read). Raises ValueError, with a reason that a student understands."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 10**6} MB; clear its outputs")
    if not data.strip():
        raise ValueError("it is empty")
    try:
        notebook = json.loads(data)  # UTF-8, UTF-16 or UTF-32: JSON tells them apart
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it breaks off or is damaged in line {error.lineno}") from None
    except ValueError:
        raise ValueError("it holds a number that is too long") from None
    cells = _cells(notebook) if isinstance(notebook, dict) else None
    if cells is None:
        raise ValueError("it has no cells")
    if not isinstance(cells, list):
        raise ValueError("what should be its cells is something else")  # noqa: TRY004  (of a file, not of an argument)
    whole = [_whole(cell) for cell in cells if _is_cell(cell)]
    if cells and not whole:
        raise ValueError("what should be its cells is something else")
    return whole, len(cells) - len(whole)


def _cells(notebook: dict[str, Any]) -> Any:
    """Also those of format 3, which has worksheets, `input` for `source`, and cells for headings."""
    if "worksheets" not in notebook:
        return notebook.get("cells")
    sheets = notebook["worksheets"] if isinstance(notebook["worksheets"], list) else []
    old = [cell for sheet in sheets if isinstance(sheet, dict) for cell in _listed(sheet.get("cells"))]
    return [_renewed(cell) if isinstance(cell, dict) else cell for cell in old]


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def _renewed(cell: dict[str, Any]) -> dict[str, Any]:
    if cell.get("cell_type") == "code":
        return {**cell, "source": cell.get("input", cell.get("source", ""))}
    if cell.get("cell_type") != "heading":
        return cell
    told = cell.get("level")
    level = min(max(told, 1), 6) if isinstance(told, int) else 1
    text = cell.get("source")
    title = "".join(text) if isinstance(text, list) and all(isinstance(line, str) for line in text) else text
    return {**cell, "cell_type": "markdown", "source": f"{'#' * level} {title}"}


def _whole(cell: Cell) -> Cell:
    """With its text as one string that any file can hold, of a length that a person may have written."""
    return {**cell, "metadata": cell.get("metadata") or {}, "source": unicode_only(source(cell))[:LONGEST_CELL]}


def _pictures(given: Any) -> dict[str, dict[str, str]]:
    """Of a cell's attachments the pictures, where they are what they should be."""
    found: dict[str, dict[str, str]] = {}
    size = 0
    for name, bundle in given.items() if isinstance(given, dict) else ():
        kept = (
            {kind: data for kind, data in bundle.items() if kind in PICTURES and isinstance(data, str)}
            if isinstance(bundle, dict)
            else {}
        )
        size += sum(map(len, kept.values()))
        if (
            kept
            and size <= LARGEST_PICTURES
            and all(re.fullmatch(r"[A-Za-z0-9+/=\s]*", data) for data in kept.values())
        ):
            found[unicode_only(str(name))] = kept
    return found


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("metadata") or {}, dict):
        return False
    text = cell.get("source")
    lines = isinstance(text, list) and all(isinstance(line, str) for line in text)
    return cell.get("cell_type") in ("code", "markdown", "raw") and (lines or isinstance(text, str))


def _sorted(given: Sequence[Cell], release: Notebook) -> tuple[dict[str, Cell], dict[str, list[Cell]], list[str]]:
    """(id -> the cell that counts, id -> the student's own cells behind it, notes)."""
    known = {_id(cell): cell for cell in _marked(release)}
    found: dict[str, list[Cell]] = defaultdict(list)
    own: dict[str, list[Cell]] = defaultdict(list)
    last = ""
    for cell in given:
        name = _id(cell)
        if name in known and cell["cell_type"] == known[name]["cell_type"]:
            found[name].append(cell)
            last = name
        else:
            own[last].append(_plain(cell))
    notes, put_back = list[str](), list[str]()
    if (count := sum(map(len, own.values()))) > MOST_OWN_CELLS:
        notes.append(f"You added {count} cells of your own; {MOST_OWN_CELLS} are the most, and none of them were run.")
        own.clear()
    for name, cell in known.items():
        theirs, kind = found[name], role(cell)
        written = [one for one in theirs if source(one).strip() != source(cell).strip()]
        if kind in ("solution", "manual"):
            if not theirs:
                notes.append(f"The cell “{name}” was missing, so that it counts as not written.")
            elif len(theirs) > 1:
                notes.append(f"The cell “{name}” was there {len(theirs)} times. The last that you wrote in counts.")
            found[name] = written[-1:] or theirs[-1:]
        elif not theirs or written:
            put_back.append(f"“{name}”")
    if put_back:
        notes.append(
            f"Cells that are not yours to write were changed or missing: {', '.join(put_back)}. Ours were used."
        )
    return {name: cells[0] for name, cells in found.items() if cells}, own, notes


def _looks(cells: Sequence[Cell], release: Notebook) -> Iterator[str]:
    """Things that no exercise asks for and that reach beyond it. Not forbidden: a person should look."""
    ours = {source(cell) for cell in release["cells"]}
    allowed = set(_imports(tree for cell in _marked(release) if (tree := _parsed(cell))))
    for cell in cells:
        if source(cell) in ours or cell["cell_type"] != "code":
            continue
        where = f"cell “{_id(cell)}”" if _id(cell) else "a cell of their own"
        tree = _parsed(cell)
        if tree is None:
            yield f"{where} cannot be read as Python"
        elif found := {*_reaching(tree, allowed)}:
            if "get_ipython" in found and "get_ipython" not in source(cell):  # IPython's words for % and !
                found = found - {"get_ipython"} | {"magics"}
            yield f"{where} uses {', '.join(sorted(found))}"


SUSPICIOUS = {
    "get_ipython", "IPython", "ipykernel", "gc", "ctypes", "inspect", "importlib", "__import__", "exec", "eval",
    "compile", "subprocess", "socket", "threading", "multiprocessing", "signal", "builtins", "__builtins__", "sys",
    "os", "setattr", "urllib", "requests", "shutil", "pathlib", "open",
}  # fmt: skip
INSIDES = {"__code__", "__globals__", "__closure__", "__dict__", "__subclasses__", "__defaults__", "_getframe"}


def _parsed(cell: Cell) -> ast.Module | None:
    """As Python, or as the Python that IPython makes of magics, prompts and indented cells; None if it is neither."""
    try:
        code = source(cell) if cell["cell_type"] == "code" else ""
        try:
            return ast.parse(code)
        except SyntaxError:
            return ast.parse(TransformerManager().transform_cell(code)) if len(code) <= LONGEST_MAGIC else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply for the parser
        return None


def _imports(trees: Iterable[ast.Module]) -> Iterator[str]:
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or ""


def _reaching(tree: ast.Module, allowed: set[str]) -> Iterator[str]:
    tops = {name.partition(".")[0] for name in allowed} | {"check"}
    yield from (
        name
        for name in _imports([tree])
        if name.partition(".")[0] in {*SUSPICIOUS, "specdec_ref", "specdec_course"} and name not in allowed
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in SUSPICIOUS:
            yield node.id
        elif isinstance(node, ast.Name) and node.id == "check":
            yield "the tests' own module"
        elif isinstance(node, ast.Attribute) and node.attr in INSIDES:
            yield node.attr
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) and _dotted(node)[0] in tops:
            yield f"{'.'.join(_dotted(node)[:6])} = ..."


def _dotted(node: ast.Attribute) -> list[str]:
    """`a.b.c` as its names; what is no name at its root is "". `ast.unparse` would call itself for each dot."""
    names, at = list[str](), node
    while isinstance(at, ast.Attribute):
        names.append(at.attr)
        at = at.value  # type: ignore[assignment]
    return [at.id if isinstance(at, ast.Name) else "", *reversed(names)]


def _marked(release: Notebook) -> list[Cell]:
    return [cell for cell in release["cells"] if role(cell)]


def _id(cell: Cell) -> str:
    about = cell.get("metadata", {}).get("nbgrader")
    return str(about.get("grade_id", "")) if isinstance(about, dict) else ""


def _plain(cell: Cell) -> Cell:
    """Without outputs, and without marks of nbgrader that are none of ours."""
    tags = cell.get("metadata", {}).get("tags")
    metadata = {"tags": [str(tag) for tag in tags]} if isinstance(tags, list) else {}
    plain: Cell = {"cell_type": cell["cell_type"], "metadata": metadata, "source": source(cell)}
    return {**plain, "outputs": [], "execution_count": None} if cell["cell_type"] == "code" else plain


def _copied(release: Notebook) -> Notebook:
    notebook = copy.deepcopy(release)
    notebook["cells"] = _with_ids(notebook["cells"])
    return notebook


def _with_ids(cells: Sequence[Cell]) -> list[Cell]:
    return [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(cells)]
