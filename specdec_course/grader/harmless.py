"""What comes from a student, made fit to be shown: in a terminal, in a page, in a table, in a notebook.

A terminal obeys control characters, a browser obeys HTML, a spreadsheet obeys cells that begin with "=".
"""

import re
import unicodedata
from collections.abc import Mapping
from html import unescape
from typing import Any

import bleach
from bleach.css_sanitizer import CSSSanitizer

__all__ = ["cell", "clean_html", "message", "nesting", "shown", "unicode_only"]

TAGS = {
    "p", "b", "i", "code", "pre", "table", "thead", "tbody", "tr", "td", "th", "ul", "ol", "li", "br", "div", "span",
}  # fmt: skip
STYLES = ("color", "white-space", "vertical-align", "text-align")
CLEANER = bleach.Cleaner(TAGS, {"*": ["style"]}, css_sanitizer=CSSSanitizer(allowed_css_properties=STYLES), strip=True)
TEX = re.compile(r"\\(href|url|class|cssId|style|require|unicode|includegraphics|html\w*|data)\b")  # links and styles
LONGEST_HTML, DEEPEST = 300_000, 200  # characters; brackets or tags inside each other
ENTITY = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);?")
FORMULA = re.compile(r"\s*[=+\-@]")
CONTROL, TURNING = ("Cc", "Cs", "Zl", "Zp"), "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\ud800-\udfff]")  # neither line break, tab nor escape
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]{0,5000000}")
NUMBER = re.compile(r"[+-]?[\d.,\s]*%?")


def shown(text: str, *, lines: bool = False) -> str:
    """Text that a terminal only shows: control characters, surrogates and what turns writing round are replaced.

    With `lines`, line breaks and tabs stay; without, they become spaces.
    """
    kept = "\n\t" if lines else ""
    plain = text if lines else re.sub(r"\s", " ", text)
    return "".join(
        "\ufffd" if sign not in kept and (unicodedata.category(sign) in CONTROL or sign in TURNING) else sign
        for sign in plain
    )


def unicode_only(text: str) -> str:
    """The same text with lone surrogates, which no file can hold, replaced."""
    return text.encode("utf-8", "replace").decode()


def cell(text: str) -> str:
    """A cell of a table that no spreadsheet takes for a formula: an apostrophe goes before one that it would."""
    text = "".join(sign for sign in text if sign in "\n\t" or unicodedata.category(sign) not in ("Cc", "Cs"))
    return f"'{text}" if FORMULA.match(text) and len(text) > 1 and not NUMBER.fullmatch(text) else text


def clean_html(text: str) -> str | None:
    """A few tags and styles of it; None for what is too long or too nested to be parsed."""
    if len(text) > LONGEST_HTML or nesting(text) > DEEPEST:
        return None
    try:
        cleaned = str(CLEANER.clean(TEX.sub(r"\1", unicode_only(text).replace("\r\n", "\n"))))
    except (RecursionError, ValueError, AssertionError, KeyError, IndexError):  # html5lib on odd input
        return None
    return shown(ENTITY.sub(_harmless, cleaned), lines=True)


def _harmless(entity: re.Match[str]) -> str:
    """A character reference as it is, unless `shown` would replace what it stands for."""
    sign = unescape(entity[0])
    return entity[0] if shown(sign, lines=True) == sign else "\ufffd"


def nesting(text: str) -> int:
    """How deep brackets or tags nest at most: how often a parser that calls itself would do so."""
    deepest = 0
    for pattern in (r"(?P<close>[)\]}])|[(\[{]", r"<(?P<close>/)?(?!(?:br|hr|img|wbr|meta|link|input)\b)[a-zA-Z]"):
        depth = 0
        for found in re.finditer(pattern, text):
            depth += -1 if found["close"] else 1
            deepest = max(deepest, depth)
    return deepest


def message(given: dict[str, Any]) -> dict[str, Any]:
    """A kernel's message, with what a cell would show as text, pictures and cleaned HTML; others stay as they are."""
    kind, content = given.get("msg_type"), given.get("content")
    if not isinstance(content, Mapping):
        return given
    plain: dict[str, Any] = {}
    if kind == "stream":
        plain = {"name": "stderr" if content.get("name") == "stderr" else "stdout", "text": _text(content.get("text"))}
    elif kind == "error":
        trace = content.get("traceback")
        lines = [_text(line) for line in trace] if isinstance(trace, list) else []
        plain = {"ename": _text(content.get("ename")), "evalue": _text(content.get("evalue")), "traceback": lines}
    elif kind in ("display_data", "execute_result", "update_display_data"):
        plain = {"metadata": {}, "data": _data(content.get("data"))}
    count = content.get("execution_count")
    if count is not None and (type(count) is not int or count < 0):
        plain["execution_count"] = None
    return {**given, "content": {**content, **plain}}


def _data(given: Any) -> dict[str, str]:
    data = given if isinstance(given, Mapping) else {}
    kept = {"text/plain": _text(data["text/plain"])} if "text/plain" in data else {}
    for kind in ("image/png", "image/jpeg"):
        if isinstance(data.get(kind), str) and BASE64.fullmatch(data[kind]):
            kept[kind] = data[kind]
    html = clean_html(_text(data["text/html"])) if "text/html" in data else None
    return kept if html is None else {**kept, "text/html": html}


def _text(given: Any) -> str:
    """A string of whatever it is. Colours of a traceback stay, for pages that show them; other controls go."""
    text = "".join(map(str, given)) if isinstance(given, list) else str("" if given is None else given)
    return UNFIT.sub("\ufffd", text)
