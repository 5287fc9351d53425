"""The course as a site that works without a network, in English and in Chinese: `make site`, or this file.

Pages are laid out under build/site-source as in the repository, so that links hold; Sphinx then makes build/site of
them. Notebooks are shown as they are committed, never run; each exercise has a page without hints as well
(`exercise_pages.py`). A widget needs a kernel: its still picture stays, in a box
that shows how to run the chapter, and four of them have a twin in JavaScript (docs/site/static/explorers.js).
The Chinese edition, under zh/, holds the pages that have a catalogue (`translations.py`); its other links lead to the
English ones. Where SITE_REPOSITORY=owner/name[@branch] is set, chapters link to Binder and Colab. Sphinx's warnings are
errors here, and so is a page that would ask the network for something.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import api_pages
import exercise_pages
import site_runs

import translations

__all__ = ["asked_by", "assemble", "build", "launch", "outside"]

ROOT = Path(__file__).parent.parent
SETTINGS, SOURCE, SITE = ROOT / "docs" / "site", ROOT / "build" / "site-source", ROOT / "build" / "site"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "notebooks/*.ipynb", "exercises/*/*.ipynb",
         "exercises/AGENTS.md", "specdec_ref/weights/*/README.md")  # fmt: skip
UNSEARCHED = ("docs/WRONG_ANSWERS.md", "docs/ATTACKS.md", "docs/EXERCISES.md")  # would spoil an exercise
TWINS = {"overlap_explorer": "overlap", "rate_explorer": "rate", "tree_explorer": "tree", "choice_explorer": "pays"}
STILL = re.compile(r"<div style='border-top:1px dashed #999;margin-top:1em'><small>A still picture[^<]*</small></div>")
TRANSLATED = ROOT / "build" / "site-source-zh"
CAPTIONS = {"Course": "课程", "Exercises": "练习", "Reference": "参考", "Taking part": "参与"}
Links = Callable[[str, Path, set[Path]], str]
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_SCRIPT = "<p>This explorer needs JavaScript.</p>"
LINK = re.compile(r"(\]\(|<img src=\")(?!\w+:|#)([^)#\s\"]+)")
PLACE = re.compile(
    r"(\]\()(?!\w+:)([^)#\s]*)(?:#[^)\s]*)?\)"
)  # a link with its place in the page, which a translation moves
LOADS = {"src", "srcset", "data", "poster", "background"}  # attributes whose address a browser fetches by itself
CALLED = re.compile(
    r"""(?:url\(|@import\s|\b(?:fetch|import|importScripts|WebSocket|EventSource)\(|\.src\s*=|\.open\("\w+",)"""
    r"""\s*["'`]?(?:\w+:)?//[^\s"'`)]+"""
)


def assemble(into: Path) -> None:
    """Everything that Sphinx reads."""
    shutil.rmtree(into, ignore_errors=True)
    pages = english_pages()
    for path in sorted(pages):
        goal = into / path.relative_to(ROOT)
        goal.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        laid_out = _notebook if path.suffix == ".ipynb" else _linked
        unsearched = "---\nnosearch: true\n---\n\n" if str(path.relative_to(ROOT)) in UNSEARCHED else ""
        goal.write_text(unsearched + laid_out(text, path, pages, into), encoding="utf-8")
    for path in sorted(pages & set(_exercises())):
        overview = exercise_pages.page(json.loads(path.read_text(encoding="utf-8")), path)
        goal = into / _overview(path).relative_to(ROOT)
        goal.write_text(_linked(overview, _overview(path), pages, into), encoding="utf-8")
    _notes(pages, into)
    index = (SETTINGS / "index.md").read_text(encoding="utf-8")
    more = sorted(path.stem for path in (ROOT / "docs").glob("*.md") if f"docs/{path.stem}\n" not in index)
    (into / "index.md").write_text(_filled(index, "\n".join(f"docs/{name}" for name in more)), encoding="utf-8")
    shutil.copy(SETTINGS / "play.md", into / "play.md")
    for path in (ROOT / "specdec_ref").rglob("*.py"):  # each is shown on its page of the reference
        (into / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, into / path.relative_to(ROOT))
    api_pages.write(ROOT, into / "api")


def english_pages() -> set[Path]:
    """Files of the repository that are pages of the site, besides the landing page and the explorers."""
    return {path for pattern in PAGES for path in ROOT.glob(pattern)}


def _exercises() -> Iterator[Path]:
    yield from ROOT.glob("exercises/*/*.ipynb")


def _overview(path: Path) -> Path:
    """The page of an exercise, beside its notebook."""
    return path.with_name(f"{exercise_pages.NAME}.md")


def _filled(index: str, more: str, language: str = "en") -> str:
    """The landing page with its recorded runs."""
    for name, words in {"more": more, **site_runs.block(SETTINGS / "runs", language)}.items():
        index = index.replace(f"{{{name}}}", words)
    return index


def _notes(pages: set[Path], into: Path) -> None:
    """What Sphinx's settings read: words for pictures, and the pages that exist in the other language as well."""
    (into / "pictures.json").write_text(json.dumps(dict(_pictures(pages))), encoding="utf-8")
    twice = [ROOT / page for page in translations.pages()]
    twice += [_overview(path) for path in twice if path in set(_exercises())]
    names = [_place(page).with_suffix("").as_posix() for page in twice]
    (into / "languages.json").write_text(json.dumps(names), encoding="utf-8")


def _place(path: Path) -> Path:
    """Where a file's page lies: docs/site/ holds those of the top."""
    inside = path.relative_to(ROOT)
    return Path(inside.name) if inside.parent == SETTINGS.relative_to(ROOT) else inside


def assemble_translated(into: Path) -> None:
    """The pages with a catalogue, in the other language: a link to any other page leads to the English edition."""
    shutil.rmtree(into, ignore_errors=True)
    pages = {ROOT / page for page in translations.pages()}
    for path in sorted(pages & set(_exercises())):
        notebook = json.loads(translations.page_text(path.relative_to(ROOT)))
        text, place = exercise_pages.page(notebook, path, translations.LANGUAGE), _overview(path)
        goal = into / place.relative_to(ROOT)
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.write_text(_linked(_to_english(text, place, pages), place, pages, into), encoding="utf-8")
    for path in sorted(pages):
        text = translations.page_text(path.relative_to(ROOT))
        place = ROOT / _place(path)
        if place.name == "index.md":
            names = {_place(page).with_suffix("").as_posix() for page in pages}
            text = _filled(_only(text, names), "", translations.LANGUAGE)
        goal = into / _place(path)
        goal.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            goal.write_text(_notebook(text, place, pages, into, _to_english), encoding="utf-8")
        else:
            goal.write_text(_linked(_to_english(text, place, pages), place, pages, into), encoding="utf-8")
    _notes(pages, into)


def _only(index: str, names: set[str]) -> str:
    """The landing page with only these names in its tables of contents; patterns stay."""
    entry = re.compile(r"(?m)^(?:specdec_ref/.*|(?:api|docs|exercises|[A-Z]+\b)[\w/]*)\n")
    kept = entry.sub(lambda line: line[0] if line[0].strip() in names else "", index)
    return re.sub(r":caption: (.+)", lambda line: f":caption: {CAPTIONS[line[1]]}", kept)


def _api_page(inside: Path) -> Path | None:
    """The page of the reference that shows a file of the package."""
    if inside.parts[0] != api_pages.PACKAGE or inside.suffix != ".py":
        return None
    group = inside.name == "__init__.py"
    return Path("api", f"group-{inside.parts[1]}.md") if group else Path("api", *inside.parts[1:]).with_suffix(".md")


def _to_english(text: str, place: Path, pages: set[Path]) -> str:
    """Links without a place inside the page; those to pages of the English edition alone go up to it."""
    top = "../" * len(place.relative_to(ROOT).parts)
    places, english = {_place(path) for path in pages}, english_pages()

    def resolve(link: re.Match[str]) -> str:
        target = (place.parent / link[2]).resolve() if link[2] else place
        inside = target.relative_to(ROOT) if target.is_relative_to(ROOT) else None
        if inside is None or inside in places:
            return f"{link[1]}{link[2] or place.name})"
        page = _api_page(inside) or (inside if inside.parts[0] == "api" or target in english else None)
        return f"{link[1]}up:{top}{page.with_suffix('.html')})" if page else link[0]

    return PLACE.sub(resolve, text)


def _pictures(pages: set[Path]) -> Iterator[tuple[str, str]]:
    """(hash of the picture, its alternative text) of every output; MyST-NB leaves the text out."""
    for path in sorted(page for page in pages if page.suffix == ".ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for out in cell.get("outputs", ()):
                picture, alt = (
                    out.get("data", {}).get("image/png"),
                    out.get("metadata", {}).get("image/png", {}).get("alt"),
                )
                if picture and alt:
                    yield hashlib.sha256(base64.b64decode("".join(picture))).hexdigest(), alt


def _boxed(cell: dict[str, Any], path: Path, top: str = "") -> list[dict[str, Any]]:
    """The outputs of a cell, with its widget's twin first and its still picture in a box that shows how to run it."""
    outputs = [out for out in cell["outputs"] if WIDGET not in out.get("data", {})]
    source = "".join(cell["source"])
    name = path.relative_to(ROOT)
    up = "../" * (len(name.parts) - 1) + top  # to the English edition
    twin = next((kind for call, kind in TWINS.items() if f"{call}(" in source), None)
    live = "" if twin is None else f'<div class="explorer" data-explorer="{twin}">{NO_SCRIPT}</div>'
    lead = "<b>This is the notebook's own picture.</b>" if twin else "<b>The sliders of this picture need Python.</b>"
    run = (
        f"{lead} To move it, run the chapter: <code>make lab</code>, then open <code>{name}</code> "
        f'(<a href="{up}docs/INSTALL.html">how to install</a>).'
    )
    for out in outputs:
        html = "".join(out.get("data", {}).get("text/html", ""))
        if STILL.search(html):
            out["data"]["text/html"] = STILL.sub(f'{live}<div class="run-box" role="note">{run}</div>', html)
    return outputs


def launch(name: str, repository: str) -> str:
    """A line of links that open a chapter on Binder and on Colab; "" without a repository, owner/name[@branch]."""
    where, _, branch = repository.partition("@")
    if not where:
        return ""
    branch, quoted = branch or "main", quote(name, safe="")
    binder = f"https://mybinder.org/v2/gh/{where}/{branch}?labpath={quoted}"
    return f"[Binder]({binder}) · [Colab](https://colab.research.google.com/github/{where}/blob/{branch}/{name})"


def _notebook(text: str, path: Path, pages: set[Path], into: Path, first: Links | None = None) -> str:
    """Without what only a kernel can draw. `first`: what to do with links before they are resolved."""
    notebook = json.loads(text)
    notebook["metadata"].pop("widgets", None)
    links = launch(path.relative_to(ROOT).as_posix(), os.environ.get("SITE_REPOSITORY", ""))
    if links and path.parent.name == "notebooks":
        lead, rest = "".join(notebook["cells"][0]["source"]).split("\n", 1)
        words = "免安装运行：" if first else "Run it without installing: "
        notebook["cells"][0]["source"] = f"{lead}\n\n{words}{links}\n{rest}"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            cell["source"] = _linked(first(source, path, pages) if first else source, path, pages, into)
        else:
            cell["outputs"] = _boxed(cell, path, "../" if first else "")
    return json.dumps(notebook)


def _linked(text: str, path: Path, pages: set[Path], into: Path) -> str:
    """Links into the package lead to its pages; other files that are linked come along."""

    def resolve(link: re.Match[str]) -> str:
        target = (path.parent / link[2]).resolve()
        if not target.is_file():
            return link[0]  # code that looks like a link; Sphinx complains if it is one
        inside = target.relative_to(ROOT)
        if page := _api_page(inside):
            return link[1] + os.path.relpath(page, path.parent.relative_to(ROOT))
        if target not in pages:
            (into / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, into / inside)
            if target.suffix in {".md", ".ipynb"}:
                return f"{link[1]}path:{link[2]}"  # a file to download, though it could be a page
        return link[0]

    return LINK.sub(resolve, text)


def build(source: Path = SOURCE, site: Path = SITE, language: str = "en") -> int:
    """Sphinx's exit code: not 0 after any warning."""
    shutil.rmtree(site, ignore_errors=True)
    quiet = ["-W", "--keep-going", "-q", "-d", str(site.parent / f"{site.name}-doctrees")]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", *quiet, "-c", str(SETTINGS), str(source), str(site)],
        env=os.environ | {"SITE_LANGUAGE": language}, check=False,
    ).returncode  # fmt: skip


class _Page(HTMLParser):
    """Collects the addresses that a browser fetches without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = LOADS | ({"href"} if tag == "link" else {"action"} if tag == "form" else set())
        self.fetched += [value or "" for name, value in attrs if name in wanted]


def asked_by(path: Path) -> list[Path]:
    """The files beside a page that a browser fetches with it."""
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    local = (path.parent / address.partition("?")[0] for address in page.fetched if address and ":" not in address)
    return sorted({file.resolve() for file in local if file.is_file() and file.suffix != ".html"})


def outside(site: Path) -> Iterator[str]:
    """What the files of a site would fetch from elsewhere, one line each; links that a reader follows do not count."""
    for path in sorted(site.rglob("*")):
        if path.suffix not in {".html", ".css", ".js", ".svg"}:
            continue
        text = path.read_text(encoding="utf-8")
        page = _Page()
        if path.suffix == ".html":
            page.feed(text)
        asked = [address for address in page.fetched if re.match(r"(?:\w+:)?//", address)]
        yield from (f"{path.relative_to(site)}: {address}" for address in [*asked, *CALLED.findall(text)])


def main() -> int:
    """Lay out, build, check."""
    assemble(SOURCE)
    failed = build()
    assemble_translated(TRANSLATED)
    failed = build(TRANSLATED, SITE / "zh", "zh_CN") or failed
    found = list(outside(SITE))
    print("\n".join(found) or f"{sum(1 for _ in SITE.rglob('*.html'))} pages: {SITE / 'index.html'}")
    return failed or bool(found)


if __name__ == "__main__":
    sys.exit(main())
