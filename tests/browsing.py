"""What the tests in a browser share: where Chromium is, what a page complained about, and whether it can be read."""

import os
import shutil
from importlib.util import find_spec
from typing import Any

__all__ = ["AA", "CHROMIUM", "MISSING_BROWSER", "listen", "unreadable"]

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MISSING_BROWSER = [
    name
    for name, there in (
        ("Chromium (Debian: apt-get install chromium)", CHROMIUM),
        ("Playwright (pip install playwright)", find_spec("playwright")),
    )
    if not there
]
LEAST = 3.0  # contrast of the palette on black and on white (palette.py), and of WCAG 2.2's level AA for large text
AA = 4.5  # of WCAG 2.2 for text that is not large; large is from 24 px on, bold from 18.66 px
CONTRAST = """([roots, least]) => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    if (!node) return [255, 255, 255];
    const own = parse(getComputedStyle(node).backgroundColor);
    return own[3] === 0 ? ground(node.parentElement) : own.length < 4 ? own : over(own, ground(node.parentElement));
  };
  const found = new Set();
  for (const root of document.querySelectorAll(roots)) for (const node of [root, ...root.querySelectorAll("*")]) {
    const text = [...node.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join(" ").trim();
    const style = getComputedStyle(node);
    if (node.closest(".jp-RenderedMarkdown pre")) continue;  // JupyterLab colours fenced code by its own theme
    if (!text || !node.getClientRects().length || style.visibility === "hidden" || style.display === "none") continue;
    const below = ground(node), [r, g, b, a = 1] = parse(style.color);
    const [one, two] = [light(over([r, g, b, a * style.opacity], below)), light(below)].sort((x, y) => y - x);
    const ratio = (one + 0.05) / (two + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? Math.min(least, 3) : least) - 0.005) found.add(`${ratio.toFixed(1)}: ${style.color} on ${below}: ${text.slice(0, 40)}`);
  }
  return [...found].slice(0, 8);
}"""


def listen(page: Any) -> list[str]:
    """A list that fills with what goes wrong in the page: errors on the console, exceptions, requests that failed."""
    complaints: list[str] = []
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    return complaints


def unreadable(page: Any, roots: str, least: float = LEAST) -> list[str]:
    """Text below these elements whose contrast with its ground is too low, one line each."""
    found: list[str] = page.evaluate(CONTRAST, [roots, least])
    return found
