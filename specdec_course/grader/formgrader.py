"""nbgrader's Formgrader shows students' notebooks in your JupyterLab's own origin: here, nothing of theirs runs there.

By default it renders their Markdown and their outputs as they are, scripts included. With these settings Markdown is
cleaned after it was rendered, outputs are cleaned by nbconvert, and TeX commands that make links or set styles are cut.
"""

import re
from typing import Any

import bleach
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

from specdec_course.grader.harmless import LONGEST_HTML, TAGS, TEX, nesting, unicode_only

__all__ = ["harden", "markdown"]

PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
MORE = {"h1", "h2", "h3", "h4", "h5", "h6", "a", "img", "em", "strong", "del", "hr", "blockquote", "sup", "sub"}
DEEPEST = 100


def harden(config: Config) -> None:
    """Settings of the exporter that makes Formgrader's pages."""
    config.HTMLExporter.sanitize_html = True
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.sanitize.SanitizeHTML"]
    config.SanitizeHTML.enabled = True
    config.SanitizeHTML.safe_output_keys = {"metadata", "text/plain", "image/png", "image/jpeg"}
    config.SanitizeHTML.sanitized_output_types = {"text/html"}
    config.HTMLExporter.filters = {"markdown2html": markdown}


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
