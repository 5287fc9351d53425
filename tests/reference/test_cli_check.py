"""`specdec generate --check`, its default drafter, and what it writes to stderr."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Specdec, folder, specdec, write_lines

from specdec_ref.cli.identity import parting
from specdec_ref.cli.settings import unapplied
from specdec_ref.drafters import DRAFTERS
from specdec_ref.models import probe
from specdec_ref.request import Generation
from specdec_ref.session import Session
from specdec_ref.weights import best_drafter

__all__ = ["folder", "specdec"]  # fixtures


def planted(monkeypatch: pytest.MonkeyPatch, token: int) -> None:
    """Plain decoding finds `token` in the third place, as if the engine had written the wrong one there."""
    real = Session.plain

    def wrong(lab: Session, *args: Any, **settings: Any) -> list[Generation]:
        return [replace(it, tokens=[*it.tokens[:2], token, *it.tokens[3:]]) for it in real(lab, *args, **settings)]

    monkeypatch.setattr(Session, "plain", wrong)


def check(specdec: Specdec, folder: Path, *argv: object) -> int:
    return specdec("generate", "--check", "--target", folder, "--max-new-tokens", "9", "--ignore-eos", *argv)


def test_check_says_identical(folder: Path, specdec: Specdec, tmp_path: Path) -> None:
    assert check(specdec, folder, "--dtype", "float64", "The keeper") == 0
    assert specdec.err.endswith("specdec: identical to plain decoding (9 tokens)\n")
    file = write_lines(tmp_path / "p", {"id": 1, "prompt": "red"}, {"id": 2, "prompt": "The keeper"})
    assert check(specdec, folder, "--dtype", "float64", "--json", "--batch-size", 2, "--prompts-file", file) == 0
    assert specdec.err.endswith("specdec: identical to plain decoding (2 texts, 18 tokens)\n")
    assert [json.loads(line)["id"] for line in specdec.out.splitlines()] == [1, 2]


def test_check_fails_on_a_difference_that_rounding_does_not_explain(
    folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = Session.open(str(folder), dtype="float64")
    plain = lab.plain([lab.encode("The keeper")], limits=lab.limits(9, ignore_eos=True))[0].tokens
    planted(monkeypatch, wrong := 20 if plain[2] != 20 else 21)
    assert check(specdec, folder, "--dtype", "float64", "The keeper") == 1
    last = specdec.err.splitlines()[-1]
    assert f"from token 3 on: {lab.decode(plain[2:3])!r} instead of {lab.decode([wrong])!r}" in last
    assert "Rounding in float64 does not explain this; please report it" in last
    assert "%" in last
    file = write_lines(tmp_path / "p", {"id": 1, "prompt": "red"}, {"id": 2, "prompt": "The keeper"})
    assert check(specdec, folder, "--dtype", "float64", "--prompts-file", file) == 1
    assert "of 2 texts" in specdec.err
    assert f"{file}, line 2: the text differs" in specdec.err


def test_check_explains_a_near_tie(folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Session.open(str(folder), dtype="float64")
    plain = lab.plain([lab.encode("The keeper")], limits=lab.limits(9, ignore_eos=True))[0].tokens
    wrong = next(token for token in range(20, 40) if token not in plain)
    lab.target.model.lm_head.weight[wrong] = lab.target.model.lm_head.weight[plain[2]]  # the two tie everywhere
    look = parting(lab.target, lab.encode("The keeper"), plain, 2, wrong)
    assert look.explained
    assert look.probabilities[0] == pytest.approx(look.probabilities[1])
    monkeypatch.setattr(Session, "open", lambda *_, **__: lab)
    planted(monkeypatch, wrong)
    code = check(specdec, folder, "The keeper")
    assert code == 0, specdec.err
    assert "a near-tie, which rounding in float64 can decide either way" in specdec.err


def test_a_near_tie_of_two_tokens_excuses_no_third(folder: Path) -> None:
    lab = Session.open(str(folder), dtype="float64")
    prompt = lab.encode("The keeper")
    plain = lab.plain([prompt], limits=lab.limits(9, ignore_eos=True))[0].tokens
    twin, third = (token for token in range(20, 24) if token not in plain[:3]), 30
    weights = lab.target.model.lm_head.weight
    weights[tied := next(twin)] = weights[plain[2]]
    assert parting(lab.target, prompt, plain, 2, tied).explained
    assert not parting(lab.target, prompt, plain, 2, third).explained


@pytest.mark.parametrize("name", ["none", "layer-skip"])
def test_one_line_of_figures_and_the_rest_with_v(
    name: str, folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--target", folder, "--drafter", name, "--max-new-tokens", "9", "--ignore-eos", "The keeper"]
    assert specdec("generate", "--dtype", "float64", *argv) == 0
    loading, figures = specdec.err.splitlines()
    assert loading.startswith("specdec: loading ")
    tau = 1.0 if name == "none" else 3.0  # on three layers, layer-skip skips none: both guesses are right
    assert figures.startswith(f"specdec: 9 tokens, {tau:.2f} per target forward, ")
    assert figures.endswith(f" tokens/s, {'plain decoding' if name == 'none' else 'drafter layer-skip'}")
    assert specdec("generate", "--dtype", "float64", "-v", *argv) == 0
    assert f"in float64 on cpu, drafter {name}" in specdec.err
    assert ("alpha" in specdec.err) == (name != "none")
    assert "near-tie" not in specdec.err
    for exact in (True, False):
        monkeypatch.setattr(probe, "exact_rows", lambda _, exact=exact: exact)
        assert specdec("generate", "--dtype", "bfloat16", "-v", *argv) == 0
        said = "can part from plain decoding's at a near-tie" in specdec.err
        assert said == (name != "none" and not exact)


def test_the_best_drafter_that_ships_is_the_default(folder: Path, specdec: Specdec) -> None:
    assert best_drafter("smollm2-135m") == "hybrid"
    assert best_drafter("org/other") == best_drafter(str(folder)) == "ngram"
    assert best_drafter("smollm2-135m") in DRAFTERS
    assert specdec.rows("--target", folder, "--max-new-tokens", "2", "red")[0]["drafter"] == "ngram"


def test_settings_of_the_model_that_are_not_applied_are_named_once(
    folder: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Session.open(str(folder), dtype="float64")
    settings = lab.target.model.generation_config
    assert unapplied(settings, sampled=False) == []
    assert unapplied(None, sampled=False) == []
    settings.repetition_penalty, settings.suppress_tokens = 1.3, [4, 5]
    settings.do_sample, settings.temperature = True, 0.6
    monkeypatch.setattr(Session, "open", lambda *_, **__: lab)
    argv = ["generate", "--target", folder, "--max-new-tokens", "2", "red"]
    assert specdec(*argv) == 0
    said = "repetition_penalty 1.3, suppress_tokens [4, 5], do_sample True, temperature 0.6"
    assert specdec.err.count(f"not applied from the model's generation_config.json: {said}\n") == 1
    assert specdec(*argv, "--temperature", "0.7") == 0
    assert "suppress_tokens [4, 5]\n" in specdec.err
