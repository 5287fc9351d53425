"""Find words that our English should avoid: `python tools/check_style.py [FILE ...]`.

It reads the prose of Markdown files and of notebooks' text cells, without code, formulas, link targets and quotations.
FINISHED lists what has been rewritten so far and must stay clean (a test runs this). Name other files to read those.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FINISHED = (
    "README.md",
    "docs/QUIZ.md",
    "notebooks/00_start_here.ipynb",
    "notebooks/01_bottleneck.ipynb",
    "notebooks/02_verification.ipynb",
    "notebooks/03_eagle.ipynb",
    "notebooks/04_ngram.ipynb",
    "notebooks/05_tree.ipynb",
    "notebooks/06_metrics.ipynb",
    "notebooks/07_kernels.ipynb",
    "notebooks/08_production.ipynb",
    "notebooks/10_after_eagle.ipynb",
    "exercises/08_production/08_production.ipynb",
    "exercises/10_after_eagle/10_after_eagle.ipynb",
)

# what it is a sign of: terse aphorisms, things that speak, and a private vocabulary
WORDS = re.compile(
    r"\b(laws?|stands?|mend(s|ed)?|foresee(s|n)?|foretells?|binds?|behind|tells?|says?|knows?|wants?|dear|sooner|be had"
    r"|(tokens?|trees?|bytes) an? (round|row|node|forward|pass|step)|what it)\b",
    re.IGNORECASE,
)
ALLOWED = (  # expressions in which such a word is right
    "The old lighthouse stands", "we want", "you want", "model wanted", "it knows the answer", "paper says",
    "tutorial says", "we do not know", "what it means", "you do not need to know",
)  # fmt: skip
LEFT_OUT = re.compile(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|\*\"[^\"]*\"\*|<[^>]+>", re.DOTALL)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """(line or cell number, text) of everything that people read as text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(text)["cells"]):
            if cell["cell_type"] == "markdown":
                yield number, LEFT_OUT.sub(" ", "".join(cell["source"]))
    else:
        yield from enumerate(LEFT_OUT.sub(lambda found: "\n" * found[0].count("\n"), text).splitlines(), 1)


def hits(path: Path) -> Iterator[str]:
    """Every place, with the words around it."""
    for place, text in prose(path):
        for allowed in ALLOWED:
            text = re.sub(re.escape(allowed), " ", text, flags=re.IGNORECASE)
        for found in WORDS.finditer(text):
            around = " ".join(text[max(0, found.start() - 40) : found.end() + 30].split())
            yield f"{path}:{place}: {found[0]!r} in “{around}”"


def main(names: list[str]) -> int:
    """Print every hit; 1 if there is one."""
    found = [hit for name in names or FINISHED for hit in hits(ROOT / name)]
    print("\n".join(found) or "clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
