"""The wheel, built and installed in a fresh environment outside the repository: what is in it, and that it decodes.

Dependencies are not installed again: the environment's path names the folders of those that run this test. The package
itself, its command and its metadata come from the wheel alone.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from specdec_ref.models.download import SMOLLM2
from specdec_ref.models.fetch import find_damage, model_folder

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = [name for name in ("specdec_ref", "specdec_course") if (ROOT / name).is_dir()]
MUST_HOLD = (
    "specdec_ref/py.typed", "specdec_ref/weights/eagle3-smollm2-135m/head.safetensors",
    "specdec_ref/weights/plain-smollm2-135m/head.safetensors", "specdec_ref/training/_text/grammar.txt",
    "specdec_ref/workloads/prompts.jsonl", "specdec_ref/workloads/heldout.jsonl",
)  # fmt: skip
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def run(*command: str | Path, at: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=at, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the backend that pyproject.toml names, without a network."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is missing: pip install -c constraints.txt -e '.[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with this wheel in it. Its `bin` folder is returned."""
    home = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    borrowed |= {
        str(Path(spec.origin).parents[1])
        for name in ("torch", "transformers")
        if (spec := find_spec(name)) and spec.origin
    }
    (site,) = home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")  # a .pth file in those folders is not read
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        wheel,
        at=home,
    )
    return python.parent


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"specdec_ref-{PROJECT['version']}.dist-info"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    expected = {name for name in tracked if (ROOT / name).is_file()}
    assert {name for name in names if not name.startswith(info)} == expected
    assert set(MUST_HOLD) <= names
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names


def test_installed_commands_and_packages_are_the_wheel_s(environment: Path, tmp_path: Path) -> None:
    assert PROJECT["version"] in run(environment / "specdec", "--version", at=tmp_path)
    code = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]), sep='\\n')"
    for file in run(environment / "python", "-c", code, *PACKAGES, at=tmp_path).splitlines():
        assert Path(file).is_relative_to(environment.parent), "not the wheel's"


DECODE = """
import json, sys
import specdec_ref
from specdec_ref.config import DraftBudget
from specdec_ref.session import Session
session = Session.open(dtype="float32", device="cpu")
prompt, limits = session.encode("Name three colours."), session.limits(16)
fast = session.engine("eagle", budget=DraftBudget(3), limits=limits).generate([prompt])[0]
slow = session.plain([prompt], limits=limits)[0]
print(json.dumps({"file": specdec_ref.__file__, "same": fast.tokens == slow.tokens, "tokens": len(fast.tokens), "tau": fast.stats.tau}))
"""


@pytest.mark.model
def test_shipped_head_decodes_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    if (damage := find_damage(model_folder(SMOLLM2), SMOLLM2)) is not None:
        pytest.skip(f"the embedded model is not in the cache ({damage}): run `specdec fetch`")
    report = json.loads(run(environment / "python", "-c", DECODE, at=tmp_path).splitlines()[-1])
    assert Path(report["file"]).is_relative_to(environment.parent)
    assert report["same"], "greedy float32 text of the shipped head differs from plain decoding"
    assert report["tokens"] == 16
    assert report["tau"] > 1.2, "the head drafts nothing that is accepted: are its weights in the wheel?"
