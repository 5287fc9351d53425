"""The course as students get it: one zip archive of everything but solutions, tests and what is the instructor's."""

import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["bundle"]

TOP = "specdec-course"
KEPT_BACK = (
    "solutions/", "tests/", "benchmarks/", "data/", "gradebook/", "work/", "build/", "dist/", "tools/", ".",
    "docs/INSTRUCTORS.md", "docs/EXERCISES.md", "docs/AUTHORS.md", "docs/WRONG_ANSWERS.md", "nbgrader_config.py",
)  # fmt: skip


def bundle(root: Path, into: Path, private: Path | None = None) -> int:
    """Write the archive; returns how many files it has. The same files give the same bytes."""
    files = [path for path in _files(root) if not path.startswith(KEPT_BACK) and not _within(root / path, private)]
    into.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(f"{TOP}/{path}", (1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, (root / path).read_bytes())
    return len(files)


def _files(root: Path) -> Iterator[str]:
    """What git knows of; without git, all that does not look built."""
    try:
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        for at, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith((".", "__")) and not name.endswith("-info")]
            yield from ((Path(at) / name).relative_to(root).as_posix() for name in names if not name.startswith("."))
    else:
        yield from (path for path in os.fsdecode(listed).split("\0") if path and (root / path).is_file())


def _within(path: Path, folder: Path | None) -> bool:
    return folder is not None and folder.resolve() in path.resolve().parents
