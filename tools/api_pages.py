"""Pages of reference from the source: docs/ARCHITECTURE.md gives order and phrases, docstrings and signatures the rest.

Nothing is imported, so a page does not depend on the machine that makes it. A docstring is read as Markdown: what is
indented is shown as it is, which is how this package writes its equations.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Group", "Module", "groups", "write"]

PACKAGE = "specdec_ref"
TITLES = {
    "core": "The core: nouns and loop", "models": "Models and their caches", "kernels": "Verification kernels",
    "trees": "Trees", "drafters": "Drafters", "weights": "Weights", "verifiers": "Verifiers", "training": "Training",
    "bench": "Measuring", "workloads": "Prompts", "engines": "Other engines",
    "exporters": "Launch commands", "cli": "The command line",
}  # fmt: skip
TOPICS = {
    "How a token is made": ("core", "models", "verifiers", "trees", "kernels"),
    "Where guesses come from": ("drafters", "weights", "training"),
    "Measuring and choosing": ("bench", "workloads"),
    "On the command line, and with other engines": ("cli", "engines", "exporters"),
}
INDEX = """# Reference

Everything in the package, by topic. Each page shows what a file offers, and below it the file.

{topics}

```{{toctree}}
:maxdepth: 1
:hidden:

{pages}
```
"""


@dataclass(frozen=True, slots=True)
class Module:
    """A file of the package, relative to it, and the map's phrase about it."""

    path: str
    phrase: str

    @property
    def dotted(self) -> str:
        """Its import name."""
        return f"{PACKAGE}.{self.path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


@dataclass(frozen=True, slots=True)
class Group:
    """A folder, or neighbours at the top of the map."""

    name: str
    modules: tuple[Module, ...]

    @property
    def is_folder(self) -> bool:
        """False for files at the top."""
        return "/" in self.modules[0].path


def groups(page: str) -> list[Group]:
    """The package's part of the file map."""
    _, _, rest = page.partition(f"\n{PACKAGE}/\n")
    found: list[tuple[str, list[Module]]] = []
    folder = ""
    for line in rest.splitlines():
        entry = re.match(r"( +)([\w./-]+) *(.*)", line)
        if not entry:
            break
        indent, name, phrase = entry.groups()
        if len(indent) == 2 and name.endswith("/"):
            folder = name
            found.append((name.rstrip("/"), []))
        elif name.endswith(".py"):
            inside = len(indent) > 2
            if not inside and (folder or not found):
                folder = ""
                found.append((name.removesuffix(".py"), []))
            found[-1][1].append(Module((folder if inside else "") + name, phrase))
    return [Group(name, tuple(modules)) for name, modules in found]


def write(root: Path, into: Path) -> None:
    """One page a module, one a group, and their index, under `into`. Raises KeyError for a group without a title."""
    listed = groups((root / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    into.mkdir(parents=True, exist_ok=True)
    pages = "\n".join(f"group-{group.name}" for group in listed)
    (into / "index.md").write_text(INDEX.format(pages=pages, topics="\n\n".join(_by_topic(listed))), encoding="utf-8")
    for group in listed:
        (into / f"group-{group.name}.md").write_text(group_page(root, group), encoding="utf-8")
        for module in group.modules:
            page = into / f"{module.path.removesuffix('.py')}.md"
            page.parent.mkdir(exist_ok=True)
            page.write_text(module_page(root, module, group), encoding="utf-8")


def _by_topic(listed: Sequence[Group]) -> Iterator[str]:
    """A heading per topic, and below it each of its groups with its files. Raises KeyError for a group in no topic."""
    topic_of = {name: topic for topic, names in TOPICS.items() for name in names}
    for topic in TOPICS:
        yield f"## {topic}"
        for group in (group for group in listed if topic_of[group.name] == topic):
            files = ", ".join(
                f"[`{Path(module.path).name}`]({module.path.removesuffix('.py')}.md)" for module in group.modules
            )
            yield f"**[{TITLES[group.name]}](group-{group.name}.md)**: {files}"


def group_page(root: Path, group: Group) -> str:
    """The folder's own words and names, then its files."""
    lines = [f"# {TITLES[group.name]}", ""]
    own = root / PACKAGE / group.name / "__init__.py"
    if group.is_folder and own.is_file():
        package = Module(f"{group.name}/__init__.py", "")
        lines += [*_offers(package, ast.parse(own.read_text(encoding="utf-8"))), ""]
    lines += ["| file | what it is |", "|---|---|"]
    pages = [module.path.removesuffix(".py") for module in group.modules]
    named = zip(group.modules, pages, strict=True)
    lines += [f"| [`{Path(module.path).name}`]({page}.md) | {module.phrase} |" for module, page in named]
    return "\n".join([*lines, ""])


def module_page(root: Path, module: Module, group: Group) -> str:
    """What the file offers, and the file.

    It stands in its group's table only: 160 lines in every page's menu help nobody, and make building twice as slow.
    Without its own contents beside it there is room for lines of 120.
    """
    source = (root / PACKAGE / module.path).read_text(encoding="utf-8")
    group_page = f"{'../' * module.path.count('/')}group-{group.name}.md"
    lines = [f"# `{module.path}`", "", f"[{TITLES[group.name]}]({group_page}): {module.phrase}", ""]
    lines += [*_offers(module, ast.parse(source)), "", "## The file", ""]
    lines += [f"```{{literalinclude}} /{PACKAGE}/{module.path}", ":language: python", "```", ""]
    return "\n".join(["---", "orphan: true", "hide-toc: true", "---", "", *lines])


def _offers(module: Module, tree: ast.Module) -> Iterator[str]:
    yield from [f"```{{py:module}} {module.dotted}", "```", "", ast.get_docstring(tree) or ""]
    public = _public(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in public:
            yield from ["", *_described(node)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in public:
            kind = ast.unparse(node.annotation)
            yield from ["", f":::{{py:data}} {node.target.id}", f":type: {kind}", ":::"]


def _public(tree: ast.Module) -> set[str]:
    """`__all__`, or without one every name that does not begin with an underscore."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) if node.name[0] != "_"}


def _described(node: ast.FunctionDef | ast.ClassDef, *, inside: bool = False) -> Iterator[str]:
    decorators = {ast.unparse(each) for each in node.decorator_list}
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef):
        yield from [f":::::{{py:class}} {node.name}{_construction(node)}", "", text]
        for child in node.body:
            if isinstance(child, ast.FunctionDef) and (child.name[0] != "_" or child.name == "__call__"):
                yield from ["", *_described(child, inside=True)]
        yield ":::::"
        return
    kind = "py:property" if "property" in decorators else "py:method" if inside else "py:function"
    arguments = "" if kind == "py:property" else _signature(node.args, skip=inside and "staticmethod" not in decorators)
    returns = ast.unparse(node.returns) if node.returns else ""
    yield f"::::{{{kind}}} {node.name}{arguments}{f' -> {returns}' if returns and arguments else ''}"
    yield from [f":{name}:" for name in ("classmethod", "staticmethod") if name in decorators]
    yield from [f":type: {returns}"] if kind == "py:property" and returns else []
    yield from ["", text, "::::"]


def _construction(node: ast.ClassDef) -> str:
    """Arguments of `__init__`, or the fields of a dataclass."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return _signature(child.args, skip=True)
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
        return f"({', '.join(ast.unparse(field) for field in fields if 'init=False' not in ast.unparse(field))})"
    return ""


def _signature(arguments: ast.arguments, *, skip: bool) -> str:
    """Without `self` or `cls`, if `skip`."""
    shown = ast.arguments(**{name: getattr(arguments, name) for name in arguments._fields})
    if skip:
        shown.posonlyargs, shown.args = _after_first(arguments.posonlyargs, arguments.args)
    return f"({ast.unparse(shown)})"


def _after_first(first: Sequence[ast.arg], then: Sequence[ast.arg]) -> tuple[list[ast.arg], list[ast.arg]]:
    return (list(first[1:]), list(then)) if first else ([], list(then[1:]))
