"""Draw the speed-up by task from the committed measurements, as SVG.

    python tools/draw_speedups.py > docs/images/speedups.svg

One group of bars per task. Plain decoding is the line at 1. Nothing is measured here: the first run at temperature 0,
batch 1 and no added context that has all methods is taken from specdec_ref/bench/rows/tasks.jsonl, and the caption
names its date, machine and number format.
"""

import sys
from collections.abc import Iterator, Mapping
from html import escape
from textwrap import wrap
from typing import Any

from specdec_ref.bench.rows import runs
from specdec_ref.palette import PALETTE

__all__ = ["draw", "measured"]

METHODS = {  # row in the table -> name in the legend, colour; drawn in this order
    "ngram adaptive": ("n-gram", PALETTE["draft"]),
    "eagle adaptive": ("EAGLE", PALETTE["bonus"]),
    "hybrid adaptive": ("hybrid", PALETTE["accepted"]),
}
TASKS = ("code", "chat", "translation", "summary", "creative", "editing", "all")
WIDTH, HEIGHT = 880, 430
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 84, 108  # margins around the bars
BAR, GAP = 29, 5
STYLE = """\
text{font-family:system-ui,-apple-system,"Segoe UI",Helvetica,Arial,"DejaVu Sans",sans-serif;font-size:13px}
text{fill:#1f2328}.page{fill:#fff;stroke:#d0d7de}.h{font-size:17px;font-weight:700}.s{font-size:12px;fill:#57606a}.v{font-size:11.5px}
.m{text-anchor:middle}.e{text-anchor:end}.grid{stroke:#d0d7de}.one{stroke:#1f2328;stroke-width:1.5}.i{stroke:#1f2328}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117;stroke:#30363d}.s{fill:#9198a1}
.grid{stroke:#30363d}.one,.i{stroke:#e6edf3}}"""


def measured() -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """What was run, and its rows by (task, method). Raises LookupError if no committed run has them all."""
    for environment, rows in runs("tasks"):
        found = {
            (row["task"], row["method"]): row
            for row in rows
            if (row["temperature"], row["batch"], row["context"], row["clock"]) == (0, 1, 0, "wall")
        }
        if all((task, method) in found for task in TASKS for method in METHODS):
            return environment, found
    raise LookupError("tasks.jsonl holds no run at temperature 0 and batch 1 with all methods of the chart")


def draw(environment: Mapping[str, Any], rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """The chart as one SVG document."""
    shown = {key: rows[key] for key in ((task, method) for task in TASKS for method in METHODS)}
    highest = max(row["speedup_vs_plain"] for row in shown.values()) * 1.1
    parts = [*_head(shown), *_grid(highest), *_bars(shown, highest), *_caption(environment, shown)]
    return "\n".join([*parts, "</svg>", ""])


def _y(value: float, highest: float) -> float:
    return HEIGHT - BOTTOM - value / highest * (HEIGHT - TOP - BOTTOM)


def _head(shown: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    said = "; ".join(
        f"{task}: "
        + ", ".join(f"{name} {shown[task, method]['speedup_vs_plain']:.2f}" for method, (name, _) in METHODS.items())
        for task in TASKS
    )
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="t d">'
    )
    yield '<title id="t">Speed-up over plain decoding, by task</title>'
    yield f'<desc id="d">{escape(said)}.</desc>\n<style>\n{STYLE}\n</style>'
    yield f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="12"/>'
    yield '<text class="h" x="20" y="32">Speed-up over plain decoding, by task</text>'
    x = 20.0
    for name, colour in METHODS.values():
        yield f'<rect x="{x:g}" y="47" width="13" height="13" rx="2" fill="{colour}"/>'
        yield f'<text x="{x + 19:g}" y="58">{name}</text>'
        x += 46 + 7.2 * len(name)
    yield f'<path class="one" d="M{x:g} 53.5h22"/><text x="{x + 28:g}" y="58">plain decoding</text>'


def _grid(highest: float) -> Iterator[str]:
    for half in range(int(highest * 2) + 1):
        y = _y(half / 2, highest)
        kind = "one" if half == 2 else "grid"
        yield f'<path class="{kind}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="s e" x="{LEFT - 8}" y="{y + 4:.1f}">{half / 2:.1f} &#215;</text>'


def _bars(shown: Mapping[tuple[str, str], Mapping[str, Any]], highest: float) -> Iterator[str]:
    pitch = (WIDTH - LEFT - RIGHT) / len(TASKS)
    floor = HEIGHT - BOTTOM
    for place, task in enumerate(TASKS):
        middle = LEFT + (place + 0.5) * pitch
        for number, (method, (_, colour)) in enumerate(METHODS.items()):
            value = shown[task, method]["speedup_vs_plain"]
            x = middle + (number - (len(METHODS) - 1) / 2) * (BAR + GAP) - BAR / 2
            y = _y(value, highest)
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{BAR}" height="{floor - y:.1f}" fill="{colour}"/>'
            yield f'<text class="v m" x="{x + BAR / 2:.1f}" y="{y - 5:.1f}">{value:.2f}</text>'
        label = "all tasks" if task == "all" else task
        weight = 700 if task == "all" else 400
        yield f'<text class="m" x="{middle:.1f}" y="{floor + 20}" font-weight="{weight}">{label}</text>'


def _caption(environment: Mapping[str, Any], shown: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    best = shown["all", "hybrid adaptive"]
    calls = shown[TASKS[0], "hybrid adaptive"]["calls"]
    same, texts = (
        sum(row[count] for (task, _), row in shown.items() if task != "all") for count in ("identical", "texts")
    )
    text = (
        f"{environment['target']} in {environment['dtype']}, temperature 0, batch 1, on {environment['machine']} "
        f"({', '.join(environment['features'])}), torch {environment['torch']}, {environment['date'][:10]}. "
        f"Each bar is the median of paired ratios over {calls} held-out prompts, prefill included, with adaptive draft "
        f"lengths; “all tasks” is their geometric mean (hybrid: 95 % bootstrap interval {best['ci_low']:.2f} to "
        f"{best['ci_high']:.2f}). {same} of {texts} texts are plain decoding's. Other machines differ: docs/BENCHMARKS.md."
    )
    for number, line in enumerate(wrap(text, 134)):
        yield f'<text class="s" x="20" y="{HEIGHT - BOTTOM + 46 + 16 * number}">{escape(line)}</text>'


if __name__ == "__main__":
    sys.stdout.write(draw(*measured()))
