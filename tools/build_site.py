"""The course as a site that works without a network: `make site`, or `python tools/build_site.py`.

Pages are laid out under build/site-source as in the repository, so that links hold; Sphinx then makes build/site of
them. Notebooks are shown as they are committed, never run. A widget needs a kernel: its still picture stays, in a box
that shows how to run the chapter, and four of them have a twin in JavaScript (docs/site/static/explorers.js).
Sphinx's warnings are errors here, and so is a page that would ask the network for something.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import api_pages
import site_runs

__all__ = ["asked_by", "assemble", "build", "outside"]

ROOT = Path(__file__).parent.parent
SETTINGS, SOURCE, SITE = ROOT / "docs" / "site", ROOT / "build" / "site-source", ROOT / "build" / "site"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "notebooks/*.ipynb", "exercises/*/*.ipynb",
         "exercises/AGENTS.md", "specdec_ref/weights/*/README.md")  # fmt: skip
UNSEARCHED = ("docs/WRONG_ANSWERS.md", "docs/ATTACKS.md", "docs/EXERCISES.md")  # would spoil an exercise
TWINS = {"overlap_explorer": "overlap", "rate_explorer": "rate", "tree_explorer": "tree", "choice_explorer": "pays"}
STILL = re.compile(r"<div style='border-top:1px dashed #999;margin-top:1em'><small>A still picture[^<]*</small></div>")
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_SCRIPT = "<p>This explorer needs JavaScript.</p>"
LINK = re.compile(r"(\]\(|<img src=\")(?!\w+:|#)([^)#\s\"]+)")
LOADS = {"src", "srcset", "data", "poster", "background"}  # attributes whose address a browser fetches by itself
CALLED = re.compile(
    r"""(?:url\(|@import\s|\b(?:fetch|import|importScripts|WebSocket|EventSource)\(|\.src\s*=|\.open\("\w+",)"""
    r"""\s*["'`]?(?:\w+:)?//[^\s"'`)]+"""
)


def assemble(into: Path) -> None:
    """Everything that Sphinx reads."""
    shutil.rmtree(into, ignore_errors=True)
    pages = {path for pattern in PAGES for path in ROOT.glob(pattern)}
    for path in sorted(pages):
        goal = into / path.relative_to(ROOT)
        goal.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        laid_out = _notebook if path.suffix == ".ipynb" else _linked
        unsearched = "---\nnosearch: true\n---\n\n" if str(path.relative_to(ROOT)) in UNSEARCHED else ""
        goal.write_text(unsearched + laid_out(text, path, pages, into), encoding="utf-8")
    (into / "pictures.json").write_text(json.dumps(dict(_pictures(pages))), encoding="utf-8")
    index = (SETTINGS / "index.md").read_text(encoding="utf-8")
    more = sorted(path.stem for path in (ROOT / "docs").glob("*.md") if f"docs/{path.stem}\n" not in index)
    places = {"more": "\n".join(f"docs/{name}" for name in more), **site_runs.block(SETTINGS / "runs")}
    for name, words in places.items():
        index = index.replace(f"{{{name}}}", words)
    (into / "index.md").write_text(index, encoding="utf-8")
    shutil.copy(SETTINGS / "play.md", into / "play.md")
    for path in (ROOT / "specdec_ref").rglob("*.py"):  # each is shown on its page of the reference
        (into / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, into / path.relative_to(ROOT))
    api_pages.write(ROOT, into / "api")


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


def _boxed(cell: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The outputs of a cell, with its widget's twin first and its still picture in a box that shows how to run it."""
    outputs = [out for out in cell["outputs"] if WIDGET not in out.get("data", {})]
    source = "".join(cell["source"])
    name = path.relative_to(ROOT)
    up = "../" * (len(name.parts) - 1)
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


def _notebook(text: str, path: Path, pages: set[Path], into: Path) -> str:
    """Without what only a kernel can draw."""
    notebook = json.loads(text)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _linked("".join(cell["source"]), path, pages, into)
        else:
            cell["outputs"] = _boxed(cell, path)
    return json.dumps(notebook)


def _linked(text: str, path: Path, pages: set[Path], into: Path) -> str:
    """Links into the package lead to its pages; other files that are linked come along."""

    def resolve(link: re.Match[str]) -> str:
        target = (path.parent / link[2]).resolve()
        if not target.is_file():
            return link[0]  # code that looks like a link; Sphinx complains if it is one
        inside = target.relative_to(ROOT)
        if inside.parts[0] == api_pages.PACKAGE and target.suffix == ".py":
            page = Path("api", *inside.parts[1:]).with_suffix(".md")
            if target.name == "__init__.py":
                page = Path("api", f"group-{inside.parts[1]}.md")
            return link[1] + os.path.relpath(page, path.parent.relative_to(ROOT))
        if target not in pages:
            (into / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, into / inside)
            if target.suffix in {".md", ".ipynb"}:
                return f"{link[1]}path:{link[2]}"  # a file to download, though it could be a page
        return link[0]

    return LINK.sub(resolve, text)


def build(source: Path = SOURCE, site: Path = SITE) -> int:
    """Sphinx's exit code: not 0 after any warning."""
    shutil.rmtree(site, ignore_errors=True)
    quiet = ["-W", "--keep-going", "-q", "-d", str(site.parent / f"{site.name}-doctrees")]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", *quiet, "-c", str(SETTINGS), str(source), str(site)], check=False
    ).returncode


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
    found = list(outside(SITE))
    print("\n".join(found) or f"{sum(1 for _ in SITE.rglob('*.html'))} pages: {SITE / 'index.html'}")
    return failed or bool(found)


if __name__ == "__main__":
    sys.exit(main())
