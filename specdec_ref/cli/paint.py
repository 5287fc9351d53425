"""Tokens on a terminal: accepted, rejected and bonus told apart by colour and, for whoever sees none, by style."""

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from specdec_ref.palette import PALETTE

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.trace import Round

__all__ = ["STYLES", "Painter", "legend"]

STYLES = {
    "accepted": Style(color=PALETTE["accepted"]),
    "rejected": Style(color=PALETTE["rejected"], strike=True),
    "untested": Style(dim=True, strike=True),
    "bonus": Style(color=PALETTE["bonus"], bold=True),
    "plain": Style(color=PALETTE["target"]),
}


def legend(*, marked: bool = False) -> Text:
    """What the styles mean; `marked`: what the brackets mean that replace colours where there are none."""
    if marked:
        return Text("{accepted guess}   [-rejected or never tested-]   the rest: tokens of the target's own")
    return Text.assemble(
        ("accepted guess", STYLES["accepted"]),
        "   ",
        ("rejected", STYLES["rejected"]),
        ", ",
        ("never tested", STYLES["untested"]),
        "   ",
        ("bonus or correction", STYLES["bonus"]),
        "   ",
        ("plain step, no guess", STYLES["plain"]),
    )


class Painter:
    """Writes rounds as they come, wrapped at `width` columns between tokens."""

    def __init__(
        self,
        console: "Console",
        decode: Callable[[Sequence[int]], str],
        *,
        indent: int = 2,
        byte_tokens: Collection[int] = (),
    ) -> None:
        from specdec_ref.text import TextStream

        self.console, self.decode = console, decode
        self.marked = console.color_system is None  # brackets instead of colours
        self.text = TextStream(decode, byte_tokens=byte_tokens)
        self.margin = " " * indent
        self.width = max(console.width - 1, indent + 20)
        self.column = 0

    def show(self, step: "Round") -> None:
        """One round: what was accepted, what was turned down and what stood behind it, what the target added."""
        kept = [self.text.feed(token) for token in step.accepted]
        for text in [_bracketed("{", "".join(kept), "}")] if self.marked else kept:
            self._write(text, STYLES["accepted"])
        if step.added is not None:
            wrong = [("rejected", self.decode(step.rejected)), ("untested", self.decode(step.untested))]
            if self.marked:
                wrong = [("rejected", _bracketed("[-", wrong[0][1] + wrong[1][1], "-]"))]
            for style, text in wrong:
                self._write(text.replace("\n", "⏎"), STYLES[style])
            guessed = step.record is not None and step.record.drafted > 0
            self._write(self.text.feed(step.added), STYLES["bonus" if guessed else "plain"])

    def end(self) -> None:
        """The last half character, if any, and a new line."""
        self._write(self.text.flush(), STYLES["plain"])
        self.console.print()

    def _write(self, text: str, style: Style) -> None:
        for number, line in enumerate(text.split("\n")):
            if number:
                self._new_line()
            for word in _words(line):
                if self.column and self.column + cell_len(word.rstrip()) > self.width:
                    self._new_line()
                    word = word.lstrip()
                if not self.column:
                    self.console.print(self.margin, end="")
                    self.column = len(self.margin)
                self.console.print(Text(word, style), end="", soft_wrap=True)
                self.column += cell_len(word)

    def _new_line(self) -> None:
        self.console.print()
        self.column = 0


def _bracketed(left: str, text: str, right: str) -> str:
    """The text in brackets, which stand inside its outer white space; nothing for nothing."""
    inner = text.strip()
    start = text.index(inner)
    return f"{text[:start]}{left}{inner}{right}{text[start + len(inner) :]}" if inner else text


def _words(line: str) -> list[str]:
    """Pieces that start with their leading spaces: 'a  b c' is 'a', '  b', ' c'."""
    return re.findall(r" *[^ ]+| +", line)
