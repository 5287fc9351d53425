"""`specdec demo`: what it shows and what it claims; the palette; text while it streams."""

import io
import math
import re
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
from specdec_ref.cli.paint import Painter
from specdec_ref.cli.summary import print_summary
from specdec_ref.cli.timing import Timing, measure
from specdec_ref.drafters import DRAFTERS
from specdec_ref.metrics import RunStats
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.palette import PALETTE
from specdec_ref.request import Limits
from specdec_ref.session import Session
from specdec_ref.trace import Round

__all__ = ["folder", "specdec"]  # fixtures


def table_rows(text: str) -> list[list[str]]:
    """The rows of the demo's table, their cells without bars and units."""
    lines = text[text.index("what it bought") :].splitlines()[2:]
    return [re.sub(r" x\b|█", "", line).split() for line in lines[: lines.index("")]]


def test_demo_compares_every_drafter_with_plain(folder: Path, specdec: Specdec) -> None:
    assert (
        specdec("demo", "--target", folder, "--dtype", "float64", "--draft-model", folder, "--max-new-tokens", 9) == 0
    )
    rows = table_rows(specdec.out)
    assert [row[0] for row in rows if row[0] in ("editing", "chat")] == ["editing", "chat"]
    assert [row[1] for row in rows if row[0] in ("editing", "chat")] == [PLAIN] * 2
    shown = [name for name in DRAFTERS if name not in ("eagle", "hybrid")]  # no head is shipped for the tiny model
    assert [row[0] for row in rows if row[0] not in ("editing", "chat")] == shown * 2
    assert all(row[-1] == "identical" for row in rows if row[0] in DRAFTERS)
    assert specdec.out.count("left out") == 2
    assert all(f"{name} is left out: no EAGLE head is shipped for tiny" in specdec.out for name in ("eagle", "hybrid"))
    assert "\x1b[" not in specdec.out  # no colours where no terminal is
    lab = Session.open(str(folder), dtype="float64")
    gammas = {"draft": 4, "layer-skip": 2}  # on three layers, layer-skip skips none: both guess all tokens right
    exact = [row for row in rows if row[0] in gammas]
    for task, found in zip(demo.TASKS, (exact[:2], exact[2:]), strict=True):
        length = len(lab.plain([lab.encode(task.prompt)], limits=lab.limits(9))[0].tokens)
        for row in found:
            rounds = math.ceil(length / (gammas[row[0]] + 1))
            assert row[2:4] == [f"{length / rounds:.2f}", "1.00"]


def test_demo_says_which_drafter_is_left_out_and_why(folder: Path, specdec: Specdec) -> None:
    assert specdec("demo", "--target", folder, "--max-new-tokens", 2, "--depth", 1) == 0
    assert "draft is left out: it needs a second, smaller model, --draft-model" in specdec.out
    assert {row[0] for row in table_rows(specdec.out)} == {"editing", "chat", *DRAFTERS} - {"draft", "eagle", "hybrid"}


def test_demo_shortens_its_answers_on_a_slow_machine(
    folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SHOW_SECONDS", 1e-6)
    assert specdec("demo", "--target", folder) == 0
    assert "answers are cut to 0% of their length" in specdec.out
    assert all(int(count) <= 16 for count in re.findall(r"(\d+) tokens(?: in |, one)", specdec.out))


def summary(lab: Session, answers: dict[str, list[int]], timing: Timing | None = None, width: int = 400) -> str:
    """The last page for these answers to one prompt, plain's first; `timing` is that of every drafter."""
    task = Task("editing", "The keeper", 8)
    screen = Console(file=io.StringIO(), width=width)
    plain = Timing(10.0, 1.0, None, 1.0)
    runs = {(task, name): Run(tuple(tokens), 1.0, None) for name, tokens in answers.items()}
    timings = {key: plain if key[1] == PLAIN or timing is None else timing for key in runs}
    work = {task: (lab.encode(task.prompt), lab.limits(8))}
    print_summary(Contest(lab, {}), work, runs, timings, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_difference_is_placed_and_judged(folder: Path) -> None:
    lab = Session.open(str(folder), dtype="float64")
    plain = lab.plain([lab.encode("The keeper")], limits=lab.limits(8, ignore_eos=True))[0].tokens
    wrong = [*plain[:4], plain[4] ^ 1, *plain[5:]]
    text = summary(lab, {PLAIN: plain, "ngram": wrong})
    assert "differs" in text
    assert f"token 5 is {lab.decode(wrong[4:5])!r}, plain has {lab.decode(plain[4:5])!r}" in text
    assert "more than rounding explains" in text
    weights = lab.target.model.lm_head.weight
    weights[wrong[4]] = weights[plain[4]]  # now the two tie
    assert "a near tie that float64 rounding decides" in summary(lab, {PLAIN: plain, "ngram": wrong})
    assert "identical" in summary(lab, {PLAIN: plain, "ngram": plain})
    assert "ends before the other" in summary(lab, {PLAIN: plain, "ngram": plain[:3]})


TASK = Task("editing", "The keeper", 80)


def timed(speeds: dict[str, list[float]], tau: float, *, pass_seconds: float = 1.0) -> tuple[Timing, list[str]]:
    """`measure` on planted speeds (tokens/s; the last one is repeated) and a faked clock: ngram's timing, all runs."""
    left = {name: list(planted) for name, planted in speeds.items()}
    runs: list[str] = []
    stats = RunStats(rounds=1000, tokens=round(1000 * tau))

    def run(name: str, prompt: list[int], limits: Limits) -> Run:
        assert limits.max_new_tokens <= 24
        runs.append(name)
        speed = left[name].pop(0) if len(left[name]) > 1 else left[name][0]
        return Run((1,) * 20, 20 / speed, None if name == PLAIN else stats)

    contest: Any = SimpleNamespace(decoders={PLAIN: None, "ngram": ()}, run=run, session=SimpleNamespace(limits=Limits))
    found = measure(contest, {TASK: ([1], Limits(80))}, 24.0, clock=lambda: pass_seconds * runs.count("ngram"))
    assert found[TASK, PLAIN].speedup == 1.0
    return found[TASK, "ngram"], runs


def test_drafters_are_timed_between_plain_runs_and_medians_taken() -> None:
    """One pass of three is disturbed; it changes nothing."""
    timing, runs = timed({PLAIN: [10, 10, 1, 1, 10], "ngram": [20, 20, 20]}, tau=3)
    assert runs == [PLAIN, "ngram", PLAIN] * 3
    assert (timing.speedup, timing.speed, timing.tau) == (2.0, 20.0, 3.0)


def test_passes_end_when_the_time_is_used_up() -> None:
    _, runs = timed({PLAIN: [10], "ngram": [20]}, tau=3, pass_seconds=11)
    assert runs.count("ngram") == 2


@pytest.mark.parametrize("again", [15.0, 99.0])
def test_an_impossible_speedup_is_timed_once_more_and_never_shown(again: float, folder: Path) -> None:
    timing, runs = timed({PLAIN: [10], "ngram": [42.2, 42.2, 42.2, again]}, tau=2)
    assert runs.count("ngram") == 6
    assert timing.speedup == (1.5 if again == 15 else None)
    lab = Session.open(str(folder), dtype="float64")
    text = summary(lab, {PLAIN: [5, 6], "ngram": [5, 6]}, timing, width=60)
    assert ("machine busy: timing not usable" in text) == (again == 99)
    assert all(number not in text for number in ("9.90", "4.22", "99.0"))
    assert ("too busy to time anything" in text) == (again == 99)


def test_a_clock_error_does_not_exceed_tau() -> None:
    timing, _ = timed({PLAIN: [10], "ngram": [10.3]}, tau=1)
    assert timing.speedup == 1.0


def test_the_last_page_fits_60_columns_and_ends_with_a_plain_sentence(folder: Path) -> None:
    lab = Session.open(str(folder), dtype="float64")
    text = summary(lab, {PLAIN: [5, 6], "layer-skip": [5, 6]}, Timing(123.4, 2.5, 0.75, 1.759), width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert "layer-skip 123.4 2.50 0.75 1.75 x identical" in " ".join(text.split())
    last = " ".join(text[text.index("In short") :].split())
    assert last.endswith("came 1.75 times as fast, and every text was identical to the model's own.")
    slow = summary(lab, {PLAIN: [5, 6], "ngram": [5, 6]}, Timing(9.0, 1.0, 0.0, 0.9))
    assert "guessing ahead saved no time on this machine" in slow


def test_without_colour_brackets_mark_the_guesses() -> None:
    screen = Console(file=io.StringIO(), width=60)
    painter = Painter(screen, lambda tokens: "".join(f" t{token}" for token in tokens))
    painter.show(Round((1, 2), (3,), (4,), 5))
    painter.show(Round(added=6))
    painter.end()
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().split() == "{t1 t2} [-t3 t4-] t5 t6".split()


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
    from specdec_ref.metrics import StepRecord

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
