"""Catalogues of another language: nothing of a page is lost in them, and what no longer fits its English is found."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

translations = pytest.importorskip("translations", reason="babel comes with the extra `site`")


def test_a_page_without_translations_stays_as_it_is() -> None:
    """Every page, up to line breaks inside paragraphs: no block is lost, doubled or moved."""
    empty = translations.Catalog()
    for page in translations.pages():
        for cell in translations._cells(page):
            assert translations.translated(cell, empty).split() == cell.split(), page


def test_wrapping_a_paragraph_anew_changes_no_message() -> None:
    """Lists, tables and quotes keep their lines."""
    text = "One two\nthree.\n\n- a\n  b\n- c\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n> q\n"
    found = [block for block, wanted in translations.blocks(text) if wanted]
    assert found == ["One two three.", "- a b\n- c", "| x | y |\n|---|---|\n| 1 | 2 |", "> q"]


def test_code_formulas_and_bare_html_are_no_messages() -> None:
    """A fence keeps its blank lines."""
    text = (
        "```python\na = 1\n\nb = 2\n```\n\n$$\nx^2\n$$\n\n<details><summary>Answer</summary>\n\nSay $x$.\n\n</details>"
    )
    assert [b for b, wanted in translations.blocks(text) if wanted] == [
        "<details><summary>Answer</summary>",
        "Say $x$.",
    ]
    assert "a = 1\n\nb = 2" in next(iter(translations.blocks(text)))[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("接受率 0.6 见 [02](02.ipynb) 与 `alpha`。", ""),
        ("接受率 0.7 见 [02](02.ipynb) 与 `alpha`。", "lost 0.6, added 0.7"),
        ("接受率 0.6 见 [02](03.ipynb) 与 `alpha`。", "lost ](02.ipynb, added ](03.ipynb"),
        ("接受率 0.6 见 [02](02.ipynb) 与 alpha。", "lost `alpha`"),
    ],
)
def test_a_translation_keeps_numbers_links_and_code(other: str, said: str) -> None:
    """Each planted loss is named."""
    assert translations.broken("The acceptance rate is 0.6, see [02](02.ipynb) and `alpha`.", other) == said


def test_a_changed_message_is_stale_and_shown_in_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Translate a page, change its English: the old translation is kept for the translator and not for the reader."""
    monkeypatch.setattr(translations, "ROOT", tmp_path)
    monkeypatch.setattr(translations, "PAGES", ("a.md",))
    page, text = Path("a.md"), "A draft of three tokens is checked at once."
    (tmp_path / page).write_text(text)
    assert translations.main(["update"]) == 0
    file = translations.catalogue_path(page)
    file.write_text(file.read_text().replace('msgstr ""', 'msgstr "一次检查 three 个词元的草稿。"'))
    assert translations.main(["check"]) == 0
    assert "一次检查" in translations.page_text(page)
    (tmp_path / page).write_text(text.replace("three", "four"))
    assert translations.main(["update"]) == 0
    assert "一次检查" in file.read_text()
    assert translations.main(["check"]) == 1
    assert translations.page_text(page) == text.replace("three", "four")


def test_every_page_is_translated() -> None:
    """No message without a translation, none whose English has changed, none that lost a number, a formula or a link."""
    for page in translations.pages():
        _, *wrong = translations.state(page)
        assert wrong == [[], [], []], f"{page}: python tools/translations.py update, then check -v"


def loose_marks(markdown: str) -> list[str]:
    """Texts in which `*` is still seen: Chinese bold that ends with punctuation does not end without a space."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt().enable("table")
    inline = [child for token in parser.parse(re.sub(r"\$[^$]+\$", "x", markdown)) for child in token.children or ()]
    return [child.content for child in inline if child.type == "text" and "*" in child.content]


def test_bold_and_italics_end_in_chinese_too() -> None:
    pytest.importorskip("markdown_it", reason="comes with the extra `site`")
    assert loose_marks("**教程\uff1a**四个猜测") != []
    assert loose_marks("**教程**\uff1a四个*猜测*\uff0c`2 * 3`") == []
    found = {
        f"{page}: {text}"
        for page in translations.pages()
        for message in translations._read(page)
        for text in loose_marks(str(message.string))
        if not loose_marks(str(message.id))
    }
    assert found == set()


ONE_TERM = {  # not used -> what is, on every page
    "起草程序": "起草方法", "起草器": "起草方法", "key 和 value": "键和值", "玩一玩": "动手试试", "探索器": "交互图",
    "**出处": "**参考资料", "一轮的代价": "一轮的开销", "检查的代价": "检查的开销",
}  # fmt: skip


def test_the_chinese_pages_use_one_term_for_one_thing() -> None:
    """The terms were not uniform once; each of these words came back in a different chapter."""
    found = {
        (str(page), word, term)
        for page in translations.pages()
        for message in translations._read(page)
        for word, term in ONE_TERM.items()
        if word in str(message.string)
    }
    assert found == set()


def test_a_translated_notebook_keeps_its_code_and_outputs() -> None:
    """Only Markdown cells may differ."""
    for page in translations.pages():
        if page.suffix == ".ipynb":
            before = json.loads((translations.ROOT / page).read_text(encoding="utf-8"))["cells"]
            after = json.loads(translations.page_text(page))["cells"]
            assert [c for c in before if c["cell_type"] == "code"] == [c for c in after if c["cell_type"] == "code"]
            assert len(before) == len(after)
