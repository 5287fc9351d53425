"""`specdec demo`: what it shows and what it claims; the palette; text while it streams."""

import io
import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cli_helpers import Specdec, folder, specdec
from rich.console import Console
from torch import Tensor

from specdec_ref.calibrate import measure_verify_curve
from specdec_ref.cli import demo
from specdec_ref.cli.contest import PLAIN, Contest, Run, Task
from specdec_ref.cli.identity import parting
from specdec_ref.cli.paint import Painter, marked
from specdec_ref.cli.race import show_race
from specdec_ref.cli.shared import typed
from specdec_ref.cli.summary import print_details, print_result
from specdec_ref.cli.timing import Pair, measure
from specdec_ref.drafters import DRAFTERS
from specdec_ref.metrics import StepRecord
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.palette import PALETTE
from specdec_ref.request import Limits
from specdec_ref.session import Session
from specdec_ref.trace import Round
from specdec_ref.weights import TRAINED

__all__ = ["folder", "specdec"]  # fixtures


def table_rows(text: str) -> list[list[str]]:
    """The rows of the demo's table of all drafters; the prompt's kind stands in each prompt's first row only."""
    lines = text[text.index("every drafter") :].splitlines()[2:]
    return [line.split() for line in lines[: lines.index("")]]


def test_demo_compares_drafters_with_plain_and_starts_with_the_result(folder: Path, specdec: Specdec) -> None:
    argv = ["--target", folder, "--dtype", "float64", "--draft-model", folder, "--max-new-tokens", 9, "--all"]
    assert specdec("demo", *argv) == 0, specdec.err
    assert specdec.out.lstrip().startswith("In short: ")
    assert len(specdec.out[: specdec.out.index("tokens per second")].splitlines()) < 12, "the result comes first"
    rows = table_rows(specdec.out)
    assert [row.pop(0) for row in rows if row[0] in ("editing", "chat")] == ["editing", "chat"]
    shown = [
        name for name in DRAFTERS if name not in ("eagle", "hybrid", "block", *TRAINED)
    ]  # which need a trained head
    assert [row[0] for row in rows] == shown * 2
    assert all(row[-1] == "identical" for row in rows)
    assert all(f"left out: {name} (no EAGLE head is shipped for tiny" in specdec.out for name in ("eagle", "hybrid"))
    assert "\x1b[" not in specdec.out  # no colours where no terminal is
    lab = Session.open(str(folder), dtype="float64")
    gammas = {"draft": 4, "layer-skip": 2}  # on three layers, layer-skip skips none: both guess all tokens right
    exact = [row for row in rows if row[0] in gammas]
    for task, found in zip(demo.TASKS, (exact[:2], exact[2:]), strict=True):
        length = len(lab.plain([lab.encode(task.prompt)], limits=lab.limits(9))[0].tokens)
        for row in found:
            rounds = math.ceil(length / (gammas[row[0]] + 1))
            assert row[4:6] == [f"{length / rounds:.2f}", "1.00"]


def test_every_ratio_is_the_quotient_of_the_speeds_beside_it(folder: Path, specdec: Specdec) -> None:
    assert specdec("demo", "--target", folder, "--max-new-tokens", 30, "--all") == 0
    rows = [row[1:] if row[0] in ("editing", "chat") else row for row in table_rows(specdec.out)]
    numbers = [tuple(map(float, row[1:4])) for row in rows if row[1] != "busy"]
    assert numbers, "nothing could be timed"
    assert [ratio for _, _, ratio in numbers] == [
        math.floor(100 * fast / plain + 1e-9) / 100 for plain, fast, _ in numbers
    ]


def test_demo_names_what_it_leaves_out_and_why(folder: Path, specdec: Specdec) -> None:
    assert specdec("demo", "--target", folder, "--max-new-tokens", 2, "--depth", 1) == 0
    assert "left out: draft (it needs a second, smaller model: --draft-model MODEL)" in specdec.out
    assert "left out: layer-skip (--all includes it)" in specdec.out
    assert [row[1:2] for row in table_rows(specdec.out) if row[0] == "editing"] == [["ngram"]]
    assert "gamma" not in specdec.out
    assert specdec("demo", "--target", folder, "--max-new-tokens", 2, "--depth", 1, "--verbose") == 0
    assert "ngram  copies what followed the same words earlier in the text, gamma 1" in specdec.out


def test_demo_shortens_its_answers_on_a_slow_machine(
    folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PASS_SECONDS", 1e-6)
    assert specdec("demo", "--target", folder, "-v") == 0
    assert "answers are cut to 0% of their length" in specdec.err
    lengths = re.findall(r"(\d+) tokens in ", specdec.out)
    assert lengths
    assert all(int(count) <= 16 for count in lengths)


TASK = Task("editing", "The keeper", 80)


def recorded(tokens: Sequence[int], seconds: float, tau: float | None = None) -> Run:
    """A run of these tokens; `tau`: what its records claim (None: plain decoding, which has none)."""
    steps = [Round(added=token, seconds=seconds / len(tokens)) for token in tokens]
    if tau is not None:
        record = StepRecord(0, drafted=9, tested=4, accepted=3, emitted=round(1000 * tau), depth=9)
        empty = StepRecord(0, drafted=9, tested=4, accepted=3, emitted=0, depth=9)
        steps[0] = replace(steps[0], record=record)
        steps += [Round(record=empty)] * 999
    return Run(tuple(steps))


def pages(lab: Session, plain: Sequence[int], fast: Sequence[int], *, speed: float, tau: float, width: int) -> str:
    """What the demo prints for one pair of runs: plain at 10 tokens per second, ngram at `speed`."""
    pair = Pair(recorded(plain, len(plain) / 10), recorded(fast, len(fast) / speed, tau))
    screen = Console(file=io.StringIO(), width=width)
    pairs = {(TASK, "ngram"): pair}
    print_result(pairs, screen)
    show_race(Contest(lab, {}), pair, "ngram", screen)
    print_details(Contest(lab, {}), {TASK: (lab.encode(TASK.prompt), lab.limits(8))}, pairs, ["trie (why)"], screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_difference_is_placed_and_judged_in_the_words_of_check(folder: Path) -> None:
    lab = Session.open(str(folder), dtype="float64")
    plain = lab.plain([lab.encode("The keeper")], limits=lab.limits(8, ignore_eos=True))[0].tokens
    wrong = [*plain[:4], plain[4] ^ 1, *plain[5:]]
    text = pages(lab, plain, wrong, speed=20, tau=3, width=400)
    assert "differs" in text
    assert f"from token 5 on: {lab.decode(wrong[4:5])!r} instead of {lab.decode(plain[4:5])!r}" in text
    assert "Rounding in float64 does not explain this; please report it" in text
    assert "apart from the differences listed below" in text
    weights = lab.target.model.lm_head.weight
    weights[wrong[4]] = weights[plain[4]]  # now the two tie
    text = pages(lab, plain, wrong, speed=20, tau=3, width=400)
    assert "a near-tie, which rounding in float64 can decide either way" in text
    assert "differs" not in pages(lab, plain, plain, speed=20, tau=3, width=400)
    assert "it has 3 tokens, plain decoding's 8" in pages(lab, plain, plain[:3], speed=20, tau=3, width=400)


def timed(speeds: dict[str, list[float]], tau: float, *, pass_seconds: float = 1.0) -> tuple[Pair, list[str]]:
    """`measure` on planted speeds (tokens/s; the last one is repeated) and a faked clock: ngram's pair, all runs."""
    left = {name: list(planted) for name, planted in speeds.items()}
    runs: list[str] = []

    def run(name: str, prompt: list[int], limits: Limits) -> Run:
        runs.append(name)
        speed = left[name].pop(0) if len(left[name]) > 1 else left[name][0]
        return recorded((1,) * 20, 20 / speed, None if name == PLAIN else tau)

    contest: Any = SimpleNamespace(drafters=["ngram"], run=run)
    clock = lambda: pass_seconds * runs.count("ngram")  # noqa: E731
    found = measure(contest, {TASK: ([1], Limits(80))}, 24.0, clock=clock)
    return found[TASK, "ngram"], runs


def test_drafters_are_timed_next_to_plain_and_the_median_pair_is_taken() -> None:
    """One pass of three is disturbed; it changes nothing."""
    pair, runs = timed({PLAIN: [10, 1, 10], "ngram": [20, 20, 21]}, tau=3)
    assert runs == [PLAIN, "ngram", "ngram", PLAIN, PLAIN, "ngram"]
    assert (pair.plain.speed, pair.fast.speed, pair.ratio, pair.tau) == (10.0, 20.0, 2.0, 3.0)


def test_passes_end_when_the_time_is_used_up() -> None:
    _, runs = timed({PLAIN: [10], "ngram": [20]}, tau=3, pass_seconds=11)
    assert runs.count("ngram") == 2


@pytest.mark.parametrize("again", [15.0, 99.0])
def test_an_impossible_ratio_is_measured_again_and_never_shown(again: float, folder: Path) -> None:
    pair, runs = timed({PLAIN: [10], "ngram": [42.2, 42.2, 42.2, again]}, tau=2)
    assert runs.count("ngram") == 6
    assert pair.usable == (again == 15)
    assert not pair.usable or pair.ratio == 1.5
    lab = Session.open(str(folder), dtype="float64")
    text = pages(lab, [5, 6], [5, 6], speed=again, tau=2, width=60)
    assert ("machine busy: timing not usable" in text) == (again == 99)
    assert "9.90" not in text
    assert ("too busy to time anything" in text) == (again == 99)


def test_a_ratio_just_above_tau_is_not_used() -> None:
    pair, _ = timed({PLAIN: [10], "ngram": [10.3, 9.9, 10.3]}, tau=1)
    assert pair.ratio == 0.99


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_page_fits_its_terminal(width: int, folder: Path) -> None:
    lab = Session.open(str(folder), dtype="float64")
    text = pages(lab, list(range(5, 60)), list(range(5, 60)), speed=17.59, tau=2.5, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "editing ngram 10.0 17.6 1.76 2.50 0.75 identical" in " ".join(text.split())
    beside = "plain decoding" in (line := next(line for line in text.splitlines() if "with guesses by" in line))
    assert beside == (width >= 90), line
    first = " ".join(text[: text.index("prompt")].split())
    assert "the editing answer came 1.76 times as fast (drafter ngram), and the text was the model's own" in first


@pytest.mark.parametrize("found", [True, False])
def test_the_next_steps_activate_the_environment_unless_specdec_is_on_the_path(
    found: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    (tmp_path / "specdec").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", str(tmp_path) if found else "")
    lab = Session.open(str(folder), dtype="float64")
    text = pages(lab, [5, 6, 7], [5, 6, 7], speed=20.0, tau=2.5, width=120)
    assert (
        "\nsource .venv/bin/activate  comes first: specdec is not on the PATH\nnext: specdec demo -v" in text
    ) != found
    assert typed("specdec prove") == ("specdec prove" if found else "source .venv/bin/activate && specdec prove")


def test_no_gain_is_admitted(folder: Path) -> None:
    lab = Session.open(str(folder), dtype="float64")
    assert "guessing ahead saved no time on this machine" in pages(lab, [5, 6], [5, 6], speed=9, tau=1, width=80)


def test_the_race_is_played_at_the_measured_speed(folder: Path) -> None:
    """On a terminal each token appears when it was decoded: halfway through, plain decoding has half of its text."""
    lab = Session.open(str(folder), dtype="float64")
    pair = Pair(recorded(range(5, 15), 1.0), recorded(range(5, 15), 0.25, 4))
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    assert isinstance(screen.file, io.StringIO)
    seen: list[tuple[float, str]] = []
    started = time.perf_counter()

    def sleep(seconds: float) -> None:
        seen.append((time.perf_counter() - started, screen.file.getvalue()))
        time.sleep(seconds)

    show_race(Contest(lab, {}), pair, "ngram", screen, sleep)
    assert 1.0 <= time.perf_counter() - started < 20
    assert len(seen) > 3
    at, text = next((at, text) for at, text in seen if at > 0.3)
    assert "40.0 tokens/s" in text, "the fast one is done"
    assert at > 1.0 or "10.0 tokens/s" not in text, "the slow one is not"
    assert "10.0 tokens/s" in screen.file.getvalue()
    assert "\x1b[?25h" in screen.file.getvalue(), "the cursor is back"


def test_without_colour_brackets_mark_the_guesses() -> None:
    screen = Console(file=io.StringIO(), width=60)
    painter = Painter(screen, lambda tokens: "".join("\n" if token == 9 else f" t{token}" for token in tokens))
    painter.show(Round((1, 2), (3,), (4, 9), 5))
    painter.show(Round(added=6))
    painter.end()
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().split() == "{t1 t2} [-t3 t4⏎-] t5 t6".split()
    assert marked(Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", no_color=True))
    assert not marked(Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", no_color=False))


def test_parting_measures_gap_and_rounding(tiny_weights: torch.nn.Module) -> None:
    single = Target(tiny_llama(dtype=torch.float32))
    look = parting(single, [3, 5], [7, 9], 1)
    logits = tiny_weights(torch.tensor([[3, 5, 7]])).logits[0, -1]
    top = logits.topk(2)
    assert look.best == tuple(top.indices.tolist())
    assert look.gap == pytest.approx(float(top.values[0] - top.values[1]), abs=1e-3)  # float32 against float64
    assert 0 < look.noise < 1e-3


def test_one_step_of_the_logits_own_format_is_rounding() -> None:
    """Two bfloat16 logits a step apart are a near tie, even where all ways of computing them agree here."""
    model = tiny_llama(dtype=torch.bfloat16)
    target = Target(model, check=False)
    look = parting(target, [3, 5], [7, 9], 1)
    best = float(model(torch.tensor([[3, 5, 7]])).logits[0, -1].max())
    assert look.noise >= abs(best) * 2**-8


def test_verify_curve_commits_nothing() -> None:
    target = Target(tiny_llama(), check=False)
    ticks: list[None] = []
    curve = measure_verify_curve(target, (1, 4), context=9, passes=3, tick=lambda: ticks.append(None))
    assert list(curve) == [1, 4]
    assert min(curve.values()) > 0
    assert target.lengths == [9]
    assert len(ticks) == 4  # one to warm up
    measure_verify_curve(target, (1,), context=9, passes=99, seconds=0.0, tick=lambda: ticks.append(None))
    assert len(ticks) == 5


# Colours


def painted(*steps: Round) -> str:
    """What a terminal gets for these rounds; a token is its number and a space."""
    screen = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="truecolor", no_color=False)
    painter = Painter(screen, lambda tokens: "".join(f"t{token} " for token in tokens))
    for step in steps:
        painter.show(step)
    painter.end()
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def ansi(name: str) -> str:
    """The escape code of a palette colour."""
    red, green, blue = (int(PALETTE[name][i : i + 2], 16) for i in (1, 3, 5))
    return f"38;2;{red};{green};{blue}m"


def test_tokens_are_painted_by_what_became_of_them(folder: Path) -> None:
    record = StepRecord(0, drafted=4, tested=2, accepted=1, emitted=2, depth=4)
    text = painted(Round((1,), (2,), (3, 4), 5, "correction", record=record), Round(added=6))
    assert f"\x1b[{ansi('accepted')}t1\x1b" in text
    assert f"\x1b[9;{ansi('rejected')}t2\x1b" in text  # 9: struck through
    assert "\x1b[2;9mt3\x1b" in text  # 2: dim
    assert f"\x1b[1;{ansi('bonus')}t5\x1b" in text  # 1: bold
    assert f"\x1b[{ansi('target')}t6\x1b" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert [plain.index(f"t{i}") for i in range(1, 7)] == sorted(plain.index(f"t{i}") for i in range(1, 7))


def test_painted_text_is_wrapped_between_words() -> None:
    lines = re.sub(r"\x1b\[[\d;]*m", "", painted(*(Round(added=i) for i in range(100, 140)))).splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 60
    assert " ".join(lines).split() == [f"t{i}" for i in range(100, 140)]


def linear(colour: str) -> Tensor:
    """Linear red, green and blue of an sRGB hex colour."""
    value = torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


TO_XYZ = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
VISION = {  # Machado, Oliveira & Fernandes 2009, Table 1, full severity, on linear RGB
    "normal": torch.eye(3),
    "protanopia": torch.tensor(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": torch.tensor(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": torch.tensor(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab_colour(rgb: Tensor) -> Tensor:
    """CIELAB under D65."""
    x, y, z = (TO_XYZ @ rgb.clamp(0, 1) / torch.tensor([0.9505, 1.0, 1.089])).pow(1 / 3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_every_reader_can_tell_the_palette_apart(vision: str) -> None:
    seen = [lab_colour(VISION[vision] @ linear(colour)) for colour in PALETTE.values()]
    nearest = min(float((one - other).norm()) for i, one in enumerate(seen) for other in seen[:i])
    assert nearest > 15  # CIE76; 2.3 is just noticeable side by side


def test_tokens_can_be_read_on_black_and_on_white() -> None:
    for name in ("target", "accepted", "rejected", "bonus"):
        luminance = float(TO_XYZ[1] @ linear(PALETTE[name]))
        assert min((luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)) >= 3  # WCAG 2.2, 1.4.11
