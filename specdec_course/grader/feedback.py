"""A page for a student: what each task earned, what they wrote, what the tests said, hidden ones included.

One file, a few dozen kB, which asks the network for nothing and runs nothing: what a notebook printed is cleaned, and
the page's policy forbids scripts besides.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from specdec_course.checks.report import AHEAD
from specdec_course.grader.harmless import clean_html, shown, unicode_only
from specdec_course.grader.marks import Mark
from specdec_course.grader.sources import role, source
from specdec_ref.palette import PALETTE

__all__ = ["page", "plain_page"]

LONG, LONG_CODE = 4_000, 30_000  # characters of a traceback or of printed text, and of code, that the page shows
LONG_PRINTED = 400_000  # characters of HTML, of all that one cell of the student's printed
CODE = HtmlFormatter(noclasses=True, style="friendly", nobackground=True)

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1f2328; background: #fff;
  max-width: 56rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
header { display: flex; justify-content: space-between; align-items: end; gap: 1rem; flex-wrap: wrap;
  border-bottom: 2px solid #1f2328; padding-bottom: .8rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; } h2 { font-size: 1.15rem; margin: 0; }
h3 { font-size: .8rem; text-transform: uppercase; letter-spacing: .06em; color: #59636e; margin: 1.1rem 0 .3rem; }
.who { color: #59636e; margin: .2rem 0 0; } .total { font-size: 1.6rem; font-weight: 650; white-space: nowrap; }
.total small { font-size: .95rem; font-weight: 400; color: #59636e; }
.note { background: #fff8e6; border-left: 4px solid DRAFT; padding: .6rem .9rem; margin: 1rem 0; }
.note p { margin: .2rem 0; }
table.tasks { width: 100%; border-collapse: collapse; margin: 1.3rem 0; }
table.tasks td { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid #e3e6ea; }
table.tasks td:last-child { text-align: right; white-space: nowrap; padding-right: 0; }
meter { width: 9rem; height: .8rem; }
a { color: TARGET; text-decoration: none; } a:hover { text-decoration: underline; }
section { border-top: 1px solid #d1d9e0; margin-top: 2rem; padding-top: 1.2rem; }
section > div:first-child { display: flex; justify-content: space-between; gap: 1rem; }
.points { font-weight: 650; white-space: nowrap; } .full { color: ACCEPTED; } .none { color: REJECTED; }
pre { background: #f6f8fa; border-radius: 6px; padding: .7rem .9rem; overflow-x: auto; margin: .3rem 0;
  font: 13.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre.error { background: #fdf1ec; white-space: pre-wrap; overflow-wrap: anywhere; }
.said table { border-collapse: collapse; }
.said td { padding: .25rem .6rem .25rem 0; vertical-align: top; } .said p { margin: .4rem 0; }
.answer { white-space: pre-wrap; background: #f6f8fa; border-radius: 6px; padding: .7rem .9rem; }
details summary { cursor: pointer; color: #59636e; }
.comment { border-left: 4px solid TARGET; padding: .2rem .9rem; margin: .8rem 0; }
@media print { section { break-inside: avoid; } pre { white-space: pre-wrap; } }
"""
for _name, _colour in PALETTE.items():
    STYLE = STYLE.replace(_name.upper(), _colour)


@dataclass(slots=True)
class _Task:
    title: str
    mark: Mark
    code: str = ""
    answer: str | None = None
    printed: str = ""  # by the student's cell
    said: str = ""  # by the tests


def page(notebook: dict[str, Any], student: str, marks: Sequence[Mark], notes: Sequence[str]) -> str:
    """The page of one graded notebook. `marks`: of all its tasks."""
    tasks = list(_tasks(notebook, {mark.task: mark for mark in marks}))
    earned, out_of = sum(mark.points or 0.0 for mark in marks), sum(mark.out_of for mark in marks)
    unread = sum(mark.out_of for mark in marks if mark.points is None)
    more = f"<br><small>{unread:g} more are still to be read</small>" if unread else ""
    said = f"<div class='note'>{''.join(f'<p>{escape(shown(note))}</p>' for note in notes)}</div>" if notes else ""
    rows = "".join(
        f"<tr><td><a href='#task-{i}'>{escape(task.title)}</a></td><td>{_meter(task.mark)}</td>"
        f"<td>{_points(task.mark)}</td></tr>"
        for i, task in enumerate(tasks)
    )
    body = f"{said}<table class='tasks'>{rows}</table>{''.join(map(_section, range(len(tasks)), tasks))}"
    return _whole(_title(notebook), student, f"{earned:g} <small>of {out_of:g} points</small>{more}", body)


def plain_page(title: str, student: str, marks: Sequence[Mark], notes: Sequence[str]) -> str:
    """Points and notes alone, where the whole page cannot be made: nothing of the notebook is read."""
    said = f"<div class='note'>{''.join(f'<p>{escape(shown(note))}</p>' for note in notes)}</div>"
    rows = "".join(
        f"<tr><td>{escape(mark.task)}</td><td>{_meter(mark)}</td><td>{_points(mark)}</td></tr>" for mark in marks
    )
    earned, out_of = sum(mark.points or 0.0 for mark in marks), sum(mark.out_of for mark in marks)
    total = f"{earned:g} <small>of {out_of:g} points</small>"
    return _whole(title, student, total, f"{said}<table class='tasks'>{rows}</table>")


def _whole(title: str, student: str, total: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}: {escape(student)}</title><style>{STYLE}</style></head><body>"
        f"<header><div><h1>{escape(title)}</h1><p class='who'>{escape(student)}</p></div>"
        f"<div class='total'>{total}</div></header>{body}</body></html>\n"
    )


def _tasks(notebook: dict[str, Any], marks: dict[str, Mark]) -> Iterator[_Task]:
    title, code, printed = "", "", ""
    for cell in notebook["cells"]:
        text, kind = source(cell), role(cell)
        if cell["cell_type"] == "markdown" and (heading := re.match(r"## (Task .*)", text)):
            title = heading[1]
        if kind == "solution":
            code, printed = text, _printed(cell.get("outputs", []))
        elif kind in ("tests", "manual"):
            name = cell["metadata"]["nbgrader"]["grade_id"]
            if name in marks:
                heard = "".join(_heard(cell.get("outputs", [])))
                if kind == "tests":
                    yield _Task(title or name, marks[name], code, None, printed, heard)
                else:
                    yield _Task(f"{title or name}, in words", marks[name], "", text, printed, heard)
            code = printed = ""


def _printed(outputs: Sequence[dict[str, Any]]) -> str:
    """What a student's cell printed or displayed, up to a length that a page can have."""
    found, length = list[str](), 0
    for output in outputs:
        found.append(_output(output))
        length += len(found[-1])
        if length > LONG_PRINTED:
            return "".join([*found[:-1], "<p>[cut off here]</p>"])
    return "".join(found)


def _heard(outputs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What a graded cell said: the report that was in the release as well, then those of the hidden tests."""
    reports = 0
    for output in outputs:
        reports += output["output_type"] == "display_data"
        if reports == 2 and output["output_type"] == "display_data":
            yield "<h3>What the hidden tests say</h3>"
        yield _output(output).replace(AHEAD, "")


def _section(number: int, task: _Task) -> str:
    answer = (
        ""
        if task.answer is None
        else f"<h3>Your answer</h3><div class='answer'>{escape(shown(task.answer, lines=True))}</div>"
    )
    code = f"<h3>Your code</h3>{_code(shown(task.code, lines=True))}" if task.code else ""
    printed = (
        f"<h3>What your cell printed (it does not count)</h3><div class='said'>{task.printed}</div>"
        if task.printed
        else ""
    )
    said = f"<h3>What the tests say</h3><div class='said'>{task.said}</div>" if task.said else ""
    comment = f"<p class='comment'>{escape(task.mark.comment)}</p>" if task.mark.comment else ""
    head = f"<div><h2>{escape(task.title)}</h2>{_points(task.mark)}</div>"
    return f"<section id='task-{number}'>{head}{comment}{answer}{code}{printed}{said}</section>"


def _code(code: str) -> str:
    if len(code) > LONG_CODE:
        return f"<pre>{escape(code[:LONG_CODE])}\n[cut off here]</pre>"
    return str(highlight(code, PythonLexer(), CODE))


def _output(output: dict[str, Any]) -> str:
    kind = output["output_type"]
    if kind == "error":
        trace = _cut(_plain("\n".join(output["traceback"])))
        name, value = (escape(_cut(_plain(output[key]))) for key in ("ename", "evalue"))
        first = f"<pre class='error'>{name}: {value}</pre>"
        more = f"<details><summary>where</summary><pre class='error'>{escape(trace)}</pre></details>"
        return first + (more if trace.count("\n") > 1 else "")
    if kind == "stream":
        return (
            f"<pre{' class=error' if output['name'] == 'stderr' else ''}>{escape(_cut(_plain(output['text'])))}</pre>"
        )
    data = output["data"]
    if "text/html" in data and (cleaned := clean_html(_joined(data["text/html"]))) is not None:
        return cleaned
    return f"<pre>{escape(_cut(_plain(data.get('text/plain', ''))))}</pre>"


def _points(mark: Mark) -> str:
    if mark.points is None:
        return f"<span class='points'>to be read, of {mark.out_of:g}</span>"
    style = "full" if mark.points >= mark.out_of else "" if mark.points else "none"
    return f"<span class='points {style}'>{mark.points:g} of {mark.out_of:g}</span>"


def _meter(mark: Mark) -> str:
    return "" if mark.points is None else f"<meter max='{mark.out_of:g}' value='{mark.points:g}'></meter>"


def _title(notebook: dict[str, Any]) -> str:
    texts = (source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return next((found[1] for text in texts if (found := re.match(r"# (.*)", text))), "Exercise")


def _joined(text: Any) -> str:
    return unicode_only(
        text if isinstance(text, str) else "".join(map(str, text)) if isinstance(text, list) else str(text)
    )


def _plain(text: Any) -> str:
    return shown(re.sub(r"\x1b\[[0-9;]*m", "", _joined(text)), lines=True)


def _cut(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]}\n[cut off here]"
