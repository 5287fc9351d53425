"""Help texts in the width of the terminal: as written at 80 columns and above, wrapped again below."""

import argparse
import re
import shutil
import textwrap
from typing import Any

__all__ = ["Layout", "fitted"]

WIDEST, NARROWEST = 80, 40
_ITEM = re.compile(r"( +\S+(?: \S+)*? {2,})(\S.*)")  # "  name   what it is"


class Layout(argparse.RawDescriptionHelpFormatter):
    """argparse's formatter, 80 columns wide or as wide as a narrower terminal."""

    def __init__(self, prog: str) -> None:
        width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns))
        super().__init__(prog, max_help_position=24 if width == WIDEST else 20, width=width)

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """One line: the flags are listed below it, so here they are `[options]`."""
        if usage is None:
            words = [action for action in actions if not action.option_strings]
            named = [self._format_args(each, self._get_default_metavar_for_positional(each)) for each in words]
            usage = " ".join(["%(prog)s", "[options]", *named])
        super().add_usage(usage, actions, groups, prefix)

    def _format_action(self, action: argparse.Action) -> str:
        """Commands are listed without a line for the word COMMAND above them."""
        if isinstance(action, argparse._SubParsersAction):
            return "".join(map(self._format_action, action._get_subactions()))
        return super()._format_action(action)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """As argparse, but a flag such as --draft-model stays whole."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """A description, as written if the help is 80 columns wide."""
        if self._width < WIDEST:
            text = fitted(text, width)
        return super()._fill_text(text, width, indent)


def fitted(text: str, width: int) -> str:
    """`text` in `width` columns: paragraphs and lists of terms are wrapped, lines with commands stay whole."""
    return "\n".join(line for block in _blocks(text) for line in _wrapped(block, width)) + "\n"


def _blocks(text: str) -> list[str]:
    """Each paragraph, list item and command as one line; continuation lines are joined to what they continue."""
    blocks: list[str] = []
    hang = -1  # the indentation of a line that continues the last block; -1: none does
    for line in text.splitlines():
        item, indent = _ITEM.fullmatch(line), len(line) - len(line.lstrip())
        if line and indent == hang and (hang == 0 or not item):
            blocks[-1] += f" {line.strip()}"
            continue
        blocks.append(line)
        whole = not line or line.lstrip().startswith("$") or (indent > 0 and not item)
        hang = -1 if whole else len(item[1]) if item else indent
    return blocks


def _wrapped(block: str, width: int) -> list[str]:
    if len(block) <= width:
        return [block]
    item = _ITEM.fullmatch(block)
    if block.lstrip().startswith("$"):
        return [item[1].rstrip(), f"      {item[2]}"] if item else [block]
    start = item[1] if item else " " * min(6, len(block) - len(block.lstrip()))
    rest = item[2] if item else block.lstrip()
    return textwrap.wrap(
        rest, width, initial_indent=start, subsequent_indent=" " * len(start), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
