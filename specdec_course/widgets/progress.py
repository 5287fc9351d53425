"""A progress bar as one line of a cell's output, where it would be red text on stderr and a line a refresh."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from html import escape
from typing import Any

__all__ = ["bar_line", "progress"]


class _Line(io.StringIO):
    """A terminal, to who writes to it; what stands on its last line is shown."""

    def __init__(self, handle: Any) -> None:
        super().__init__()
        self.handle = handle

    def isatty(self) -> bool:
        """Yes: bars are refreshed twice a second on a terminal, and once a minute elsewhere."""
        return True

    def write(self, text: str) -> int:
        """Show the line if there is something on it."""
        if line := bar_line(text):
            self.handle.update(line)
        return len(text)


def bar_line(text: str) -> Any:
    """What a carriage return leaves of it, as HTML; None if that is nothing."""
    from IPython.display import HTML

    last = text.replace("\n", "\r").rstrip("\r ").rpartition("\r")[2].strip()
    return HTML(f"<code>{escape(last)}</code>") if last else None


@contextmanager
def progress() -> Iterator[None]:
    """Within it, stderr is one line below the cell."""
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)
    with redirect_stderr(_Line(handle)):
        yield
