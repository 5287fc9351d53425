"""Workflows, hooks and metadata agree with pyproject.toml and the Makefile; the Makefile leaves foreign environments alone."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from quick import QUICK, SAMPLED

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CONFIGURED = [
    *WORKFLOWS, *sorted((ROOT / ".github").glob("*.yml")), *sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")),
    ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff",
]  # fmt: skip


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return found


def commands(path: Path) -> list[str]:
    return [step["run"] for job in jobs(path).values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("path", CONFIGURED, ids=lambda path: path.name)
def test_configuration_parses(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_every_push_is_checked_on_the_pythons_that_are_promised() -> None:
    matrix = jobs(ROOT / ".github/workflows/check.yml")["quick"]["strategy"]["matrix"]
    promised = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", c)]
    assert matrix["python"] == promised
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos"}
    nightly = jobs(ROOT / ".github/workflows/nightly.yml")["test"]["strategy"]["matrix"]["python"]
    assert nightly == [promised[0], promised[-1]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_commands_that_exist(path: Path) -> None:
    run = commands(path)
    assert run
    for command in run:
        word, *rest = command.split()
        assert (word == "make" and rest[0] in TARGETS) or (ROOT / word).is_file(), command
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_continuous_integration_runs_a_target_that_exists() -> None:
    (target,) = re.findall(r"^exec make (\w+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert target in TARGETS


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md", "README.md"])
def test_pages_name_targets_that_exist(name: str) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert named <= TARGETS


def test_the_ruff_hook_has_the_pinned_version() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (revision,) = (repo["rev"] for repo in hooks if repo["repo"].endswith("/ruff-pre-commit"))
    assert f"ruff=={revision.removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text()
    assert not {"nbstripout"} & {hook["id"] for repo in hooks for hook in repo["hooks"]}, "outputs are committed"


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert {"cff-version", "message", "title", "authors"} <= set(citation), "required by the format"


def test_notice_names_everything_that_is_not_code() -> None:
    notice = (ROOT / "NOTICE").read_text()
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for suffix in (".safetensors", ".npz"):
        for name in (name for name in listed if name.endswith(suffix)):
            folder = str(Path(name).parent)
            assert name in notice or f"{folder}/*{suffix}" in notice, f"{name}: where is it from, under which licence?"
    assert [
        part
        for part in re.findall(r"[\w./-]+/[\w.-]+\.(?:safetensors|txt|jsonl)", notice)
        if not (ROOT / part).is_file()
    ] == []


def test_quick_part_is_made_of_files_that_exist() -> None:
    stems = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(QUICK) - stems == set()
    assert set(SAMPLED) <= set(QUICK)


FAKE_PYTHON = "#!/bin/sh\necho called >> '{log}'\nexit 0\n"


def foreign(tmp_path: Path, created: str | None) -> tuple[Path, Path]:
    """An environment with something in it, and the file in which its Python writes that it was called."""
    environment, log = tmp_path / "theirs", tmp_path / "log"
    (environment / "bin").mkdir(parents=True)
    for name in ("python", "ruff", "mypy"):
        (environment / "bin" / name).write_text(FAKE_PYTHON.format(log=log))
        (environment / "bin" / name).chmod(0o755)
    if created is not None:
        (environment / ".created").write_text(created)
    return environment, log


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", ["quick", "run", "clean"])
@pytest.mark.parametrize("created", [None, "", "/somewhere/else\n"], ids=["no marker", "empty", "of another checkout"])
def test_make_leaves_an_environment_alone_that_it_did_not_make(
    tmp_path: Path, target: str, created: str | None
) -> None:
    environment, log = foreign(tmp_path, created)
    done = make(target, f"VENV={environment}")
    assert done.returncode != 0
    assert "was not made by this checkout's Makefile" in done.stderr
    assert (created or "missing or empty").strip() in done.stderr
    assert (environment / "bin/python").exists()
    assert not log.exists()


def test_make_installs_into_the_environment_that_it_made(tmp_path: Path) -> None:
    environment, log = foreign(tmp_path, f"{ROOT.resolve()}\n")
    done = make("check", f"VENV={environment}")
    assert done.returncode == 0, done.stderr
    assert log.read_text().count("called") == 5, "torch, the package, ruff twice, mypy"


def test_the_wheel_s_licences_are_files() -> None:
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
