"""The site's replay and explorers in a browser, on a page of their own: the same scripts, without Sphinx.

The explorers' numbers are compared with the Python functions behind the course's widgets. Screenshots:
build/browser/play/.
"""

import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from browsing import AA, CHROMIUM, MISSING_BROWSER, listen, unreadable

from specdec_ref.choose import MARGIN, SHAPES, Option, choose, roofline_cost
from specdec_ref.cost_model import GPUS, best_gamma, expected_tau, speedup
from specdec_ref.replay import read_trace
from specdec_ref.trees.sequoia import expected_tokens, optimal_tree
from specdec_ref.trees.static import chain

ROOT = Path(__file__).parent.parent
RUNS, STATIC, SHOTS = (
    ROOT / "docs" / "site" / "runs",
    ROOT / "docs" / "site" / "static",
    ROOT / "build" / "browser" / "play",
)
sys.path.insert(0, str(ROOT / "tools"))
import site_runs  # noqa: E402

needs_browser = pytest.mark.skipif(bool(MISSING_BROWSER), reason=f"needs {', '.join(MISSING_BROWSER)}")
GROUNDS = """<style>body { margin: 0 8px; background: #fff; color: #000; --color-background-primary: #fff;
  --color-background-secondary: #f8f9fb; --color-foreground-primary: #000; --color-foreground-secondary: #5a5c63;
  --color-foreground-muted: #6b6f76; --color-background-border: #eeebee; --color-brand-primary: #0072B2 }
@media (prefers-color-scheme: dark) { body { background: #131416; color: #cfd0d0; --color-background-primary: #131416;
  --color-background-secondary: #1a1c1e; --color-foreground-primary: #cfd0d0; --color-foreground-secondary: #9ca0a5;
  --color-foreground-muted: #81868d; --color-background-border: #303335; --color-brand-primary: #56B4E9 } }</style>"""
KINDS = ("overlap", "rate", "tree", "pays")
SET = """([kind, values]) => {
  const root = document.querySelector(`[data-explorer=${kind}]`);
  const controls = [...root.querySelectorAll(".knob input, .knob select")];
  values.forEach((value, i) => { if (value !== null) {
    controls[i].value = value;
    controls[i].dispatchEvent(new Event("input"));
  } });
  const plain = Object.fromEntries(Object.entries(root.result).filter(([, value]) => typeof value !== "function"));
  return [plain, root.querySelector(".summary").textContent];
}"""


def written(language: str) -> str:
    """A page with the replay and all four explorers."""
    styles = "".join(
        f'<link rel="stylesheet" href="{(STATIC / name).as_uri()}">' for name in ("specdec.css", "play.css")
    )
    explorers = "".join(f'<div class="explorer" data-explorer="{kind}"></div>' for kind in KINDS)
    scripts = "".join(
        f'<script src="{(STATIC / name).as_uri()}"></script>'
        for name in ("words.js", "model.js", "explorers.js", "replay.js")
    )
    replay = site_runs.block(RUNS, "zh_CN" if language == "zh-CN" else "en")["replay"]
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>play</title>'
        f'<meta name="viewport" content="width=device-width">{GROUNDS}{styles}</head>'
        f"<body><article><section>{replay}{explorers}</section></article>{scripts}</body></html>"
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """That page in headless Chromium; `chinese` opens the other one in it."""
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("play")
    paths = {language: folder / f"{language}.html" for language in ("en", "zh-CN")}
    for language, path in paths.items():
        path.write_text(written(language), encoding="utf-8")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = chromium.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        opened.set_default_timeout(600_000)
        opened.complaints = listen(opened)
        opened.asked = []
        opened.on("request", lambda request: opened.asked.append(request.url))
        opened.chinese = paths["zh-CN"].as_uri()
        opened.goto(paths["en"].as_uri())
        yield opened
        chromium.close()


Setting = Sequence[Any]


def on(random_: random.Random, low: float, high: float, step: float) -> float:
    """A position of a slider."""
    return round(low + step * random_.randrange(round((high - low) / step) + 1), 6)


def settings(kind: str) -> list[Setting]:
    """At least twenty for each explorer, its corners among them."""
    dice = random.Random(kind)
    knobs: dict[str, list[tuple[float, float, float]]] = {
        "overlap": [(0.2, 4, 0.1), (0.2, 4, 0.1), (-4, 4, 0.25)],
        "rate": [(0, 1, 0.01), (0, 12, 1)],
        "tree": [(0.05, 0.95, 0.05), (0, 0.9, 0.05), (2, 20, 1), (1, 5, 1), (1, 8, 1)],
    }
    if kind != "pays":
        ranges = knobs[kind]
        corners: list[Setting] = [[low for low, _, _ in ranges], [high for _, high, _ in ranges]]
        return [*corners, *([on(dice, *knob) for knob in ranges] for _ in range(22))]
    chosen: list[Setting] = []
    for name in [*GPUS, "lines"] * 4:
        alpha, c = on(dice, 0.05, 0.95, 0.05), on(dice, 0, 0.5, 0.01)
        rest = [None, None, on(dice, 1, 8, 1), on(dice, 0, 1, 0.01)]
        chosen.append([alpha, c, name, *(rest if name == "lines" else [on(dice, 0, 11, 1), on(dice, 6, 17, 1)])])
    return chosen


def overlap_expected(target: float, draft: float, off: float) -> tuple[dict[str, Any], str]:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ipywidgets", reason="the explorers need the extra `notebooks`")
    from specdec_course.widgets.overlap import TOKENS, bump
    from specdec_ref.sampling import residual

    p, q = bump(TOKENS // 2, target), bump(TOKENS // 2 + off, draft)
    alpha = float(torch.minimum(p, q).sum())
    rest = residual(p, q)
    correction = (rest / rest.sum()).tolist() if float(rest.sum()) > 0 else p.tolist()
    return {"p": p.tolist(), "q": q.tolist(), "alpha": alpha, "correction": correction}, f"{alpha:.3f}"


def rate_expected(alpha: float, gamma: float) -> tuple[dict[str, Any], str]:
    tau = expected_tau(alpha, int(gamma))
    taus = [expected_tau(alpha, length) for length in range(13)]
    return {"tau": tau, "taus": taus, "rate": (tau - 1) / gamma if gamma else 0}, ""


def tree_expected(first: float, share: float, nodes: float, width: float, depth: float) -> tuple[dict[str, Any], str]:
    row = [first, *((1 - first) * (1 - share) ** rank * share for rank in range(int(width) - 1))]
    parents, tau = optimal_tree([row], int(nodes), int(depth))
    assert tau == pytest.approx(expected_tokens(parents, [row]))
    line = expected_tokens(chain(min(int(nodes) - 1, int(depth))), [row])
    return {"row": row, "tau": tau, "chain": line, "size": len(parents)}, ""


def pays_expected(alpha: float, c: float, kind: str, *rest: float | None) -> tuple[dict[str, Any], str]:
    if kind == "lines":
        flat, slope = float(rest[2] or 0), float(rest[3] or 0)

        def v(k: int) -> float:
            return 1.0 + slope * max(0.0, k - flat)

        best, most = best_gamma([alpha] * 10, c, v)
        speedups = [speedup(expected_tau(alpha, gamma), gamma, c, v) for gamma in range(11)]
        said = "Do not speculate" if most < MARGIN else f"{most:.2f} times"
        return {"speedup": most, "speedups": speedups, "best": best, "v5": v(5)}, said
    batch, context = 2 ** int(rest[0] or 0), 2 ** int(rest[1] or 0)
    cost, price = roofline_cost(SHAPES["8b"], GPUS[kind], c, batch, context)
    option = Option("draft", tuple(alpha ** (j + 1) for j in range(10)), cost)
    choice = choose([option], price, batch=batch)
    speedups = [option.weigh(gamma).speedup for gamma in range(11)]
    said = f"Draft {choice.gamma} token" if choice.gamma else "Do not speculate"
    return {"speedups": speedups, "speedup": max(speedups), "v5": price(5)}, said


EXPECTED: dict[str, Callable[..., tuple[dict[str, Any], str]]] = {
    "overlap": overlap_expected, "rate": rate_expected, "tree": tree_expected, "pays": pays_expected,
}  # fmt: skip


@needs_browser
@pytest.mark.parametrize("kind", KINDS)
def test_an_explorer_equals_the_python_functions(page: Any, kind: str) -> None:
    chosen = settings(kind)
    assert len(chosen) >= 20
    for values in chosen:
        expected, said = EXPECTED[kind](*values)
        padded = [*values, *[None] * (7 - len(values))] if kind == "pays" else list(values)
        result, summary = page.evaluate(SET, [kind, padded])
        if kind == "tree":
            result["size"] = len(result["parents"])
        for name, number in expected.items():
            assert result[name] == pytest.approx(number, rel=1e-9, abs=1e-12), (values, name)
        assert said in summary, values
        assert kind in ("overlap", "pays") or f"τ = {expected['tau']:.2f} " in summary, values


@needs_browser
def test_sliders_move_with_the_keyboard_and_are_announced(page: Any) -> None:
    for kind in KINDS:
        root = page.locator(f"[data-explorer={kind}]")
        root.get_by_role("button", name="Reset").click()
        sliders = root.get_by_role("slider")
        first, before = sliders.first, root.locator(".summary").text_content()
        name = first.evaluate("node => node.labels[0].textContent")
        assert name
        assert first.evaluate("node => document.getElementById(node.getAttribute('aria-describedby')).textContent")
        first.focus()
        page.keyboard.press("ArrowLeft")
        after = root.locator(".summary").text_content()
        assert after != before, f"{kind}: {name}"
        assert first.evaluate("node => getComputedStyle(node).outlineStyle") == "solid", "focus is not visible"
        page.wait_for_function(
            "([kind, text]) => document.querySelector(`[data-explorer=${kind}] [aria-live]`).textContent === text",
            arg=[kind, after],
        )
        assert root.locator("svg").get_attribute("aria-label")


@needs_browser
def test_the_replay_shows_the_recorded_rounds(page: Any) -> None:
    replay = "document.querySelector('[data-runs]').replay"
    assert page.evaluate(f"{replay}.clock === {replay}.end"), (
        "with reduced motion it starts at the end, and does not move"
    )
    for index, prompt in enumerate(site_runs.PROMPTS):
        page.evaluate(f"{replay}.choose({index})")
        for place, decoder in enumerate(site_runs.DECODERS):
            trace = read_trace((RUNS / f"{prompt}-{decoder}.jsonl").read_text("utf-8"))
            clock, half = 0.0, len(trace.rounds) // 2
            for step in trace.rounds[:half]:
                clock += step.seconds
            page.evaluate(f"{replay}.seek({clock} + 1e-7)")
            panel = page.locator(".replay-panel").nth(place)
            shown = panel.locator(".replay-text span:not(.later)").all_text_contents()
            assert "".join(shown) == "".join(trace.decode(step.tokens) for step in trace.rounds[:half])
            kinds = {name: panel.locator(f".replay-text .{name}").count() for name in ("accepted", "own", "plain")}
            assert kinds["accepted"] == sum(len(step.accepted) for step in trace.rounds)
            assert (kinds["plain"] == len(trace.rounds)) == (decoder == "plain")
            assert panel.locator("rect.rejected").count() == sum(len(step.rejected) for step in trace.rounds)


@needs_browser
def test_the_replay_plays_pauses_and_keeps_the_recorded_pace(page: Any) -> None:
    replay = "document.querySelector('[data-runs]').replay"
    page.evaluate(f"{replay}.choose(0)")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"{replay}.clock > 0.2")
    page.get_by_role("button", name="Pause").click()
    stopped = page.evaluate(f"{replay}.clock")
    page.wait_for_timeout(150)
    assert page.evaluate(f"{replay}.clock") == stopped
    paced = f"""speed => {{ const r = {replay}; r.speed.value = speed; r.seek(0); r.playing = true; r.before = 1000;
        r.tick(1400); const clock = r.clock; r.pause(); return clock; }}"""
    assert page.evaluate(paced, "1") == pytest.approx(0.4)
    assert page.evaluate(paced, "0.25") == pytest.approx(0.1)
    page.get_by_role("button", name="Next pass").click()
    assert "Pass " in (page.locator(".replay-round").nth(2).text_content() or "")
    page.get_by_role("button", name="Restart").click()
    page.wait_for_function(f"{replay}.clock === {replay}.end && !{replay}.playing")
    assert (page.locator(".replay [aria-live]").text_content() or "").startswith("Finished. Plain decoding: 52 tokens")


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_readable_and_no_wider_than_the_window(page: Any, width: int) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.set_viewport_size({"width": width, "height": 900})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert unreadable(page, "body", AA) == []
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"wider than {width} by {wide}"
        page.screenshot(path=SHOTS / f"{width}-{scheme}.jpg", full_page=True)
    page.emulate_media(color_scheme="light")
    page.evaluate("document.querySelector('.summary').style.color = '#888'")
    assert unreadable(page, "body", AA), "the check itself"
    page.evaluate("document.querySelector('.summary').style.color = ''")
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith("file:")] == []


LATIN = re.compile(r"[A-Za-z]{2,}")
NAMES = {
    "EAGLE",
    "token",
    "GPU",
    "min",
    *(word for gpu in GPUS.values() for word in LATIN.findall(gpu.name)),
}  # stay in Chinese
SHOWN = """() => {
  const texts = [], skip = ".replay-text, .replay-prompt, .replay-round span";
  const walk = document.createTreeWalker(document.querySelector("section"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) if (!walk.currentNode.parentElement.closest(`script, ${skip}`)) texts.push(walk.currentNode.data);
  for (const node of document.querySelectorAll("section *"))
    for (const name of ["aria-label", "aria-valuetext", "title"]) if (node.hasAttribute(name)) texts.push(node.getAttribute(name));
  return texts;
}"""


@needs_browser
def test_the_chinese_page_has_chinese_words_and_the_same_numbers(page: Any) -> None:
    """Labels, sentences and what a screen reader hears; texts that were recorded in English stay."""

    def numbers(kind: str, values: Sequence[Any]) -> tuple[dict[str, Any], list[str]]:
        result, summary = page.evaluate(SET, [kind, list(values)])
        return result, sorted(re.findall(r"\d+(?:\.\d+)?", summary))

    back = page.url
    chosen = {
        kind: [[*v, *[None] * (7 - len(v))] if kind == "pays" else v for v in settings(kind)[:6]] for kind in KINDS
    }
    english = {kind: [numbers(kind, values) for values in chosen[kind]] for kind in KINDS}
    latin = [text for text in page.evaluate(SHOWN) if set(LATIN.findall(text)) - NAMES]
    assert len(latin) > 60, "the check itself"
    try:
        page.goto(page.chinese)
        for kind in KINDS:
            assert [numbers(kind, values) for values in chosen[kind]] == english[kind], kind
        seen = page.evaluate(SHOWN)
        assert [text for text in seen if set(LATIN.findall(text)) - NAMES] == []
        assert sum(bool(re.search(r"[\u4e00-\u9fff]", text)) for text in seen) > 60
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"wider than {width} by {wide}"
            SHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SHOTS / f"zh-{width}.jpg", full_page=True)
    finally:
        page.goto(back)


def test_the_recorded_runs_are_small_and_name_machine_model_and_format() -> None:
    assert sum(path.stat().st_size for path in RUNS.iterdir()) <= 100_000
    read = site_runs.runs(RUNS)
    assert {path.name for path in RUNS.iterdir()} == {f"{p}-{d}.jsonl" for p in read for d in site_runs.DECODERS}
    told = site_runs.where(read)
    assert all(word in told for word in ("smollm2-135m", "float32", "cores", "PyTorch"))
    data = json.loads(site_runs.block(RUNS)["replay"].partition('id="recorded-runs">')[2].partition("</script>")[0])
    assert [len(prompt["runs"]) for prompt in data["prompts"]] == [3, 3, 3]
    row = next(line for line in site_runs.table(read).splitlines() if "EAGLE" in line).split("|")
    assert float(row[5].strip(" *")) == pytest.approx(int(row[3]) / int(row[4]), abs=0.006)


def test_different_texts_are_refused(tmp_path: Path) -> None:
    for path in RUNS.iterdir():
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace('" lighthouse"', '" light"', 1), "utf-8")
    assert site_runs.runs(tmp_path)
    path = tmp_path / "code-eagle.jsonl"
    path.write_text(path.read_text("utf-8").replace("return", "yield"), "utf-8")
    with pytest.raises(ValueError, match="'code' differ"):
        site_runs.runs(tmp_path)
