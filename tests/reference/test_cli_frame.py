"""The frame around the commands of `specdec`: help, streams that are closed or narrow, exit codes."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import ROOT, Specdec, folder, specdec, write_lines

from specdec_ref.cli import COMMANDS, commands, main
from specdec_ref.cli.layout import fitted
from specdec_ref.cli.nearest import did_you_mean
from specdec_ref.cli.streams import writable_streams
from specdec_ref.config import DraftBudget
from specdec_ref.training.recipe import PRESETS

__all__ = ["folder", "specdec"]  # fixtures


def test_help_shows_the_budget_that_generate_uses(specdec: Specdec) -> None:
    assert specdec("generate", "--help") == 0
    assert "depth 6, topk 1, nodes 7" in specdec.out
    for drafter in ("hybrid", "ngram"):  # generate's default where a head ships, and elsewhere
        assert DraftBudget.suited_to(drafter) == DraftBudget(6)


def test_bare_specdec_and_help_show_the_help(specdec: Specdec) -> None:
    assert specdec("--help") == 0
    whole = specdec.out
    assert "generate" in whole
    for argv in ([], ["help"], ["--debug"]):
        assert specdec(*argv) == 0
        assert (specdec.out, specdec.err) == (whole, "")


@pytest.mark.parametrize("command", [*COMMANDS, "help"])
def test_help_of_a_command_is_its_own_help(command: str, specdec: Specdec) -> None:
    assert specdec(command, "--help") == 0
    own = specdec.out
    assert own.startswith(f"usage: specdec {command}")
    assert specdec("help", command) == 0
    assert specdec.out == own


@pytest.mark.parametrize("command", ["train", "grade"])
def test_each_action_has_a_help_of_its_own_and_no_action_lists_them(command: str, specdec: Specdec) -> None:
    assert specdec(command) == 0
    whole = specdec.out
    assert whole.startswith(f"usage: specdec {command} [options] ACTION")
    for action in commands()[command].ACTIONS:
        assert f"\n  {action} " in whole
        assert specdec("help", command, action) == 0
        own = specdec.out
        assert own.startswith(f"usage: specdec {command} {action} [options]")
        assert specdec(command, action, "--help") == 0
        assert specdec.out == own


def test_defaults_in_the_help_of_train_are_those_of_the_presets(specdec: Specdec) -> None:
    full, tiny = PRESETS["full"], PRESETS["tiny"]
    assert specdec("train", "eagle", "--help") == 0
    text = " ".join(specdec.out.split())
    for flag, value in (
        ("conversations", lambda preset: preset.corpus.conversations or "never"),
        ("rows", lambda preset: preset.corpus.rows),
        ("draft-vocab", lambda preset: preset.draft_vocab),
        ("tokens", lambda preset: preset.train.tokens),
        ("batch-tokens", lambda preset: preset.train.batch_tokens),
        ("fall", lambda preset: f"{preset.train.fall:g}"),
    ):
        about = text.partition(f" --{flag} ")[2].partition(" --")[0]
        assert f"full {value(full)}, tiny {value(tiny)})" in about, about
    assert {full.train.rate, tiny.train.rate} == {0.001}
    assert "peak learning rate (default 0.001)" in text


@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_the_terminal(width: int, specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    calls = [[], *([name] for name in commands())]
    calls += [[name, action] for name, module in commands().items() for action in getattr(module, "ACTIONS", ())]
    for words in calls:
        assert specdec(*words, "--help") == 0
        lines = [line for line in specdec.out.splitlines() if not line.startswith(("  $ ", "      --"))]
        assert max(map(len, lines)) <= width, (words, max(lines, key=len))


def test_narrow_text_keeps_terms_apart_from_what_they_mean() -> None:
    text = "One two three four five\nsix.\n\nwords:\n  tau    mean tokens\n         per round\n  $ specdec x     a comment\n"
    assert fitted(text, 22) == (
        "One two three four\nfive six.\n\nwords:\n  tau    mean tokens\n         per round\n"
        "  $ specdec x\n      a comment\n"
    )


def test_help_loads_neither_torch_nor_transformers() -> None:
    """They take seconds to import."""
    code = "import sys, specdec_ref.cli as c; c.main(['grade', '--help']); print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_suggestions_are_close_names_only() -> None:
    assert did_you_mean("hybird", ["hybrid", "ngram"]) == " Did you mean hybrid?"
    assert did_you_mean("EAGLE", ["eagle"]) == " Did you mean eagle?"
    assert did_you_mean("zebra", ["hybrid", "ngram"]) == ""


# Streams


def shell(line: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """A line of sh in which $SPECDEC is the command line."""
    variables = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = f"'{sys.executable}' -m specdec_ref"
    return subprocess.run(
        ["sh", "-c", line.replace("$SPECDEC", command)],
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=120,
        env=os.environ | variables | environment,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("$SPECDEC generate --raw <&-", 2, b"specdec: error: the prompt is empty"),
        ("$SPECDEC generate --raw a >&-", 1, b"specdec: error: standard output is closed"),
        ("$SPECDEC generate --depth x a 2>&-", 2, b""),
        ("$SPECDEC --help >/dev/full", 1, b"specdec: error: [Errno 28] No space left on device"),
    ],
)
def test_closed_streams_end_in_one_line(line: str, code: int, said: bytes) -> None:
    done = shell(line)
    assert done.returncode == code, done.stderr
    assert done.stdout == b""
    assert done.stderr.startswith(said)
    assert done.stderr.count(b"\n") <= 1


def test_replay_completes_a_text_outside_the_encoding(tmp_path: Path) -> None:
    """As on Windows, where a redirected stdout is cp1252."""
    about = '{"specdec_trace": 1, "target": "t"}'
    step = '{{"accepted": [], "rejected": [], "untested": [], "added": [1, "{}"], "kind": "", "seconds": 0, "record": null}}'
    file = write_lines(tmp_path / "run.jsonl", about, step.format("before \u665a"), step.format(" after"))
    done = shell(f"$SPECDEC replay '{file}'", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert b"before ? after" in done.stdout


def test_streams_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", narrow)
    monkeypatch.setattr("sys.stdin", None)
    with writable_streams():
        print("\u665a")  # noqa: T201  (what is tested)
        assert sys.stdin.read() == ""
    assert narrow.errors == "strict"
    assert sys.stdin is None
    narrow.seek(0)
    assert narrow.read() == "?\n"


def test_closed_stdout_in_this_process_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["--version"]) == 1
    assert "standard output is closed" in capsys.readouterr().err
