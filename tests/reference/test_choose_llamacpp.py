"""`specdec choose --engine llamacpp`: prices from counted rounds, and the choice that follows from them."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Specdec, specdec

from specdec_ref.bench import priced
from specdec_ref.bench.priced import Decoded, Priced, options, price_llamacpp, steps
from specdec_ref.choose import choose
from specdec_ref.engines import process
from specdec_ref.session import Session
from specdec_ref.training.gguf_export import export_gguf
from specdec_ref.weights import shipped_folder
from specdec_ref.workloads import HELD_OUT, load_prompts

__all__ = ["specdec"]  # a fixture

STEP = 0.02  # seconds of a plain step


def made(*, check: float = 2.0, drafting: int = 40, eagle: tuple[float, float, float] = (1.1, 1.2, 1.6)) -> Priced:
    """Two answers of 100 rounds each, on a machine that slows down: the second prompt takes three times as long."""

    def pair(run: Decoded) -> list[Decoded]:
        return [run, replace(run, seconds=3 * run.seconds)]

    rounds = {
        depth: pair(Decoded(100 * STEP * cost, 100, 100, 100 * depth, (60, 40, 20, 10)[:depth]))
        for depth, cost in zip((1, 2, 4), eagle, strict=True)
    }
    plain, copies = pair(Decoded(50 * STEP, 50)), pair(Decoded(100 * STEP, 100, 25, 100, (15, 10, 5, 5)))
    seconds = STEP * (100 - drafting + drafting * check)
    return Priced(plain, rounds, copies, (plain[:1], [Decoded(seconds, 100, drafting, 4 * drafting, (30, 20, 20, 10))]))


def test_a_drafting_round_is_priced_without_the_plain_ones() -> None:
    assert made(check=2.3).check == {1: 1.0, 5: pytest.approx(2.3)}


def test_too_few_drafting_rounds_give_no_price() -> None:
    found, v = options(made(drafting=priced.FEW - 1))
    assert [option.name for option in found] == ["eagle"]
    assert v(5) == 1.0


def test_costs_between_measured_lengths_are_interpolated() -> None:
    line = steps({0: 1.0, 1: 1.1, 2: 1.2, 4: 1.6})
    assert [line(k) for k in (0, 1, 2, 3, 4, 5)] == pytest.approx([1.0, 1.1, 1.2, 1.4, 1.6, 1.8])


def test_options_hold_paired_costs_and_shares_of_all_rounds() -> None:
    (eagle, ngram), v = options(made())
    assert eagle.alive == (0.6, 0.4, 0.2, 0.1)
    assert [eagle.cost(gamma) for gamma in (1, 2, 3, 4)] == pytest.approx([1.1, 1.2, 1.4, 1.6])
    assert (ngram.alive, ngram.drafts) == ((0.15, 0.10, 0.05, 0.05), 0.25)
    assert ngram.cost(4) == pytest.approx(v(5)) == pytest.approx(2.0)


@pytest.mark.parametrize(("eagle", "check", "method"), [
    ((1.1, 1.2, 1.6), 2.0, "eagle"), ((2.0, 2.4, 3.5), 1.1, "ngram"), ((2.0, 2.4, 3.5), 3.0, "none"),
])  # fmt: skip
def test_prices_decide(eagle: tuple[float, float, float], check: float, method: str) -> None:
    offered, v = options(made(eagle=eagle, check=check))
    assert choose(offered, v).method == method


def test_the_command_names_the_way_to_serve(specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measure(target: Path, head: Path | None, prompts: list[str], *more: Any, **settings: Any) -> Priced:
        asked.append((target.name, head and head.name, len(prompts), settings["threads"]))
        return made()

    monkeypatch.setattr(priced, "price_llamacpp", measure)
    monkeypatch.setattr(process, "find_spec", lambda name: object())
    monkeypatch.setattr("specdec_ref.cli.serve.gguf_files", lambda *_: (Path("t.gguf"), Path("head.gguf")))
    argv = ["choose", "--engine", "llamacpp", "--type", "f32", "--threads", "2"]
    assert specdec(*argv, "--task", "code") == 0
    assert "eagle, gamma 2: 1.67 times plain, predicted (task code, temperature 0; llama.cpp on this machine, f32)" in (
        specdec.out
    )
    assert "specdec serve --drafter eagle --depth 2 --type f32 --threads 2" in specdec.out
    assert specdec(*argv, "--json") == 0
    assert json.loads(specdec.out)["gamma"] == 2
    assert asked == [("t.gguf", "head.gguf", 4, 2), ("t.gguf", "head.gguf", 6, 2)]


@pytest.mark.parametrize("more", [
    ("--gpu", "H100"), ("--acceptance", "eagle=0.5"), ("--batch", "4"), ("--task", "poetry"),
    ("--target", "missing.gguf"), ("--type", "f17"),
])  # fmt: skip
def test_what_does_not_go_together(specdec: Specdec, more: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_spec", lambda name: object())
    specdec.error(2, "choose", "--engine", "llamacpp", *more)


def test_without_the_wheel_it_names_the_extra(specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    specdec.error(1, "choose", "--engine", "llamacpp")
    assert "pip install 'specdec-ref[llamacpp]'" in specdec.err


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="xllamacpp is not installed: pip install 'specdec-ref[llamacpp]'"
)
def test_the_engine_itself_is_measured(embedded: Session, tmp_path: Path) -> None:
    """Counts fit together; times are not judged, other work may share the machine."""
    source = shipped_folder("smollm2-135m")
    assert source is not None
    files = export_gguf(source, embedded.target.model, embedded.tokenizer, tmp_path)
    prompts = [prompt.prompt for prompt in load_prompts(["editing"], "dev", file=HELD_OUT)[:1]]
    found = price_llamacpp(*files, prompts, tokens=24)
    assert found.plain[0].rounds == 23
    for depth, (run,) in found.eagle.items():
        assert run.rounds + sum(run.positions) == 23
        assert len(run.positions) == depth
        assert list(run.positions) == sorted(run.positions, reverse=True)
        assert 0 < run.drafting <= run.rounds
    assert sum(answer.drafting for answer in found.repeats[1]) >= priced.FEW, "the text does repeat"
    assert set(found.check) == {1, 5}
    offered, v = options(found)
    assert choose(offered, v).method in ("eagle", "ngram", "none")
