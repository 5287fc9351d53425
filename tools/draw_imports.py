"""Draw which subpackage imports which, as text: the lowest first, each with those below it that it imports.

    python tools/draw_imports.py

A module at the top of a package counts as a part of its own. Imports inside functions count; those under TYPE_CHECKING
never run and are left out. tests/test_architecture.py checks that no modules import each other in a circle. Two folders
can still import each other, and are named at the end. Exits with 1 if specdec_ref imports the course or the benchmarks.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

__all__ = ["draw", "edges"]

ROOT = Path(__file__).parent.parent
PACKAGES = ("specdec_ref", "specdec_course", "benchmarks")


def part(module: str) -> str:
    """The subpackage or top-level module of a dotted name: specdec_ref.models.hub is in specdec_ref.models."""
    return ".".join(module.split(".")[:2])


def edges(root: Path = ROOT) -> dict[str, set[str]]:
    """Part -> the parts that it imports when it runs, itself left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            names = path.relative_to(root).with_suffix("").parts
            module = ".".join(names[:-1] if names[-1] == "__init__" else names)
            if module == package or names[-1] == "__main__":
                continue  # a package's own __init__ offers names of all its parts, lazily
            found[part(module)] |= {part(name) for name in _imported(path)} - {part(module), *PACKAGES}
    return {name: needed & found.keys() for name, needed in found.items()}


def _imported(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
        for branch in test.body
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = node.module if "." in node.module else None
            yield from (inside or f"{node.module}.{alias.name}" for alias in node.names)


def together(graph: dict[str, set[str]]) -> dict[str, frozenset[str]]:
    """Part -> the parts that it imports and that import it, directly or through others; itself included."""

    def reached(start: str) -> set[str]:
        seen, todo = {start}, [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    reach = {name: reached(name) for name in graph}
    return {name: frozenset(other for other in reach[name] if name in reach[other]) for name in graph}


def draw(graph: dict[str, set[str]]) -> tuple[str, list[str]]:
    """The drawing, floor by floor, and what is wrong: arrows from the reference to the course or the benchmarks."""
    knots = together(graph)
    left, lines, floor = dict(graph), list[str](), 0
    while left:
        free = sorted(name for name in left if all(not graph[each] & left.keys() - knots[name] for each in knots[name]))
        lines.append(f"floor {floor}")
        lines += [f"  {name:<28}{' '.join(sorted(graph[name])) or '-'}" for name in free]
        left = {name: needed for name, needed in left.items() if name not in free}
        floor += 1
    wrong = [
        f"{name} imports {other}"
        for name, needed in graph.items()
        for other in sorted(needed)
        if name.startswith("specdec_ref.") and not other.startswith("specdec_ref.")
    ]
    both = [" and ".join(sorted(knot)) for knot in sorted(set(knots.values()), key=sorted) if len(knot) > 1]
    end = [f"{len(graph)} parts, {sum(map(len, graph.values()))} arrows, {floor} floors"]
    end.append(f"folders that import each other, though no module does: {'; '.join(both) or 'none'}")
    end.append(f"arrows from specdec_ref to the course or the benchmarks: {'; '.join(wrong) or 'none'}")
    return "\n".join([*lines, "", *end]), wrong


def main() -> int:
    """Print the drawing; the exit code is 1 if something is wrong."""
    text, wrong = draw(edges())
    print(text)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
