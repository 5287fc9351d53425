"""llama-server's flags: read from the wheel, exported, explained, and back again. Only one test needs the wheel."""

import json
import subprocess
import sys
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import ROOT, Specdec, specdec
from test_serve import configs

from specdec_ref.config import DraftBudget, SpecConfig
from specdec_ref.exporters import ENGINES, explain, export_command
from specdec_ref.exporters.table import REMOVED

__all__ = ["specdec"]  # fixture

TABLE = ENGINES["llamacpp"]
START = "llama-server -m t.gguf"


def findings(command: str, kind: str) -> str:
    return " | ".join(finding.text for finding in explain(command).findings if finding.kind == kind)


def test_an_unknown_flag_suggests_a_near_one_and_is_not_in_the_command_to_paste() -> None:
    read = explain(f"{START} --spec-typ draft-eagle3 -md h.gguf --draft 4 --spec-nonsense -c 512")
    flag = next(flag for flag in read.flags if flag.name == "--spec-typ")
    assert (flag.status, flag.value) == ("unknown", "draft-eagle3")
    assert flag.meaning.endswith(". Did you mean --spec-type?")
    assert read.translated == f"{START} -md h.gguf -c 512 --spec-draft-n-max 4"
    assert explain(f"{START} --spec-typ draft-eagle3 -md h.gguf").translated == f"{START} -md h.gguf"


def test_exported_commands_have_only_flags_of_the_table_and_come_back() -> None:
    made = 0
    for config in configs():
        try:
            launch = export_command(config, "llamacpp")
        except ValueError:
            continue
        made += 1
        assert [word for word in launch.command if word.startswith("--") and word not in TABLE["flags"]] == []
        found = explain(launch.shell())
        assert [finding for finding in found.findings if finding.kind in ("refused", "changed")] == []
        assert found.config is not None
        drafts = config.budget.depth > 0 and config.drafter != "none"
        wanted = (config.target, config.drafter if drafts else "none", config.draft_model if drafts else None)
        assert (found.config.target, found.config.drafter, found.config.draft_model) == wanted
        if drafts:
            assert found.config.budget == config.budget
    assert made >= 200


def test_the_table_knows_what_is_gone() -> None:
    assert set(REMOVED["llamacpp"]) == set(TABLE["removed"])
    for name, text in TABLE["removed"].items():
        now = REMOVED["llamacpp"][name].now or ""
        assert now in text or now.replace("simple", "*") in text, "the successor is one that the engine names"


def test_old_names_are_replaced() -> None:
    read = explain(f"{START} --spec-type draft-eagle3 -md h.gguf --draft-max 4")
    assert read.engine == "llamacpp"
    assert "--draft-max: gone" in findings(f"{START} --draft-max 4", "refused")
    assert read.translated == f"{START} --spec-type draft-eagle3 -md h.gguf --spec-draft-n-max 4"
    again = explain(read.translated)
    assert again.config == SpecConfig("t.gguf", "eagle", "h.gguf", budget=DraftBudget(4))


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        ("--spec-type draft-eagle3", "changed", "decodes plainly"),
        ("--spec-type draft-simple", "refused", "needs --spec-draft-model"),
        ("--spec-type eagle9", "refused", "no draft type eagle9"),
        ("--spec-draft-n-max 4", "note", "nothing is drafted"),
        ("--spec-type ngram-simple", "note", "rare in short answers"),
        ("--spec-type ngram-simple --spec-ngram-simple-size-n 3 --spec-ngram-simple-size-m 2", "note", "fewer than 3"),
        ("--spec-type draft-eagle3 -md h.gguf --spec-synth-rates 0,0,0", "lossy", "synthetic"),
        ("--spec-type draft-eagle3 -md h.gguf --spec-draft-sampling probabilistic", "changed", "no effect"),
        ("--spec-type draft-eagle3 -md h.gguf --spec-draft-n-max three", "refused", "whole number"),
        ("--spec-type draft-eagle3 -md h.gguf --spec-draft-n-max -3", "refused", "must not be negative"),
        ("--spec-type draft-eagle3 -md h.gguf --spec-draft-p-min 0.6", "note", "min_confidence"),
        ("--spec-typo 3", "refused", "unknown"),
        ("--spec-draft-n-max=3", "refused", "unknown"),
    ],
)
def test_rules_that_users_meet(flags: str, kind: str, words: str) -> None:
    assert words in findings(f"{START} {flags}", kind)


def test_types_without_a_counterpart_here() -> None:
    found = explain(f"{START} --spec-type ngram-mod")
    assert found.config is None
    assert "no counterpart" in findings(f"{START} --spec-type ngram-mod", "note")
    assert explain(f"{START} --spec-type none,ngram-mod --temp 0.5").config == SpecConfig("t.gguf", "none")


def test_cli_explains(specdec: Specdec) -> None:
    assert specdec("explain", f"{START} --spec-type draft-eagle3 -md h.gguf --spec-draft-n-max 3") == 0, specdec.err
    assert "specdec generate --target t.gguf --drafter eagle --draft-model h.gguf --depth 3" in specdec.out
    assert specdec("explain", f"{START} --draft-max 3") == 1


@pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="xllamacpp is not installed: pip install 'specdec-ref[llamacpp]'"
)
def test_the_table_is_what_the_installed_wheel_prints(tmp_path: Path) -> None:
    """The reader, on the files of the installed package packed as a wheel."""
    spec = find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    wheel = tmp_path / f"xllamacpp-{version('xllamacpp')}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in Path(spec.origin).parent.iterdir():
            if file.suffix in (".py", ".so", ".pyd"):
                archive.write(file, f"xllamacpp/{file.name}")
    command = [sys.executable, str(ROOT / "tools" / "read_engine_flags.py"), str(wheel)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(run.stdout)["llamacpp"]
    assert {key: found[key] for key in ("version", "flags", "removed")} == {
        key: TABLE[key] for key in ("version", "flags", "removed")
    }
