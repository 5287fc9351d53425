"""vLLM: its rules as findings, a `SpecConfig` as its command, and its speculative config as a `SpecConfig`.

`values` are the keys of --speculative-config. Rules: `SpeculativeConfig` and the rejection sampler. Chains only.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig, SuffixOptions
from specdec_ref.exporters.launch import (
    Finding,
    Launch,
    Mapped,
    changed,
    common_refusals,
    lossy,
    note,
    raise_on,
    refused,
    request_of,
)
from specdec_ref.exporters.table import ENGINES

__all__ = ["from_vllm", "resolve", "to_vllm"]

MOST = 128  # drafts a round: the rejection sampler's MAX_SPEC_LEN
OURS = {"eagle": "eagle", "eagle3": "eagle", "draft_model": "draft", "ngram": "ngram", "ngram_gpu": "ngram",
        "suffix": "suffix"}  # fmt: skip
_SUFFIX = ("max_tree_depth", "max_spec_factor", "min_token_prob", "max_cached_requests")
GONE = ("medusa", "mlp_speculator")


def resolve(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """(the values that the engine goes on with, what it has to say) as far as the keys alone decide it."""
    known, out = ENGINES["vllm"]["keys"], dict(values)
    unknown = sorted(set(values) - set(known))
    found = [refused(f"no key {key!r} in --speculative-config") for key in unknown]
    found += [
        refused(f"{key} {out[key]!r}: there are {', '.join(known[key]['choices'])}")
        for key in ("rejection_sample_method", "draft_sample_method")
        if key in out and out[key] not in known[key]["choices"]
    ]
    method, model = out.get("method"), out.get("model")
    if method is None and model is None:
        return out, [*found, refused("neither method nor model: nothing says what should draft")]
    if method is None:
        out["method"] = method = "ngram" if model in ("ngram", "[ngram]") else "draft_model"
        if method == "draft_model":
            found.append(note("no method: the engine reads it off the draft's config or name; taken for a draft_model"))
    if method in GONE:
        found.append(refused(f"method {method} is gone from this version"))
    elif method not in known["method"]["choices"]:
        found.append(refused(f"no method {method!r}"))
    elif str(method).endswith("_mtp"):
        out["method"] = "mtp"
        found.append(changed(f"method {method} is called mtp now: the engine warns"))
    return out, [*found, *_length_rules(out), *_verification_rules(out), *_method_rules(out)]


def _length_rules(out: dict[str, Any]) -> list[Finding]:
    """Fills in the length that the engine takes for suffix decoding."""
    length, found = out.get("num_speculative_tokens"), list[Finding]()
    if length is None and out.get("method") == "suffix":
        out["num_speculative_tokens"] = depth = _suffix_values(out)[0]
        found.append(
            changed(f"num_speculative_tokens is missing: the engine takes the tree's depth, {depth}, and warns")
        )
        length = max(depth, 1)  # `_suffix_rules` refuses a depth below 1
    if length is None:
        kind: Any = "refused" if str(out.get("method")).startswith("ngram") else "note"
        found.append(
            Finding(
                kind, "num_speculative_tokens is missing: it is refused unless the draft's own config has n_predict"
            )
        )
    elif int(length) <= 0:
        found.append(
            refused(f"num_speculative_tokens {length}: it must be > 0; without --speculative-config there is none")
        )
    elif int(length) > MOST:
        found.append(refused(f"num_speculative_tokens {length}: the sampler holds {MOST} drafts at most"))
    if "tensor_parallel_size" in out:
        found.append(refused("tensor_parallel_size is not for here: say draft_tensor_parallel_size"))
    return found


def _verification_rules(out: Mapping[str, Any]) -> list[Finding]:
    how, found = out.get("rejection_sample_method", "standard"), []
    synthetic = [
        key for key in ("synthetic_acceptance_rates", "synthetic_acceptance_length") if out.get(key) is not None
    ]
    if how == "synthetic":
        found.append(lossy("synthetic acceptance accepts by a coin: for timing, the text is garbage"))
        if len(synthetic) != 1:
            found.append(refused("synthetic acceptance takes exactly one of its rates and its length"))
    elif synthetic:
        found.append(refused(f"{synthetic[0]} is for rejection_sample_method synthetic alone"))
    if how == "fly":
        found.append(lossy("fly keeps drafts that the target would not have drawn where it is unsure"))
        if int(out.get("num_speculative_tokens") or 2) < 2:
            found.append(refused("fly needs at least 2 speculative tokens"))
    model_free = str(out.get("method")).startswith(("ngram", "suffix"))
    if out.get("draft_sample_method", "greedy") == "greedy" and how in ("standard", "block") and not model_free:
        found.append(
            note(
                "drafts are greedy, so they are deterministic drafts (q is one-hot): lossless, but at T > 0 fewer are "
                "accepted than by p/q with draft_sample_method probabilistic"
            )
        )
    return found


def _method_rules(out: dict[str, Any]) -> list[Finding]:
    """Changes `out` as the engine does."""
    method, found = out.get("method"), []
    if method in ("draft_model", "eagle", "eagle3", "dflash") and out.get("model") is None:
        found.append(refused(f"method {method} needs model: the weights that draft"))
    for key in ("prompt_lookup_min", "prompt_lookup_max"):
        if key in out and method not in ("ngram", "ngram_gpu"):
            found.append(changed(f"{key} has no effect: it is for methods ngram and ngram_gpu"))
            del out[key]
    low, high = out.get("prompt_lookup_min"), out.get("prompt_lookup_max")
    if method in ("ngram", "ngram_gpu"):
        if low is None and high is None:
            found.append(note("prompt_lookup_min and _max are both 5 unless you say otherwise: long matches only"))
        elif low is not None and high is not None and int(low) > int(high):
            found.append(refused(f"prompt_lookup_min {low} is above prompt_lookup_max {high}"))
    if out.get("use_heterogeneous_vocab"):
        if method != "draft_model":
            found.append(refused("use_heterogeneous_vocab is for method draft_model"))
        if out.get("draft_sample_method", "greedy") != "greedy":
            found.append(refused("use_heterogeneous_vocab drafts greedily only"))
    elif method == "draft_model":
        found.append(note("target and draft must have vocabularies of one size, or the engine stops"))
    if out.get("enable_adaptive_verification") and method != "dspark":
        found.append(refused("enable_adaptive_verification is for dspark"))
    if method == "suffix":
        found += _suffix_rules(out)
    return found


def _suffix_rules(out: Mapping[str, Any]) -> list[Finding]:
    depth, factor, min_prob, requests = _suffix_values(out)
    checks = (
        (depth < 1, f"suffix_decoding_max_tree_depth {depth}: it must be >= 1"),
        (factor < 0, f"suffix_decoding_max_spec_factor {factor}: it must be >= 0"),
        (not 0 <= min_prob <= 1, f"suffix_decoding_min_token_prob {min_prob}: it must be in [0, 1]"),
        (requests < 0, f"suffix_decoding_max_cached_requests {requests}: it must be >= 0"),
    )
    found = [refused(text) for wrong, text in checks if wrong]
    found.append(note("suffix decoding needs the package arctic-inference, and runs on vLLM's V1 model runner"))
    if depth == 1 or factor == 0:
        found.append(note("nothing is ever drafted: that takes a tree depth of 2 and a factor above 0"))
    if requests == 0:
        found.append(note("past answers are not kept; here they always are, and forget() drops them"))
    return found


def to_vllm(config: SpecConfig, *, folder: str | None = None, eagle: int = 3) -> Launch:
    """The command for vLLM. Raises ValueError with the engine's rule for what it would refuse or change."""
    if folder is not None:
        weights = f"{folder}/head" if config.drafter in ("draft", "eagle") else None
        config = replace(config, target=f"{folder}/target", draft_model=weights)
    raise_on([*common_refusals(config, "vLLM"), *_own_refusals(config)])
    words, fields = ["vllm", "serve", config.target], [Mapped("target", config.target, "the first word after serve")]
    if config.dtype != "auto":
        words += ["--dtype", config.dtype]
        fields.append(Mapped("dtype", f"--dtype {config.dtype}"))
    found: list[Finding] = []
    if config.drafter != "none" and config.budget.depth:
        rows = _keys(config, eagle)
        keys = {key: value for _, key, value, _ in rows if key}
        found = resolve(keys)[1]
        raise_on(found)
        words += ["--speculative-config", json.dumps(keys)]
        fields += [Mapped(ours, f'"{key}": {json.dumps(value)}' if key else "", why) for ours, key, value, why in rows]
    return Launch(
        "vllm", ENGINES["vllm"]["version"], tuple(words), request_of(config.sampling), tuple(fields), tuple(found)
    )


def _own_refusals(config: SpecConfig) -> list[Finding]:
    budget = config.budget
    checks = (
        (budget.topk > 1 and config.drafter in ("eagle", "draft", "suffix"),
         f"topk {budget.topk}: vLLM verifies chains only"),
        (budget.depth > 0 and budget.max_nodes != budget.depth + 1 and budget.topk == 1,
         f"{budget.max_nodes} nodes for depth {budget.depth}: a chain has depth + 1, and vLLM takes its depth alone"),
        (config.drafter == "trie", "vLLM has no trie shared by requests; try --drafter suffix"),
        (config.adaptive is not None,
         f"adaptive {config.adaptive!r}: vLLM has no controller; give num_speculative_tokens_per_batch_size by hand"),
        (config.verifier == "threshold", "vLLM has no thresholds; its lossy method, fly, follows another rule"),
        (config.device not in ("auto", "cuda"), f"device {config.device}: vLLM has no flag for it, its build decides"),
    )  # fmt: skip
    return [refused(text) for wrong, text in checks if wrong]


def _keys(config: SpecConfig, eagle: int) -> list[tuple[str, str, Any, str]]:
    """(our field, their key, value, why)."""
    names = {"draft": "draft_model", "ngram": "ngram", "suffix": "suffix"}
    method = names.get(config.drafter, "eagle3" if eagle == 3 else "eagle")
    rows: list[tuple[str, str, Any, str]] = [("drafter", "method", method, "")]
    if config.draft_model is not None:
        rows.append(("draft_model", "model", config.draft_model, ""))
    rows.append(("budget.depth", "num_speculative_tokens", config.budget.depth, "drafts a round, the root not counted"))
    if method == "ngram":
        why = "as here; vLLM copies the first place of the longest match, we the latest and less after a short one"
        rows += [("drafter", "prompt_lookup_max", 4, why), ("drafter", "prompt_lookup_min", 1, "")]
    elif method == "suffix":
        rows += _suffix(config.suffix)
    elif not config.sampling.greedy and config.verifier in ("auto", "rejection", "block"):
        rows.append(("sampling", "draft_sample_method", "probabilistic", "T > 0: drafts drawn from q, kept by p/q"))
    if config.verifier == "block":
        rows.append(("verifier", "rejection_sample_method", "block", ""))
    return rows


def _suffix(options: SuffixOptions) -> list[tuple[str, str, Any, str]]:
    return [
        ("suffix.max_depth", "suffix_decoding_max_tree_depth", options.max_depth, "match and drafts together"),
        ("suffix.factor", "suffix_decoding_max_spec_factor", options.factor, "drafts per matched token, at most"),
        ("suffix.min_prob", "suffix_decoding_min_token_prob", options.min_prob, "its counts include ends of texts"),
        ("suffix.capacity", "", "", "nothing alike: suffix_decoding_max_cached_requests counts requests, not tokens"),
    ]


def _suffix_values(out: Mapping[str, Any]) -> tuple[int, float, float, int]:
    """The tree's depth, factor, least probability and number of past answers, as given or as the engine takes them."""
    keys = ENGINES["vllm"]["keys"]
    depth, factor, min_prob, requests = (
        keys[key]["default"] if out.get(key) is None else out[key]
        for key in (f"suffix_decoding_{name}" for name in _SUFFIX)
    )
    return int(depth), float(factor), float(min_prob), int(requests)


def from_vllm(values: Mapping[str, Any], target: str | None = None) -> tuple[SpecConfig | None, list[Finding]]:
    """(the same in our words, or None for what this package does not have, and what the engine has to say)."""
    out, found = resolve(values)
    method, length = str(out.get("method")), out.get("num_speculative_tokens")
    if method not in OURS or length is None or any(finding.kind == "refused" for finding in found):
        return None, found
    how, options = out.get("rejection_sample_method", "standard"), SuffixOptions()
    if how in ("synthetic", "fly"):
        return None, found
    if method == "suffix":
        depth, factor, min_prob, _ = _suffix_values(out)
        if depth < 2 or not 0 < factor < float("inf"):
            return None, found
        options = SuffixOptions(depth, factor, min_prob)
    drawn = out.get("draft_sample_method") == "probabilistic"
    verifier = "block" if how == "block" else "auto"
    model = None if OURS[method] in ("ngram", "suffix") else out.get("model")
    return SpecConfig(
        target=target or SpecConfig().target, drafter=OURS[method], draft_model=model, verifier=verifier,
        budget=DraftBudget(int(length)), sampling=SamplingParams(1.0 if drawn or how == "block" else 0.0),
        suffix=options,
    ), found  # fmt: skip
