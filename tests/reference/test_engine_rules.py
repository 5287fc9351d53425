"""Our rules for flags (`resolve`) beside the engines' own hooks, run on the same commands; how: test_engine_parsers.py.

What a hook refuses, we refuse; what we refuse beyond it is listed here, and that it fails later is not shown. Where neither
refuses, both go on with the same values.
"""

import json
import shlex
from collections.abc import Mapping
from itertools import product
from random import Random
from typing import Any

import pytest
from test_engine_parsers import LAUNCH, read

from specdec_ref.exporters import explain, sglang, vllm

S = "--speculative-"
LATER = {  # what we refuse and the hook lets pass
    "sglang": (
        "needs --speculative-draft-model-path",
        "needs --speculative-num-draft-tokens",
        "nodes at most",
    ),
    "vllm": ("the sampler holds 128 drafts at most",),
}


UNKNOWN = (
    "`num_speculative_tokens` was not provided"  # vLLM, without n_predict in a draft's configuration, which we lack
)


def subsets(count: int, **options: tuple[Any, ...]) -> list[dict[str, Any]]:
    """So many distinct combinations; None: not given."""
    combinations = list(product(*options.values()))
    chosen = Random(0).sample(combinations, min(count, len(combinations)))
    return [{k: v for k, v in zip(options, values, strict=True) if v is not None} for values in chosen]


def sglang_flags() -> list[dict[str, Any]]:
    found = subsets(
        300,
        **{
            f"{S}algorithm": ("EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM", "eagle3", "EAGLE4"),
            f"{S}draft-model-path": ("h",),
            f"{S}num-steps": (None, 0, 1, 3, 4, 5),
            f"{S}eagle-topk": (None, 1, 1, 4),
            f"{S}num-draft-tokens": (None, None, 4, 8),
            f"{S}adaptive": (None, None, True),
            f"{S}use-block-verification": (None, None, True),
            f"{S}use-rejection-sampling": (None, None, True),
            f"{S}accept-threshold-single": (None, None, 0.5),
            f"{S}ngram-external-sam-budget": (None, 3),
            f"{S}ngram-external-corpus-path": (None, None, "c.jsonl"),
            "--device": (None, "cuda", "cuda", "cpu", "xpu", "mps"),
        },
    )
    return [{"--model-path": "org/llama"} | flags for flags in found]


def vllm_keys() -> list[dict[str, Any]]:
    return subsets(
        300,
        method=(None, "eagle", "eagle3", "draft_model", "ngram", "ngram_gpu", "suffix", "medusa", "lookup"),
        model=(None, "org/h", "org/h", "ngram"),
        num_speculative_tokens=(None, -1, 0, 1, 3, 3, 5, 200),
        prompt_lookup_min=(None, None, 1, 5),
        prompt_lookup_max=(None, None, 4),
        rejection_sample_method=(None, None, "standard", "block", "fly", "synthetic", "typical"),
        draft_sample_method=(None, None, "greedy", "probabilistic"),
        synthetic_acceptance_length=(None, None, None, 1.5),
        use_heterogeneous_vocab=(None, None, None, True),
        tensor_parallel_size=(None, None, None, None, 2),
        depth=(None, None, None, None, 3),
    ) + subsets(
        60,
        method=("suffix",),
        num_speculative_tokens=(None, None, 8),
        suffix_decoding_max_tree_depth=(None, 0, 1, 12),
        suffix_decoding_max_spec_factor=(None, None, -1.0, 0.0, 2.0),
        suffix_decoding_min_token_prob=(None, None, 0.5, 1.5),
        suffix_decoding_max_cached_requests=(None, None, -1, 0),
    )


def words(flags: Mapping[str, Any]) -> list[str]:
    return [word for flag, value in flags.items() for word in ([flag] if value is True else [flag, str(value)])]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_what_an_engine_s_hook_refuses_is_refused(engine: str) -> None:
    cases = sglang_flags() if engine == "sglang" else vllm_keys()
    if engine == "sglang":
        commands = [(*LAUNCH[engine][:3], *words(flags)) for flags in cases]
    else:
        commands = [(*LAUNCH[engine], "--speculative-config", json.dumps(keys)) for keys in cases]
    resolve = {"sglang": sglang.resolve, "vllm": vllm.resolve}[engine]
    wrong, agreed = [], {True: 0, False: 0}
    for case, command, row in zip(cases, commands, read(engine, commands), strict=True):
        if UNKNOWN in row.get("refused", ""):
            continue
        out, findings = resolve(case)[0], explain(shlex.join(command)).findings
        texts = [f.text for f in findings if f.kind == "refused" and not any(part in f.text for part in LATER[engine])]
        if ("refused" in row) != bool(texts):
            later = len(texts) < sum(f.kind == "refused" for f in findings)
            wrong += [(case, row.get("refused"), texts)] if not (later and "refused" in row) else []
            continue
        agreed["refused" in row] += 1
        if "refused" in row:
            continue
        for name, value in out.items():
            theirs = row["resolved"].get(name.lstrip("-").replace("-", "_"), value)
            if theirs != value and name not in (f"{S}algorithm", "synthetic_acceptance_length"):
                wrong.append((case, f"{name} becomes {theirs}", [value]))
    assert not wrong, "\n".join(map(repr, wrong))
    assert min(agreed.values()) >= 20
