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
from browsing import CHROMIUM, MISSING_BROWSER, listen, unreadable

ROOT = Path(__file__).parent.parent
SITE, SHOTS = ROOT / "build" / "site", ROOT / "build" / "browser" / "site"
sys.path.insert(0, str(ROOT / "tools"))
import api_pages  # noqa: E402
import build_site  # noqa: E402

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
    expected += [path.relative_to(ROOT).with_suffix(".html") for path in ROOT.glob("docs/*.md")]
    expected += [Path(name) for name in ("index.html", "README.html", "CONTRIBUTING.html", "CHANGELOG.html")]
    code = [path.relative_to(ROOT / "specdec_ref") for path in (ROOT / "specdec_ref").rglob("*.py")]
    expected += [Path("api", path).with_suffix(".html") for path in code if path.stem[:2] != "__"]
    missing = [str(page) for page in expected if not (site / page).is_file()]
    assert missing == [], "no page; a file of the package needs its line in docs/ARCHITECTURE.md"
    chapter = (site / "notebooks" / "02_verification.html").read_text(encoding="utf-8")
    assert "A still picture of the start" in chapter
    assert not re.search("widget-view|require.js|VBox", chapter), "of a widget, only its still can be shown"
    engine = (site / "api" / "engine.html").read_text(encoding="utf-8")
    assert 'id="specdec_ref.engine.SpecEngine.step"' in engine
    assert "Invariant, checked every round" in engine


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


@pytest.mark.slow
@needs_sphinx
@pytest.mark.skipif(bool(MISSING_BROWSER), reason=f"needs {', '.join(MISSING_BROWSER)}")
def test_every_page_in_light_and_dark(site: Path, page: Any) -> None:
    """Nothing asked of the network, nothing in the console, all mathematics drawn, all text to be read, nothing too wide."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    faults = []
    files = [path for path in sorted(site.rglob("*.html")) if path.parent.parent.name != "api" or path.stem == "engine"]
    assert len(files) > 30
    for path in files:
        name = str(path.relative_to(site))
        page.complaints.clear()
        page.goto(path.as_uri())
        grounds = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            grounds.append(page.evaluate(GROUND))
            faults += [f"{name}, {scheme}: {text}" for text in unreadable(page, "article")]
            if page.locator(".cell").count() or path.parent.name == "docs" or path == site / "index.html":
                page.screenshot(path=SHOTS / f"{name.replace('/', '-')}-{scheme}.jpg", full_page=True)
        faults += [f"{name}: {complaint}" for complaint in page.complaints]
        faults += [f"{name}: a formula was not drawn"] if page.evaluate(FORMULAS) else []
        faults += [f"{name}: wider than the window by {wide}"] if (wide := page.evaluate(TOO_WIDE)) > 0 else []
        faults += [f"{name}: looks the same in light and dark"] if grounds[0] == grounds[1] else []
    assert faults == []
    assert {url for url in page.asked if not url.startswith(("file:", "data:"))} == set()
