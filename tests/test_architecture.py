"""The shape of the package, read from its source: who may import whom, and how long things may get.

Imports point downward only. A function-level import counts like any other, for it is a dependency all the same; one
under TYPE_CHECKING counts for the direction, too, but closes no cycle, since it never runs.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "specdec_ref"

# From the bottom up. A module may import its own level and those below; within a level there is no cycle.
LEVELS = (
    {"core", "config", "palette", "text", "cache"},
    {"sampling", "randomness", "trees", "kernels"},
    {"models", "verifiers", "cost_model"},
    {"drafters", "weights", "adaptive", "metrics", "request", "baseline", "identity"},
    {"engine", "session", "training"},
    {
        "laws",
        "bench",
        "choose",
        "gpus",
        "exporters",
        "plots",
        "plots_rates",
        "plots_tree",
        "trace",
        "replay",
        "exposition",
        "grading",
    },
    {"cli", "widgets"},
)
CORE = {
    "core", "engine", "config", "sampling", "randomness", "request", "baseline", "adaptive", "metrics", "cost_model",
    "laws", "choose", "models", "trees", "drafters", "verifiers",
}  # fmt: skip
MAX_CORE_LINES, MAX_KERNEL_LINES, MAX_FILE_LINES, MAX_FUNCTION_LINES = 3665, 1800, 300, 40

# Who alone may import what: one place to look when the other project changes.
OWNERS = {"triton": "kernels/", "ipywidgets": "widgets/", "matplotlib": "plots", "nbgrader": "grading/"}
CACHE_OWNER = "models/kv_cache.py"  # and who alone may name transformers' cache classes


@dataclass(frozen=True)
class Import:
    """`name`, as a dotted path, is imported by `module` in that line."""

    module: str
    name: str
    line: int
    runs: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"


def sources() -> dict[str, Path]:
    """Dotted module name -> file."""
    files = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


SOURCES = sources()
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in SOURCES.items()}


def imports(module: str) -> list[Import]:
    return [found for found in IMPORTS if found.module == module]


def read_imports(module: str) -> Iterator[Import]:
    """All of a module's imports. `from package import name` names the submodule if there is one."""
    type_only = {
        id(node)
        for test in ast.walk(TREES[module])
        if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
        for branch in test.body
        for node in ast.walk(branch)
    }
    for node in ast.walk(TREES[module]):
        runs = id(node) not in type_only
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, node.lineno, runs) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:  # ruff forbids relative ones
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(module, full if full in SOURCES else str(node.module), node.lineno, runs)


IMPORTS = [found for module in SOURCES for found in read_imports(module)]


def part(module: str) -> str:
    """The name in LEVELS that a module belongs to; "" for the package's own __init__ and any __main__, above them all."""
    return "" if module.endswith(".__main__") else module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]


def level(module: str) -> int:
    name = part(module)
    return next((i for i, names in enumerate(LEVELS) if name in names), len(LEVELS))


def internal() -> list[Import]:
    return [found for found in IMPORTS if found.name.partition(".")[0] == PACKAGE]


def test_every_module_has_a_level() -> None:
    unknown = {part(module) for module in SOURCES} - {""} - set().union(*LEVELS)
    assert unknown == set(), "say in LEVELS where these stand"


def test_imports_point_downward() -> None:
    found = internal()
    assert len(found) > 50, "the walk over the imports is broken"
    assert [str(i) for i in found if level(i.name) > level(i.module)] == []


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for found in internal():
        if found.runs and found.name != found.module:
            graph[found.module].add(found.name)
    while leaves := {module for module, needed in graph.items() if not needed}:
        graph = {module: needed - leaves for module, needed in graph.items() if module not in leaves}
    assert graph == {}, "these import each other in a circle, or something that does"


@pytest.mark.parametrize(("library", "owner"), OWNERS.items())
def test_one_owner_a_library(library: str, owner: str) -> None:
    strangers = [
        str(found)
        for module, path in SOURCES.items()
        if not path.relative_to(ROOT / PACKAGE).as_posix().startswith(owner)
        for found in imports(module)
        if found.name.partition(".")[0] == library
    ]
    assert strangers == [], f"only {owner} imports {library}"


def test_only_kv_cache_names_transformers_cache_classes() -> None:
    from transformers import cache_utils

    classes = {name for name, value in vars(cache_utils).items() if isinstance(value, type) and "Cache" in name}
    assert {"DynamicCache", "Cache"} <= classes
    namers = {
        SOURCES[module].relative_to(ROOT / PACKAGE).as_posix()
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in classes)
        or (isinstance(node, ast.Attribute) and node.attr in classes)
        or (isinstance(node, ast.alias) and node.name in classes)
        or (isinstance(node, ast.ImportFrom) and node.module == "transformers.cache_utils")
    }
    assert namers == {CACHE_OWNER}


def code_lines(module: str) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings, which the house rules ask for in plenty."""
    tree = TREES[module]
    documented = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    prose = {
        line
        for node in documented
        if ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    source = SOURCES[module].read_text(encoding="utf-8")
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in blank]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - prose)


def test_core_stays_small() -> None:
    lines = {module: code_lines(module) for module in SOURCES if part(module) in CORE}
    assert lines[f"{PACKAGE}.trees.masks"] > 10, "the count is broken"
    assert sum(lines.values()) <= MAX_CORE_LINES, lines
    kernels = {module: code_lines(module) for module in SOURCES if part(module) == "kernels"}
    assert sum(kernels.values()) <= MAX_KERNEL_LINES, kernels


def test_files_stay_short() -> None:
    lines = {m: len(path.read_text(encoding="utf-8").splitlines()) for m, path in SOURCES.items()}
    assert {module: count for module, count in lines.items() if count > MAX_FILE_LINES} == {}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}.{node.name}", node


def test_functions_stay_short() -> None:
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_asserts_only_narrow_types() -> None:
    """`python -O` drops asserts, so they check no input; one that tells the type checker something says so."""
    bare = []
    for module, tree in TREES.items():
        lines = SOURCES[module].read_text(encoding="utf-8").splitlines()
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        bare += [f"{module}:{n.lineno}" for n in found if "type checker" not in lines[(n.end_lineno or n.lineno) - 1]]
    assert bare == []


def test_module_state_does_not_change() -> None:
    """A list, dict or set at module level is a table: it has a constant's name, or is `__all__`."""
    loose = [
        f"{module}:{node.lineno} {target.id}"
        for module, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and not target.id.isupper() and target.id != "__all__"
        if isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
    ]
    assert loose == []


def test_annotations_are_objects_where_shapes_are_checked() -> None:
    """jaxtyping reads annotations when a function is defined: `from __future__ import annotations` would hide them."""
    hidden = [
        module
        for module in SOURCES
        if {"__future__", "jaxtyping"} <= {found.name.partition(".")[0] for found in imports(module)}
    ]
    assert hidden == []


def test_readme_says_what_every_file_is() -> None:
    """README's tree and the real one are the same, __init__ and __main__ aside."""
    told, folder = set(), ""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").partition(f"```\n{PACKAGE}/\n")[2].splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        if indent == 0:  # the package is over
            break
        folder = folder if indent > 2 else ""
        if name.endswith("/"):
            folder = name
        else:
            assert len(line.split()) > 1, f"{name} needs a phrase"
            told.add(f"{folder}{name}")
    real = {path.relative_to(ROOT / PACKAGE).as_posix() for path in SOURCES.values() if not path.name.startswith("__")}
    assert told == real
