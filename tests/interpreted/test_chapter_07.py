"""The kernels that chapter 07 builds in front of the reader, at sizes that it does not show."""

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import torch
import triton

CHAPTER = Path(__file__).parents[2] / "notebooks" / "07_kernels.ipynb"
HEAD = "import triton\nimport triton.language as tl\n\n\n"
CELLS = ("07-masked", "07-003", "07-softmax", "07-matmul", "07-009")


def kernels(folder: Path, right: str = "", wrong: str = "") -> ModuleType:
    """A module with the kernels of these cells: the interpreter reads their source. `right` is replaced by `wrong`."""
    sources = {cell.id: cell.source for cell in nbformat.read(CHAPTER, 4).cells}
    text = HEAD + "\n\n\n".join(sources[cell].partition("\n\n\n")[0] for cell in CELLS)
    if right:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    path = folder / f"chapter_07_{abs(hash((right, wrong)))}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wrong_kernels(chapter: ModuleType) -> set[str]:
    """Names of the kernels that give another result than torch. Foreign numbers lie after each row."""
    random, found = torch.Generator().manual_seed(0), set()
    for n in (1, 7, 16, 33):
        x, y = torch.full((2, n + 64), 99.0), torch.randn(n, generator=random)
        x[0, :n] = torch.randn(n, generator=random) - 5
        out = torch.full((n + 64,), -7.0)
        chapter.add_masked[(triton.cdiv(n, 16),)](x, y, out, n, BLOCK=16)
        if not torch.equal(out[:n], x[0, :n] + y) or not bool((out[n:] == -7).all()):
            found.add("add_masked")
        peaks = torch.empty(triton.cdiv(n, 16))
        chapter.block_max[(len(peaks),)](x, peaks, n, block_size=16, masked=True)
        if not torch.equal(peaks, torch.stack([block.max() for block in x[0, :n].split(16)])):
            found.add("block_max")
        rows = torch.randn(3, n, generator=random) - 20
        shares = torch.full((4, n), -7.0)
        chapter.row_softmax[(3,)](rows, shares, n, BLOCK=triton.next_power_of_2(n))
        if not torch.allclose(shares[:3], rows.softmax(-1)) or not bool((shares[3] == -7).all()):
            found.add("row_softmax")
    for n, tile in ((16, 16), (64, 16), (64, 32)):
        a, b, c = (torch.randn(n, n, generator=random) for _ in range(3))
        chapter.matmul[(n // tile, n // tile)](a, b, c, n, TILE=tile)
        if not torch.allclose(c, a @ b, atol=1e-3):
            found.add("matmul")
    return found


def test_the_kernels_of_chapter_07_agree_with_torch(tmp_path: Path) -> None:
    assert wrong_kernels(kernels(tmp_path)) == set()


@pytest.mark.parametrize(
    ("right", "wrong", "kernel"),
    [
        ("tl.store(out + at, total, mask=inside)", "tl.store(out + at, total)", "add_masked"),
        ("inside = token < vocab if masked else token >= 0", "inside = token >= 0", "block_max"),
        ('mask=inside, other=-float("inf"))\n    weight', "mask=inside, other=0.0)\n    weight", "row_softmax"),
        ("weight / tl.sum(weight, 0), mask=inside)", "weight / tl.sum(weight, 0))", "row_softmax"),
        ("total += tl.dot(left, right)", "total = tl.dot(left, right)", "matmul"),
        ("a + rows[:, None] * n + inner[None, :]", "a + rows[:, None] + inner[None, :] * n", "matmul"),
    ],
)
def test_a_mistake_in_one_of_them_is_caught(tmp_path: Path, right: str, wrong: str, kernel: str) -> None:
    assert wrong_kernels(kernels(tmp_path, right, wrong)) == {kernel}
