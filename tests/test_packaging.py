"""One set of versions, one list of needs: pyproject.toml, constraints.txt and environment.yml say the same thing.

And `import specdec_ref` needs torch and jaxtyping alone: whoever reads or reuses the core installs nothing else.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PARTS = [extra for extra in EXTRAS if extra != "all"]
ENVIRONMENT: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())


def pins() -> dict[str, Requirement]:
    """constraints.txt by canonical name. A line that is no exact pin, or a package pinned twice, is an error."""
    found: dict[str, Requirement] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text:
            pin = Requirement(text)
            name = canonicalize_name(pin.name)
            assert [spec.operator for spec in pin.specifier] == ["=="], f"not one exact version: {line}"
            assert "*" not in str(pin.specifier), f"not one exact version: {line}"
            assert name not in found, f"pinned twice: {line}"
            found[name] = pin
    return found


def pinned_version(pin: Requirement) -> str:
    return next(iter(pin.specifier)).version


def needs() -> Iterator[tuple[str, Requirement]]:
    """(where it is asked for, requirement) for everything that pyproject.toml names but the package itself."""
    for where, listed in {"dependencies": PROJECT["dependencies"], **{part: EXTRAS[part] for part in PARTS}}.items():
        for text in listed:
            yield where, Requirement(text)


@pytest.mark.parametrize(("where", "need"), list(needs()), ids=str)
def test_every_need_has_a_pin_that_satisfies_it(where: str, need: Requirement) -> None:
    pin = pins().get(canonicalize_name(need.name))
    assert pin is not None, f"{need.name} of {where} has no line in constraints.txt"
    assert need.specifier.contains(pinned_version(pin)), f"{pin} is outside {need}"
    assert need.specifier, f"{need.name} of {where} needs a lower bound"
    assert str(pin.marker).replace('"', "'") == str(need.marker).replace('"', "'"), "needed and pinned on other systems"


def test_core_needs_torch_and_jaxtyping_alone() -> None:
    assert sorted(Requirement(text).name for text in PROJECT["dependencies"]) == ["jaxtyping", "torch"]


def test_extra_all_is_all_the_others() -> None:
    (text,) = EXTRAS["all"]
    assert (Requirement(text).name, Requirement(text).extras) == (PROJECT["name"], set(PARTS))


def installed_closure(roots: Iterable[Requirement]) -> set[str]:
    """Names of all installed distributions that these requirements lead to here. torch's CUDA packages are its own."""
    seen: set[tuple[str, str]] = set()
    open_needs = [(root, extra) for root in roots for extra in ("", *root.extras)]
    while open_needs:
        need, extra = open_needs.pop()
        name = canonicalize_name(need.name)
        if (name, extra) in seen or name.startswith(("nvidia-", "cuda-")):
            continue
        try:
            listed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        seen.add((name, extra))
        for child in map(Requirement, listed):
            if child.marker is None or child.marker.evaluate({"extra": extra}):
                open_needs += [(child, wanted) for wanted in ("", *child.extras)]
    return {name for name, _ in seen}


def test_what_the_needs_pull_in_is_pinned_too() -> None:
    closure = installed_closure(need for _, need in needs())
    assert closure >= {"torch", "sympy", "pytest", "pluggy"}, "the walk over installed packages is broken"
    assert closure - set(pins()) == set(), "add these to constraints.txt"


def test_environment_installs_every_part_with_the_same_pins() -> None:
    conda = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]
    (by_pip,) = (entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict))
    assert by_pip[0] == "-c constraints.txt", "the pins must stand before what they are for"
    (editable,) = (line for line in by_pip if line.startswith("-e "))
    assert len(by_pip) == 2, "versions belong into constraints.txt, needs into pyproject.toml"
    folder, extras = re.fullmatch(r"-e (\S+)\[([\w,]+)\]", editable).groups()  # type: ignore[union-attr]
    assert (folder, set(extras.split(","))) == (".", set(PARTS))
    assert {re.split(r"[=<> ]", entry)[0] for entry in conda} == {"python", "pip", "make"}
    assert ENVIRONMENT["name"] == PROJECT["name"]


def test_binder_and_colab_install_what_chapters_need_and_no_more() -> None:
    def lines(name: str) -> list[str]:
        read = (ROOT / ".binder" / name).read_text().splitlines()
        return [line for line in read if not line.startswith("#")]

    binder, colab = lines("requirements.txt"), lines("colab.txt")
    assert binder[0] == "-c ../constraints.txt", "relative to the file, as pip reads it"
    assert f"torch=={pinned_version(pins()['torch'])}" in binder
    extras = {name: set(line[5:-1].split(",")) for name, line in (("binder", binder[-1]), ("colab", colab[0]))}
    assert binder[-1].startswith("-e .[")
    assert colab[0].startswith("-e .[")
    assert {"models", "cli"} <= extras["colab"] <= extras["binder"] <= set(PARTS) - {"instructor", "site", "dev"}
    assert not [line for line in colab if line.startswith("-c") or "torch" in line], "Colab keeps its own torch"
    python = (ROOT / ".binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    assert any(python in classifier for classifier in PROJECT["classifiers"])
    post = ROOT / ".binder" / "postBuild"
    assert post.stat().st_mode & 0o111, "Binder runs it"
    assert "specdec fetch" in post.read_text()


def test_python_range_agrees() -> None:
    oldest = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])
    assert oldest is not None
    classified = {int(c.rpartition("3.")[2]) for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", c)}
    assert min(classified) == int(oldest[1])
    (python,) = (entry for entry in ENVIRONMENT["dependencies"] if str(entry).startswith("python"))
    assert int(python.removeprefix("python=3.")) in classified
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["mypy"]["python_version"] == f"3.{oldest[1]}"
    assert f"sys.version_info < (3, {oldest[1]})" in (ROOT / "Makefile").read_text()


def test_makefile_installs_parts_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    asked = {extra for line in re.findall(r"EXTRAS = (\S+)", makefile) for extra in line.split(",")}
    assert {"models", "cli", "dev"} <= asked <= set(PARTS)
    assert "install -c constraints.txt" in makefile


def test_version_is_the_changelogs_newest() -> None:
    released = re.findall(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == PROJECT["version"]


def test_installed_package_is_this_one() -> None:
    try:
        installed = metadata.distribution(PROJECT["name"])
    except metadata.PackageNotFoundError:
        pytest.skip("specdec-ref is not installed in this environment (pip install -e .)")
    assert installed.version == PROJECT["version"]
    (command,) = installed.entry_points.select(group="console_scripts", name="specdec")
    assert callable(command.load())
    assert installed.metadata["License-Expression"] == "Apache-2.0"


def test_wheel_holds_more_than_code() -> None:
    assert (ROOT / "specdec_ref" / "py.typed").is_file()
    ignored = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", "specdec_ref"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    assert [name for name in ignored if "__pycache__" not in name] == [], "hatch leaves out what git ignores"


LIGHT_IMPORT = """
import json, sys, time
from importlib.machinery import PathFinder
blocked = set(json.loads(sys.argv[1]))
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
import jaxtyping, torch
started = time.perf_counter()
import specdec_ref
spent = time.perf_counter() - started
print(json.dumps({"seconds": spent, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def test_import_is_light() -> None:
    """With every other distribution's modules blocked, it imports; and it adds little to torch's own seconds."""
    allowed = installed_closure(Requirement(name) for name in ("torch", "jaxtyping"))
    blocked = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & {*allowed, PROJECT["name"]}
    ]
    assert {"transformers", "rich", "numpy", "safetensors"} <= set(blocked)
    run = subprocess.run(
        [sys.executable, "-W", "ignore:Failed to initialize NumPy", "-c", LIGHT_IMPORT, json.dumps(blocked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert "specdec_ref" in report["modules"]
    assert report["seconds"] < 1.0, "0.05 s when measured alone; the rest is room for a busy machine"
