"""The verdict of a device's self-test: kept in the cache, made anew when anything changes, and torch until it passes."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from specdec_ref import kernels
from specdec_ref.cli import doctor
from specdec_ref.kernels import resolve_backend, verdicts
from specdec_ref.kernels.verdicts import Verdict, describe, device_key, in_child, judge, stored

GOOD, BAD = Verdict("", 44, 3.0, 1.5), Verdict("tree (hard, 11 nodes) differs from its twin by 3", 20, 3.0)
KEY = {"device": "a card", "driver": "1", "dtype": "float16"}
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: Linux only")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path))
    verdicts.verdict.cache_clear()
    yield
    verdicts.verdict.cache_clear()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA device that PyTorch sees and nothing runs on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(verdicts, "device_key", lambda device, dtype: {**KEY, "dtype": str(dtype)})


@pytest.mark.parametrize("outcome", [GOOD, BAD], ids=["passed", "failed"])
def test_verdict_is_stored_once(outcome: Verdict, tmp_path: Path) -> None:
    runs = []

    def run() -> Verdict:
        runs.append(1)
        return outcome

    assert [judge(KEY, run) for _ in range(3)] == [outcome] * 3
    assert len(runs) == 1
    assert [path.suffix for path in (tmp_path / "selftest").iterdir()] == [".json"], "a temporary file is left"


@pytest.mark.parametrize("part", sorted(KEY))
def test_verdict_belongs_to_its_versions(part: str) -> None:
    judge(KEY, lambda: GOOD)
    assert stored({**KEY, part: "another"}) is None


def test_damaged_file_is_no_verdict(tmp_path: Path) -> None:
    judge(KEY, lambda: BAD)
    (file,) = (tmp_path / "selftest").iterdir()
    file.write_text('{"key"')
    assert stored(KEY) is None
    assert judge(KEY, lambda: GOOD) == GOOD


def test_fault_that_may_pass_is_not_kept() -> None:
    judge(KEY, lambda: Verdict("chain: exit code 1 (torch.OutOfMemoryError: CUDA out of memory)", 3, 1.0))
    assert stored(KEY) is None


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "selftest").write_text("a file where the folder should be")
    assert judge(KEY, lambda: GOOD) == GOOD


@needs_triton
@pytest.mark.usefixtures("card")
def test_torch_decides_on_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(verdicts, "in_child", lambda *_: BAD)
    assert [resolve_backend("auto", "cuda", torch.float16) for _ in range(3)] == ["torch"] * 3
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1, "once per process"
    assert "the kernels failed their self-test on a card" in told.err
    assert BAD.fault in told.err


@needs_triton
@pytest.mark.usefixtures("card")
def test_kernels_decide_after_passing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[str, torch.dtype]] = []

    def run(device: str, dtype: torch.dtype) -> Verdict:
        asked.append((device, dtype))
        return GOOD

    monkeypatch.setattr(verdicts, "in_child", run)
    found = {dtype: resolve_backend("auto", "cuda", dtype) for dtype in (torch.float16, torch.float32)}
    assert set(found.values()) == {"triton"}
    assert asked == [("cuda:0", torch.float16), ("cuda:0", torch.float32)], "each number format is tested by itself"
    assert resolve_backend("auto", "cuda", torch.bfloat16) == "torch", "this card has no bfloat16"
    assert resolve_backend("auto", "cuda", torch.float64) == "torch"
    assert resolve_backend("auto", "cpu", torch.float16) == "torch"
    assert resolve_backend("torch", "cuda", torch.float16) == "torch"
    assert len(asked) == 2
    assert capsys.readouterr().err == ""


@needs_triton
def test_child_that_cannot_run_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real process: Triton finds no GPU to compile for."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    found = in_child("cpu", torch.float32)
    assert not found.passed
    assert "exit code 1" in found.fault
    assert found.fault.startswith("compiling: ")
    assert found.checks == 0


@needs_triton
def test_child_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "TIME_LIMIT", 0.2)
    found = in_child("cpu", torch.float32)
    assert "did not end within" in found.fault
    assert found.seconds < 10


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package in another folder, whose files may be changed."""
    shutil.copytree(
        Path(kernels.__file__).parents[1],
        tmp_path / "copy" / "specdec_ref",
        ignore=shutil.ignore_patterns("weights", "__pycache__"),
    )
    return tmp_path / "copy"


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("links.py", "elder = (home == here)", "elder = (home != here)", "links (plain, 11 nodes) differs from its twin"),
        ("links.py", "lane = tl.arange(0, NODES)", "lane = tl.arange(0, NODES - 1)", "links (plain, 11 nodes): exit code 1"),
    ],
    ids=["wrong answer", "does not compile"],
)  # fmt: skip
def test_a_fault_in_a_kernel_leads_to_torch(
    copied: Path,
    file: str,
    old: str,
    new: str,
    fault: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    card: None,
) -> None:
    """The whole way, with the interpreter in place of a device: a planted fault, a child process, one line, torch."""
    path = copied / "specdec_ref" / "kernels" / file
    source = path.read_text()
    assert source.count(old) == 1
    path.write_text(source.replace(old, new))
    paths = os.pathsep.join([str(copied), *filter(None, sys.path)])
    environment = {"TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    child = verdicts.in_child

    def in_copy(device: str, dtype: torch.dtype) -> Verdict:
        return child("cpu", torch.float32, seeds=1, environment=environment)

    monkeypatch.setattr(verdicts, "in_child", in_copy)
    monkeypatch.chdir(copied)  # `python -m` looks there first
    assert resolve_backend("auto", "cuda", torch.float16) == "torch"
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert fault in line
    assert "PyTorch is used instead" in line


@needs_triton
@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("outcome", [None, GOOD, BAD], ids=["not run", "passed", "failed"])
def test_doctor_shows_the_verdict(monkeypatch: pytest.MonkeyPatch, outcome: Verdict | None) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    if outcome:
        judge({**KEY, "dtype": "torch.float16"}, lambda: outcome)
    said = doctor._kernels(argparse.Namespace(device="cuda", dtype="auto"))
    expected = {
        None: "self-test not run yet",
        GOOD: "self-test passed, 44 checks",
        BAD: f"self-test failed, PyTorch is used: {BAD.fault}",
    }
    assert said.startswith(expected[outcome])


def test_doctor_line() -> None:
    key = device_key(torch.device("cpu"), torch.float32)
    assert {"device", "driver", "torch", "triton", "specdec-ref", "source", "dtype"} <= set(key)
    assert "not run yet for float32" in describe(key)
    judge(key, lambda: GOOD)
    assert describe(key) == "passed, 44 checks (float32, 3.0 s, 1.5 s of them compiling)"
    judge({**key, "dtype": "float16"}, lambda: BAD)
    assert describe({**key, "dtype": "float16"}).startswith(f"failed, PyTorch is used: {BAD.fault}")


def child(command: list[str], folder: Path) -> tuple[str, float]:
    """(stdout of a Python process, CPU seconds of it and of its children)."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = os.times()
    run = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = os.times()
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout, after.children_user + after.children_system - before.children_user - before.children_system


def compiled_for(target: str, dtype: str, folder: Path) -> tuple[dict[str, Any], float]:
    """(what the self-test reports after compiling its kernels, CPU seconds of the process and of the compiler)."""
    said, seconds = child(["-m", "specdec_ref.kernels.selftest", "--compile-for", target, "--dtype", dtype], folder)
    return json.loads(said.splitlines()[-1]), seconds


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(("target", "dtype"), [("sm_75", "float16"), ("sm_89", "float32")])
def test_all_kernels_compile_in_the_time_of_ten_starts(target: str, dtype: str, tmp_path: Path) -> None:
    """Start, imports, inputs and compiling with an empty cache, in CPU time, beside starts without compiling.

    A bound in seconds would measure the machine: without AVX512 compiling takes 15 to 20 s, and a start 2.5 to 3.
    """
    starts = [child(["-m", "specdec_ref.kernels.selftest", "--help"], tmp_path)[1]]
    found, seconds = compiled_for(target, dtype, tmp_path)
    starts.append(child(["-m", "specdec_ref.kernels.selftest", "--help"], tmp_path)[1])
    assert found["fault"] == ""
    assert 20 < found["variants"] < 30
    assert found["compiling"] > 0
    assert seconds < 10 * max(starts), (found, starts)


@pytest.mark.slow
@needs_triton
def test_kernel_that_does_not_compile_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real compiler; the other kernels are compiled all the same."""
    path = copied / "specdec_ref" / "kernels" / "links.py"
    path.write_text(path.read_text().replace("lane = tl.arange(0, NODES)", "lane = tl.arange(0, NODES - 1)"))
    monkeypatch.syspath_prepend(str(copied))
    found, _ = compiled_for("sm_89", "float16", copied)
    assert found["fault"].startswith("_build_links does not compile: CompilationError: ")
    assert found["variants"] > 20


def test_kernels_run_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the second of two GPUs, too: Triton launches on the current device, whatever the tensors' is."""
    pytest.importorskip("triton")
    from torch._subclasses import FakeTensorMode

    from specdec_ref.kernels.launch import launch

    seen: list[torch.device] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *args, **constants: None

    class Entered(nullcontext[None]):
        def __init__(self, device: torch.device) -> None:
            super().__init__()
            seen.append(device)

    monkeypatch.setattr(torch.cuda, "device", Entered)
    with FakeTensorMode():
        launch(Kernel(), (1,), 5, torch.empty(3, device="cuda:1"))
    launch(Kernel(), (1,), 5, torch.empty(3))
    assert seen == [torch.device("cuda:1")]
