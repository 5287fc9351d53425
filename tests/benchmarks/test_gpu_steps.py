"""`python -m benchmarks.gpu`: each step's dry run, in a copied tree, without a network, with no package but the stated."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import bundle
from benchmarks.gpu.journal import Facts, Journal
from specdec_ref.kernels.cases import OPS
from specdec_ref.models.hub import check_embedded

Run = Callable[..., subprocess.CompletedProcess[str]]


def journal(folder: Path, minutes: float = 1.0) -> Journal:
    return Journal(folder, "cpu", minutes)


def test_no_unit_runs_twice(tmp_path: Path) -> None:
    ran: list[str] = []

    def unit(name: str) -> Callable[[], Facts]:
        return lambda: {"ran": len(ran), "name": ran.append(name) or name}  # type: ignore[func-returns-value]

    units = {name: unit(name) for name in "abc"}
    assert journal(tmp_path).run("step", {"a": units["a"]}) == 0
    assert journal(tmp_path).run("step", units) == 0
    assert ran == ["a", "b", "c"]
    assert [facts["name"] for facts in journal(tmp_path).found("step").values()] == ["a", "b", "c"]


def test_a_visit_ends_in_time_and_the_next_goes_on(tmp_path: Path) -> None:
    units: dict[str, Callable[[], Facts]] = dict.fromkeys("abc", dict)  # type: ignore[assignment]
    assert journal(tmp_path, minutes=0.0).run("step", units) == 3
    assert journal(tmp_path).run("step", units) == 0


def test_a_failure_is_a_result(tmp_path: Path) -> None:
    def broken() -> Facts:
        raise RuntimeError("no such instruction")

    assert journal(tmp_path).run("step", {"broken": broken, "sound": lambda: {"ok": True}}) == 0
    found = journal(tmp_path).found("step")
    assert found["broken"]["error"] == "RuntimeError: no such instruction"
    assert found["sound"]["ok"]


def test_figures_of_two_machines_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal(tmp_path)
    monkeypatch.setattr("benchmarks.gpu.journal.machine", lambda device: {"device": "another"})
    with pytest.raises(ValueError, match="choose another --out"):
        journal(tmp_path)


def test_pieces_give_the_file_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "PIECE", 1000)
    source = tmp_path / "weights.bin"
    source.write_bytes(os.urandom(2500))
    bundle.split(source, tmp_path / "pieces")
    bundle.join(tmp_path / "pieces", tmp_path / "there")
    assert (tmp_path / "there" / "weights.bin").read_bytes() == source.read_bytes()
    assert sorted(path.stat().st_size for path in (tmp_path / "pieces").glob("*.00*")) == [500, 1000, 1000]
    (tmp_path / "pieces" / "weights.bin.001").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"weights.bin.001 is damaged"):
        bundle.join(tmp_path / "pieces", tmp_path / "there")
    (tmp_path / "pieces" / "weights.bin.001").unlink()
    with pytest.raises(ValueError, match=r"weights.bin.001 is missing"):
        bundle.join(tmp_path / "pieces", tmp_path / "there")


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a step there: a copied tree, no network, and torch, triton and transformers as the only packages."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed: Linux only")
    if (damage := check_embedded()) is not None:
        pytest.skip(f"the embedded model is not in the cache ({damage}): run `specdec fetch`")
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which(alone[0]) is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("unshare cannot make a namespace without a network here")
    folder = tmp_path_factory.mktemp("gpu")
    tree, site = folder / "tree", folder / "site"
    bundle.pack(tree)
    site.mkdir()
    for package in bundle._closure(bundle.THERE):
        for top in {file.parts[0] for file in metadata.files(package) or () if ".." not in file.parts}:
            if not (site / top).exists():
                (site / top).symlink_to(metadata.distribution(package).locate_file(top))
    python = getattr(sys, "_base_executable", sys.executable)  # not this environment's, which has far more packages
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    paths = os.pathsep.join(map(str, (tree, tree / "vendor", site)))
    environment = {
        **kept,
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder / "home"),
        "PYTHONNOUSERSITE": "1",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*alone, python, "-W", "ignore", *arguments]
        return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_what_is_carried_is_small_and_alone(carried: Run) -> None:
    """No piece is larger than 30 MB, the network is gone, and so is what is not listed."""
    check = "import pathlib; print(max(p.stat().st_size for p in pathlib.Path('.').rglob('*') if p.is_file()))"
    assert 20e6 < int(carried("-c", check).stdout) <= bundle.PIECE
    offline = carried("-c", "import socket; socket.create_connection(('192.0.2.1', 80), 2)")
    assert "unreachable" in offline.stderr
    assert "No module named 'gguf'" in carried("-c", "import gguf").stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "units"),
    [
        ("1", ["selftest-float32", "tests"]), ("2", ["copy", *(f"toy.{op.replace(' ', '-')}" for op in OPS)]),
        ("3", ["identity.ngram.float32", "identity.eagle.float32", "speed.plain.1.torch", "speed.eagle.2.torch"]),
        ("4", ["corpus-0000", "train-0-0000", "tau"]),
    ],
)  # fmt: skip
def test_dry_run_of_a_step(carried: Run, step: str, units: list[str]) -> None:
    """It ends well, no unit failed, every file is small; the report holds all of them, and a second run does nothing."""
    run = carried("-m", "benchmarks.gpu", step, "--dry-run", "--minutes", "60")
    assert run.returncode == 0, run.stderr[-4000:]
    report = carried("-m", "benchmarks.gpu", "5", "--dry-run")
    assert report.returncode == 0, report.stderr[-4000:]
    tree = Path(carried("-c", "import os; print(os.getcwd())").stdout.strip())
    text = (tree / report.stdout.strip()).read_text()
    assert text.startswith("# Dry run: no GPU was used")
    assert "failed**" not in text, text
    assert all(f"\n{unit} " in text for unit in units), text
    found = json.loads(text.rpartition("```json")[2].partition("```")[0])[f"step{step}"]
    assert set(units) <= set(found)
    verdicts = [
        facts[name] for facts in found.values() for name in ("passed", "ok") if isinstance(facts.get(name), bool)
    ]
    assert all(verdicts), found
    assert bool(verdicts) == (step in "13"), "which steps compare answers"
    assert all(
        path.stat().st_size <= bundle.PIECE for path in (tree / "build" / "gpu-dry").rglob("*") if path.is_file()
    )
    again = carried("-m", "benchmarks.gpu", step, "--dry-run")
    assert again.returncode == 0
    assert len(again.stderr.strip().splitlines()) == 1, again.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_only_a_dry_run(carried: Run) -> None:
    run = carried("-m", "benchmarks.gpu", "2")
    assert run.returncode == 2
    assert "no CUDA device" in run.stderr
