"""Record plain and speculative decoding of one prompt as an animated SVG.

    python tools/record_demo.py > docs/images/demo.svg

Both are decoded in turn, several times, and the pair with the median speed-up is drawn. Text appears when it was
decoded, counted from the end of the prefill. Without animation (print, reduced motion) the picture shows both finished
answers. `--clock wall` needs an idle machine. `--clock cpu` measures the processor time of one thread, which other
programs disturb less; the picture names the clock.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from unittest.mock import patch

from specdec_ref.palette import PALETTE

__all__ = ["Piece", "Take", "draw", "record"]

PROMPT = (
    "Correct the spelling and repeat the whole text:\n\n"
    "The old lighthouse stands at the end of the harbour wall. Every evening the keeper climbs the ninety-two "
    "steps to the lantern room, lights the lamp and watches the ships come home. When the fog is thik, he rings "
    "the bell."
)
COLUMNS, CHAR, LINE, SIZE = 50, 7.8, 22, 13  # of one panel: characters, pixels per character and line, font size
PANEL, GAP, MARGIN = int(COLUMNS * CHAR) + 28, 16, 20
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
REST = 4.0  # seconds for which the finished picture stays
STYLE = f"""\
text{{font:{SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}}
text{{fill:#1f2328}}.page{{fill:#f6f8fa;stroke:#d0d7de}}.panel{{fill:#fff;stroke:#d0d7de}}.s{{fill:#57606a;font-size:12px}}.b{{font-weight:700}}
.accepted{{fill:{PALETTE["accepted"]}}}.own{{fill:{PALETTE["bonus"]}}}.tint{{opacity:.25}}
@media (prefers-color-scheme:dark){{text{{fill:#e6edf3}}
.page{{fill:#010409;stroke:#30363d}}.panel{{fill:#0d1117;stroke:#30363d}}
.s{{fill:#9198a1}}.tint{{opacity:.45}}}}
@media (prefers-reduced-motion:reduce){{g{{animation:none!important}}}}"""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that appeared at once, `at` seconds after the prefill. `kind`: plain, accepted, own (the target's)."""

    text: str
    kind: str
    at: float


@dataclass(frozen=True, slots=True)
class Take:
    """One decoded answer: its pieces, token ids, rounds, and seconds without prefill."""

    pieces: tuple[Piece, ...]
    tokens: tuple[int, ...]
    rounds: int
    seconds: float

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return len(self.tokens) / max(self.seconds, 1e-9)


def record(session: Any, prompt: str, drafter: str, most: int, pairs: int) -> tuple[Take, Take]:
    """Decode plainly and speculatively in turn; return the pair with the median speed-up.

    Raises ValueError if the texts differ, since the picture claims that they do not, and if more than half of the pairs
    are impossible: a speed-up above the tokens per round means that another program slowed plain decoding down.
    """
    from specdec_ref.config import DraftBudget
    from specdec_ref.drafters import build_drafter
    from specdec_ref.trace import plain_rounds, rounds

    ids, limits = session.encode(prompt), session.limits(most)
    takes = []
    for number in range(pairs + 1):  # the first pair warms up
        plain = _take(plain_rounds(session.target, ids, limits=limits), session.decode)
        engine = session.engine(build_drafter(drafter, session.target), budget=DraftBudget(6), limits=limits)
        fast = _take(rounds(engine, ids), session.decode)
        if fast.tokens != plain.tokens:
            raise ValueError(f"the texts of plain decoding and {drafter} differ: try --dtype float32 or another prompt")
        print(f"pair {number}: {plain.speed:.1f} and {fast.speed:.1f} tokens/s", file=sys.stderr)
        takes.append((plain, fast))
    ordered = sorted(filter(_plausible, takes[1:]), key=lambda pair: pair[0].seconds / pair[1].seconds)
    if 2 * len(ordered) <= pairs:
        raise ValueError("the machine is busy: most speed-ups exceed the tokens per round; try again, or --clock cpu")
    return ordered[len(ordered) // 2]


def _plausible(pair: tuple[Take, Take]) -> bool:
    """A round cannot be faster than a plain step."""
    plain, fast = pair
    return plain.seconds / max(fast.seconds, 1e-9) <= len(fast.tokens) / fast.rounds


def _take(steps: Iterable[Any], decode: Any) -> Take:
    from specdec_ref.text import TextStream

    stream, pieces, tokens, clock, count = TextStream(decode), list[Piece](), list[int](), 0.0, 0
    for step in steps:
        clock, count = clock + step.seconds, count + 1
        tokens += step.tokens
        if text := "".join(stream.feed(token) for token in step.accepted):
            pieces.append(Piece(text, "accepted", clock))
        if step.added is not None and (text := stream.feed(step.added)):
            pieces.append(Piece(text, "plain" if step.record is None else "own", clock))
    return Take(tuple(pieces), tuple(tokens), count, clock)


def _placed(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, str, int, int]]:
    """(piece, part of its text, line, column), wrapped between words; a part has no space at its ends."""
    owners = [piece for piece in pieces for _ in piece.text]
    text = "".join(piece.text for piece in pieces)
    places, line, column = [(0, 0)] * len(text), 0, 0
    at = 0
    while at < len(text):
        end = at + 1
        while end < len(text) and not text[end].isspace():
            end += 1
        if text[at] == "\n" or column + end - at > COLUMNS:
            line, column = line + 1, 0
            places[at] = (line, -1 if text[at].isspace() else 0)
        for index in range(at, end):
            if not (text[index].isspace() and column == 0):
                places[index], column = (line, column), column + 1
        at = end
    start = 0
    for index in range(1, len(text) + 1):
        if index == len(text) or owners[index] is not owners[start] or places[index][0] != places[start][0]:
            part = text[start:index]
            lead = len(part) - len(part.lstrip())
            if part.strip():
                yield owners[start], part.strip(), *places[start + lead]
            start = index


def _panel(take: Take, title: str, left: float, top: float, height: float, whole: float) -> Iterator[str]:
    yield f'<rect class="panel" x="{left:g}" y="{top:g}" width="{PANEL}" height="{height:g}" rx="8"/>'
    yield f'<text class="b" x="{left + 14:g}" y="{top + 24:g}">{escape(title)}</text>'
    at = None
    for piece, text, line, column in _placed(take.pieces):
        if piece.at != at:
            yield (
                "</g>" if at is not None else ""
            ) + f'<g style="animation:{_name(piece.at)} {whole:.2f}s step-end infinite">'
            at = piece.at
        x, y, width = left + 14 + column * CHAR, top + 54 + line * LINE, len(text) * CHAR
        if piece.kind != "plain":
            yield f'<rect class="{piece.kind} tint" x="{x:.1f}" y="{y - 14:g}" width="{width:.1f}" height="19" rx="2"/>'
        if piece.kind == "accepted":
            yield f'<rect class="accepted" x="{x:.1f}" y="{y + 4:g}" width="{width:.1f}" height="2"/>'
        weight = ' class="b"' if piece.kind == "own" else ""
        yield f'<text{weight} x="{x:.1f}" y="{y:g}" textLength="{width:.1f}">{escape(text)}</text>'
    yield "</g>" if at is not None else ""
    result = f"{take.speed:.1f} tokens/s: {len(take.tokens)} tokens in {take.rounds} forward passes"
    yield f'<g style="animation:{_name(take.seconds)} {whole:.2f}s step-end infinite">'
    yield f'<text class="b" x="{left + 14:g}" y="{top + height - 14:g}">{result}</text></g>'


def _name(at: float) -> str:
    return f"k{round(at * 1000)}"


def draw(plain: Take, fast: Take, *, drafter: str, caption: str, clock: str = "wall") -> str:
    """The animated picture as one SVG document."""
    whole = max(plain.seconds, fast.seconds) + REST
    lines = 1 + max(line for take in (plain, fast) for _, _, line, _ in _placed(take.pieces))
    height = 54 + lines * LINE + 30
    full, top = 2 * MARGIN + 2 * PANEL + GAP, 48
    moments = sorted({round(t * 1000) for take in (plain, fast) for t in (take.seconds, *(p.at for p in take.pieces))})
    frames = "".join(f"@keyframes k{t}{{0%{{opacity:0}}{t / 10 / whole:.2f}%{{opacity:1}}}}" for t in moments)
    total = top + height + 66
    told = (
        f"Plain decoding: {plain.speed:.1f} tokens per second. Speculative decoding with the drafter {drafter}: "
        f"{fast.speed:.1f} tokens per second, {plain.seconds / fast.seconds:.2f} times as fast, with the same text: "
        + "".join(piece.text for piece in plain.pieces)
    )
    ratio = plain.seconds / fast.seconds
    key = top + height + 24
    played = "played at the measured speed" + (" (processor time)" if clock == "cpu" else "")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full} {total}" width="{full}" height="{total}" '
        'role="img" aria-labelledby="t d">',
        f'<title id="t">Plain and speculative decoding side by side</title>\n<desc id="d">{escape(told)}</desc>',
        f"<style>\n{STYLE}\n{frames}\n</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{full - 1}" height="{total - 1}" rx="12"/>',
        f'<text x="{MARGIN}" y="30">An editing task, answered by the same model: the same {len(plain.tokens)} tokens, '
        f'<tspan class="b">{ratio:.2f} &#215; as fast</tspan></text>',
        *_panel(plain, "plain decoding", MARGIN, top, height, whole),
        *_panel(fast, f"speculative decoding, drafter “{drafter}”", MARGIN + PANEL + GAP, top, height, whole),
        f'<rect class="accepted tint" x="{MARGIN}" y="{key - 13}" width="118" height="18" rx="2"/>',
        f'<rect class="accepted" x="{MARGIN}" y="{key + 4}" width="118" height="2"/>',
        f'<text x="{MARGIN + 4}" y="{key}">accepted draft</text>',
        f'<rect class="own tint" x="{MARGIN + 134}" y="{key - 13}" width="150" height="18" rx="2"/>',
        f'<text class="b" x="{MARGIN + 138}" y="{key}">target&#39;s own token</text>',
        f'<text class="s" x="{MARGIN + 300}" y="{key}">{played}, prefill not counted</text>',
        f'<text class="s" x="{MARGIN}" y="{key + 26}">{escape(caption)}</text>',
    ]  # fmt: skip
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Record with the real model and write the picture to stdout."""
    parser = argparse.ArgumentParser(description="Record plain and speculative decoding as an animated SVG.")
    parser.add_argument("--drafter", default="hybrid", help="default: hybrid")
    parser.add_argument("--dtype", default="auto", help="default: auto, as in `specdec generate`")
    parser.add_argument(
        "--pairs", type=int, default=5, help="recorded pairs, of which the median is drawn (default: 5)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=80)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="default: wall")
    args = parser.parse_args()
    import torch

    from specdec_ref.machine import cpu_features, machine_line
    from specdec_ref.session import Session

    if args.clock == "cpu":
        torch.set_num_threads(1)
    session = Session.open(dtype=args.dtype, device="cpu")
    with patch("time.perf_counter", CLOCKS[args.clock]):  # what the engine's records are measured with
        plain, fast = record(session, PROMPT, args.drafter, args.max_new_tokens, args.pairs)
    machine = f"{machine_line(torch.device('cpu'))} ({', '.join(cpu_features())})"
    number_format = str(session.target.dtype).removeprefix("torch.")
    caption = f"{session.name}, {number_format}, temperature 0, on {machine}, torch {torch.__version__}"
    sys.stdout.write(draw(plain, fast, drafter=args.drafter, caption=caption, clock=args.clock))


if __name__ == "__main__":
    main()
