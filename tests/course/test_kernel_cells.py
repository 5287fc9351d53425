"""A kernel is what a cell defines under `@triton.jit`: no other object stands in for it where it is graded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("nbgrader", reason="nbgrader is missing: pip install -e '.[instructor]'")

from specdec_course.grader.judge import Judge
from specdec_course.grader.proxies import Kernel
from specdec_course.grader.sources import kernels

WRITTEN = "@triton.jit\ndef f(x, BLOCK: tl.constexpr):\n    tl.store(x, 1)"


class Reached:
    """A remote whose worker says that `f` is a kernel."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    @contextmanager
    def within(self, seconds: float, cell: str) -> Iterator[None]:
        yield

    def ask(self, what: str, code: str) -> list[Any]:
        self.asked.append(code)
        return [[]]

    def names(self, names: list[str]) -> dict[str, Any]:
        return {"f": Kernel(self, ["name", "f"])}  # type: ignore[arg-type]


@pytest.mark.parametrize(("cells", "written"), [
    ([f"import numpy\n\n{WRITTEN}"], True),
    ([f"%time\n{WRITTEN}\ng = f"], True),
    ([WRITTEN, "f[(1,)](x)", "def g():\n    f = 1"], True),
    (["class K:\n    def __getitem__(self, grid): return print\nf = K()"], False),
    ([WRITTEN, "f = K()"], False),
    ([WRITTEN, "for f in [K()]: pass"], False),
    ([WRITTEN, "def f(): pass"], False),
    ([WRITTEN.replace("triton.jit", "mine.jit")], False),
    (["globals()['f'] = K()"], False),
    (["f = " + "-" * 100_000 + "1"], False),
])  # fmt: skip
def test_a_kernel_is_what_a_cell_defines(cells: list[str], written: bool) -> None:
    remote = Reached()
    judge = Judge(remote)  # type: ignore[arg-type]
    for cell in cells:
        judge.run(cell, 1)
    ran = len(remote.asked)
    assert judge._theirs({"f"})["f"].written == written
    assert remote.asked[ran:] == ([WRITTEN] if written else []), "its text runs again: f may be another object by now"


def test_the_text_of_a_kernel_has_its_decorator() -> None:
    assert kernels(f"a = b = 1\n{WRITTEN}\n") == {"a": "", "b": "", "f": WRITTEN}
