"""Nothing of a student's is obeyed: not by a terminal, a page, nbgrader's own pages, or a notebook."""

import json
import re
from collections import deque
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exercise_runner import load
from hostile import NAME, solved

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

import nbformat
import numpy as np
import torch
from nbconvert.exporters import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell, output_from_msg
from nbgrader.server_extensions.formgrader import handlers
from traitlets.config import Config

from specdec_course.checks.wire import Garbled
from specdec_course.grader.classrun import alike
from specdec_course.grader.confine import Allowance
from specdec_course.grader.course import Course
from specdec_course.grader.feedback import page
from specdec_course.grader.formgrader import harden
from specdec_course.grader.handin import receive
from specdec_course.grader.harmless import clean_html, message, shown
from specdec_course.grader.judge import _outputs
from specdec_course.grader.marks import Mark
from specdec_course.grader.remote import Remote, Values
from specdec_course.grader.similar import similar
from specdec_course.grader.sizes import small
from specdec_ref.core import DraftTree

VALUES = Values(object.__new__(Remote))  # with no worker: nothing is asked
EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> [a](javascript:alert(1)) <svg onload=alert(1)></svg>"
    '<iframe srcdoc="<script>alert(1)</script>"></iframe> $\\href{javascript:alert(1)}{x}$ <a href="data:text/html,x">d</a>'
    '\n\n![x](http://example.org/x.png) <form action=x><button formaction="javascript:alert(1)">b</button></form>'
    "\n\n<details ontoggle=alert(1) open>x</details><math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>"
    "\n\n`<script>alert(1)</script>`\n\n    <script>alert(1)</script>\n\n<!-- --><style>*{background:url(http://example.org)}</style>"
)


class Tags(HTMLParser):
    """What a browser would run, load or send."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.bold = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.bold += tag in ("b", "strong")
        if tag in (
            "script",
            "iframe",
            "object",
            "embed",
            "form",
            "svg",
            "math",
            "base",
            "style",
            "link",
            "meta",
            "details",
        ):
            self.found.append(tag)
        for name, value in attrs:
            told = value or ""
            runs = name in ("src", "href", "action", "formaction") and re.match(
                r"\s*(javascript|data:text)", told, re.I
            )
            if name.startswith("on") or runs or (name != "href" and "//" in told):
                self.found.append(f"{tag} {name} {value}")


def students_part(html: str) -> Tags:
    """Without what the template itself brings: between the marks that the test put in."""
    tags = Tags()
    tags.feed(html.partition("FIRST")[2].rpartition("LAST")[0])
    return tags


def exported(notebook: Any, *, hardened: bool) -> str:
    config = Config()
    if hardened:
        harden(config)
    config.HTMLExporter.template_name, config.HTMLExporter.extra_template_basedirs = (
        "formgrade",
        [handlers.template_path],
    )
    about = dict.fromkeys(
        (
            "assignment_id",
            "notebook_id",
            "submission_id",
            "base_url",
            "student",
            "notebook_path",
            "last_name",
            "first_name",
        ),
        "x",
    )
    html, _ = HTMLExporter(config=config).from_notebook_node(
        notebook, resources={"metadata": {"name": "n"}, "index": 0, "total": 1, **about}
    )
    return str(html)


def test_formgrader_s_page_runs_nothing_and_still_shows_the_answer() -> None:
    answer = new_markdown_cell(f"{EVIL}\n\n**bold** $p_i$")
    answer.metadata.nbgrader = {
        "grade": True,
        "solution": True,
        "grade_id": "p",
        "points": 2,
        "locked": False,
        "task": False,
        "schema_version": 3,
    }
    kinds = {
        "text/html": EVIL,
        "application/javascript": "alert(1)",
        "image/svg+xml": EVIL,
        "text/markdown": EVIL,
        "text/latex": EVIL,
    }
    outputs = [new_output("display_data", data={kind: text, "text/plain": "plain"}) for kind, text in kinds.items()]
    outputs += [new_output("stream", text=EVIL), new_output("error", ename="E", evalue=EVIL, traceback=[EVIL])]
    deep = new_markdown_cell("> " * 5000 + "x")
    notebook = new_notebook(
        cells=[
            new_markdown_cell("FIRST"),
            answer,
            deep,
            new_markdown_cell(EVIL),
            new_raw_cell(EVIL),
            new_code_cell(f"'''{EVIL}'''", outputs=outputs),
            new_markdown_cell("LAST"),
        ]
    )
    html = exported(notebook, hardened=True)
    safe = students_part(html)
    assert safe.found == []
    assert safe.bold == 1
    formula = new_notebook(cells=[new_markdown_cell(r"$\href{javascript:alert(1)}{x_i}$")])
    assert "{x_i}$" in (shown_formula := exported(formula, hardened=True))
    assert r"\href" not in shown_formula
    notebook.cells[2] = new_markdown_cell("")
    assert students_part(exported(notebook, hardened=False)).found, "the test would see it"


def test_the_terminal_obeys_nothing() -> None:
    text = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202eb\r\n\tc\ud800"
    assert shown(text) == "a\ufffd[2J\ufffd]0;title\ufffd\ufffd31m\ufffdb   c\ufffd"
    assert shown("zwei\n\tZeilen", lines=True) == "zwei\n\tZeilen"
    assert shown("हिन्दी، Zoë, 李雷, \u0646\u200c\u062f 👩\u200d💻") == "हिन्दी، Zoë, 李雷, \u0646\u200c\u062f 👩\u200d💻"


ODD: tuple[Any, ...] = (None, 7, [1, "x"], {"a": 1}, "\ud800\x00\x1b[31m", "x" * 10, True)


@pytest.mark.parametrize("kind", ["stream", "display_data", "execute_result", "error", "update_display_data", "status"])
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_whatever_a_kernel_sends_is_an_output_that_a_notebook_can_hold(kind: str, odd: Any) -> None:
    for content in (
        {
            "name": odd,
            "text": odd,
            "data": odd,
            "metadata": odd,
            "ename": odd,
            "evalue": odd,
            "traceback": odd,
            "execution_count": odd,
        },
        {
            "data": {"text/plain": odd, "text/html": odd, "application/javascript": odd, "x": odd},
            "metadata": {"x": odd},
            "execution_count": 1,
        },
    ):
        safe = message({"msg_type": kind, "header": {"msg_type": kind}, "content": content})
        if kind in ("stream", "display_data", "execute_result", "error"):
            missing = {"name": "stdout", "text": "", "ename": "", "evalue": "", "traceback": []}
            output = output_from_msg({**safe, "content": {**missing, **safe["content"]}})
            assert set(output.get("data", {})) <= {"text/plain", "text/html"}
            nbformat.validate(new_notebook(cells=[new_code_cell("", outputs=[output])]))
            json.dumps(output, ensure_ascii=False).encode()


def test_html_too_deep_or_too_long_is_shown_as_text() -> None:
    for text in (f"<p style='a{'(' * 30_000}'>x</p>", "<div>" * 30_000, "<b>" * 500, "x" * 400_000):
        assert clean_html(text) is None
    assert clean_html("<p style='color: red; position: fixed'>a<br>b</p>") == '<p style="color: red;">a<br>b</p>'
    for turned in ("a\u202eb", "a&#x202e;b", "a&#8238;b", "a&rlm;b", "a&#x20<x>2e;b"):
        assert clean_html(turned) == "a\ufffdb", "marks that turn writing round, also as character references"
    assert clean_html("a &amp; &lt;b&gt; &eacute;\r\n") == "a &amp; &lt;b&gt; &eacute;\n"
    notebook: dict[str, Any] = solved()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [
                {
                    "output_type": "display_data",
                    "metadata": {},
                    "data": {"text/html": f"<p style='a{'(' * 30_000}'>", "text/plain": "plain \ud800 \x1b[2J"},
                }
            ]
    html = page(notebook, "ada", [Mark("ada", NAME, "lookup-tests", 1.0, 4.0, "")], ["\x1b[2J"])
    assert "plain" in html
    html.encode()
    assert "\x1b" not in html


def test_hints_at_shared_answers_leave_out_what_everybody_has() -> None:
    release, ours = load("exercises", NAME), load("solutions", NAME)
    copied = (
        "def my_lookup(text, gamma, longest, shortest):\n"
        + "".join(f"    value_{n} = text[{n}] + longest * {n + 7} - gamma ** shortest\n" for n in range(9))
        + "    return value_8\n"
    )
    renamed = copied.replace("    return", "    # changed layout\n\n    return").replace(" + ", "+")
    other = (
        "def my_lookup(text, gamma, longest, shortest):\n"
        + "".join(f"    if gamma > {n}: longest = [x for x in text if x != {n}]\n" for n in range(9))
        + "    return longest\n"
    )

    def handed_in(code: str, own: str = "") -> dict[str, Any]:
        notebook = load("exercises", NAME)
        notebook["cells"].insert(0, {"cell_type": "code", "metadata": {}, "source": own, "outputs": []})
        for cell in notebook["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("grade_id") == "lookup":
                cell["source"] = code
        return receive(json.dumps(notebook).encode(), release).notebook

    class_of = {
        "ada": handed_in(copied),
        "bob": handed_in(renamed),
        "cem": handed_in(other),
        "dan": solved(),
        "eve": solved(),
        "fay": release,
        "broken": handed_in("def ((("),
    }
    assert [(one, two) for one, two, share in similar(class_of, [release, ours]) if share > 0.9] == [("ada", "bob")]
    elsewhere = handed_in("my_lookup = _f", copied.replace("my_lookup", "_f"))
    padded = handed_in("my_lookup = _f", copied.replace("my_lookup", "_f") + other.replace("gamma", "shortest"))
    explored = handed_in(copied, other.replace("longest", "gamma"))
    for mate in (elsewhere, padded):  # the copy stands in a cell of one's own
        for first in (handed_in(copied), explored):
            assert [pair[:2] for pair in similar({"ada": first, "bob": mate}, [release, ours])] == [("ada", "bob")]
    assert [pair[:2] for pair in similar({"ada": elsewhere, "bob": padded}, [release, ours])] == [("ada", "bob")]
    everybody = {f"s{n}": handed_in(copied) for n in range(6)}
    assert list(similar(everybody, [release, ours])) == []


@pytest.mark.parametrize(
    "value",
    [
        np.int64(10**15), SimpleNamespace(a=10**18), deque([10**18]), [{"a": (deque([np.int64(10**15)]),)}], range(10**9),
        range(10**15, 10**15 + 2), np.zeros((2, 10**6)), torch.zeros(2 * 10**6), "x" * 2 * 10**6, [0] * 20_000, object(),
        VALUES.unpack(["opaque", "T", "t", None, [10**18]]), VALUES.unpack(["namespace", [["a", 10**18]]]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_large_arguments_are_refused_whatever_holds_them(value: Any) -> None:
    with pytest.raises(ValueError, match=r"too large here|nothing that can be given"):
        small(["small", value], lambda given: False)


def test_ordinary_arguments_of_the_judge_s_functions_are_accepted() -> None:
    tree = DraftTree(torch.tensor([1, 2]), torch.tensor([-1, 0]))
    for value in (
        None, 1, 0.5, "a", [1, (2, {3})], {"a": [1]}, np.float32(1), np.arange(9), torch.arange(9), range(9), deque([1]),
        tree, ValueError("x"), torch.float64, SimpleNamespace(a=1), VALUES.unpack(["opaque", "T", "t", 1.0, [1]]),
    ):  # fmt: skip
        assert small(value, lambda given: False) is value
    assert small(small, lambda given: given is small) is small


@pytest.mark.parametrize("shape", [[2**40, 0], [0, 10**9], [10**9, 0, 1]])
def test_a_tensor_without_numbers_has_no_endless_list_of_rows(shape: list[int]) -> None:
    for packed in (["tensor", "float64", shape, "", None], ["array", "float64", shape, ""]):
        with pytest.raises(Garbled, match="impossible size"):
            VALUES.unpack(packed)
    assert VALUES.unpack(["tensor", "float64", [3, 0], "", None]).tolist() == [[], [], []]


def test_a_forged_error_is_cut_before_it_is_kept() -> None:
    forged = {"output_type": "error", "ename": "x" * 10**6, "evalue": "y" * 10**6, "traceback": ["z" * 10**6]}
    (error,) = _outputs([forged])
    assert len(json.dumps(error)) < 310_000


def test_it_is_said_where_answers_could_not_be_compared(tmp_path: Path) -> None:
    (tmp_path / "gradebook" / "submitted" / "ada" / NAME).mkdir(parents=True)
    (tmp_path / "gradebook" / "submitted" / "ada" / NAME / f"{NAME}.ipynb").write_text("{")
    (line,) = alike(Course(tmp_path, Allowance()), [NAME])
    assert line.startswith(f"not compared  {NAME}: ")
    assert "JSONDecodeError" in line


def test_an_answer_with_escape_sequences_is_read_in_a_terminal_without_them(tmp_path: Path) -> None:
    notebook = load("exercises", NAME)
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "prediction":
            cell["source"] = "\x1b[2Jmine \ud800"
    kept = receive(json.dumps(notebook).encode(), load("exercises", NAME)).notebook
    text = next(
        "".join(cell["source"])
        for cell in kept["cells"]
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "prediction"
    )
    assert "\x1b" not in shown(text, lines=True)
    assert "mine" in text
    (tmp_path / "x").write_text(text, encoding="utf-8")
