"""Sphinx's settings. `tools/build_site.py` lays the pages out under build/site-source and calls Sphinx with them."""

import json
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese

project = "specdec_ref"
author = "The specdec-ref authors"
language = os.environ.get("SITE_LANGUAGE", "en")
chinese = language == "zh_CN"
html_title = "投机解码" if chinese else "Speculative decoding"
extensions = ["myst_nb", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["solutions"]  # linked as files, not as pages
suppress_warnings = ["ref.python"]  # two classes of one name in two modules: the link takes the first

nb_execution_mode = "off"  # the outputs that are committed are the ones that are shown
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
myst_url_schemes = {"http": None, "https": None, "mailto": None, "up": "{{path}}"}  # up: a page of the other edition
copybutton_exclude = ".linenos, .gp, .go"

add_module_names = False
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 90
python_use_unqualified_type_names = True

html_theme = "furo"
html_static_path = ["static"]
templates_path = ["templates"]
html_sidebars = {
    "**": ["sidebar/brand.html", "sidebar/language.html", "sidebar/search.html", "sidebar/scroll-start.html",
           "sidebar/navigation.html", "sidebar/scroll-end.html"]
}  # fmt: skip
html_css_files = ["specdec.css", "play.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False
html_math_renderer = "katex"
html_search_scorer = str(Path(__file__).parent / "static" / "scorer.js")
html_theme_options: dict[str, Any] = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#00639b"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#7cc4ee"},
}
pygments_style = "github-light"
pygments_dark_style = "github-dark"


PLAYED = {  # what a page needs scripts for
    "data-explorer=": ("words.js", "model.js", "explorers.js"),
    "data-runs=": ("words.js", "replay.js"),
}


class Characters(SearchChinese):
    """Chinese has no spaces: every run of two to four characters is a word that can be searched for."""

    language_name = "English"  # whose stemmer Latin words take; Sphinx 9.0 would ask the browser for a Chinese one

    def split(self, text: str) -> list[str]:
        """Those, and the Latin words."""
        runs = re.findall(r"[\u4e00-\u9fff]+", text)
        found = [run[i : i + size] for run in runs for size in (2, 3, 4) for i in range(len(run) - size + 1)]
        return found + self.latin1_letters.findall(text)


def _other(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Where the same page is in the other language."""
    if page in json.loads(Path(app.srcdir, "languages.json").read_text(encoding="utf-8")):
        up = "../" * page.count("/")
        context["other_language"] = f"{up}../{page}.html" if chinese else f"{up}zh/{page}.html"
        context["other_name"], context["other_code"] = ("English", "en") if chinese else ("中文", "zh-CN")


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(f'<span class="math">{writer.encode(node.astext())}</span>')
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{writer.encode(node.astext())}</div>')
    raise nodes.SkipNode


def _load(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """KaTeX where there is mathematics, and only there."""
    if doctree is not None and any(doctree.findall(lambda node: isinstance(node, nodes.math | nodes.math_block))):
        app.add_css_file("katex/katex.min.css")
        app.add_js_file("katex/katex.min.js", loading_method="defer")
        app.add_js_file("mathematics.js", loading_method="defer")


def _scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Explorers and the replay where a page holds one."""
    body = str(context.get("body", ""))
    names = [name for mark, names in PLAYED.items() if mark in body for name in names]
    for name in dict.fromkeys(names):
        app.add_js_file(name, loading_method="defer")


def _described(app: Sphinx, doctree: nodes.document) -> None:
    """The words that a notebook keeps for each of its pictures; MyST-NB names a picture after the hash of its bytes."""
    words = json.loads(Path(app.srcdir, "pictures.json").read_text(encoding="utf-8"))
    for image in doctree.findall(nodes.image):
        if alt := words.get(Path(image["uri"]).stem):
            image["alt"] = alt


def _unsearched(app: Sphinx, doctree: nodes.document) -> None:
    """An exercise's notebook has hints: search finds its overview instead."""
    page = app.env.docname
    if re.fullmatch(r"exercises/(\w+)/\1", page):
        app.env.metadata[page]["nosearch"] = "true"


def setup(app: Sphinx) -> dict[str, Any]:
    """Mathematics is left as TeX in the page, which KaTeX, vendored under static/, draws."""
    app.add_html_math_renderer("katex", (_inline, None), (_block, None))
    app.add_search_language(Characters)
    app.connect("html-page-context", _load)
    app.connect("html-page-context", _other)
    app.connect("html-page-context", _scripts)
    app.connect("doctree-read", _described)
    app.connect("doctree-read", _unsearched)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
