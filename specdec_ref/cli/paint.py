"""Tokens on a terminal: accepted, rejected and bonus told apart by colour, or by brackets where there is no colour."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from specdec_ref.palette import PALETTE

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.trace import Round

__all__ = ["STYLES", "Painter", "legend", "marked", "painted"]

STYLES = {
    "accepted": Style(color=PALETTE["accepted"]),
    "rejected": Style(color=PALETTE["rejected"], strike=True),
    "untested": Style(dim=True, strike=True),
    "bonus": Style(color=PALETTE["bonus"], bold=True),
    "plain": Style(color=PALETTE["target"]),
}


def marked(console: "Console") -> bool:
    """Whether brackets replace the colours: no terminal, one without colours, or NO_COLOR."""
    return console.color_system is None or console.no_color


def legend(*, marked: bool = False, rejected: bool = True) -> Text:
    """What the styles mean; `marked`: what the brackets mean. `rejected`: are rejected guesses shown as well?"""
    if marked:
        brackets = "   [-rejected or never tested-]" if rejected else ""
        return Text(f"{{accepted guess}}{brackets}   the rest: the target's own tokens")
    accepted = ("accepted guess", STYLES["accepted"])
    own = ("bonus or correction by the target", STYLES["bonus"])
    plain = ("plain step, no guess", STYLES["plain"])
    if not rejected:
        return Text.assemble(accepted, "   ", own, "   ", plain)
    wrong = Text.assemble(("rejected", STYLES["rejected"]), ", ", ("never tested", STYLES["untested"]))
    return Text.assemble(accepted, "   ", wrong, "   ", own, "   ", plain)


class _Brush:
    """Turns rounds into pieces of text, each with a style, as soon as their characters are complete."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, marked: bool, rejected: bool, byte_tokens: Collection[int]
    ) -> None:
        from specdec_ref.text import TextStream

        self.decode, self.marked, self.rejected = decode, marked, rejected
        self.text = TextStream(decode, byte_tokens=byte_tokens)

    def pieces(self, step: "Round") -> Iterator[tuple[str, Style]]:
        """What was accepted, what was rejected and what came after it, what the target added."""
        kept = [self.text.feed(token) for token in step.accepted]
        for text in [_bracketed("{", "".join(kept), "}")] if self.marked else kept:
            yield text, STYLES["accepted"]
        if step.added is None:
            return
        if self.rejected:
            yield from self._wrong(step)
        guessed = step.record is not None and step.record.drafted > 0
        yield self.text.feed(step.added), STYLES["bonus" if guessed else "plain"]

    def _wrong(self, step: "Round") -> Iterator[tuple[str, Style]]:
        """The guesses that were not kept, on one line: a sign stands for each line break in them."""
        rejected, untested = (self.decode(ids).replace("\n", "⏎") for ids in (step.rejected, step.untested))
        if self.marked:
            yield _bracketed("[-", rejected + untested, "-]"), STYLES["rejected"]
        else:
            yield rejected, STYLES["rejected"]
            yield untested, STYLES["untested"]


def painted(
    steps: Iterable["Round"],
    decode: Callable[[Sequence[int]], str],
    *,
    marked: bool,
    rejected: bool = True,
    byte_tokens: Collection[int] = (),
) -> list[Text]:
    """A piece of text for each round of a recorded run; the last one also holds half a character that was left over."""
    brush = _Brush(decode, marked=marked, rejected=rejected, byte_tokens=byte_tokens)
    texts = [Text.assemble(*brush.pieces(step)) for step in steps]
    if texts:
        texts[-1].append(brush.text.flush(), STYLES["plain"])
    return texts


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
        self.console = console
        self.brush = _Brush(decode, marked=marked(console), rejected=True, byte_tokens=byte_tokens)
        self.margin = " " * indent
        self.width = max(console.width - 1, indent + 20)
        self.column = 0

    def show(self, step: "Round") -> None:
        """One round."""
        for text, style in self.brush.pieces(step):
            self._write(text, style)

    def end(self) -> None:
        """The last half character, if any, and a new line."""
        self._write(self.brush.text.flush(), STYLES["plain"])
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
