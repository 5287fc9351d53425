"""nbgrader's Formgrader shows students' notebooks in your JupyterLab's own origin: here, nothing of theirs runs there.

By default it renders their Markdown and their outputs as they are, scripts included. With these settings Markdown is
cleaned after it was rendered, outputs keep text, pictures and a few tags, and TeX that makes links is cut.
"""

import re
from typing import Any

import bleach
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import output_from_msg
from traitlets.config import Config

from specdec_course.grader.harmless import LONGEST_HTML, TAGS, TEX, message, nesting, unicode_only

__all__ = ["OnlyText", "harden", "markdown"]

PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
MORE = {"h1", "h2", "h3", "h4", "h5", "h6", "a", "img", "em", "strong", "del", "hr", "blockquote", "sup", "sub"}
DEEPEST = 100


def harden(config: Config) -> None:
    """Settings of the exporter that makes Formgrader's pages."""
    config.HTMLExporter.sanitize_html = True
    config.HTMLExporter.preprocessors = ["specdec_course.grader.formgrader.OnlyText"]
    config.HTMLExporter.filters = {"markdown2html": markdown}


class OnlyText(Preprocessor):
    """Of outputs and raw cells, what cannot run. Markdown is the filter's."""

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """One cell."""
        if cell.cell_type == "raw":
            cell.source = bleach.clean(TEX.sub(r"\1", cell.source[:LONGEST_HTML]), tags=set())
        elif cell.cell_type == "code":
            told = [message({"msg_type": each.output_type, "content": each}) for each in cell.outputs]
            cell.outputs = [output_from_msg({**each, "header": each}) for each in told]
        return cell, resources


@pass_context
def markdown(context: Context, source: str) -> str:
    """The filter of nbconvert's templates, with a cleaned result. What is too long or nested is shown as plain text."""
    source = TEX.sub(r"\1", unicode_only(source))
    if len(source) > LONGEST_HTML or nesting(source) > DEEPEST:
        return f"<pre>{bleach.clean(source[:LONGEST_HTML], tags=set())}</pre>"
    attachments = context.get("cell", {}).get("attachments", {})
    renderer: Any = IPythonRenderer(
        escape=False, attachments=attachments, embed_images=False, exclude_anchor_links=True
    )
    html = MarkdownWithMath(renderer=renderer).render(source)
    return str(bleach.clean(html, tags=TAGS | MORE, attributes=_allowed, protocols={"http", "https", "mailto", "data"}))


def _allowed(tag: str, name: str, value: str) -> bool:
    """No picture from elsewhere, which would report who looks at it, and links to the web alone."""
    if tag == "img":
        return name == "alt" or (name == "src" and PICTURE.fullmatch(value) is not None)
    return tag == "a" and name == "href" and value.startswith(("http://", "https://", "mailto:", "#"))
