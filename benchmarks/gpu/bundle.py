"""A folder to carry to a machine without a network: this source tree, what it imports, the model in pieces of 30 MB.

    python -m benchmarks.gpu pack FOLDER        here: needs the model in the cache (`specdec fetch`)
    python -m benchmarks.gpu 1                  there, in FOLDER: joins the pieces once, checks them, runs step 1

There, Python 3.11 or newer with torch >= 2.11, triton >= 3.6 and transformers >= 5.17 is enough: the other packages are
pure Python and lie in FOLDER/vendor. Nothing is written outside FOLDER.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["PIECE", "here", "join", "pack", "split"]

ROOT = Path(__file__).parents[2]
PIECE = 30 * 10**6  # bytes
THERE = ("torch", "triton", "transformers")  # what the other machine has, with all that they need
BROUGHT = ("jaxtyping", "platformdirs", "filelock", "tqdm", "pytest")
LEFT_OUT = ("notebooks/", "exercises/", "solutions/", "docs/", "data/", "specdec_course/")


def pack(folder: Path) -> None:
    """Write the bundle. Raises FileExistsError for a folder in use, RuntimeError for a compiled package."""
    from specdec_ref.models.hub import EMBEDDED, fetch

    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a new folder")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
            _copy(ROOT / name, folder / name)
    for package in _closure(BROUGHT) - _closure(THERE):
        for file in metadata.files(package) or ():
            if file.suffix == ".so":
                raise RuntimeError(f"{package} is compiled: it cannot be carried to another Python")
            if file.suffix != ".pyc" and ".." not in file.parts:
                _copy(Path(str(file.locate())), folder / "vendor" / file)
    for path in sorted(fetch(EMBEDDED).iterdir()):
        split(path, folder / "pieces" / EMBEDDED)


def split(file: Path, folder: Path) -> None:
    """Write `file` as pieces NAME.000, NAME.001 ... and their sizes and sums as NAME.pieces, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = []
    with file.open("rb") as source:
        for number, data in enumerate(iter(lambda: source.read(PIECE), b"")):
            (folder / f"{file.name}.{number:03d}").write_bytes(data)
            sums.append(hashlib.sha256(data).hexdigest())
    (folder / f"{file.name}.pieces").write_text(json.dumps(sums), encoding="utf-8")


def join(folder: Path, goal: Path) -> None:
    """Join every file that `split` wrote to `folder`, in `goal`. Raises ValueError for a wrong or missing piece."""
    goal.mkdir(parents=True, exist_ok=True)
    for listing in sorted(folder.glob("*.pieces")):
        name = listing.stem
        scratch = goal / f"{name}.tmp"
        with scratch.open("wb") as out:
            for number, expected in enumerate(json.loads(listing.read_text(encoding="utf-8"))):
                piece = folder / f"{name}.{number:03d}"
                data = piece.read_bytes() if piece.is_file() else b""
                if hashlib.sha256(data).hexdigest() != expected:
                    raise ValueError(f"{piece} is {'damaged' if data else 'missing'}: copy it again")
                out.write(data)
        os.replace(scratch, goal / name)


def here() -> None:
    """In a bundle: keep caches in it, and join the model's pieces if that was not done yet."""
    pieces, cache = ROOT / "pieces", ROOT / "build" / "cache"
    if not pieces.is_dir():
        return
    os.environ.setdefault("SPECDEC_CACHE", str(cache))
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "triton"))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for model in pieces.iterdir():
        goal = Path(os.environ["SPECDEC_CACHE"]) / "models" / model.name
        if not goal.is_dir():
            scratch = goal.with_name(f"{goal.name}.joining")
            shutil.rmtree(scratch, ignore_errors=True)
            sys.stderr.write(f"joining the pieces of {model.name}\n")
            join(model, scratch)
            scratch.rename(goal)


def _copy(source: Path, goal: Path) -> None:
    goal.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, goal)


def _closure(packages: Iterable[str]) -> set[str]:
    """These packages and all that they need here, by the names that their files are found under."""
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in found and (needs := _needs(name)) is not None:
            found.add(name)
            waiting += needs
    return found


def _needs(package: str) -> Iterator[str] | None:
    """What it requires on this machine without extras; None if it is not installed here."""
    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return None
    rows = [Requirement(line) for line in lines]
    return (row.name for row in rows if row.marker is None or row.marker.evaluate({"extra": ""}))
