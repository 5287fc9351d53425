"""IPython without a kernel: cells run here, and what they say becomes the outputs of a notebook, within bounds."""

import io
import os
import sys
from typing import Any

os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

__all__ = ["Shell", "Stopped"]

SHOWN, FLOOD = 100_000, 2_000_000  # characters that a cell's page shows; that a cell may print or display


class Stopped(BaseException):
    """The cell has run long enough."""


class Said:
    """The outputs of the cell that runs."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self.count = self.kept = 0

    def stream(self, name: str, text: str) -> None:
        """Printed text, joined to what was printed before."""
        if not self._fits(len(text)):
            return
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream" and last["name"] == name:
            last["text"] += text
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": text})

    def data(self, kind: str, data: dict[str, Any]) -> None:
        """Something displayed."""
        kept = {mime: value for mime, value in data.items() if isinstance(value, str)}
        if self._fits(sum(map(len, kept.values()))):
            self.outputs.append({"output_type": kind, "data": kept})

    def error(self, name: str, text: str, lines: list[str]) -> None:
        """An error that ended the cell."""
        self.outputs.append(
            {"output_type": "error", "ename": name, "evalue": text[:SHOWN], "traceback": ["\n".join(lines)[:SHOWN]]}
        )

    def _fits(self, characters: int) -> bool:
        """Whether it is kept. Raises OSError for a flood, so that a loop that prints ends."""
        before, self.count = self.count, self.count + characters
        if self.count > FLOOD:
            raise OSError(f"this cell printed more than {FLOOD // 10**6} million characters")
        if self.count > SHOWN and before <= SHOWN:
            self.outputs.append(
                {"output_type": "stream", "name": "stdout", "text": f"[cut off here, after {SHOWN:,} characters]\n"}
            )
        return self.count <= SHOWN


class _Stream(io.TextIOBase):
    def __init__(self, shell: "Shell", name: str) -> None:
        self._shell, self.name = shell, name

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._shell.said.stream(self.name, str(text))
        return len(text)


class _Hook(DisplayHook):
    """The value of a cell's last line."""

    def write_output_prompt(self) -> None:
        """A notebook has none."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
        Shell.instance().said.data("execute_result", format_dict)


class _Published(DisplayPublisher):
    def publish(self, data: Any, metadata: Any = None, source: Any = None, **more: Any) -> None:
        Shell.instance().said.data("display_data", data)

    def clear_output(self, wait: bool = False) -> None:
        Shell.instance().said.outputs.clear()


class Shell(InteractiveShell):
    """One for the whole notebook."""

    displayhook_class, display_pub_class = Type(_Hook), Type(_Published)

    def __init__(self, **options: Any) -> None:
        self.said = Said()
        super().__init__(config=Config({"HistoryManager": {"enabled": False}}), **options)  # type: ignore[no-untyped-call]
        self.colors = "NoColor"
        sys.stdout, sys.stderr = _Stream(self, "stdout"), _Stream(self, "stderr")

    def run(self, code: str) -> list[dict[str, Any]]:
        """The outputs of a cell."""
        self.said = Said()
        self.run_cell(code, store_history=True)  # type: ignore[no-untyped-call]
        return self.said.outputs

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        self.said.error(etype.__name__, str(evalue), stb)

    def enable_gui(self, gui: Any = None) -> None:
        """There is no loop to run one in."""
