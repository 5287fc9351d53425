"""Mutants of a reference solution: the source of its cell with one small change, made on its syntax tree.

Libraries for mutation testing mutate files of a package and run a test command for each (mutmut, cosmic-ray). An
answer here is a marked part of a notebook cell, and it is judged by a self-check in a forked process, so the changes
are made here. They include those that the libraries lack: dropped statements, swapped arguments, an index off by one.
"""

import ast
import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

BINARY: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult), ast.Sub: (ast.Add,), ast.Mult: (ast.Div, ast.Add), ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,), ast.FloorDiv: (ast.Div,), ast.Mod: (ast.FloorDiv,), ast.BitOr: (ast.BitAnd,),
}  # fmt: skip
COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "zeros": "ones", "ones": "zeros", "argmax": "argmin",
    "zeros_like": "ones_like", "minimum": "maximum", "maximum": "minimum", "clamp_min": "clamp_max", "tril": "triu",
    "sum": "max", "log": "exp", "exp": "log",
}  # fmt: skip
MODULES = {"torch", "tl", "triton"}  # a call of theirs has no receiver that could stand in its place


@dataclass(frozen=True)
class Mutant:
    """`about`: what was there → what is there now; with the task's grade id it identifies the mutant."""

    about: str
    code: str


Change = tuple[ast.AST, ast.AST | None]  # a node, and what takes its place (None: the statement is dropped)


def mutants(code: str) -> list[Mutant]:
    """All mutants of a solution cell, each with another syntax tree, in the order of the source."""
    lines = code.splitlines()
    inside = _marked(lines)
    tree = ast.parse(code)
    seen, found, numbers = {ast.unparse(tree)}, list[Mutant](), dict[str, int]()
    for node, new in sorted(_changes(tree), key=lambda change: (change[0].lineno, change[0].col_offset)):  # type: ignore[attr-defined]
        if not any(first <= node.lineno <= last for first, last in inside):  # type: ignore[attr-defined]
            continue
        changed = ast.unparse(_replaced(tree, node, new))
        if changed in seen:
            continue
        seen.add(changed)
        about = f"`{_shown(node)}` → " + ("dropped" if new is None or isinstance(new, ast.Pass) else f"`{_shown(new)}`")
        numbers[about] = numbers.get(about, 0) + 1
        found.append(Mutant(about + (f" ({numbers[about]})" if numbers[about] > 1 else ""), changed))
    return found


def _marked(lines: list[str]) -> list[tuple[int, int]]:
    """First and last line number of each marked solution."""
    begins = [i for i, line in enumerate(lines, 1) if "### BEGIN SOLUTION" in line]
    ends = [i for i, line in enumerate(lines, 1) if "### END SOLUTION" in line]
    return list(zip(begins, ends, strict=True))


def _shown(node: ast.AST) -> str:
    """Its first line, without what may be taken for a table's border."""
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).strip().splitlines()[0]
    return re.sub(r"\s+", " ", text)


def _replaced(tree: ast.Module, node: ast.AST, new: ast.AST | None) -> ast.Module:
    """A copy of the tree with the change."""
    memo: dict[int, object] = {}
    whole = copy.deepcopy(tree, memo)
    old = memo[id(node)]

    class Swap(ast.NodeTransformer):
        def visit(self, at: ast.AST) -> ast.AST:
            if at is old:
                return ast.Pass() if new is None else copy.deepcopy(new)
            return self.generic_visit(at)

    return ast.fix_missing_locations(Swap().visit(whole))


def _changes(tree: ast.Module) -> Iterator[Change]:
    skipped = {id(part) for node in ast.walk(tree) for part in _untouched(node)}
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef):
            given = [arg.arg for arg in scope.args.args if arg.arg != "self"]
            for node in ast.walk(scope):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in given:
                    other = given[(given.index(node.id) + 1) % len(given)]
                    if other != node.id and id(node) not in skipped:
                        yield node, ast.Name(other, ast.Load())
    for node in ast.walk(tree):
        if id(node) not in skipped:
            for kind, rule in RULES:
                if isinstance(node, kind):
                    yield from ((node, new) for new in rule(node))
            if isinstance(node, ast.stmt):
                yield from _statement(node)


def _untouched(node: ast.AST) -> Iterator[ast.AST]:
    """Docstrings, decorators, annotations, and keywords of a call that only name a dtype."""
    if isinstance(node, ast.FunctionDef):
        for part in (*node.decorator_list, node.args):
            yield from ast.walk(part)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield from ast.walk(node)
    if isinstance(node, ast.keyword) and node.arg in ("strict", "dtype"):
        yield from ast.walk(node)
    if isinstance(node, ast.Raise):
        yield from (part for part in ast.walk(node) if part is not node)
    if isinstance(node, ast.JoinedStr):
        yield from ast.walk(node)


def _binary(node: ast.BinOp) -> Iterator[ast.AST]:
    for op in BINARY.get(type(node.op), ()):
        yield ast.BinOp(node.left, op(), node.right)
    yield node.left
    yield node.right
    if isinstance(node.op, ast.Sub | ast.Div | ast.Pow):
        yield ast.BinOp(node.right, node.op, node.left)


def _compare(node: ast.Compare) -> Iterator[ast.AST]:
    for op in COMPARED[type(node.ops[0])]:
        yield ast.Compare(node.left, [op(), *node.ops[1:]], node.comparators)
    if isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE):
        yield ast.Compare(node.comparators[0], node.ops, [node.left, *node.comparators[1:]])


def _boolean(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for i in range(len(node.values)):
        rest = node.values[:i] + node.values[i + 1 :]
        yield ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0]


def _unary(node: ast.UnaryOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield node.operand


def _constant(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(value + 1)
        yield ast.Constant(value / 2 if value else -1.0)


def _off_by_one(node: ast.expr) -> Iterator[ast.expr]:
    if not isinstance(node, ast.Constant | ast.UnaryOp):
        yield ast.BinOp(node, ast.Add(), ast.Constant(1))
        yield ast.BinOp(node, ast.Sub(), ast.Constant(1))


def _subscript(node: ast.Subscript) -> Iterator[ast.AST]:
    if not isinstance(node.slice, ast.Slice | ast.Tuple | ast.Constant | ast.JoinedStr):
        for index in _off_by_one(node.slice):
            yield ast.Subscript(node.value, index, node.ctx)
    if isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2:
        yield ast.Subscript(node.value, ast.Tuple(node.slice.elts[::-1], ast.Load()), node.ctx)
    if isinstance(node.slice, ast.Slice):
        low, high, step = node.slice.lower, node.slice.upper, node.slice.step
        bounds = [(None, high)] * (low is not None) + [(low, None)] * (high is not None)
        bounds += [(each, high) for each in (_off_by_one(low) if low else ())]
        bounds += [(low, each) for each in (_off_by_one(high) if high else ())]
        for lower, upper in bounds:
            yield ast.Subscript(node.value, ast.Slice(lower, upper, step), node.ctx)


def _call(node: ast.Call) -> Iterator[ast.AST]:
    function, given = node.func, node.args
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    receiver = function.value if isinstance(function, ast.Attribute) else None
    if isinstance(receiver, ast.Name) and receiver.id in MODULES:
        receiver = None
    if name in NAMES and (receiver is not None or isinstance(function, ast.Attribute)):
        yield ast.Call(ast.Attribute(function.value, NAMES[name], ast.Load()), given, node.keywords)  # type: ignore[attr-defined]
    elif name in NAMES:
        yield ast.Call(ast.Name(NAMES[name], ast.Load()), given, node.keywords)
    if receiver is not None:
        yield receiver
    elif len(given) == 1 and not node.keywords and name not in ("range", "len", "VerifyResult", "DraftTree"):
        yield given[0]
    for i in range(len(given) - 1):
        yield ast.Call(function, [*given[:i], given[i + 1], given[i], *given[i + 2 :]], node.keywords)
    if len(given) > 1:
        yield ast.Call(function, given[:-1], node.keywords)
        yield ast.Call(function, given[1:], node.keywords)
    for i in range(len(node.keywords)):
        yield ast.Call(function, given, node.keywords[:i] + node.keywords[i + 1 :])
    if name == "range":
        for i, bound in enumerate(given):
            for other in _off_by_one(bound):
                yield ast.Call(function, [*given[:i], other, *given[i + 1 :]], node.keywords)


def _choice(node: ast.IfExp) -> Iterator[ast.AST]:
    yield ast.IfExp(node.test, node.orelse, node.body)
    yield node.body
    yield node.orelse


def _pair(node: ast.Tuple) -> Iterator[ast.AST]:
    if isinstance(node.ctx, ast.Load):
        for i in range(len(node.elts) - 1):
            order = [*node.elts[:i], node.elts[i + 1], node.elts[i], *node.elts[i + 2 :]]
            yield ast.Tuple(order, ast.Load())


def _starred(node: ast.List) -> Iterator[ast.AST]:
    if isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        for i in range(len(node.elts)):
            yield ast.List(node.elts[:i] + node.elts[i + 1 :], ast.Load())


def _statement(node: ast.stmt) -> Iterator[Change]:
    if isinstance(node, ast.If | ast.While):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)
        if isinstance(node, ast.If):
            yield node.test, ast.Constant(True)
            yield node.test, ast.Constant(False)
    if isinstance(node, ast.For):
        yield node.iter, ast.Subscript(_list(node.iter), ast.Slice(ast.Constant(1)), ast.Load())
        yield node.iter, ast.Subscript(_list(node.iter), ast.Slice(None, ast.Constant(-1)), ast.Load())
        yield node.iter, ast.Subscript(_list(node.iter), ast.Slice(None, None, ast.Constant(-1)), ast.Load())
    if isinstance(node, ast.Break):
        yield node, ast.Continue()
    if isinstance(node, ast.Continue):
        yield node, ast.Break()
    if isinstance(node, ast.AugAssign):
        yield node, ast.Assign([node.target], node.value)
        for op in BINARY.get(type(node.op), ()):
            yield node, ast.AugAssign(node.target, op(), node.value)
    if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Pass | ast.Import | ast.ImportFrom):
        yield node, None


def _list(node: ast.expr) -> ast.expr:
    return ast.Call(ast.Name("list", ast.Load()), [node], [])


RULES: tuple[tuple[type[ast.AST], Callable[..., Iterator[ast.AST]]], ...] = (
    (ast.BinOp, _binary), (ast.Compare, _compare), (ast.BoolOp, _boolean), (ast.UnaryOp, _unary),
    (ast.Constant, _constant), (ast.Subscript, _subscript), (ast.Call, _call), (ast.IfExp, _choice),
    (ast.Tuple, _pair), (ast.List, _starred),
)  # fmt: skip
