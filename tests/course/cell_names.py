"""Which cells of a notebook hang together by names, so that a test may run those alone. None stands for a text cell."""

import dis
from collections.abc import Collection, Sequence
from types import CodeType

__all__ = ["needed", "reads_and_binds", "touched"]


def needed(sources: Sequence[str | None], wanted: Collection[int]) -> list[int]:
    """The wanted cells, those that last bound what they read, and so on."""
    names = {i: reads_and_binds(source) for i, source in enumerate(sources) if source is not None}
    kept, new = set[int](), set(wanted)
    while new:
        kept |= new
        before = {(name, late) for late in new for name in names[late][0]}
        last = (max((i for i in names if i < late and name in names[i][1]), default=None) for name, late in before)
        new = {i for i in last if i is not None} - kept
    return sorted(kept)


def touched(sources: Sequence[str | None], changed: int) -> list[int]:
    """A changed cell, the later ones that read a name it binds, those that read theirs, and so on."""
    kept, names = [changed], set(reads_and_binds(sources[changed] or "")[1])
    for i, source in enumerate(sources):
        if i > changed and source is not None:
            reads, binds = reads_and_binds(source)
            if reads & names:
                kept.append(i)
                names |= binds
    return kept


def reads_and_binds(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell takes from earlier ones, and names that it leaves: its instructions in their order."""
    reads, binds = set[str](), set[str]()
    for each in dis.get_instructions(compile(source, "cell", "exec")):
        if each.opname == "LOAD_NAME":
            reads |= {each.argval} - binds
        elif each.opname == "STORE_NAME":
            binds.add(each.argval)
        elif isinstance(each.argval, CodeType):
            reads |= _globals(each.argval) - binds
    return reads, binds


def _globals(code: CodeType) -> set[str]:
    """Names of the notebook that a function or class reads, and those within it."""
    steps = list(dis.get_instructions(code))
    inner = (_globals(each.argval) for each in steps if isinstance(each.argval, CodeType))
    return {each.argval for each in steps if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}.union(*inner)
