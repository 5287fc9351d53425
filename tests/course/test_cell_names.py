"""Cells that hang together by names."""

from cell_names import needed, reads_and_binds, touched

CELLS = [
    "import torch", None, "x = 0", "x = torch.ones(3)", "for i in range(3):\n    slow = x.sum() * i", "x += 1",
    "def f(i):\n    return x[i]", "y = [f(i) for i in range(3)]", "show(explorer(y))", "z = y",
]  # fmt: skip


def test_what_a_cell_needs() -> None:
    assert needed(CELLS, {8}) == [0, 3, 5, 6, 7, 8]
    assert needed(CELLS, {4, 2}) == [0, 2, 3, 4]


def test_what_a_changed_cell_touches() -> None:
    assert touched(CELLS, 6) == [6, 7, 8, 9]
    assert touched(CELLS, 4) == [4], "of what it binds, nothing is read later"
    assert touched(CELLS, 9) == [9]


def test_names_in_the_order_of_a_cells_instructions() -> None:
    assert reads_and_binds("x = 1\nz = x + y\nfor k in x: print(k)") == ({"y", "print"}, {"x", "z", "k"})
    inner = "class C:\n    def f(self):\n        return [late(x) for x in early]"
    assert reads_and_binds(inner)[0] >= {"late", "early"}
