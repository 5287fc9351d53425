"""The pictures of the README are what their commands draw, and are safe and small enough to be shown as images."""

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
SVG = "{http://www.w3.org/2000/svg}"


def tool(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / f"{name}.py"))


def test_the_committed_chart_is_what_the_command_draws() -> None:
    """If not: python tools/draw_speedups.py > docs/images/speedups.svg."""
    chart = tool("draw_speedups")
    assert (IMAGES / "speedups.svg").read_text(encoding="utf-8") == chart["draw"](*chart["measured"]())


def test_bars_are_as_high_as_their_numbers() -> None:
    bars = [rect for rect in ET.parse(IMAGES / "speedups.svg").iter(f"{SVG}rect") if rect.get("width") == "29"]
    values = [
        float(text.text or "")
        for text in ET.parse(IMAGES / "speedups.svg").iter(f"{SVG}text")
        if text.get("class") == "v m"
    ]
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert len(heights) == len(values) == 21
    unit = heights[0] / values[0]
    assert all(abs(height - value * unit) < 1 for height, value in zip(heights, values, strict=True))


@pytest.mark.parametrize("name", ["demo.svg", "speedups.svg"])
def test_pictures_are_plain_svg(name: str) -> None:
    text = (IMAGES / name).read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert len(text.encode()) < 150_000
    assert not {"script", "foreignObject", "image"} & {element.tag.removeprefix(SVG) for element in root.iter()}
    assert "prefers-color-scheme:dark" in text
    assert root.find(f"{SVG}title") is not None, "what a screen reader reads"
    assert root.find(f"{SVG}desc") is not None
    assert "href" not in text.replace("xmlns", "")
    assert any(dtype in text for dtype in ("float32", "bfloat16"))
    assert "smollm2-135m" in text


def test_the_recorder_draws_what_it_is_given() -> None:
    """Every piece is drawn once, at its time; the longer answer sets the length; nothing runs beyond its panel."""
    recorder = tool("record_demo")
    piece, take = recorder["Piece"], recorder["Take"]
    words = [f"word{number} & <more>" for number in range(12)]
    plain = take(
        tuple(piece(word + " ", "plain", 0.5 * at) for at, word in enumerate(words)), tuple(range(12)), 12, 5.5
    )
    pair = (piece(" ".join(words[:6]) + " ", "accepted", 1.0), piece(" ".join(words[6:]), "own", 2.0))
    fast = take(pair, tuple(range(12)), 2, 2.0)
    text = recorder["draw"](plain, fast, drafter="hybrid", caption="a model & a machine")
    root = ET.fromstring(text)
    chunks = [element for element in root.iter(f"{SVG}text") if element.get("textLength")]
    assert sum(len((chunk.text or "").replace(" ", "")) for chunk in chunks) == 2 * len("".join(words).replace(" ", ""))
    assert "2.75 &#215; as fast" in text
    assert "@keyframes k2000{0%{opacity:0}21.05%{opacity:1}}" in text, "2 s of 5.5 s and the rest of 4 s"
    for chunk in chunks:
        right = float(chunk.get("x", 0)) + float(chunk.get("textLength", 0))
        edges = (recorder["MARGIN"] + recorder["PANEL"], 2 * recorder["PANEL"] + recorder["GAP"] + recorder["MARGIN"])
        assert right <= edges[float(chunk.get("x", 0)) > edges[0]]


def test_the_recorder_refuses_different_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    from specdec_ref import drafters, trace
    from specdec_ref.trace import Round

    class Session:
        target = None

        def encode(self, text: str) -> list[int]:
            return [1]

        def limits(self, most: int) -> int:
            return most

        def engine(self, *_: Any, **__: Any) -> None:
            return None

        def decode(self, tokens: list[int]) -> str:
            return "x" * len(tokens)

    monkeypatch.setattr(drafters, "build_drafter", lambda *_: None)
    monkeypatch.setattr(trace, "plain_rounds", lambda *_, **__: [Round(added=1)])
    monkeypatch.setattr(trace, "rounds", lambda *_: [Round(added=2)])
    with pytest.raises(ValueError, match="differ: try --dtype float32"):
        tool("record_demo")["record"](Session(), "a", "hybrid", 4, 1)


def test_a_pair_faster_than_its_tokens_per_round_is_not_drawn() -> None:
    recorder = tool("record_demo")
    take, plausible = recorder["Take"], recorder["_plausible"]
    plain = take((), (1,) * 12, 12, 12.0)
    assert plausible((plain, take((), (1,) * 12, 4, 4.1)))
    assert not plausible((plain, take((), (1,) * 12, 4, 3.9)))
