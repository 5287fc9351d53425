"""The shape of the package, read from its source: who may import whom, and how long things may get.

Imports point downward only. A function-level import counts like any other, for it is a dependency all the same; one
under TYPE_CHECKING counts for the direction, too, but closes no cycle, since it never runs.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("specdec_ref", "specdec_course", "benchmarks")

# From the bottom up. A module may import its own level and those below; within a level there is no cycle.
LEVELS = (
    {"core", "config", "palette", "text", "transfer", "workloads", "machine", "cache", "web"},
    {"sampling", "randomness", "trees", "kernels"},
    {"models", "verifiers", "cost_model"},
    {"drafters", "weights", "adaptive", "tiers", "metrics", "request", "baseline", "identity"},
    {"engine", "training"},
    {"session", "calibrate", "hf_generate"},
    {"exact", "bench", "choose", "gpus", "exporters", "plots", "trace", "replay", "exposition", "engines"},
    {"cli"},
)
ABOVE = {
    "specdec_course": len(LEVELS),
    "benchmarks": len(LEVELS),
}  # above every module of the reference, not each other
COURSE = (
    {"checks", "plots", "measured", "memory", "practice", "tables"},
    {"widgets", "capstone", "grader"},
    {"cli"},
)  # the course's own levels
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40

# Who alone may import what: one place to look when the other project changes.
OWNERS = {
    "triton": ("specdec_ref/kernels/", "specdec_course/grader/launch.py"), "ipywidgets": ("specdec_course/widgets/",), "nbgrader": ("specdec_course/grader/",),
    "xllamacpp": ("specdec_ref/engines/llamacpp.py",),
    "matplotlib": ("specdec_ref/plots.py", "specdec_course/plots.py", "specdec_course/measured.py", "specdec_course/memory.py"),
}  # fmt: skip
CACHE_OWNER = "specdec_ref/models/kv_cache.py"  # and who alone may name transformers' cache classes


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
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
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
    """The name in LEVELS or COURSE that a module belongs to; "" for a package's own __init__ and any __main__."""
    return "" if module.endswith(".__main__") else module.partition(".")[2].partition(".")[0]


def level(module: str) -> float:
    """Height of a module. The reference's __init__, which offers names of all its levels lazily, is above them."""
    package, name = module.partition(".")[0], part(module)
    if package == "specdec_ref":
        return next((i for i, names in enumerate(LEVELS) if name in names), len(LEVELS) - 0.5)
    if package == "specdec_course":
        return ABOVE[package] + next((i for i, names in enumerate(COURSE) if name in names), 0)
    return ABOVE[package]


def internal() -> list[Import]:
    return [found for found in IMPORTS if found.name.partition(".")[0] in PACKAGES]


def test_every_module_has_a_level() -> None:
    named = {"specdec_ref": set().union(*LEVELS), "specdec_course": set().union(*COURSE)}
    for package, names in named.items():
        found = {part(module) for module in SOURCES if module.partition(".")[0] == package} - {""}
        assert found == names, f"name the level of each part of {package} in LEVELS or COURSE"


def test_imports_point_downward() -> None:
    found = internal()
    assert len(found) > 50, "the walk over the imports is broken"
    assert [str(i) for i in found if level(i.name) > level(i.module) and i.name != "specdec_ref"] == []


def test_reference_needs_neither_course_nor_benchmarks() -> None:
    arrows = [(found.module.partition(".")[0], found.name.partition(".")[0], str(found)) for found in internal()]
    wrong = {("specdec_ref", "specdec_course"), ("specdec_ref", "benchmarks"), ("specdec_course", "benchmarks")}
    assert [text for source, needed, text in arrows if (source, needed) in wrong] == []
    assert ("specdec_course", "specdec_ref") in {(source, needed) for source, needed, _ in arrows}


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for found in internal():
        if found.runs and found.name != found.module:
            graph[found.module].add(found.name)
    while leaves := {module for module, needed in graph.items() if not needed}:
        graph = {module: needed - leaves for module, needed in graph.items() if module not in leaves}
    assert graph == {}, "these import each other in a circle, or something that does"


@pytest.mark.parametrize(("library", "owners"), OWNERS.items())
def test_one_owner_a_library(library: str, owners: tuple[str, ...]) -> None:
    strangers = [
        str(found)
        for module, path in SOURCES.items()
        if not path.relative_to(ROOT).as_posix().startswith(owners)
        for found in imports(module)
        if found.name.partition(".")[0] == library
    ]
    assert strangers == [], f"only {', '.join(owners)} may import {library}"


def test_only_kv_cache_names_transformers_cache_classes() -> None:
    from transformers import cache_utils

    classes = {name for name, value in vars(cache_utils).items() if isinstance(value, type) and "Cache" in name}
    assert {"DynamicCache", "Cache"} <= classes
    namers = {
        SOURCES[module].relative_to(ROOT).as_posix()
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in classes)
        or (isinstance(node, ast.Attribute) and node.attr in classes)
        or (isinstance(node, ast.alias) and node.name in classes)
        or (isinstance(node, ast.ImportFrom) and node.module == "transformers.cache_utils")
    }
    assert namers == {CACHE_OWNER}


def test_files_stay_short() -> None:
    lines = {m: len(path.read_text(encoding="utf-8").splitlines()) for m, path in SOURCES.items()}
    assert {module: count for module, count in lines.items() if count > MAX_FILE_LINES} == {}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}.{node.name}", node


def test_functions_stay_short() -> None:
    """Counted from the docstring on: a signature with a parameter per line makes nothing harder to read."""
    lengths = {name: (node.end_lineno or 0) - node.body[0].lineno + 1 for name, node in functions()}
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


def test_architecture_page_describes_every_file() -> None:
    """The trees in docs/ARCHITECTURE.md and the real ones are the same, __init__ and __main__ aside."""
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for package in PACKAGES:
        described, folders = set(), [""]
        for line in page.partition(f"```\n{package}/\n")[2].partition("```")[0].splitlines():
            name, *phrase = line.split()
            del folders[(len(line) - len(line.lstrip())) // 2 :]
            if name.endswith("/"):
                folders.append(name)
            else:
                assert phrase, f"{name} needs a phrase"
                described.add("".join(folders) + name)
        inside = (
            path.relative_to(ROOT / package).as_posix()
            for path in SOURCES.values()
            if path.is_relative_to(ROOT / package)
        )
        assert described == {path for path in inside if not path.rpartition("/")[2].startswith("__")}, package
