"""The capstone's adapter and its leaderboard: what is measured, and every way to cheat that we could think of."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_helpers import Specdec, folder, specdec

from specdec_course.capstone import entry, leaderboard
from specdec_course.capstone.adapter import TargetView, first_unasked
from specdec_course.capstone.admission import exact_trials, written
from specdec_course.capstone.board import append, best, load
from specdec_course.capstone.entry import Entry, EntryError, EntryLimits
from specdec_course.capstone.leaderboard import Arena, Call, compete, fingerprint, fresh_prompts, read_entry, rows_of
from specdec_course.capstone.toys import Scripted, view
from specdec_course.checks.examine import Trouble, examine
from specdec_course.grader.policy import PACKAGES, Limits, boxed, namespaces, scratch_folder, seen
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.session import Session

__all__ = ["folder", "specdec"]  # fixtures

PLAIN = """
class MyDecoder:
    def generate(self, model, prompt, max_new_tokens, eos, rng):
        new = []
        while len(new) < max_new_tokens and not eos.intersection(new[-1:]):
            p = model.score([(new or prompt)[-1]])[0]
            model.keep([0])
            new.append(int(p.argmax()) if model.temperature == 0 else rng.draw(p))
        return new
"""

# One process for all that a process survives: the prompt's first token says which cheat it is.
CHEATS = """
import gc, os, sys, threading, time

memory = {}

def plain(model, prompt, count):
    new = []
    while len(new) < count:
        p = model.score([(new or prompt)[-1]])[0]
        model.keep([0])
        new.append(int(p.argmax()))
    return new

def cached(model, prompt, count):
    if tuple(prompt) not in memory:
        memory[tuple(prompt)] = plain(model, prompt, count)
    return memory[tuple(prompt)]

def second_best(model, prompt, count):
    new = []
    while len(new) < count:
        p = model.score([(new or prompt)[-1]])[0]
        model.keep([0])
        new.append(int(p.argmax()) if len(new) != 2 else int(p.argmin()))
    return new

def early(model, prompt, count):
    return plain(model, prompt, count - 1)

def clock(model, prompt, count):
    for name in ("time", "perf_counter", "monotonic", "process_time"):
        setattr(time, name, lambda: 0.0)
    threading.Event().wait(0.3)
    return plain(model, prompt, count)

def models(model, prompt, count):
    return [sum(isinstance(thing, torch.nn.Module) for thing in gc.get_objects())]

def imports(model, prompt, count):
    refused = 0
    for name in ("specdec_ref", "specdec_ref.engine", "specdec_course.capstone.entry_reference", "specdec_ref.baseline"):
        try:
            __import__(name)
        except ImportError:
            refused += 1
    return [refused]

def home(model, prompt, count):
    return [len(os.listdir(os.path.expanduser("~"))), sum(name.startswith("SPECDEC") for name in os.environ)]

def spin(model, prompt, count):
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
    return plain(model, prompt, count)

WAYS = [cached, second_best, early, clock, models, imports, home, spin]

class MyDecoder:
    def generate(self, model, prompt, max_new_tokens, eos, rng):
        return WAYS[prompt[0]](model, prompt, max_new_tokens)
"""
WAYS = ("cached", "second_best", "early", "clock", "models", "imports", "home", "spin")
TOKENS = 8


@pytest.fixture(scope="module")
def target() -> Target:
    """A random Llama."""
    return Target(tiny_llama(4, vocab=50), check=False)


BOXES = ("box", "no box")


@contextmanager
def in_a_box_or_not(where: str) -> Iterator[None]:
    """Or in none, as on systems without namespaces."""
    with pytest.MonkeyPatch.context() as patch:
        if where == "no box":
            patch.setattr(entry, "namespaces", lambda: "tried without")
        elif why := namespaces():
            pytest.skip(f"no box here: {why}")
        yield


@pytest.fixture(scope="module", params=BOXES)
def cheat(request: pytest.FixtureRequest) -> Iterator[Entry]:
    """The process with all cheats in it."""
    with ExitStack() as stack:
        with in_a_box_or_not(request.param):  # only while it starts: others come before its end
            process = stack.enter_context(Entry(CHEATS))
        yield process


def prompt_for(way: str) -> list[int]:
    return [WAYS.index(way), 3, 4, 5]


def said(entry: Entry, target: Target, way: str) -> list[int]:
    """What it returns, unchecked."""
    prompt = prompt_for(way)
    rng = KeyedRandomness(0, 0, "verify")
    return entry.generate(TargetView(target).open(prompt, TOKENS), prompt, TOKENS, frozenset(), rng)


def test_a_view_scores_trees_and_keeps_a_path() -> None:
    script = Scripted.random(3, prompt=5, new=8)
    model, at = view(script.model).open(script.prompt, 8), len(script.prompt)
    right, wrong = script.text[at], (script.text[at] + 1) % 11
    p = model.score([script.prompt[-1], wrong, right], [-1, 0, 0])
    assert p.argmax(-1).tolist()[0] == right
    assert p.argmax(-1).tolist()[2] == script.text[at + 1]
    model.keep([0, 2])
    assert model.length == at + 1
    assert model.score([script.text[at + 1]]).argmax(-1).tolist() == [script.text[at + 2]]
    assert first_unasked(model, script.prompt, script.text[at : at + 3]) is None
    assert first_unasked(model, script.prompt, [wrong]) == 0


@pytest.mark.parametrize(
    ("nodes", "told"), [([1], "begins with node 0"), ([0, 2], "takes the indices of a path"), ([0, 9], "a path")]
)
def test_a_view_refuses_what_is_no_path(nodes: list[int], told: str) -> None:
    script = Scripted.random(3, prompt=5, new=8)
    model = view(script.model).open(script.prompt, 8)
    with pytest.raises(ValueError, match="comes after a score"):
        model.keep([0])
    model.score([1, 2, 3])
    with pytest.raises(ValueError, match=told):
        model.keep(nodes)
    with pytest.raises(ValueError, match="1 to 64 nodes"):
        model.score([])
    with pytest.raises(ValueError, match=r"not in 0\.\.11"):
        model.score([12])


def test_a_decoder_that_never_ends_is_told_so() -> None:
    script = Scripted.random(3, prompt=5, new=8)
    model = view(script.model).open(script.prompt, 4)
    for _ in range(16):
        model.score([1])
    with pytest.raises(ValueError, match="does every round make the text longer"):
        model.score([1])


@pytest.mark.parametrize("name", ["PlainDecoder", "ReferenceDecoder"])
def test_our_own_decoders_are_admitted(name: str) -> None:
    with Entry(ours=f"specdec_course.capstone.entry_reference:{name}") as entry:
        report = examine("", entry, exact_trials(5), ())
    assert report.ok, str(report)


def test_an_honest_entry_is_admitted_in_its_process_and_a_lossy_one_is_not() -> None:
    """At T = 1 the distribution comes from the grader's coins, every course of them."""
    with Entry(PLAIN) as entry:
        report = examine("", entry, exact_trials(6), ())
        assert report.ok, str(report)
    with Entry(PLAIN.replace("rng.draw(p)", "int(p.argmax())")) as entry:
        report = examine("", entry, exact_trials(6), ())
    assert [case.passed for case in report.cases] == [True, True, False]


@pytest.mark.parametrize(
    ("way", "told"),
    [("cached", "token 0 of its text was never checked"), ("second_best", "token 2 of its text is .* gave"),
     ("early", "stopped after 7 of 8 tokens")],
)  # fmt: skip
def test_a_text_that_was_not_asked_for_is_refused(cheat: Entry, target: Target, way: str, told: str) -> None:
    model = TargetView(target)
    if way == "cached":  # the first time it is honest
        assert len(written(cheat, model, prompt_for(way), TOKENS, frozenset())) == TOKENS
    with pytest.raises(Trouble, match=told):
        written(cheat, model, prompt_for(way), TOKENS, frozenset())


def test_memorised_answers_do_not_fit_another_model(cheat: Entry, target: Target) -> None:
    """The same prompt, the weights a little different: the text of the first would be wrong for the second."""
    other = Target(tiny_llama(4, vocab=50), check=False)
    for weight in other.model.parameters():
        weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=weight.dtype)
    texts = [
        written(cheat, TargetView(each), [*prompt_for("spin")[:1], 9, 9], 24, frozenset()) for each in (target, other)
    ]
    assert texts[0] != texts[1]
    assert fingerprint(target) != fingerprint(other)


def test_the_clock_is_the_graders(cheat: Entry, target: Target) -> None:
    call = leaderboard._timed(Arena(target, frozenset(), [], TOKENS), cheat, prompt_for("clock"))
    assert call.seconds >= 0.3
    assert call.cpu is None or call.cpu > 0


def test_neither_target_nor_decoders_nor_caches_are_in_reach(cheat: Entry, target: Target) -> None:
    assert said(cheat, target, "models") == [0]
    assert said(cheat, target, "imports") == [4]
    assert said(cheat, target, "home") == [0, 0]


@pytest.mark.parametrize("where", BOXES)
def test_processor_time_of_the_entry_is_counted(where: str, target: Target) -> None:
    burn = "t = time.process_time() + 0.3\n        while time.process_time() < t: pass\n        new = []"
    with in_a_box_or_not(where), Entry(f"import time\n{PLAIN.replace('new = []', burn, 1)}") as busy:
        before = busy.cpu_seconds()
        call = leaderboard._timed(Arena(target, frozenset(), [], TOKENS), busy, [1, 2, 3])
        after = busy.cpu_seconds()
    if before is None or after is None or call.cpu is None:
        pytest.skip("this system does not tell another process's processor time")
    assert call.cpu > after - before
    assert after - before == pytest.approx(0.35, abs=0.06)


def test_a_thread_is_counted_and_stands_still_between_calls(cheat: Entry, target: Target) -> None:
    """Left running, it would slow down whoever is measured next."""
    before = cheat.cpu_seconds()
    if before is None:
        pytest.skip("this system does not tell another process's processor time")
    said(cheat, target, "spin")
    said(cheat, target, "clock")  # 0.3 s in which the thread spins
    after = cheat.cpu_seconds()
    assert after is not None
    assert after - before > 0.05
    time.sleep(0.3)
    assert cheat.cpu_seconds() == pytest.approx(after, abs=0.02)


FATAL = {
    "hang": ("while True: pass", "no answer in time"),
    "exit": ("os._exit(3)", "its process ended: it left with exit code 3"),
    "killed": ("os.kill(os.getpid(), 9)", "its process ended: killed by SIGKILL"),
    "forward without end": ("while True: model.score([1])", "does every round make the text longer"),
    "garbage": ("[os.write(int(fd), b'x\\n') for fd in os.listdir('/proc/self/fd') if int(fd) > 2 and os.path.exists(f'/proc/self/fd/{fd}')]",
                "none of the adapter's"),
    "no list": ("return 'abc'", "ValueError"),
    "other processes": ("os.fork() or time.sleep(60)\n        return []", "started other processes|stopped after 0"),
}  # fmt: skip


@pytest.mark.parametrize("way", FATAL)
def test_whatever_an_entry_does_there_is_a_verdict(way: str, target: Target) -> None:
    code, told = FATAL[way]
    source = f"import os, time\nclass MyDecoder:\n    def generate(self, model, *rest):\n        {code}\n"
    with Entry(source, limits=EntryLimits(call_seconds=3.0)) as entry, pytest.raises(Trouble, match=told):
        leaderboard._timed(Arena(target, frozenset(), [], TOKENS), entry, [1, 2, 3])


def test_company_is_noticed(target: Target) -> None:
    source = PLAIN.replace(
        "        new = []", "        import os, time\n        if not os.fork(): time.sleep(60)\n        new = []", 1
    )
    with Entry(source) as entry, pytest.raises(EntryError, match="started other processes"):
        leaderboard._timed(Arena(target, frozenset(), [], TOKENS), entry, [1, 2, 3])


# What a box keeps from an entry: code that stands before plain decoding -> why the board says it is refused.
REACHES = {
    "the user's home": ("open({secret!r}).read()", "No such file or directory: '{secret}'"),
    "the network": ("import socket; socket.create_connection(('127.0.0.1', {port}), 5)", "it raised OSError in line .*unreachable"),
    "our source": ("open({engine!r}).read()", "No such file or directory: '{engine}'"),
    "a session of its own": ("import os, time; os.fork() or (os.setsid(), os.fork() or time.sleep(60), os._exit(0))",
                             "started other processes"),
}  # fmt: skip


@pytest.mark.parametrize("way", REACHES)
def test_what_an_entry_reaches_for_is_not_there(way: str, target: Target) -> None:
    if why := namespaces():
        pytest.skip(f"no box here: {why}")
    with tempfile.NamedTemporaryFile(dir=Path.home()) as secret, socket.create_server(("127.0.0.1", 0)) as server:
        about = {"secret": secret.name, "port": server.getsockname()[1], "engine": str(PACKAGES[0] / "engine.py")}
        code, told = (text.format(**about) for text in REACHES[way])
        arena = Arena(target, frozenset(), [[1, 2, 3]] * 2, TOKENS)
        row = rows_of(*compete(arena, PLAIN.replace("new = []", f"new = []; {code}", 1), seed=4))
    assert row["verdict"] == "refused"
    assert re.search(told, row["why"]), row["why"]


@pytest.mark.parametrize("hides", [True, False])
def test_a_folder_in_a_box_can_be_empty(tmp_path: Path, hides: bool) -> None:
    """As the package is, where it lies among the packages that an entry sees."""
    if why := namespaces():
        pytest.skip(f"no box here: {why}")
    (tmp_path / "package").mkdir()
    for name in ("engine.py", "core.py", "request.py"):
        (tmp_path / "package" / name).touch()
    tmp_path.chmod(0o755)
    count = [sys.executable, "-c", f"import os, sys; sys.exit(len(os.listdir({str(tmp_path / 'package')!r})))"]
    with scratch_folder() as scratch:
        command = boxed(
            scratch,
            count,
            Limits(60, 10**9, 0),
            namespaced=True,
            sees=[*seen(), str(tmp_path)],
            hides=[str(tmp_path / "package")] if hides else [],
        )
        assert subprocess.run(command, check=False).returncode == (0 if hides else 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [("from specdec_ref.engine import SpecEngine\n", "line 1 imports specdec_ref"), ("class (", "cannot be read"),
     ("import specdec_course.capstone.entry_reference\n", "line 1 imports specdec_course"),
     ("def f():\n    import specdec_ref.session as s\n", "line 2 imports")],
)  # fmt: skip
def test_an_entry_that_borrows_or_cannot_be_read_is_refused_unrun(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "entry.py").write_text(text, encoding="utf-8")
    with pytest.raises(EntryError, match=told):
        read_entry(tmp_path / "entry.py")


@pytest.mark.parametrize(("ending", "text"), [("py", "-" * 100_000 + "1"), ("ipynb", "[" * 100_000)])
def test_an_entry_nested_too_deeply_is_refused_by_itself(tmp_path: Path, ending: str, text: str) -> None:
    (tmp_path / f"entry.{ending}").write_text(text, encoding="utf-8")
    with pytest.raises(EntryError, match=r"it cannot be read: (MemoryError|RecursionError)"):
        read_entry(tmp_path / f"entry.{ending}")


NESTED = (
    "import sys\nwire = sys._getframe(2).f_locals['wire']\nwire.file.write('[' * 100_000 + chr(10))\nwire.file.flush()"
)
# Questions that the adapter's own functions would not send, or not in this form.
ODD = """
class MyDecoder:
    def generate(self, model, prompt, max_new_tokens, eos, rng):
        inf, refused = float("inf"), 0
        for message in (
            {"call": "draw", "weights": []}, {"call": "draw", "weights": [10**400]}, {"call": "keep", "nodes": [inf]},
            {"call": "score", "tokens": [inf], "parents": None}, {"call": "score", "tokens": [1], "parents": [inf]},
        ):
            try:
                model._wire.ask(**message)
            except ValueError:
                refused += 1
        return [refused]
"""


def test_messages_that_no_adapter_sends_are_that_entry_s_own_trouble(target: Target) -> None:
    """They end neither the measurement nor the entries after it."""
    arena = Arena(target, frozenset(), [[3, 4], [5, 6]], TOKENS)
    calls, why = compete(arena, NESTED, seed=1)
    assert calls == {}
    assert why == "it sent a message that is none of the adapter's"
    with Entry(ODD) as entry:
        rng = KeyedRandomness(0, 0, "verify")
        assert entry.generate(TargetView(target).open([3, 4], 4), [3, 4], 4, frozenset(), rng) == [5]


def test_a_notebook_brings_the_decoders_cell_alone(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    code = read_entry(root / "solutions/09_capstone/09_capstone.ipynb")
    assert "class MyDecoder" in code
    assert "specdec_ref" not in code
    assert "my_greedy_round" not in code
    (tmp_path / "broken.ipynb").write_text('{"cells": [{}]}', encoding="utf-8")
    with pytest.raises(EntryError, match="cannot be read"):
        read_entry(tmp_path / "broken.ipynb")


def test_a_changed_weight_voids_everything(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Target(tiny_llama(4, vocab=50), check=False)

    def run(arena: Arena, *rest: Any) -> None:
        next(iter(arena.target.model.parameters()))[0, 0] += 1e-9

    monkeypatch.setattr(leaderboard, "_run", run)
    monkeypatch.setattr(leaderboard, "exact_trials", lambda seed: [])
    monkeypatch.setattr(leaderboard, "Entry", _Nobody)
    monkeypatch.setattr(leaderboard, "_ours", _Nobody)
    with pytest.raises(RuntimeError, match="not what they were before"):
        compete(Arena(other, frozenset(), [], TOKENS), PLAIN, seed=1)


def test_the_small_models_have_another_seed_than_the_prompts(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = list[int]()

    def seen(seed: int) -> list[Any]:
        seeds.append(seed)
        raise Trouble("seen")

    monkeypatch.setattr(leaderboard, "exact_trials", seen)
    monkeypatch.setattr(leaderboard, "Entry", _Nobody)
    for seed in (1, 2, 1):
        assert compete(Arena(target, frozenset(), [], TOKENS), PLAIN, seed=seed) == ({}, "seen")
    assert seeds[0] == seeds[2] != seeds[1]
    assert not {1, 2} & {*seeds}


class _Nobody(Entry):
    """An entry that is never asked, and has a process."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __enter__(self) -> "_Nobody":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def processes(self) -> list[int]:
        return [1]


def calls(seconds: float, cpu: float | None, count: int = 4) -> Sequence[Call]:
    return [Call(seconds, cpu, [1] * 10, (2,) * 5)] * count


def test_the_score_is_the_smaller_of_both_clocks() -> None:
    """Threads: twice as fast by the wall clock, no gain in work."""
    sides = {"plain": calls(2.0, 2.0), "reference": calls(1.0, 1.0), "entry": calls(0.5, 1.25)}
    row = rows_of(sides, "")
    assert row["seconds_speedup"] == pytest.approx(2.0)
    assert row["cpu_speedup"] == row["score"] == pytest.approx(0.8)
    assert row["entry_vs_plain"] == pytest.approx(4.0)
    assert row["entry_tau"] == pytest.approx(2.0)
    assert rows_of({**sides, "entry": calls(0.5, None)}, "")["score"] == pytest.approx(2.0)
    assert rows_of(sides, "it cheats") == {"verdict": "refused", "why": "it cheats", "score": None}


def test_a_board_keeps_each_entrys_best(tmp_path: Path) -> None:
    file = tmp_path / "new" / "board.jsonl"
    assert load(file) == []
    for name, score in (("ada", 1.1), ("ben", None), ("ada", 1.3), ("ada", 1.2), ("cy", 0.7)):
        append(
            file, {"entry": name, "score": score, "target": "t", "verdict": "refused" if score is None else "admitted"}
        )
    assert [(row["entry"], row["score"]) for row in best(load(file))] == [("ada", 1.3), ("cy", 0.7), ("ben", None)]
    file.write_text('{"entry": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        load(file)


def test_prompts_are_new_each_time_and_can_be_made_again(folder: Path) -> None:
    session = Session.open(str(folder))
    session.target.config.max_position_embeddings = 10**6
    one, again, other = (fresh_prompts(session, 4, seed) for seed in (1, 1, 2))
    assert one == again
    assert not {tuple(prompt) for prompt in one} & {tuple(prompt) for prompt in other}


def test_the_command_measures_refuses_ranks_and_keeps_the_board(folder: Path, tmp_path: Path, specdec: Specdec) -> None:
    good, bad, board = tmp_path / "good.py", tmp_path / "bad.py", tmp_path / "board.jsonl"
    good.write_text(PLAIN, encoding="utf-8")
    bad.write_text("import specdec_ref\n", encoding="utf-8")
    about = ("--target", folder, "--board", board)
    assert specdec("leaderboard", good, bad, *about, "--prompts", 2, "--tokens", 6, "--json") == 1, specdec.err
    rows = [json.loads(line) for line in specdec.out.splitlines()]
    assert [(row["entry"], row["verdict"]) for row in rows] == [("good", "admitted"), ("bad", "refused")]
    assert rows[0]["identical"] == rows[0]["texts"] == 2
    assert rows[0]["score"] == min(rows[0]["seconds_speedup"], rows[0]["cpu_speedup"] or 99)
    assert rows[0]["entry_tau"] == 1.0
    assert load(board) == rows
    assert specdec("leaderboard", *about) == 0
    assert "our reference" in specdec.out
    assert "refused  bad: line 1 imports specdec_ref" in specdec.out
    assert "there is no file" in specdec.error(2, "leaderboard", tmp_path / "gone.py", *about)


@pytest.mark.slow
def test_the_solution_is_faster_than_plain_on_the_real_model(tmp_path: Path, specdec: Specdec) -> None:
    """The embedded model, once: the texts are the target's, and copying pays by the processor's clock."""
    board = tmp_path / "board.jsonl"
    notebook = Path(__file__).parents[2] / "solutions/09_capstone/09_capstone.ipynb"
    assert specdec("leaderboard", notebook, "--board", board, "--prompts", 3, "--tokens", 32, "--seed", 3) == 0, (
        specdec.err
    )
    (row,) = load(board)
    assert row["verdict"] == "admitted"
    assert row["entry_tau"] > 1.1
