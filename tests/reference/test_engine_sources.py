"""Our words for the engines against the engines' own code, read from their wheels. Nothing of it needs a GPU.

The wheels are large, so they are not fetched: put sglang-0.5.23 and vllm-0.33.0 (`pip download --no-deps`) into a folder
and name it in SPECDEC_ENGINE_WHEELS. Classes and functions are cut out of the sources and run with stand-ins for what
they import.
"""

import ast
import bisect
import dataclasses
import json
import logging
import math
import os
import time
import zipfile
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specdec_ref.config import DraftBudget
from specdec_ref.exporters.sglang import _own_triple
from specdec_ref.exposition import exposition, parse, vllm_line
from specdec_ref.metrics import RunStats, StepRecord
from specdec_ref.tiers import SGLANG_TIERS, BatchTiers

WHEELS = os.environ.get("SPECDEC_ENGINE_WHEELS", "")
SGLANG, VLLM = "sglang-0.5.23", "vllm-0.33.0"


@cache
def source(wheel: str, member: str) -> ast.Module:
    """A file of a wheel, parsed."""
    found = sorted(Path(WHEELS).glob(f"{wheel}-*.whl")) if WHEELS else []
    if not found:
        pytest.skip(f"{wheel}'s wheel is not in the folder that SPECDEC_ENGINE_WHEELS names")
    with zipfile.ZipFile(found[0]) as archive:
        return ast.parse(archive.read(member))


def cut(wheel: str, member: str, *names: str, **known: Any) -> SimpleNamespace:
    """These functions, classes and constants of a file in a wheel, defined anew; methods by "Class.method"."""
    tree = source(wheel, member)
    wanted: list[ast.stmt] = []
    for node in tree.body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else node
        )
        name = getattr(target, "id", getattr(node, "name", ""))
        methods = [n.partition(".")[2] for n in names if n.startswith(f"{name}.")]
        wanted += [node] if name in names else []
        wanted += [item for item in getattr(node, "body", []) if getattr(item, "name", "") in methods]
    space = dict(known)
    module = ast.Module([ast.ImportFrom("__future__", [ast.alias("annotations")], 0), *wanted], [])
    exec(compile(ast.fix_missing_locations(module), member, "exec"), space)
    return SimpleNamespace(**{name.rpartition(".")[2]: space[name.rpartition(".")[2]] for name in names})


@cache
def sglang_tiers() -> SimpleNamespace:
    return cut(
        SGLANG,
        "sglang/srt/speculative/adaptive_spec_params.py",
        "DEFAULT_ADAPTIVE_CONFIG",
        "_load_adaptive_config",
        "AdaptiveStepSlot",
        "AdaptiveSpeculativeParams",
        bisect=bisect,
        json=json,
        math=math,
        cached_property=cached_property,
        logger=logging.getLogger("engine"),
        log_info_on_rank0=lambda *_: None,
    )


@cache
def vllm_metrics() -> SimpleNamespace:
    space = {"dataclass": dataclasses.dataclass, "field": dataclasses.field, "np": np, "time": time,
             "logger": logging.getLogger("engine"), "__name__": __name__}  # fmt: skip
    stats = cut(VLLM, "vllm/v1/spec_decode/metrics.py", "SpecDecodingStats", "SpecDecodingLogging", **space)
    member = "vllm/v1/core/sched/scheduler.py"
    made = cut(VLLM, member, "Scheduler.make_spec_decoding_stats", SpecDecodingStats=stats.SpecDecodingStats)
    return SimpleNamespace(**vars(stats), **vars(made))


def test_tiers_are_sglangs_default() -> None:
    config = sglang_tiers().DEFAULT_ADAPTIVE_CONFIG
    assert {int(size): tuple(entry["candidate_steps"]) for size, entry in config.items()} == dict(SGLANG_TIERS)


@given(
    rounds=st.lists(st.tuples(st.sampled_from([1, 2, 7, 8, 31, 32, 63, 64, 200]), st.floats(0, 1)), min_size=40, max_size=120),
    steps=st.sampled_from([0, 1, 3, 5, 7]),
)  # fmt: skip
@settings(deadline=None)
def test_lengths_are_sglangs(rounds: list[tuple[int, float]], steps: int) -> None:
    """Rounds of batches that change in size; a row accepts that share of what was drafted."""
    theirs, ours = sglang_tiers().AdaptiveSpeculativeParams(steps), BatchTiers(steps)
    for number, (batch, share) in enumerate(rounds):
        depth = theirs.get_steps_for_batch(batch)
        assert ours.depths(range(batch), 99) == [depth] * batch, number
        accepted = round(share * depth)
        theirs.on_verify_complete([accepted] * batch, batch)
        ours.observe([StepRecord(0, depth, depth, accepted, accepted + 1, depth)] * batch)


@given(
    rounds=st.lists(
        st.integers(0, 4).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1, max_size=40
    )
)
@settings(deadline=None)
def test_counters_and_log_line_are_vllms(rounds: list[tuple[int, int]]) -> None:
    """Of rounds that drafted n tokens and accepted some, as the scheduler of the V1 runner books them."""
    engine = vllm_metrics()
    scheduler, log = SimpleNamespace(log_stats=True, num_spec_tokens=4), engine.SpecDecodingLogging()
    total = engine.SpecDecodingStats.new(4)
    for drafted, accepted in rounds:
        booked = engine.make_spec_decoding_stats(scheduler, None, drafted, accepted, None, "request")
        if booked is not None:
            log.observe(booked)
            engine.make_spec_decoding_stats(scheduler, total, drafted, accepted, None, "request")
    stats = RunStats.from_records(StepRecord(0, n, min(n, a + 1), a, a + 1, n) for n, a in rounds)
    page = {
        name.partition("vllm:spec_decode_")[2]: value
        for name, value in parse(exposition(stats, DraftBudget(4))).items()
    }
    assert page["num_drafts_total"] == total.num_drafts
    assert page["num_draft_tokens_total"] == total.num_draft_tokens
    assert page["num_accepted_tokens_total"] == total.num_accepted_tokens
    per_position = [value for name, value in page.items() if name.startswith("num_accepted_tokens_per_pos_total")]
    assert per_position == total.num_accepted_tokens_per_pos[: len(per_position)]
    if total.num_drafts:
        assert stats.drafted_length == pytest.approx(1 + total.num_accepted_tokens / total.num_drafts)
    said: list[str] = []
    log.log(lambda text, *values: said.append(text % values))
    for line in said:
        for part in ("Mean acceptance length: ", "Avg Draft acceptance rate: "):
            assert vllm_line(stats).partition(part)[2][:4] == line.partition(part)[2][:4]


def test_chapter_6_reads_a_length_of_1_35() -> None:
    """51 rounds, 26 of them with drafts, 9 accepted."""
    engine = vllm_metrics()
    scheduler, total = SimpleNamespace(log_stats=True, num_spec_tokens=4), engine.SpecDecodingStats.new(4)
    for number in range(51):
        drafted, accepted = (4, 1) if number < 9 else (4, 0) if number < 26 else (0, 0)
        engine.make_spec_decoding_stats(scheduler, total, drafted, accepted, None, "request")
    assert 1 + total.num_accepted_tokens / total.num_drafts == pytest.approx(1.346, abs=1e-3)


@pytest.mark.parametrize("method", ["EAGLE", "EAGLE3", "STANDALONE"])
@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B"])
def test_sglangs_own_triple(method: str, model: str) -> None:
    """What the engine takes without num-steps, by the target's architecture, which a command shows by its name only."""
    chosen = cut(
        SGLANG,
        "sglang/srt/arg_groups/speculative_hook.py",
        "_auto_choose_speculative_params",
        resolving_view=lambda x: x,
    )
    architecture = "LlamaForCausalLM" if "Llama" in model else "Qwen3ForCausalLM"
    theirs = chosen._auto_choose_speculative_params(SimpleNamespace(speculative_algorithm=method), architecture)
    assert _own_triple({"--model-path": model}, method) == theirs


@given(rounds=st.lists(st.integers(0, 4), min_size=1, max_size=30))
@settings(deadline=None)
def test_length_and_rate_are_sglangs(rounds: list[int]) -> None:
    """Its log line's formulas, run as they stand in the reporter, over rounds that accepted so many of four drafts."""
    reporter = source(SGLANG, "sglang/srt/managers/scheduler_components/metrics_reporter.py")
    bodies = (node.orelse for node in ast.walk(reporter) if isinstance(node, ast.If) and len(node.orelse) > 4)
    body = next(part[:5] for part in bodies if ast.unparse(part[0]).startswith("spec_accept_length = self."))
    counted = SimpleNamespace(
        spec_num_accept_tokens=sum(rounds) + len(rounds),
        spec_num_correct_drafts=sum(rounds),
        spec_num_forward_ct=len(rounds),
    )
    space = {
        "self": counted,
        "get_spec": lambda: SimpleNamespace(speculative_num_draft_tokens=5, speculative_num_steps=4),
    }
    exec(compile(ast.Module(body, []), "reporter", "exec"), space)
    stats = RunStats.from_records(StepRecord(0, 4, min(4, a + 1), a, a + 1, 4) for a in rounds)
    page = parse(exposition(stats, DraftBudget(4)))
    assert page["sglang:spec_accept_length"] == pytest.approx(space["spec_accept_length"])
    assert page["sglang:spec_accept_rate"] == pytest.approx(space["spec_accept_rate"])
