"""The chapters in a real JupyterLab and a real browser: every slider moved by keyboard and by mouse, in light and dark.

One page a chapter: open, run, no error in a cell or on the console, then for each slider arrow keys and one drag, after
each of which the numbers and the picture below must have changed; in the light theme and in the dark one all text that
comes from us must stand out from its ground. Chapter 02 runs whole, as a reader runs it. Of the others only the cells
run that their widgets need (nbval runs all of them anyway): CHAPTERS=whole runs everything here as well.
Screenshots are kept in build/browser/: each chapter from top to bottom, each widget before and after, in both themes.
Needs Chromium (Debian's, or the one that CHROMIUM names) and Playwright; elsewhere the reason is printed.
"""

import ast
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, MISSING_BROWSER, listen, unreadable
from cell_names import needed

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "browser"
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MISSING = MISSING_BROWSER + ([] if find_spec("jupyterlab") else ["JupyterLab (the extra `notebooks`)"])
RUN_WHOLE = {"02_verification"}  # the quickest
OURS = ".jp-RenderedHTML, .widget-html-content, .widget-label, .jp-RenderedText, .jp-RenderedMarkdown"
CHAPTER_MS = 900_000  # a chapter takes a minute on a quiet machine, more where other jobs run
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # all cells stand in the page, seen or not
}
RUN = """cells => {
  const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
  window.finished = false;
  (async () => {
    for (const cell of cells) {
      notebook.activeCellIndex = cell;
      notebook.deselectAll();
      await app.commands.execute('notebook:clear-cell-output');
      await app.commands.execute('notebook:run-cell');
    }
    window.finished = true;
  })();
}"""
RAN = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.type !== 'code' ? null
  : [cell.model.executionCount, cell.model.outputs.toJSON()])"""
READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
WIDE = "window.jupyterapp.shell.collapseLeft()"
SCROLL = "top => { document.querySelector('.jp-WindowedPanel-outer').scrollTop = top }"
PART = 4_000  # pixels of a chapter in one screenshot
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
IN_THEME = "light => document.body.dataset.jpThemeLight === light"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab on copies of the chapters: a URL with `{}` for the notebook's name, and where the copies are."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "docs", folder / "docs")
    (folder / "notebooks").mkdir()
    for chapter in CHAPTERS:
        shutil.copy(chapter, folder / "notebooks" / chapter.name)
    for name, values in SETTINGS.items():
        path = folder / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
               "--LabApp.expose_app_in_browser=True"]  # fmt: skip
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/api/status?token={token}", server)
            yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}?token={token}&reset", folder / "notebooks"
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_up(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with code {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.4)
    raise TimeoutError("JupyterLab did not answer within two minutes")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def _shows(source: str) -> bool:
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return any(isinstance(call.func, ast.Name) and call.func.id == "show" for call in calls)


@pytest.mark.skipif(bool(MISSING_BROWSER), reason=f"needs {', '.join(MISSING_BROWSER)}")
def test_what_a_page_may_not_do(browser: Any) -> None:
    """The two checks that all pages go through see what they are for."""
    page = browser.new_page()
    complaints = listen(page)
    page.set_content(
        "<script>console.error('wrong')</script><script>gone()</script><img src='http://127.0.0.1:9/x.png'>"
        "<p style='color: #888'>enough</p><p style='color: #aaa'>pale</p>"
        "<div style='background: #111'><p style='background: rgba(0, 0, 0, 0.5); color: #0044aa'>dark</p></div>"
    )
    page.wait_for_timeout(200)
    assert {word for word in ("wrong", "gone", "x.png") if any(word in text for text in complaints)} == {
        "wrong",
        "gone",
        "x.png",
    }
    assert [text.rpartition(": ")[2] for text in unreadable(page, "body")] == ["pale", "dark"]
    page.close()


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"the browser test needs {', '.join(MISSING)}")
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_and_its_sliders_move(chapter: Path, lab: tuple[str, Path], browser: Any) -> None:
    url, copies = lab
    cells = json.loads((copies / chapter.name).read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) if cell["cell_type"] == "code" else None for cell in cells]
    whole = chapter.stem in RUN_WHOLE or os.environ.get("CHAPTERS") == "whole"
    code = [i for i, source in enumerate(sources) if source is not None]
    chosen = code if whole else needed(sources, [i for i in code if _shows(sources[i])])
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    complaints = listen(page)
    page.set_default_timeout(CHAPTER_MS)
    page.goto(url.format(chapter.name))
    page.wait_for_function(READY)
    _theme(page, "JupyterLab Light")
    page.evaluate(WIDE)
    page.evaluate(RUN, chosen)
    page.wait_for_function("window.finished")
    ran = page.evaluate(RAN)
    outputs = [output for cell in chosen for output in ran[cell][1]]
    assert [cell for cell in chosen if not ran[cell][0]] == [], "these cells did not run"
    assert [out for out in outputs if out["output_type"] == "error" or out.get("name") == "stderr"] == []
    page.wait_for_timeout(1000)  # views of widgets are drawn after their cell is done
    _whole_page(page, SHOTS / f"{chapter.stem}.jpg")
    assert unreadable(page, OURS) == [], "in the light theme"
    assert page.locator(".jupyter-widgets.jp-mod-error, .jupyter-widgets-error-widget").count() == 0, "a view broke"
    boxes = page.locator(".widget-vbox:has(.widget-image)")
    assert boxes.count() == sum("show(" in sources[cell] for cell in chosen)
    shows = [cell for cell in chosen if "show(" in sources[cell]]
    for i, cell in enumerate(shows):
        _exercise(page, boxes.nth(i), cell, f"{chapter.stem}-{i}")
    _theme(page, "JupyterLab Dark")
    _whole_page(page, SHOTS / f"{chapter.stem}-dark.jpg")
    assert unreadable(page, OURS) == [], "in the dark theme"
    for i, cell in enumerate(shows):
        _run_again(page, cell)
        boxes.nth(i).screenshot(path=SHOTS / f"{chapter.stem}-{i}-dark.png")
        _move(page, boxes.nth(i), 0)
        boxes.nth(i).screenshot(path=SHOTS / f"{chapter.stem}-{i}-dark-moved.png")
    assert complaints == [], "on the browser's console"
    page.close()


def _theme(page: Any, name: str) -> None:
    page.evaluate(THEME, name)
    page.wait_for_function(IN_THEME, arg=str(name.endswith("Light")).lower())
    page.wait_for_timeout(500)


def _whole_page(page: Any, path: Path) -> None:
    """The chapter from top to bottom, in screenshots of at most PART pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height = int(page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight"))
    page.set_viewport_size({"width": 1200, "height": min(height, PART) + 150})  # 150: JupyterLab's bars
    for number, top in enumerate(range(0, height, PART)):
        page.evaluate(SCROLL, top)
        page.wait_for_timeout(500)
        page.screenshot(path=path.with_stem(f"{path.stem}-{number}"))
    page.set_viewport_size({"width": 1200, "height": 1000})


def _run_again(page: Any, cell: int) -> None:
    page.evaluate(RUN, [cell])
    page.wait_for_function("window.finished")
    page.wait_for_timeout(500)


def _exercise(page: Any, box: Any, cell: int, name: str) -> None:
    """Move each slider, always from the widget's first state: at the end of one, another may have nothing to say."""
    box.scroll_into_view_if_needed()
    box.screenshot(path=SHOTS / f"{name}-before.png")
    for number in range(box.locator(".noUi-handle").count()):
        if number:
            _run_again(page, cell)
        _move(page, box, number)
        box.screenshot(path=SHOTS / f"{name}-slider{number}.png")


def _move(page: Any, box: Any, number: int) -> None:
    """Arrow keys, then the mouse; both must change what stands below the sliders."""
    handle, track = box.locator(".noUi-handle").nth(number), box.locator(".noUi-base").nth(number)
    before = _shown(box)
    handle.focus()
    at_the_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    for _ in range(3):
        page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")
    by_key = _changed(page, box, before, f"slider {number}, arrow keys")
    grip, rail = handle.bounding_box(), track.bounding_box()
    middle, x = grip["y"] + grip["height"] / 2, grip["x"] + grip["width"] / 2
    right = x < rail["x"] + rail["width"] / 2  # towards the farther end
    page.mouse.move(x, middle)
    page.mouse.down()
    page.mouse.move(rail["x"] + (rail["width"] - 2 if right else 2), middle, steps=5)
    page.mouse.up()
    _changed(page, box, by_key, f"slider {number}, mouse")


def _shown(box: Any) -> tuple[str, str]:
    """(numbers, address of the picture): the front end makes a new address for each new picture."""
    return box.locator(".widget-html-content").last.inner_html(), box.locator("img.widget-image").get_attribute("src")


def _changed(page: Any, box: Any, before: tuple[str, str], how: str) -> tuple[str, str]:
    for _ in range(100):
        now = _shown(box)
        if now[0] != before[0] and now[1] != before[1]:
            page.wait_for_timeout(300)  # let a burst of changes end
            return _shown(box)
        page.wait_for_timeout(200)
    pytest.fail(f"{how}: numbers changed: {now[0] != before[0]}, picture changed: {now[1] != before[1]}")
