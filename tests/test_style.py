"""The prose that has been rewritten stays free of the words that tools/check_style.py looks for."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("check_style", ROOT / "tools/check_style.py")
assert SPEC is not None
assert SPEC.loader is not None
check_style: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_style)


@pytest.mark.parametrize("name", check_style.FINISHED)
def test_finished_prose_is_clean(name: str) -> None:
    assert list(check_style.hits(ROOT / name)) == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Four lessons stand in this table.", "stand"), ("It takes 3 bytes a token and two tokens a round.", "tokens a round"),
        ("The module knows the law.", "knows"), ("`it says` [rule](law.md) $behind$", ""), ("We understand, outlaw.", ""),
    ],
)  # fmt: skip
def test_words_are_found_in_prose_alone(tmp_path: Path, text: str, word: str) -> None:
    page, notebook = tmp_path / "page.md", tmp_path / "page.ipynb"
    page.write_text(f"```\nthe law stands behind\n```\n{text}\n", encoding="utf-8")
    cells = [{"cell_type": "markdown", "source": [text]}, {"cell_type": "code", "source": ["print('it says')"]}]
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    for path, place in ((page, 4), (notebook, 0)):
        found = list(check_style.hits(path))
        assert bool(found) == bool(word), found
        assert all(f":{place}: " in hit for hit in found)
        assert any(f"'{word}'" in hit for hit in found) or not word
