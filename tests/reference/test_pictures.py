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
