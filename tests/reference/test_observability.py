"""What a run publishes: Prometheus text under three vocabularies, the engines' log lines, a trace that replays."""

import json
from pathlib import Path

import pytest
from cli_helpers import Specdec, folder, specdec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.exporters import ENGINES
from specdec_ref.exposition import exposition, parse, sglang_line, vllm_line
from specdec_ref.metrics import RunStats, StepRecord
from specdec_ref.replay import read_trace, trace_lines
from specdec_ref.session import Session
from specdec_ref.trace import Round, plain_rounds, rounds

__all__ = ["folder", "specdec"]  # fixtures

ROUNDS = [
    StepRecord(0, 4, 3, 2, 3, 4),
    StepRecord(0, 4, 4, 4, 5, 4),
    StepRecord(0, 4, 1, 0, 1, 4),
    StepRecord(0, 0, 0, 0, 1, 0),
]
STATS = RunStats.from_records(
    ROUNDS
)  # 4 rounds, 3 with a draft, 10 tokens, 12 drafted, 6 accepted, by position 2 2 1 1


def test_three_vocabularies_of_one_run() -> None:
    """The same run, worked out by hand for each."""
    got = parse(exposition(STATS, DraftBudget(4), seconds=2.0))
    wanted = {
        "specdec:rounds_total": 4, "specdec:tokens_total": 10, "specdec:drafted_total": 12, "specdec:tested_total": 8,
        "specdec:accepted_total": 6, "specdec:tau": 2.5, "specdec:alpha": 0.75, "specdec:tokens_per_second": 5,
        'specdec:accepted_at_position_total{position="1"}': 2, 'specdec:accepted_at_position_total{position="4"}': 1,
        "sglang:spec_accept_length": 2.5, "sglang:spec_accept_rate": 6 / 16, "sglang:spec_num_steps": 4,
        "sglang:spec_num_draft_tokens": 5, "sglang:spec_verify_calls_total": 4,
        "vllm:spec_decode_num_drafts_total": 3, "vllm:spec_decode_num_draft_tokens_total": 12,
        "vllm:spec_decode_num_accepted_tokens_total": 6,
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{position="0"}': 2,
    }  # fmt: skip
    assert {name: got[name] for name in wanted} == pytest.approx(wanted)


def test_names_are_the_engines_own() -> None:
    text = exposition(STATS, DraftBudget(4))
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    kinds = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    for engine in ("sglang", "vllm"):
        known = ENGINES[engine]["metrics"]
        if engine == "vllm":  # its client appends _total to the names of counters
            known = {f"{name}_total": kind for name, kind in known.items()}
        ours = {name for name in names if name.startswith(f"{engine}:")}
        assert len(ours) >= 4
        assert ours <= set(known)
        assert all(kinds[name] == known[name] for name in ours)


@given(model=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_prometheus_own_parser_reads_it(model: str) -> None:
    """Whatever the model is called: labels are escaped."""
    text = exposition(STATS, DraftBudget(4, 4, 16), seconds=1.0, model=model)
    if any(char in model for char in "\x0b\x0c\r\x1c\x1d\x1e\x85\u2028\u2029"):
        return  # the client's parser splits lines by str.splitlines, Prometheus itself by "\n" alone
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len(samples) == len([line for line in text.splitlines() if not line.startswith("#")])
    assert {sample.labels.get("model_name", "") for sample in samples} == {model}


def test_log_lines_are_the_engines() -> None:
    assert sglang_line(STATS, DraftBudget(4), seconds=2.0) == (
        "Decode batch, #running-req: 1, accept len: 2.50, accept rate: 0.38, gen throughput (token/s): 5.00"
    )
    line = vllm_line(STATS, seconds=2.0)
    assert "Mean acceptance length: 3.00, Accepted throughput: 3.00 tokens/s, Drafted throughput: 6.00 tokens/s" in line
    assert "Per-position acceptance rate: 0.667, 0.667, 0.333, 0.333, Avg Draft acceptance rate: 50.0%" in line


def test_our_log_line_prints_each_engines_length() -> None:
    """SGLang counts every round, vLLM only those with a draft: 10 / 4 against 1 + 6 / 3."""
    line = STATS.log_line()
    assert "tau 2.50 [SGLang accept len], in the 3 rounds with a draft 3.00 [vLLM mean acceptance length]" in line
    assert "in the 0 rounds with a draft 1.00" in RunStats.from_records([StepRecord(0, 0, 0, 0, 1, 0)]).log_line()


def test_an_empty_run_has_figures_too() -> None:
    assert parse(exposition(RunStats(), DraftBudget(0)))["sglang:spec_accept_rate"] == 0.0
    assert "length: 1.00" in vllm_line(RunStats())
    with pytest.raises(ValueError, match="no sample"):
        parse("lonely\n")
    assert parse('held{model="a b",at="1"} 2.5 1700000000\n') == {'held{model="a b",at="1"}': 2.5}, "a time is no value"


# Traces


def traced(folder: Path, drafter: str) -> tuple[Session, list[Round]]:
    """A run of the tiny model."""
    lab = Session.open(str(folder), dtype="float64")
    limits = lab.limits(30, ignore_eos=True)
    prompt = lab.encode("The keeper lights the lamp. The keeper lights")
    if drafter == "none":
        return lab, list(plain_rounds(lab.target, prompt, limits=limits, sampling=SamplingParams(1.0)))
    engine = lab.engine(drafter, budget=DraftBudget(3), limits=limits, sampling=SamplingParams(1.0))
    return lab, list(rounds(engine, prompt, seed=3))


@pytest.mark.parametrize("drafter", ["ngram", "layer-skip", "none"])
def test_a_trace_comes_back_whole(folder: Path, drafter: str) -> None:
    """Same rounds, same ids, same records, and the text to the last character, half ones included."""
    lab, done = traced(folder, drafter)
    trace = read_trace("".join(trace_lines(done, lab.decode, target="tiny", drafter=drafter)))
    assert trace.about == {"target": "tiny", "drafter": drafter}
    assert len(trace.rounds) == len(done)
    for step, was in zip(trace.rounds, done, strict=True):
        for name in ("accepted", "rejected", "untested"):
            assert tuple(trace.ids[place] for place in getattr(step, name)) == getattr(was, name)
        assert (step.added is None) == (was.added is None)
        assert (step.kind, step.record) == (was.kind, was.record)
    emitted = [token for step in done for token in step.tokens]
    assert trace.decode([place for step in trace.rounds for place in step.tokens]) == lab.decode(emitted)


@pytest.mark.parametrize(
    ("text", "line"),
    [("", 1), ("{}\n", 1), ('{"specdec_trace": 2}\n', 1), ("[]\n", 1), ('{"specdec_trace": 1}\nno\n', 2),
     ('{"specdec_trace": 1}\n{"accepted": 3}\n', 2), ('{"specdec_trace": 1}\n{"tail": "x"}\n', 2)],
)  # fmt: skip
def test_what_is_no_trace(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=f"line {line} is not of a trace"):
        read_trace(text)


def test_a_trace_feeds_the_notebook_s_stepper(folder: Path) -> None:
    widgets = pytest.importorskip("specdec_course.widgets", reason="the stepper needs the extra `notebooks`")
    lab, done = traced(folder, "ngram")
    trace = read_trace("".join(trace_lines(done, lab.decode)))
    live = widgets.step_view(done, lab.decode, len(done))
    assert widgets.step_view(trace.rounds, trace.decode, len(done)).html == live.html


def test_cli_records_and_replays(folder: Path, specdec: Specdec, tmp_path: Path) -> None:
    trace, metrics = tmp_path / "run.jsonl", tmp_path / "run.prom"
    argv = ["--target", folder, "--ignore-eos", "--max-new-tokens", 24, "--metrics", metrics]
    assert specdec("generate", *argv, "--trace", trace, "the lamp the lamp") == 0
    text = specdec.out
    figures = parse(metrics.read_text())
    assert figures[f'specdec:tokens_total{{model_name="{folder}"}}'] == 24
    assert specdec("replay", trace) == 0
    assert "alpha" in specdec.err
    shown = iter(specdec.out.partition("\n")[2])  # below the legend; rejected guesses stand between, lines are wrapped
    assert all(char in shown for char in text if not char.isspace())
    assert specdec("replay", trace, "--rounds") == 0
    assert len(specdec.out.splitlines()) >= len(read_trace(trace.read_text()).rounds)
    specdec.error(2, "replay", trace, "--speed", "-1")
    specdec.error(2, "replay", tmp_path / "none.jsonl")
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"id": "a", "prompt": "the lamp"}) + "\n")
    assert specdec("generate", *argv, "--prompts-file", file, "--json") == 0
    assert parse(metrics.read_text())[f'specdec:tokens_total{{model_name="{folder}"}}'] == 24
    specdec.error(2, "generate", *argv, "--prompts-file", file, "--trace", trace)
    specdec.error(2, "generate", *argv[:4], "--metrics", tmp_path / "no" / "folder", "the lamp")
