"""The site: built once, from what is committed, with every warning an error; then read as files and in a browser.

It must work without a network, so nothing that a browser loads by itself may lie elsewhere: the files are searched, and
every page is opened in Chromium with all requests recorded, in light and in dark. Screenshots: build/browser/site/.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from browsing import AA, CHROMIUM, MISSING_BROWSER, listen, unreadable

ROOT = Path(__file__).parent.parent
SITE, SHOTS = ROOT / "build" / "site", ROOT / "build" / "browser" / "site"
sys.path.insert(0, str(ROOT / "tools"))
import api_pages  # noqa: E402
import build_site  # noqa: E402
import exercise_pages  # noqa: E402

import translations  # noqa: E402

MISSING = [name for name in ("sphinx", "myst_nb", "furo", "sphinx_copybutton") if not find_spec(name)]
needs_sphinx = pytest.mark.skipif(bool(MISSING), reason=f"the extra `site` is not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, freshly built."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "build_site.py")], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return SITE


class Reading(HTMLParser):
    """A page's links, its anchors and the text of its code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        self.links += [value for name in ("href", "src") if (value := values.get(name))]


@pytest.mark.slow
@needs_sphinx
def test_everything_has_its_page(site: Path) -> None:
    expected = [path.relative_to(ROOT).with_suffix(".html") for path in ROOT.glob("notebooks/*.ipynb")]
    expected += [path.relative_to(ROOT).with_suffix(".html") for path in ROOT.glob("exercises/*/*.ipynb")]
    expected += [path.relative_to(ROOT).with_name("overview.html") for path in ROOT.glob("exercises/*/*.ipynb")]
    expected += [path.relative_to(ROOT).with_suffix(".html") for path in ROOT.glob("docs/*.md")]
    expected += [Path(name) for name in ("index.html", "README.html", "CONTRIBUTING.html", "CHANGELOG.html")]
    code = [path.relative_to(ROOT / "specdec_ref") for path in (ROOT / "specdec_ref").rglob("*.py")]
    expected += [Path("api", path).with_suffix(".html") for path in code if path.stem[:2] != "__"]
    missing = [str(page) for page in expected if not (site / page).is_file()]
    assert missing == [], "no page; a file of the package needs its line in docs/ARCHITECTURE.md"
    chapter = (site / "notebooks" / "02_verification.html").read_text(encoding="utf-8")
    assert "A still picture of the widget" not in chapter, "boxes that show how to run the chapter take its place"
    assert chapter.count('class="run-box"') == 2
    assert '<div class="explorer" data-explorer="overlap">' in chapter
    assert not re.search("widget-view|require.js|VBox", chapter), "of a widget, only its still can be shown"
    engine = (site / "api" / "engine.html").read_text(encoding="utf-8")
    assert 'id="specdec_ref.engine.SpecEngine.step"' in engine
    assert "Invariant, checked every round" in engine


def test_the_page_of_an_exercise_has_its_tasks_and_none_of_its_hints() -> None:
    empty = "raise NotImplementedError("
    for path in sorted(ROOT.glob("exercises/*/*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        text = exercise_pages.page(notebook, path)
        sources = ["".join(cell["source"]) for cell in notebook["cells"]]
        hints = re.findall(r"<details>(.*?)</details>", "\n".join(sources), re.DOTALL)
        assert len(hints) >= 5, path
        lines = {line.strip() for hint in hints for line in hint.splitlines() if len(line.strip()) > 40}
        assert [line for line in lines if line in text] == [], path
        tasks = re.findall(r"^## (Task \d.*)$", "\n".join(sources), re.MULTILINE)
        assert re.findall(r"^### (Task \d.*)$", text, re.MULTILINE) == tasks
        assert text.count(empty) == "".join(sources).count(empty) >= 4
        assert f"cp -r exercises/{path.stem} work/" in text
        assert "report.credit" not in text, "the cells that check stay in the notebook"
        chinese = exercise_pages.page(json.loads(translations.page_text(path.relative_to(ROOT))), path, "zh_CN")
        assert len(re.findall(r"^### 任务", chinese, re.MULTILINE)) == len(tasks), path
        assert chinese.count(empty) == text.count(empty)


def test_links_to_binder_and_colab_need_a_repository() -> None:
    assert build_site.launch("notebooks/00_start_here.ipynb", "") == ""
    line = build_site.launch("notebooks/00_start_here.ipynb", "who/what@next")
    assert "mybinder.org/v2/gh/who/what/next?labpath=notebooks%2F00_start_here.ipynb" in line
    assert "colab.research.google.com/github/who/what/blob/next/notebooks/00_start_here.ipynb" in line
    assert "/main?" in build_site.launch("a.ipynb", "who/what")


@pytest.mark.slow
@needs_sphinx
def test_every_translated_page_is_in_both_editions(site: Path) -> None:
    """Each with a link to the other one, which `test_no_link_is_broken` follows."""
    for page in json.loads((ROOT / "build" / "site-source-zh" / "languages.json").read_text(encoding="utf-8")):
        for edition, other in (("", "zh-CN"), ("zh", "en")):
            text = (site / edition / f"{page}.html").read_text(encoding="utf-8")
            assert re.search(rf'class="other-language" href="[^"]+" hreflang="{other}"', text), (edition, page)
            assert ('<html class="no-js" lang="zh-CN"' in text) == (edition == "zh"), (edition, page)


@pytest.mark.slow
@needs_sphinx
def test_pictures_keep_their_alternative_texts(site: Path) -> None:
    """Those of the notebooks as they are committed; without one, Sphinx puts the file's name there."""
    images = {path: re.findall(r"<img [^>]*>", path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert sum(map(len, images.values())) > 80
    bad = []
    for path, tags in images.items():
        for tag in (tag for tag in tags if "_static/" not in tag):  # the theme's own symbols
            alt = re.search(r'alt="([^"]*)"', tag)
            if (
                alt is None
                or (len(alt[1].split()) < 3 and not re.search(r"[\u4e00-\u9fff]{2}", alt[1]))
                or re.search(r"\.(png|svg)$", alt[1])
            ):
                bad.append(f"{path.relative_to(site)}: {tag}")
    assert bad == []


@pytest.mark.slow
@needs_sphinx
def test_the_first_page_is_small(site: Path) -> None:
    """What a browser reads for it, styles and scripts included, uncompressed."""
    page = build_site.asked_by(site / "index.html")
    assert {"play.css", "replay.js"} <= {path.name for path in page}
    assert sum(path.stat().st_size for path in (site / "index.html", *page)) <= 1_000_000


@pytest.mark.slow
@needs_sphinx
def test_no_link_is_broken(site: Path) -> None:
    pages = {path: Reading(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("#"):
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not goal.is_file() or (parts.fragment and goal in pages and parts.fragment not in pages[goal].anchors):
                broken.append(f"{path.relative_to(site)} -> {link}")
    assert broken == []


@pytest.mark.slow
@needs_sphinx
def test_no_file_asks_the_network(site: Path) -> None:
    assert list(build_site.outside(site)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//cdn.example/x.css">'),
        ("a.html", '<link rel="preconnect" href="https://fonts.example">'),
        ("a.html", '<img src="https://cdn.example/x.png" alt="">'),
        ("a.html", '<iframe src="https://video.example/1"></iframe>'),
        ("a.html", "<style>p { background: url(https://cdn.example/x.png) }</style>"),
        ("a.css", '@import "https://fonts.example/css";'),
        ("a.css", "@font-face { src: url('//fonts.example/a.woff2') }"),
        ("a.js", 'fetch("https://api.example/count")'),
        ("a.js", 'x = document.createElement("script"); x.src = "https://cdn.example/x.js"'),
        ("a.svg", "<svg><style>text { fill: url(https://cdn.example/p) }</style></svg>"),
    ],
)
def test_each_way_to_ask_is_seen(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert len(list(build_site.outside(tmp_path))) == 1


def test_what_a_reader_follows_is_no_request(tmp_path: Path) -> None:
    page = '<a href="https://example.org">there</a><img src="x.png" alt=""><svg xmlns="http://www.w3.org/2000/svg"/>'
    (tmp_path / "a.html").write_text(page)
    assert list(build_site.outside(tmp_path)) == []


def test_signatures_are_read_from_the_source() -> None:
    (group,) = api_pages.groups("x\nspecdec_ref/\n  models/\n    kv_cache.py   the slot cache\n```\n")
    assert group == api_pages.Group("models", (api_pages.Module("models/kv_cache.py", "the slot cache"),))
    page = api_pages.module_page(ROOT, group.modules[0], group)
    assert "{py:class} SlotCache(" in page
    assert "{py:method} truncate(lengths: Sequence[int]) -> None" in page, "without self"
    assert "{py:class} _SlotLayer" not in page, "private"


def test_the_glossary_names_what_the_engines_have() -> None:
    """Flags, metrics and configuration keys of both engines, against what was read from their wheels."""
    text = (ROOT / "docs" / "GLOSSARY.md").read_text(encoding="utf-8")
    engines = json.loads((ROOT / "specdec_ref" / "exporters" / "engines.json").read_text())
    flags = set(re.findall(r"`(--speculative-[\w-]+)`", text))
    metrics = {name.removesuffix("_total") for name in re.findall(r"`((?:sglang|vllm):\w+)`", text)}
    known = {
        name.removesuffix("_total") for engine in engines.values() for name in engine.get("metrics", ())
    }  # llama.cpp's are not read yet
    assert len(flags) >= 5, "the glossary no longer names flags"
    assert flags - set(engines["sglang"]["flags"]) == set()
    assert len(metrics) >= 7, "the glossary no longer names metrics"
    assert metrics - known == set()
    assert {"num_speculative_tokens"} <= set(engines["vllm"]["keys"])


def test_the_bibliography_has_what_the_chapters_cite() -> None:
    text = (ROOT / "docs" / "BIBLIOGRAPHY.md").read_text(encoding="utf-8")
    places = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("specdec_ref/**/*.py"), *ROOT.glob("docs/*.md")]
    cited = {number for path in places for number in re.findall(r"\b2\d{3}\.\d{5}\b", path.read_text(encoding="utf-8"))}
    assert len(cited) >= 8
    assert cited - set(re.findall(r"\d{4}\.\d{5}", text)) == set()
    names = {name for path in places for name in re.findall(r"([A-Z][a-z]+) et al\. (?:19|20)\d\d", path.read_text())}
    assert {name for name in names if name not in text} == set()


@pytest.fixture(scope="module")
def page(site: Path) -> Iterator[Any]:
    """A page of headless Chromium that remembers what it asked for and what it complained about."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = chromium.new_page(viewport={"width": 1440, "height": 1000})
        opened.set_default_timeout(600_000)  # a page takes a second; a shared machine may stand still for minutes
        opened.asked, opened.complaints = [], listen(opened)
        opened.on("request", lambda request: opened.asked.append(request.url))
        yield opened
        chromium.close()


FORMULAS = "[...document.querySelectorAll('.math')].filter(node => !node.querySelector('.katex')).length"
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
GROUND = "getComputedStyle(document.body).backgroundColor"
# Characters per line of the paragraphs that fill three lines or more; formulas count twice, so they are left out.
PROSE = """() => [...document.querySelectorAll("article section > p")].filter(p => !p.closest(".cell_output") &&
  !p.querySelector("img, .math")).map(p => [p.innerText.length,
  Math.round(p.getBoundingClientRect().height / parseFloat(getComputedStyle(p).lineHeight))])
  .filter(([, lines]) => lines >= 3).map(([length, lines]) => length / lines)"""
OUTLINE = """() => { const box = document.querySelector(".toc-tree")?.getBoundingClientRect();
  return !box || (box.width > 100 && box.right <= document.documentElement.clientWidth); }"""
PICTURED = {"index", "play", "00_start_here", "02_verification", "05_tree", "06_metrics", "08_production", "GLOSSARY"}


@pytest.mark.slow
@needs_sphinx
@pytest.mark.skipif(bool(MISSING_BROWSER), reason=f"needs {', '.join(MISSING_BROWSER)}")
def test_every_page_in_light_and_dark(site: Path, page: Any) -> None:
    """No requests to the network, no errors, readable text, all formulas drawn, no page wider than a desktop or a phone."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    faults = []
    files = [path for path in sorted(site.rglob("*.html")) if path.parent.parent.name != "api" or path.stem == "engine"]
    files = [path for path in files if "zh" not in path.relative_to(site).parts or path.stem in PICTURED]  # one layout
    assert len(files) > 30
    for path in files:
        name = str(path.relative_to(site))
        page.complaints.clear()
        page.goto(path.as_uri())
        grounds = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            grounds.append(page.evaluate(GROUND))
            faults += [f"{name}, {scheme}: {text}" for text in unreadable(page, "article", AA)]
            if path.stem in PICTURED:
                page.screenshot(path=SHOTS / f"{name.replace('/', '-')}-{scheme}.jpg", full_page=True)
        faults += [f"{name}: {chars:.0f} characters in a line" for chars in page.evaluate(PROSE) if chars > 80]
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 1000})
            if (wide := page.evaluate(TOO_WIDE)) > 0:
                faults.append(f"{name}: wider than {width} pixels by {wide}")
            if width == 1280 and not page.evaluate(OUTLINE):
                faults.append(f"{name}: no outline at {width} pixels")
            if width == 390 and path.stem in PICTURED:
                page.screenshot(path=SHOTS / f"{name.replace('/', '-')}-phone.jpg", full_page=True)
        page.set_viewport_size({"width": 1440, "height": 1000})
        faults += [f"{name}: {complaint}" for complaint in page.complaints]
        faults += [f"{name}: a formula was not drawn"] if page.evaluate(FORMULAS) else []
        faults += [f"{name}: looks the same in light and dark"] if grounds[0] == grounds[1] else []
    assert faults == []
    assert {url for url in page.asked if not url.startswith(("file:", "data:"))} == set()


@pytest.mark.slow
@needs_sphinx
@pytest.mark.skipif(bool(MISSING_BROWSER), reason=f"needs {', '.join(MISSING_BROWSER)}")
def test_search_lists_chapters_first_and_no_spoilers(site: Path, page: Any) -> None:
    for query, chapter in (("eagle", "03_eagle"), ("tree", "05_tree"), ("acceptance", "notebooks/")):
        page.goto(f"{(site / 'search.html').as_uri()}?q={query}")
        page.wait_for_function(
            "document.querySelector('#search-results p.search-summary')?.innerText.match(/finished|found/)"
        )
        found = page.eval_on_selector_all(
            "#search-results li a", "links => links.map(link => link.getAttribute('href'))"
        )
        assert len(found) > 5
        assert any(chapter in link for link in found[:2]), found[:5]
        first_file = next((i for i, link in enumerate(found) if link.startswith("api/")), len(found))
        assert all("notebooks/" not in link for link in found[first_file:]), found
        assert not [link for link in found if re.search("WRONG_ANSWERS|ATTACKS|docs/EXERCISES", link)]


@pytest.mark.slow
@needs_sphinx
@pytest.mark.skipif(bool(MISSING_BROWSER), reason=f"needs {', '.join(MISSING_BROWSER)}")
def test_search_finds_chinese_words(site: Path, page: Any) -> None:
    page.goto(f"{(site / 'zh' / 'search.html').as_uri()}?q=草稿模型")
    page.wait_for_function("document.querySelectorAll('#search-results li a').length > 5")
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.getAttribute('href'))")
    assert any("notebooks/" in link for link in found[:2]), found[:5]
