"""SGLang's and vLLM's own parsers read the launch commands that `export-command` writes. Nothing of it needs a GPU.

`tests/engine_parsers.py` imports an engine from its wheel (see test_engine_sources.py for where they lie) and runs, for
real:

- SGLang 0.5.23: `prepare_server_args`, with every flag that `ServerArgs.add_cli_args` makes of the `fields/`; then
  `handle_speculative_decoding` whole, with the algorithms' own handlers and the adaptive tiers.
- vLLM 0.33.0: the parser of `vllm serve` (`make_arg_parser`, `FlexibleArgumentParser`, `validate_parsed_serve_args`),
  `AsyncEngineArgs`, and `create_speculative_config`: `SpeculativeConfig` with its `__post_init__` and all validators.

Stand-ins: third-party modules that are not installed are empty, msgspec's records are dataclasses. SGLang: the target's and
the draft's configurations (a Llama and its head), and the device, page size (1) and attention backend (fa3) that earlier
steps take from the machine; those steps and `check_server_args` do not run. vLLM: `ModelConfig` (a small Llama, whatever the
name), `vllm.v1.executor`, the platform's device type (cuda), and arctic-inference is taken for installed; `VllmConfig`,
which checks the parts of the engine against each other, is not made. No weights are loaded, so what either refuses then is
not seen here.
"""

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from test_engine_sources import SGLANG, VLLM, WHEELS

from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig, SuffixOptions, TrieOptions
from specdec_ref.exporters import export_command
from specdec_ref.verifiers.threshold import ThresholdVerifier

PROGRAM = Path(__file__).parent.parent / "engine_parsers.py"
MOST = 400  # distinct commands an engine
S = "speculative_"
LAUNCH = {
    "sglang": ("python", "-m", "sglang.launch_server", "--model-path", "m"),
    "vllm": ("vllm", "serve", "m"),
}
Tried = tuple[
    SpecConfig, int, tuple[str, ...], dict[str, Any]
]  # EAGLE's number, the command, what the engine makes of it
WRONG: dict[str, list[tuple[tuple[str, ...], str, str]]] = {"sglang": [
    (("--draft-max", "4"), "parser", "unrecognized arguments"), (("--speculative-num-steps", "x"), "parser", "invalid int"),
    (("--speculative-num-steps",), "parser", "expected one argument"), (("--dtype", "int9"), "parser", "invalid choice"),
    (("--speculative-eagle-path", "h"), "parser", "unrecognized arguments"),
    (("--speculative-algorithm", "EAGLE9"), "hook", "Unknown speculative algorithm"),
    (("--speculative-algorithm", "NGRAM", "--speculative-ngram-match-type", "FIRST"), "parser", "invalid choice"),
    (("--speculative-algorithm", "NGRAM", "--speculative-use-block-verification"), "hook", "block-verification only"),
    (("--speculative-algorithm", "EAGLE", "--speculative-num-steps", "3"), "hook", "NoneType"),
], "vllm": [
    (("--draft-max", "4"), "parser", "unrecognized arguments"), (("--dtype", "int9"), "parser", "invalid choice"),
    (("--speculative-config",), "parser", "expected one argument"), (("--speculative-config", "{bad"), "parser", "converted"),
    (("--speculative-config", '{"method": "lookup", "num_speculative_tokens": 3}'), "hook", "Input should be 'ngram'"),
    (("--speculative-config", '{"method": "ngram", "num_speculative_tokens": "x"}'), "hook", "valid integer"),
    (("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 0}'), "hook", "greater than 0"),
    (("--speculative-config", '{"method": "ngram"}'), "hook", "num_speculative_tokens must be provided"),
    (("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3, "depth": 3}'), "hook", "unexpected"),
    (("--speculative-config", '{"method": "eagle3", "num_speculative_tokens": 3}'), "hook", "without speculative model"),
]}  # fmt: skip


def read(engine: str, commands: list[tuple[str, ...]]) -> list[dict[str, Any]]:
    """What the engine makes of each."""
    wheel = {"sglang": SGLANG, "vllm": VLLM}[engine]
    found = sorted(Path(WHEELS).glob(f"{wheel}-*.whl")) if WHEELS else []
    if not found:
        pytest.skip(f"{wheel}'s wheel is not in the folder that SPECDEC_ENGINE_WHEELS names")
    lines = "".join(json.dumps(command) + "\n" for command in commands)
    argv = [sys.executable, PROGRAM, engine, found[0]]
    run = subprocess.run(argv, input=lines, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("\t")]
    assert len(rows) == len(commands)
    return rows


def configs() -> list[SpecConfig]:
    """Settings that the engines have, and many that they do not."""
    budgets = [DraftBudget(depth) for depth in range(10)]
    budgets += [DraftBudget(3, 2, 6), DraftBudget(5, 4, 8), DraftBudget(7, 10, 60), DraftBudget(2, 3, 9)]
    options = product(
        ("none", "ngram", "trie", "suffix", "draft", "eagle"),
        budgets,
        ("auto", "rejection", "block", "threshold"),
        (SamplingParams(), SamplingParams(0.7, 40, 0.9)),
        (("auto", "auto"), ("bfloat16", "cuda:1"), ("float32", "cpu"), ("float16", "cuda")),
        (None, "ema"),
        (("org/model", "org/head"), ("meta-llama/Llama 3", "a folder/head")),
    )
    return [
        SpecConfig(
            target, drafter, head if drafter in ("draft", "eagle") else None, how, how == "threshold", budget,
            trie=TrieOptions("prob" if budget.depth % 2 else "bfs", 9 + budget.depth, 1, 8, 1000),
            suffix=SuffixOptions(16, 2.0 + budget.depth / 4, 0.2), sampling=sampling, dtype=dtype, device=device,
            adaptive=adaptive,
        )
        for drafter, budget, how, sampling, (dtype, device), adaptive, (target, head) in options
    ]  # fmt: skip


@cache
def answers(engine: str) -> tuple[list[Tried], list[dict[str, Any]]]:
    """(distinct commands of our configurations, planted wrong ones), read by one process, since an import takes seconds."""
    made: dict[tuple[str, ...], tuple[SpecConfig, int]] = {}
    for config, eagle in product(configs(), (1, 3)):
        try:
            made.setdefault(export_command(config, engine, eagle=eagle).command, (config, eagle))
        except ValueError:
            continue
    ours = Random(0).sample(sorted(made), min(MOST, len(made)))
    found = read(engine, [*ours, LAUNCH[engine], *((*LAUNCH[engine], *words) for words, _, _ in WRONG[engine])])
    rows = [(*made[words], words, row) for words, row in zip(ours, found, strict=False)]
    return rows, found[len(ours) :]


def drafts(config: SpecConfig) -> bool:
    return config.drafter != "none" and config.budget.depth > 0


def sglang_wants(config: SpecConfig, eagle: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arguments that the parser shall set, what the engine shall go on with)."""
    kind, _, number = config.device.partition(":")
    wants: dict[str, Any] = {"model_path": config.target, "dtype": config.dtype}
    wants |= {"device": None if kind == "auto" else kind, "base_gpu_id": int(number or 0)}
    if not drafts(config):
        return wants, {f"{S}algorithm": None}
    budget, trie = config.budget, config.trie
    name = {"draft": "STANDALONE", "eagle": "EAGLE3" if eagle == 3 else "EAGLE"}.get(config.drafter, "NGRAM")
    wants |= {f"{S}algorithm": name, f"{S}draft_model_path": config.draft_model}
    wants |= {f"{S}num_draft_tokens": budget.nodes or budget.depth + 1}
    if name == "NGRAM":
        breadth = 1 if config.drafter == "ngram" else min(budget.topk, 8)
        wants[f"{S}ngram_max_bfs_breadth"] = breadth
        if config.drafter == "trie":
            wants |= {f"{S}ngram_match_type": trie.match.upper(), f"{S}ngram_max_trie_depth": trie.max_depth}
            wants |= {f"{S}ngram_min_bfs_breadth": 1, f"{S}ngram_capacity": 1000}
        resolved = {f"{S}eagle_topk": breadth}
    else:
        wants |= {f"{S}num_steps": budget.depth, f"{S}eagle_topk": budget.topk}
        resolved = {f"{S}adaptive": config.adaptive is not None}
        wants |= {f"{S}use_block_verification": config.verifier == "block"} | resolved
        pq = config.verifier == "rejection" and not config.sampling.greedy
        wants |= {f"{S}use_rejection_sampling": pq}
        resolved[f"{S}use_rejection_sampling"] = pq or config.verifier == "block"
    if config.verifier == "threshold":
        wants[f"{S}accept_threshold_single"] = ThresholdVerifier().single
    return wants, wants | {"device": wants["device"] or "cuda"} | resolved


def vllm_wants(config: SpecConfig, eagle: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arguments that the parser shall set, what the engine shall go on with)."""
    wants: dict[str, Any] = {"model": config.target, "dtype": config.dtype, "speculative_config": None}
    if not drafts(config):
        return wants, {}
    method = {"draft": "draft_model", "eagle": f"eagle{eagle}".rstrip("1")}.get(config.drafter, config.drafter)
    spec: dict[str, Any] = {"method": method, "num_speculative_tokens": config.budget.depth}
    if config.draft_model:
        spec["model"] = config.draft_model
    if method == "ngram":
        spec |= {"prompt_lookup_max": 4, "prompt_lookup_min": 1}
    elif method == "suffix":
        suffix = config.suffix
        spec |= {"suffix_decoding_max_tree_depth": 16, "suffix_decoding_max_spec_factor": suffix.factor}
        spec["suffix_decoding_min_token_prob"] = 0.2
    elif not config.sampling.greedy:
        spec["draft_sample_method"] = "probabilistic"
    if config.verifier == "block":
        spec["rejection_sample_method"] = "block"
    methods = {"rejection_sample_method": "standard", "draft_sample_method": "greedy"}
    return wants | {"speculative_config": spec}, methods | spec


def differences(engine: str, config: SpecConfig, eagle: int, found: dict[str, Any]) -> list[str]:
    """Where the engine understands something else than was meant."""
    if "refused" in found:
        return [f"{found['by']}: {found['refused']}"]
    wants, resolved = (sglang_wants if engine == "sglang" else vllm_wants)(config, eagle)
    pairs = [("parsed", name, found["parsed"][name], value) for name, value in wants.items()]
    pairs += [("resolved", name, found["resolved"].get(name), value) for name, value in resolved.items()]
    wrong = [f"{where} {name}: {got!r}, not {value!r}" for where, name, got, value in pairs if got != value]
    return wrong + [f"{name} is set" for name in found["set"] if name not in wants]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_the_engine_s_own_parser_reads_what_was_meant(engine: str) -> None:
    rows = answers(engine)[0]
    assert len({words for _, _, words, _ in rows}) == len(rows) >= 200
    wrong = [(words, said) for c, eagle, words, found in rows if (said := differences(engine, c, eagle, found))]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_another_setting_is_noticed(engine: str) -> None:
    """The comparison above can fail: no command passes for a draft one token longer, or for another target."""
    for config, eagle, _, found in answers(engine)[0]:
        assert differences(engine, replace(config, target="org/another"), eagle, found)
        if drafts(config):
            longer = replace(config.budget, depth=config.budget.depth + 1, nodes=config.budget.max_nodes + 1)
            assert differences(engine, replace(config, budget=longer), eagle, found)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_wrong_commands_are_refused(engine: str) -> None:
    right, *found = answers(engine)[1]
    assert "refused" not in right
    for (words, stage, said), row in zip(WRONG[engine], found, strict=True):
        assert row.get("by") == stage, (words, row)
        assert said in row["refused"], (words, row)
