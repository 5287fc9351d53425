"""The course in another language: gettext catalogues under translations/, one per page, from the English pages alone.

    python tools/translations.py update            read the English pages anew: new messages, changed ones marked fuzzy
    python tools/translations.py check             a line per page: messages, untranslated, stale, broken; 1 if any
    python tools/translations.py build FOLDER      the translated pages, laid out as in the repository

A message is a block of Markdown between blank lines, its soft line breaks removed, so that wrapping a paragraph anew
changes nothing. Code cells, fenced code, formulas that stand alone and bare HTML are not messages: they stay. A message
that has no translation, or a stale one, is shown in English. Broken: a translation whose numbers, code, formulas or
links are not those of the English block.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

__all__ = ["blocks", "broken", "catalogue_path", "main", "messages", "pages", "translated"]

ROOT = Path(__file__).parent.parent
LANGUAGE = "zh_CN"
PAGES = (
    "README.md",
    "docs/GLOSSARY.md",
    "docs/MISTAKES.md",
    "docs/QUIZ.md",
    "docs/site/*.md",
    "notebooks/*.ipynb",
    "exercises/*/*.ipynb",
)
STARTS = re.compile(r"\s*([-*+]\s|\d+[.)]\s|[|#>]|<|\$\$|:::)")  # a line that continues no other
ALONE = re.compile(
    r"(\$\$.*\$\$|(</?[\w-]+[^>]*>\s*)+|!\[\]\([^)]*\)|\{\w+\}|---\n.*\n---|[|\s:-]+)", re.DOTALL
)  # nothing to translate
KEPT = re.compile(r"\{\w+\}|\$[^$\n]+\$|`[^`\n]+`|\]\([^)\s]+|(?<![\w.])\d+(?:\.\d+)?(?![\w])")


def pages() -> list[Path]:
    """The English pages, relative to the root."""
    return sorted(path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern))


def catalogue_path(page: Path) -> Path:
    """Where a page's translations are kept."""
    return ROOT / "translations" / LANGUAGE / page.with_suffix(".po")


def blocks(markdown: str) -> Iterator[tuple[str, bool]]:
    """(block, is a message) one after the other; joined by blank lines they are the text again, up to line breaks."""
    block: list[str] = []
    fence = ""
    for line in [*markdown.splitlines(), ""]:
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip() == fence:
            fence = ""
        if line.strip() or fence:
            block.append(line.rstrip())
        elif block:
            yield _joined(block)
            block = []


def _joined(lines: list[str]) -> tuple[str, bool]:
    text = "\n".join(lines)
    if re.match(r"\s*(```|~~~)|---$", lines[0]) or ALONE.fullmatch(text.strip()):
        return text, False
    joined = [lines[0]]
    for line in lines[1:]:
        if STARTS.match(line) or joined[-1].lstrip().startswith(("|", "#", "<", "$$", ":::")):
            joined.append(line)
        else:
            joined[-1] += " " + line.strip()
    return "\n".join(joined), True


def _cells(page: Path) -> Iterator[str]:
    """The Markdown texts of a page: one, or a notebook's cells."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        yield text
        return
    yield from ("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")


def messages(page: Path) -> list[str]:
    """What is to be translated, in order, each once."""
    found = [block for cell in _cells(page) for block, wanted in blocks(cell) if wanted]
    return list(dict.fromkeys(found))


def broken(english: str, other: str) -> str:
    """Which number, code, formula or link was lost or added; "" if none."""
    want, have = (Counter(_tokens(text)) for text in (english, other))
    lost, added = want - have, have - want
    return ", ".join([f"lost {token}" for token in lost] + [f"added {token}" for token in added])


def _tokens(text: str) -> Iterator[str]:
    for token in KEPT.findall(text):
        yield re.sub(r"\s", "", token)


def _read(page: Path) -> Catalog:
    file = catalogue_path(page)
    if not file.is_file():
        return Catalog(locale=LANGUAGE)
    with file.open("rb") as stream:
        return read_po(stream, locale=LANGUAGE)


def _update(page: Path) -> None:
    template = Catalog()
    for number, message in enumerate(messages(page), 1):
        template.add(message, locations=[(page.as_posix(), number)])
    catalogue = _read(page)
    catalogue.update(template)
    catalogue.obsolete.clear()
    file = catalogue_path(page)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        write_po(stream, catalogue, width=0, omit_header=True)


def state(page: Path) -> tuple[int, list[str], list[str], list[str]]:
    """(messages, untranslated, stale, broken) of a page."""
    catalogue, wanted = _read(page), messages(page)
    empty, stale, bad = [], [], []
    for text in wanted:
        message = catalogue.get(text)
        if message is None or not message.string:
            empty.append(text)
        elif message.fuzzy:
            stale.append(text)
        elif found := broken(text, str(message.string)):
            bad.append(f"{found}: {text[:70]}")
    stale += [str(m.id) for m in catalogue if m.id and m.id not in wanted]
    return len(wanted), empty, stale, bad


def translated(markdown: str, catalogue: Catalog) -> str:
    """The text with every block that has a translation exchanged."""
    parts = []
    for block, wanted in blocks(markdown):
        message = catalogue.get(block) if wanted else None
        ready = message is not None and message.string and not message.fuzzy
        parts.append(str(message.string) if ready and message is not None else block)
    return "\n\n".join(parts) + ("\n" if markdown.endswith("\n") else "")


def page_text(page: Path) -> str:
    """The translated page, as its file would be: a notebook keeps its code and outputs."""
    text, catalogue = (ROOT / page).read_text(encoding="utf-8"), _read(page)
    if page.suffix != ".ipynb":
        return translated(text, catalogue)
    notebook: dict[str, Any] = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = translated("".join(cell["source"]), catalogue).splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _check(words: bool) -> int:
    total = [0, 0, 0, 0]
    for page in pages():
        count, *lists = state(page)
        numbers = [count, *map(len, lists)]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        print(f"{page}: {count} messages, {numbers[1]} untranslated, {numbers[2]} stale, {numbers[3]} broken")
        if words:
            for name, found in zip(("untranslated", "stale", "broken"), lists, strict=True):
                print("\n".join(f"    {name}: {text[:110]!r}" for text in found))
    print(f"all: {total[0]} messages, {total[1]} untranslated, {total[2]} stale, {total[3]} broken")
    return int(any(total[1:]))


def main(argv: list[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("update", help="read the English pages anew")
    check = commands.add_parser("check", help="what is missing")
    check.add_argument("-v", action="store_true", help="name every message")
    build = commands.add_parser("build", help="write the translated pages")
    build.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    if args.command == "check":
        return _check(args.v)
    for page in pages():
        if args.command == "update":
            _update(page)
        else:
            goal = args.folder / page
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_text(page_text(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
