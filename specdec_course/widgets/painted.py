"""Generated text in colour, as HTML: accepted, rejected, bonus. The same colours and styles as on the terminal."""

from collections.abc import Callable, Iterable, Sequence
from html import escape

from specdec_ref.palette import PALETTE
from specdec_ref.text import TextStream
from specdec_ref.trace import Round

__all__ = ["LEGEND", "live", "painted"]

Decode = Callable[[Sequence[int]], str]


def _chip(colour: str) -> str:
    """Dark text on a light tint of the colour: readable on a light page and on a dark one."""
    tint = "".join(f"{255 - (255 - part) // 5:02x}" for part in bytes.fromhex(colour[1:]))
    return f"color:#222;background:#{tint};border-bottom:2px solid {colour}"


_STYLES = {
    "accepted": _chip(PALETTE["accepted"]),
    "rejected": f"{_chip(PALETTE['rejected'])};text-decoration:line-through",
    "untested": f"{_chip('#808080')};text-decoration:line-through",
    "bonus": f"{_chip(PALETTE['bonus'])};font-weight:bold",
    "plain": _chip(PALETTE["target"]),
}
_MEANING = {
    "accepted": "accepted guess",
    "rejected": "rejected",
    "untested": "never tested",
    "bonus": "bonus or correction: the target's own token",
    "plain": "plain step, no guess",
}


def _span(text: str, kind: str) -> str:
    return f"<span style='{_STYLES[kind]}'>{escape(text)}</span>"


LEGEND = "<small>" + " &nbsp; ".join(_span(words, kind) for kind, words in _MEANING.items()) + "</small>"


def painted(rounds: Iterable[Round], decode: Decode, title: str = "", *, rejects: bool = True) -> str:
    """The whole text; with `rejects` also what was guessed in vain, struck through and without line breaks."""
    text = TextStream(decode)
    parts = []
    for step in rounds:
        parts += [_span(text.feed(token), "accepted") for token in step.accepted]
        if rejects:
            for wrong, kind in ((step.rejected, "rejected"), (step.untested, "untested")):
                parts += [_span(decode(wrong).replace("\n", "⏎"), kind)] if wrong else []
        if step.added is not None:
            guessed = step.record is not None and step.record.drafted > 0
            parts.append(_span(text.feed(step.added), "bonus" if guessed else "plain"))
    parts.append(escape(text.flush()))
    head = f"<b>{escape(title)}</b><br>" if title else ""
    body = f"<span style='white-space:pre-wrap'>{''.join(parts)}</span>"
    return f"<div style='line-height:1.55;margin:0.4em 0'>{head}{body}</div>"


def live(rounds: Iterable[Round], decode: Decode, title: str = "") -> list[Round]:
    """Run the rounds and show each as it comes; returns them. What stays in the notebook is the finished text."""
    from IPython.display import HTML, display

    handle = display(HTML(painted([], decode, title)), display_id=True)
    done: list[Round] = []
    for step in rounds:
        done.append(step)
        handle.update(HTML(painted(done, decode, title)))
    return done
