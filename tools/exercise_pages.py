"""A page of the site per exercise that spoils nothing: what it asks for and how to start it, read from its notebook.

The notebook's own page has the hints, folded, and the cells that check. Here stand the introduction, the tasks without
their hints, the code that a task is about, and the empty function that the reader fills.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["NAME", "page"]

NAME = "overview"  # the page lies beside its notebook, so that the notebook's links hold
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
WORDS = {
    "en": {
        "start": "How to start",
        "lab": "Install the course and open JupyterLab, in its folder",
        "install": "how to install",
        "copy": "In a terminal, make a copy that git ignores",
        "open": "Then open",
        "read": "To read it first",
        "page": "the notebook as a page",
        "hints": "with its hints, folded.",
        "tasks": "The tasks",
    },
    "zh_CN": {
        "start": "怎样开始",
        "lab": "在课程目录里安装并打开 JupyterLab",
        "install": "安装方法",
        "copy": "在终端里复制一份，git 会忽略它",
        "open": "然后打开",
        "read": "想先读一遍",
        "page": "网页版 notebook",
        "hints": "里有全部内容，提示是折叠起来的。",
        "tasks": "任务",
    },
}


def page(notebook: dict[str, Any], path: Path, language: str = "en") -> str:
    """Markdown of the page. `path`: the notebook's, as in exercises/01_bottleneck/01_bottleneck.ipynb."""
    words, colon, stop = WORDS[language], *((":", ".") if language == "en" else ("：", "。"))
    cells = notebook["cells"]
    title, _, rest = _text(cells[0]).partition("\n\n")
    name = path.stem
    start = [
        f"## {words['start']}",
        f"1. {words['lab']}{colon} `make lab` ([{words['install']}](../../docs/INSTALL.md)){stop}",
        f"2. {words['copy']}{colon} `mkdir -p work; cp -r exercises/{name} work/`{stop}",
        f"3. {words['open']} `work/{name}/{path.name}`{stop} {words['read']}{colon} [{words['page']}]({path.name}) "
        f"{words['hints']}",
    ]
    below = [f"```{{toctree}}\n:hidden:\n\n{name}\n```"]
    steps = [start[0], "\n".join(start[1:])]
    return "\n\n".join([title, rest, *steps, f"## {words['tasks']}", *_tasks(cells[1:]), *below]) + "\n"


def _text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"]).strip()


def _tasks(cells: list[dict[str, Any]]) -> Iterator[str]:
    """Every task: its text without the hints, code that it is about, and the code that the reader completes."""
    within = False
    for cell in cells:
        text, mark = _text(cell), cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] == "markdown":
            asked = "" if mark else FOLDED.sub("", text).strip()
            if asked.startswith("## "):
                within = cell["id"] != cells[-1]["id"]  # the last cell: how to hand in
            if within and asked:
                yield f"#{asked}" if asked.startswith("## ") else asked
        elif within and (mark.get("solution") or not (mark or cell["metadata"].get("tags"))):
            yield f"```python\n{text}\n```"
