"""SGLang's and vLLM's commands: only flags that their own wheels have, their own rules, and back again."""

import ast
import json
import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Specdec, specdec
from hypothesis import given
from hypothesis import strategies as st

from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig, SuffixOptions, TrieOptions
from specdec_ref.exporters import ENGINES, explain, export_command
from specdec_ref.exporters.meanings import MEANINGS
from specdec_ref.exporters.table import REMOVED

__all__ = ["specdec"]  # fixture

ROOT = Path(__file__).parents[2]
EAGLE = SpecConfig(target="org/model", drafter="eagle", draft_model="org/head")
DOCUMENTED = """python -m sglang.launch_server --model meta-llama/Llama-3.1-8B-Instruct \\
    --speculative-algorithm EAGLE \\
    --speculative-eagle-path /path/to/weights \\
    --speculative-num-draft-tokens 5"""


def kinds(command: str) -> dict[str, list[str]]:
    """What the engine has to say, by kind."""
    found: dict[str, list[str]] = {"refused": [], "changed": [], "lossy": [], "note": []}
    for finding in explain(command).findings:
        found[finding.kind].append(finding.text)
    return found


def strays(words: tuple[str, ...], engine: str, table: Any = ENGINES) -> list[str]:
    """Flags and keys in a command that the table does not hold."""
    flags = [word for word in words if word.startswith("--") and word not in table[engine]["flags"]]
    if engine == "vllm" and "--speculative-config" in words:
        keys: dict[str, Any] = json.loads(words[words.index("--speculative-config") + 1])
        flags += sorted(set(keys) - set(table[engine]["keys"]))
    return flags


def every_config() -> list[SpecConfig]:
    """A wide product of settings, sensible or not."""
    drafters = ("none", "ngram", "trie", "suffix", "draft", "eagle")
    budgets = (DraftBudget(), DraftBudget(5, 4, 8), DraftBudget(3, 2, 6), DraftBudget(7, 10, 8), DraftBudget(0))
    verifiers = ("auto", "rejection", "block", "target_only", "threshold")
    samplings = (SamplingParams(), SamplingParams(0.7, 40, 0.9))
    return [
        SpecConfig(
            "org/model",
            d,
            "org/draft" if d in ("draft", "eagle") else None,
            v,
            v == "threshold",
            b,
            sampling=s,
            dtype=t,
            device=where,
        )
        for d, b, v, s, t, where in product(
            drafters, budgets, verifiers, samplings, ("auto", "bfloat16"), ("auto", "cuda:1")
        )
    ]


@pytest.mark.parametrize("engine", ["sglang", "vllm"])  # llama.cpp: test_llamacpp_flags.py
def test_only_flags_of_the_named_version(engine: str) -> None:
    made = 0
    for config in every_config():
        try:
            launch = export_command(config, engine)
        except ValueError:
            continue
        made += 1
        assert strays(launch.command, engine) == []
        assert launch.version == ENGINES[engine]["version"]
    assert made > 100
    poorer = {engine: ENGINES[engine] | {"flags": {}, "keys": {}}}
    assert len(strays(export_command(EAGLE, engine).command, engine, poorer)) >= 1


def test_the_table_says_where_it_comes_from() -> None:
    for name, table in ENGINES.items():
        assert table["wheel"].removeprefix("x").startswith(f"{name}-{table['version']}-")
        assert len(table["sha256"]) == 64
        assert table["read"]
    sglang, vllm = ENGINES["sglang"], ENGINES["vllm"]
    assert {"EAGLE", "EAGLE3", "STANDALONE", "NGRAM", "DFLASH"} <= set(sglang["algorithms"])
    assert sglang["flags"]["--speculative-ngram-capacity"]["default"] == 10_000_000  # a product in the source
    assert {"eagle3", "ngram", "draft_model", "suffix", "mtp", "dflash"} <= set(vllm["keys"]["method"]["choices"])
    assert vllm["keys"]["draft_sample_method"]["default"] == "greedy"


def test_every_flag_has_a_meaning_and_no_removed_one_is_back() -> None:
    assert set(MEANINGS["sglang"]) == set(ENGINES["sglang"]["flags"])
    assert set(MEANINGS["vllm"]) == set(ENGINES["vllm"]["keys"])
    assert set(MEANINGS["llamacpp"]) == set(ENGINES["llamacpp"]["flags"])
    for engine, gone in REMOVED.items():
        there = ENGINES[engine]["flags"].keys() | ENGINES[engine].get("keys", {}).keys()
        assert gone.keys() & there == set()
        assert {row.now for row in gone.values() if row.now} <= there


def test_the_reader_reads_without_running(tmp_path: Path) -> None:
    """A wheel whose modules would raise if they were imported."""
    files = {
        "sglang/srt/arg_groups/fields/spec.py": "1/0\nclass Spec:\n    speculative_x: A[int, 'help'] = 2 * 3\n"
        "    speculative_y: A[Optional[str], Arg(help='h', aliases=['--y'], choices=['a', 'b'])] = None\n"
        "    hidden: A[int, Arg(no_cli=True)] = 1\n",
        "sglang/srt/arg_groups/fields/model.py": "class M:\n    dtype: A[Literal['auto'], 'h'] = 'auto'\n    other: A[int, 'h'] = 1\n",
        "sglang/srt/arg_groups/fields/device.py": "",
        "sglang/srt/speculative/spec_info.py": "class SpeculativeAlgorithm:\n    EAGLE = auto()\n",
        "sglang/srt/observability/metrics_collector.py": "Gauge(name='sglang:spec_z')\nGauge(name='sglang:other')",
    }
    wheel = tmp_path / "sglang-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    command = [sys.executable, str(ROOT / "tools" / "read_engine_flags.py"), str(wheel)]
    table = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["sglang"]
    assert table["version"] == "9.9.9"
    assert table["algorithms"] == ["EAGLE"]
    assert table["metrics"] == {"sglang:spec_z": "gauge"}
    assert table["flags"] == {
        "--speculative-x": {"type": "int", "default": 6},
        "--speculative-y": {"type": "Optional[str]", "default": None, "choices": ["a", "b"], "aliases": ["--y"]},
        "--dtype": {"type": "Literal['auto']", "default": "auto", "choices": ["auto"]},
    }


# Refused by the engine's own rule


@pytest.mark.parametrize(
    ("engine", "changes", "rule"),
    [
        ("sglang", {"budget": DraftBudget(3, 1, 8)}, "num-draft-tokens 8 becomes num-steps + 1 = 4"),
        ("sglang", {"budget": DraftBudget(2, 2, 9)}, "make 7 nodes at most"),
        ("sglang", {"drafter": "draft", "verifier": "rejection", "sampling": SamplingParams(1.0)}, "not STANDALONE"),
        ("sglang", {"verifier": "block", "budget": DraftBudget(3, 2, 6)}, "needs a chain: eagle-topk 1"),
        ("sglang", {"device": "mps"}, "no path for mps"),
        ("vllm", {"budget": DraftBudget(5, 4, 8)}, "verifies chains only"),
        ("vllm", {"budget": DraftBudget(4, 1, 3)}, "a chain has depth + 1"),
        ("vllm", {"budget": DraftBudget(200)}, "128 drafts at most"),
        ("vllm", {"verifier": "threshold", "lossy": True}, "no thresholds"),
        ("vllm", {"drafter": "trie", "draft_model": None}, "no trie shared by requests"),
        ("vllm", {"drafter": "suffix", "draft_model": None, "budget": DraftBudget(5, 4, 8)}, "verifies chains only"),
        ("sglang", {"drafter": "suffix", "draft_model": None}, "no suffix decoding"),
        ("vllm", {"device": "cpu"}, "no flag for it"),
        *(
            (engine, changes, rule)
            for engine in ("sglang", "vllm")
            for changes, rule in [
                ({"drafter": "layer-skip", "draft_model": None}, "no engine drafts by 'layer-skip'"),
                ({"budget": DraftBudget(4, min_confidence=0.4)}, "min_confidence"),
                ({"sampling": SamplingParams(1.0, min_p=0.1)}, "top-k and top-p only"),
                ({"dtype": "float64"}, "dtype float64"),
                ({"verifier": "typical", "lossy": True}, "in neither engine"),
                ({"target": "smollm2-135m"}, "made on this machine"),
                ({"draft_model": None}, "needs its weights"),
            ]
        ),
    ],
)
def test_impossible_combinations_are_refused(engine: str, changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule.replace("+", r"\+")):
        export_command(replace(EAGLE, **changes), engine)


def test_unknown_engine() -> None:
    with pytest.raises(ValueError, match="choose from sglang, vllm"):
        export_command(EAGLE, "tgi")


# There and back


@given(
    engine=st.sampled_from(["sglang", "vllm"]),
    drafter=st.sampled_from(["eagle", "draft", "trie", "suffix", "ngram"]),
    depth=st.integers(1, 12), topk=st.integers(1, 6), extra=st.integers(0, 40),
    how=st.sampled_from(["auto", "block", "rejection"]), drawn=st.booleans(), breadth=st.integers(1, 12),
)  # fmt: skip
def test_explained_commands_give_the_set_up_back(
    engine: str, drafter: str, depth: int, topk: int, extra: int, how: str, drawn: bool, breadth: int
) -> None:
    nodes = 0 if topk == 1 else min(depth + 1 + extra, 1 + topk + (depth - 1) * topk**2)
    config = SpecConfig(
        "org/model",
        drafter,
        "org/draft" if drafter in ("eagle", "draft") else None,
        "auto" if how == "rejection" else how,
        budget=DraftBudget(depth, topk, nodes),
        sampling=SamplingParams(1.0 if drawn or how == "block" else 0.0),
    )
    if drafter == "ngram":  # prompt lookup drafts chains, whatever topk says
        config = replace(config, budget=DraftBudget(depth))
    if drafter == "trie":
        config = replace(
            config, budget=DraftBudget(depth, breadth, depth + 1), trie=TrieOptions("prob", 9, 1, breadth, 5000)
        )
    if drafter == "suffix":
        config = replace(config, budget=DraftBudget(depth), suffix=SuffixOptions(8 + depth, 1.5, 0.25))
    try:
        launch = export_command(config, engine)
    except ValueError:
        return
    again = explain(launch.shell()).config
    if engine == "sglang" and drafter == "ngram":
        assert again is not None
        assert (again.drafter, again.trie.max_breadth) == ("trie", 1)  # it has no look-up within one request
        return
    lost = {"sampling": SamplingParams()} if engine == "sglang" or drafter in ("ngram", "suffix") else {}
    assert again is not None
    assert replace(again, **lost) == replace(config, **lost)


@pytest.mark.parametrize(
    ("keys", "kind", "said", "drafts"),
    [
        ({}, "changed", "num_speculative_tokens is missing: the engine takes the tree's depth, 24", True),
        ({"suffix_decoding_max_tree_depth": 12}, "changed", "the tree's depth, 12", True),
        ({"suffix_decoding_max_tree_depth": 200}, "refused", "128 drafts at most", False),
        ({"num_speculative_tokens": 8}, "note", "arctic-inference", True),
        ({"suffix_decoding_max_tree_depth": 0}, "refused", "max_tree_depth 0: it must be >= 1", False),
        ({"suffix_decoding_max_spec_factor": -1}, "refused", "max_spec_factor -1.0: it must be >= 0", False),
        ({"suffix_decoding_min_token_prob": 2}, "refused", "min_token_prob 2.0: it must be in [0, 1]", False),
        ({"suffix_decoding_max_cached_requests": -1}, "refused", "max_cached_requests -1: it must be >= 0", False),
        ({"suffix_decoding_max_tree_depth": 1}, "note", "nothing is ever drafted", False),
        ({"suffix_decoding_max_spec_factor": 0}, "note", "nothing is ever drafted", False),
        ({"suffix_decoding_max_cached_requests": 0}, "note", "past answers are not kept", True),
    ],
)
def test_suffix_decoding_of_vllm_is_read_with_its_rules(
    keys: dict[str, Any], kind: str, said: str, drafts: bool
) -> None:
    """A valid command without a length is no error, and no value makes `explain` fail."""
    command = f"vllm serve m --speculative-config {shlex.quote(json.dumps({'method': 'suffix'} | keys))}"
    assert any(said in text for text in kinds(command)[kind]), kinds(command)
    config = explain(command).config
    assert (config is not None) is drafts
    if config:
        length = keys.get("num_speculative_tokens", keys.get("suffix_decoding_max_tree_depth", 24))
        assert (config.drafter, config.budget, config.suffix.factor) == ("suffix", DraftBudget(length), 1.0)


def test_the_shell_line_is_the_command() -> None:
    for engine in ENGINES:
        launch = export_command(replace(EAGLE, target="org/a model"), engine)
        assert shlex.split(launch.shell().replace("\\\n", "")) == list(launch.command)


def test_the_map_covers_every_flag_and_requests_carry_the_sampling() -> None:
    launch = export_command(replace(EAGLE, sampling=SamplingParams(0.8, 0, 0.95)), "sglang")
    flags = [word for word in launch.command if word.startswith("--")]
    assert [row.theirs.split()[0] for row in launch.fields if row.theirs] == flags
    assert launch.request == {"temperature": 0.8, "top_p": 0.95, "top_k": -1}


def test_exported_folder_gives_both_paths() -> None:
    command = export_command(SpecConfig(drafter="eagle"), "sglang", folder="served").command
    assert command[command.index("--model-path") + 1] == "served/target"
    assert command[command.index("--speculative-draft-model-path") + 1] == "served/head"
    assert "EAGLE" in export_command(SpecConfig(drafter="eagle"), "sglang", folder="served", eagle=1).command
    assert '"eagle"' in export_command(SpecConfig(drafter="eagle"), "vllm", folder="served", eagle=1).command[-1]


# Explaining


def test_a_tutorial_s_command_is_mended() -> None:
    found = explain(DOCUMENTED)
    states = {flag.name: flag.status for flag in found.flags}
    assert states["--speculative-eagle-path"] == "unknown"  # it never existed
    assert "--speculative-eagle-path: unknown, the engine stops at it" in kinds(DOCUMENTED)["refused"]
    assert any("eagle-path" in text for text in kinds(DOCUMENTED)["refused"])
    assert any("without --speculative-num-steps" in text for text in kinds(DOCUMENTED)["refused"])
    assert found.translated is not None
    assert "--speculative-draft-model-path /path/to/weights" in found.translated
    mended = f"{found.translated} --speculative-num-steps 4 --speculative-eagle-topk 1"
    assert kinds(mended)["refused"] == kinds(mended)["changed"] == []
    again = explain(mended).config
    assert again is not None
    assert again.budget == DraftBudget(4)
    assert again.draft_model == "/path/to/weights"


@pytest.mark.parametrize(
    ("command", "kind", "words"),
    [
        ("sglang.launch_server --speculative-algorithm EAGLE3 --speculative-draft-model d --speculative-num-steps 3 "
         "--speculative-eagle-topk 1 --speculative-num-draft-tokens 8", "changed", "num-steps + 1 = 4"),
        ("sglang.launch_server --speculative-algorithm NEXTN --speculative-num-steps 3 --speculative-eagle-topk 4", "refused",
         "needs --speculative-num-draft-tokens"),
        ("sglang.launch_server --speculative-algorithm NEXTN --speculative-num-steps 3", "refused", "compares None"),
        ("sglang.launch_server --speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1 "
         "--speculative-accept-threshold-single 0.5", "lossy", "no longer the target's"),
        ("sglang.launch_server --speculative-algorithm STANDALONE", "refused", "STANDALONE needs"),
        ("sglang.launch_server --speculative-algorithm MEDUSA", "refused", "no algorithm MEDUSA"),
        ("sglang.launch_server --speculative-num-steps 3", "note", "nothing is speculated"),
        ("sglang.launch_server --speculative-algorithm NGRAM --speculative-ngram-external-corpus-path f", "refused",
         "sam-budget from 1 to nodes - 1 = 11"),
        ("sglang.launch_server --speculative-algorithm NGRAM --speculative-ngram-max-match-window-size 12", "refused", "gone"),
        ("sglang.launch_server --speculative-algorithm EAGLE --speculative-adaptive --speculative-num-steps 4", "refused",
         "none of the adaptive tiers"),
        ("sglang.launch_server --speculative-algorithm EAGLE --speculative-adaptive --speculative-eagle-topk 4", "changed",
         "fixed length"),
        ("sglang.launch_server --speculative-nonsense 3", "refused", "unknown"),
        ("vllm serve m --speculative-config '{\"method\": \"medusa\", \"num_speculative_tokens\": 3}'", "refused", "gone"),
        ("vllm serve m --speculative-config '{\"method\": \"eagle3\", \"model\": \"h\", \"num_speculative_tokens\": 0}'", "refused",
         "must be > 0"),
        ("vllm serve m --speculative-config '{\"method\": \"ngram\"}'", "refused", "is missing"),
        ("vllm serve m --speculative-config '{\"num_speculative_tokens\": 3}'", "refused", "neither method nor model"),
        ("vllm serve m --speculative-config '{\"method\": \"ngram\", \"num_speculative_tokens\": 3, \"prompt_lookup_min\": 5, "
         "\"prompt_lookup_max\": 2}'", "refused", "is above"),
        ("vllm serve m --speculative-config '{\"method\": \"eagle\", \"model\": \"h\", \"num_speculative_tokens\": 3, "
         "\"rejection_sample_method\": \"fly\"}'", "lossy", "would not have drawn"),
        ("vllm serve m --speculative-config '{\"method\": \"eagle\", \"model\": \"h\", \"num_speculative_tokens\": 3, "
         "\"use_heterogeneous_vocab\": true}'", "refused", "for method draft_model"),
        ("vllm serve m --speculative-config '{\"metod\": \"ngram\"}'", "refused", "unknown"),
        ("vllm serve m --speculative-disable-by-batch-size 8", "refused", "gone"),
        ("vllm serve m --speculative-config '{\"method\": \"deepseek_mtp\", \"num_speculative_tokens\": 1}'", "changed", "mtp now"),
    ],
)  # fmt: skip
def test_rules_that_users_meet(command: str, kind: str, words: str) -> None:
    assert [
        text for text in kinds(f"python -m {command}" if "sglang" in command else command)[kind] if words in text
    ] != []


def test_vllm_s_spellings_are_one() -> None:
    wanted = explain(
        'vllm serve m --speculative-config \'{"method": "eagle3", "model": "h", "num_speculative_tokens": 3}\''
    )
    for spelled in (
        "vllm serve m --speculative-config.method eagle3 --speculative-config.model h "
        "--speculative-config.num_speculative_tokens 3",
        'vllm serve m -sc \'{"method": "eagle3", "model": "h", "num_speculative_tokens": 3}\'',
        'vllm serve m --speculative_config \'{"method": "eagle3", "model": "h", "num-speculative-tokens": 3}\'',
        "vllm serve m --spec-method eagle3 --spec-model h --spec-tokens 3",
    ):
        assert explain(spelled).config == wanted.config is not None


def test_old_vllm_flags_become_json() -> None:
    found = explain("vllm serve m --speculative-model [ngram] --num-speculative-tokens 5 --ngram-prompt-lookup-max 4")
    assert found.translated is not None
    assert kinds(found.translated)["refused"] == []
    again = explain(found.translated).config
    assert again is not None
    assert (again.target, again.drafter, again.budget.depth) == ("m", "ngram", 5)


def test_sglang_aliases_beginnings_and_variables() -> None:
    command = (
        "SGLANG_ENABLE_SPEC_V2=1 python -m sglang.launch_server --model org/llama --speculative-algo EAGLE3 "
        "--speculative-draft-model=h"
    )
    found = explain(command)
    assert found.config is not None
    assert found.config.budget == DraftBudget(5, 4, 8)  # a Llama's own triple
    assert [flag.name for flag in found.flags if flag.status == "removed"] == ["SGLANG_ENABLE_SPEC_V2"]
    assert kinds(command)["refused"] == []


@pytest.mark.parametrize(
    ("command", "words"),
    [("ls -l", "neither SGLang's nor vLLM's"), ("vllm serve 'm", "no command line"),
     ("vllm serve m --speculative-config {method:1}", "JSON in single quotes"),
     ("vllm serve m --speculative-config '[1]'", "a JSON object")],
)  # fmt: skip
def test_what_is_no_command(command: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explain(command)


# The command line


def test_cli_exports_and_explains(specdec: Specdec) -> None:
    argv = ["--target", "org/model", "--drafter", "eagle", "--draft-model", "org/head", "--depth", "3"]
    assert specdec("export-command", "--engine", "sglang", *argv) == 0
    assert "--speculative-num-draft-tokens 4" in specdec.out
    assert "budget.depth" in specdec.err
    assert specdec("explain", specdec.out) == 0
    assert "specdec generate --target org/model --drafter eagle --draft-model org/head --depth 3" in specdec.out
    assert specdec("export-command", "--engine", "vllm", *argv, "--json") == 0
    assert json.loads(specdec.out)["command"][:2] == ["vllm", "serve"]
    assert specdec("export-command", "--engine", "vllm", *argv, "--topk", "2", "--nodes", "6") == 2
    assert "chains only" in specdec.err
    assert specdec("explain", DOCUMENTED) == 1
    assert "without what is gone" in specdec.out
    assert specdec("explain", "--json", DOCUMENTED) == 1
    assert json.loads(specdec.out)["engine"] == "sglang"
    assert specdec("explain", " ") == 2


def test_no_engine_is_imported() -> None:
    """The exporters know the engines by name only."""
    for path in (ROOT / "specdec_ref" / "exporters").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} & {"sglang", "vllm"} == set()
