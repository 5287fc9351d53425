"""Text to work on, found on the machine itself: docstrings, short functions and paragraphs of documentation.

Only files under a permissive licence are read: the Python standard library (PSF), installed packages whose metadata
names such a licence, and Debian documentation whose machine-readable copyright file does. What is absent is skipped;
the standard library alone is enough. Nothing is stored: prompts are built from it while the corpus is generated.
"""

import ast
import importlib.metadata
import re
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["Material", "collect", "debian_files", "is_permissive", "read"]

_PERMISSIVE = re.compile(r"\b(MIT|Expat|BSD|0BSD|Apache|ISC|Zlib|PSF|Python Software Foundation|Unlicense|CC0)\b", re.I)
_RESTRICTED = re.compile(r"\b(GFDL|GPL|LGPL|AGPL|MPL|CC-BY-NC|CC-BY-ND|proprietary)\b", re.I)
_SKIPPED = re.compile(r"/(tests?|testing|_vendor|vendor|idlelib|lib2to3|site-packages|__pycache__|encodings)/")
_FILES_PER_PACKAGE = 25  # a package as large as torch must neither crowd out the others nor take minutes to parse
_LARGEST = 60_000  # bytes of a source file; larger ones are mostly tables


@dataclass(frozen=True, slots=True)
class Material:
    """Pools to draw from, sorted, so that a seed means the same draws on the same machine."""

    sentences: tuple[str, ...]  # what a function does, in one line of its docstring
    functions: tuple[str, ...]  # source of short functions
    paragraphs: tuple[str, ...]  # prose of 200 to 900 characters


def is_permissive(licence: str) -> bool:
    """True if the text names a permissive licence and no other. An empty or unknown licence is not permissive."""
    return bool(_PERMISSIVE.search(licence)) and not _RESTRICTED.search(licence)


@lru_cache(maxsize=1)
def collect() -> Material:
    """All that is found on this machine (10 to 60 s, once a process)."""
    library = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    return read(
        [*(path for path in library if not _SKIPPED.search(path.as_posix())), *_package_files()], debian_files()
    )


def read(sources: Iterable[Path], documents: Iterable[Path] = ()) -> Material:
    """Material from Python files and text files. A file that cannot be read or parsed is passed over."""
    sentences: set[str] = set()
    functions: set[str] = set()
    paragraphs: set[str] = set()
    for path in sources:
        for docstring, source in _definitions(path):
            sentences |= _sentence(docstring)
            functions |= _function(source)
            paragraphs.update(_paragraphs(docstring))
    for path in documents:
        paragraphs.update(_paragraphs(path.read_text("utf8", errors="ignore")))
    return Material(tuple(sorted(sentences)), tuple(sorted(functions)), tuple(sorted(paragraphs)))


def _package_files() -> Iterator[Path]:
    """Python files of installed packages under a permissive licence."""
    for package in sorted(importlib.metadata.distributions(), key=lambda d: str(d.metadata["Name"]).lower()):
        about: Any = package.metadata  # `get` is missing from its type before Python 3.12
        classifiers = [c for c in about.get_all("Classifier") or [] if c.startswith("License")]
        short = [line for line in (about.get("License") or "").splitlines()[:1] if len(line) < 60]
        if is_permissive(" ".join([about.get("License-Expression") or "", *short, *classifiers])):
            paths = (Path(str(package.locate_file(file))) for file in package.files or () if file.suffix == ".py")
            kept = sorted(path for path in paths if not _SKIPPED.search(path.as_posix().split("site-packages")[-1]))
            yield from kept[:: 1 + len(kept) // _FILES_PER_PACKAGE]


def debian_files(folder: Path = Path("/usr/share/doc")) -> Iterator[Path]:
    """README, NEWS and FAQ files of Debian packages whose copyright file names permissive licences only."""
    for copyright_file in sorted(folder.glob("*/copyright")):
        fields = re.findall(r"^License: *(.+)$", copyright_file.read_text("utf8", errors="ignore"), re.M)
        if fields and all(is_permissive(field) for field in fields):
            yield from sorted(
                path
                for name in ("README*", "NEWS*", "FAQ*")
                for path in copyright_file.parent.glob(name)
                if path.is_file() and path.suffix != ".gz"
            )


def _definitions(path: Path) -> Iterator[tuple[str, str]]:
    """(docstring, source) of every module, class and function; the source of functions only, else empty."""
    try:
        text = path.read_text("utf8") if path.stat().st_size <= _LARGEST else ""
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):  # unreadable, Python 2, or not UTF-8: one file less
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            source = lines[node.lineno - 1 : node.end_lineno] if isinstance(node, ast.FunctionDef) else []
            yield ast.get_docstring(node) or "", textwrap.dedent("\n".join(source))


def _sentence(docstring: str) -> set[str]:
    first = " ".join(docstring.split("\n\n")[0].split()).rstrip(".")
    plain = re.fullmatch(r"[A-Z][a-z]+ [\w ,'`()-]{20,110}", first)
    return {first} if plain and ":param" not in first else set()


def _function(source: str) -> set[str]:
    body = source.count("\n")
    fits = 2 <= body <= 22 and 60 <= len(source) <= 900 and source.isascii()
    return {source} if fits and source.startswith("def ") and not source.startswith("def test") else set()


def _paragraphs(text: str) -> Iterator[str]:
    for block in text.split("\n\n"):
        prose = " ".join(block.split())
        letters = sum(c.isalpha() or c in " ,." for c in prose)
        plain = prose.isascii() and letters > 0.94 * len(prose)
        if plain and 200 <= len(prose) <= 900 and ". " in prose and prose[0].isupper() and prose[-1] in ".!?":
            yield prose
