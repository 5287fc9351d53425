"""SGLang: its rules as findings, a `SpecConfig` as its command, and its flags as a `SpecConfig`.

`values` maps flags to values. Rules: `handle_speculative_decoding` and what it calls, in speculative_hook.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specdec_ref.adaptive import SGLANG_TIERS
from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig, TrieOptions
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
)  # fmt: skip
from specdec_ref.exporters.table import ENGINES
from specdec_ref.verifiers.threshold import ThresholdVerifier

__all__ = ["from_sglang", "resolve", "to_sglang"]

S = "--speculative-"
CHAINLIKE = ("EAGLE", "EAGLE3", "STANDALONE")  # NEXTN is another name of EAGLE
THEIRS = {"draft": "STANDALONE", "ngram": "NGRAM", "trie": "NGRAM"}
OURS = {"EAGLE": "eagle", "EAGLE3": "eagle", "STANDALONE": "draft", "NGRAM": "trie"}
TIERS = sorted({steps for tiers in SGLANG_TIERS.values() for steps in tiers})
Row = tuple[str, str, Any, str]  # our field, flag, value, why


def algorithm(values: Mapping[str, Any]) -> str:
    """The algorithm in capitals, NEXTN as the EAGLE that it is; "" without one."""
    name = str(values.get(f"{S}algorithm") or "").upper()
    return "EAGLE" if name == "NEXTN" else name


def resolve(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """(the values that the engine goes on with, what it has to say) as far as flags alone decide it."""
    out, name = dict(values), algorithm(values)
    known = [*ENGINES["sglang"]["algorithms"], "NEXTN"]
    if not name:
        extra = sorted(flag for flag in values if flag.startswith(S))
        return out, [note(f"without {S}algorithm nothing is speculated: no effect of {', '.join(extra)}")] * bool(extra)
    if name not in known:
        return out, [refused(f"no algorithm {name}; there are {', '.join(known)}, and plugins' own")]
    findings = _sampling_rules(out, name)
    if out.get(f"{S}adaptive") and name not in ("EAGLE", "EAGLE3"):
        findings.append(changed("adaptive is for EAGLE and EAGLE3: the engine warns and drafts a fixed length"))
        out[f"{S}adaptive"] = False
    if name in CHAINLIKE:
        findings += _eagle_rules(out, name)
    elif name == "NGRAM":
        findings += _ngram_rules(out)
    if f"{S}draft-model-path" not in values and name in ("STANDALONE", "EAGLE3", "DFLASH"):
        findings.append(refused(f"{name} needs {S}draft-model-path"))
    if "--max-running-requests" not in values:
        findings.append(note("speculation sets max-running-requests to 48 unless you do"))
    return out, findings


def _eagle_rules(out: dict[str, Any], name: str) -> list[Finding]:
    """The triple (steps, topk, nodes). Changes `out` as the engine does."""
    steps, topk, nodes = (out.get(f"{S}{n}") for n in ("num-steps", "eagle-topk", "num-draft-tokens"))
    found: list[Finding] = []
    adaptive = out.get(f"{S}adaptive")
    if adaptive and topk not in (None, 1):
        found.append(changed("adaptive needs eagle-topk 1: the engine warns and drafts a fixed length"))
        out[f"{S}adaptive"] = False
    elif adaptive:
        steps = 3 if steps is None else steps  # the middle one of all default tiers
        if f"{S}adaptive-config" not in out:
            found.append(note(f"adaptive: lengths by batch size are {dict(SGLANG_TIERS)}"))
            if steps not in TIERS:
                found.append(refused(f"num-steps {steps} is none of the adaptive tiers {', '.join(map(str, TIERS))}"))
        topk, nodes = 1, steps + 1
    if steps is None:
        if topk is not None or nodes is not None:
            more = "" if nodes is None else f"; for a chain of {nodes - 1} drafts: num-steps {nodes - 1}, eagle-topk 1"
            return [*found, refused(f"eagle-topk, num-draft-tokens: refused without {S}num-steps{more}")]
        steps, topk, nodes = _own_triple(out, name)
        if topk > 1 and (out.get(f"{S}use-rejection-sampling") or out.get(f"{S}use-block-verification")):
            own = f"the engine takes topk {topk} for this target, and testing p against q needs a chain"
            return [*found, refused(f"no triple given: {own}; give {S}num-steps 5 and {S}eagle-topk 1")]
        own = f"the engine takes steps {steps}, topk {topk}, nodes {nodes}"
        found.append(note(f"no triple given: {own} (5, 4, 8 for LlamaForCausalLM and Grok-1, else 3, 1, 4)"))
    elif topk is None:
        return [*found, refused(f"{S}num-steps without {S}eagle-topk: the engine compares None with a number")]
    out |= {f"{S}num-steps": steps, f"{S}eagle-topk": topk}
    return found + _tree_rules(out, steps, topk, nodes)


def _tree_rules(out: dict[str, Any], steps: int, topk: int, nodes: int | None) -> list[Finding]:
    """A chain's nodes follow from its steps; a tree's have to be given, and drafted."""
    found = []
    if topk == 1 and nodes != steps + 1:
        if nodes is not None:
            becomes = f"becomes num-steps + 1 = {steps + 1}"
            found.append(changed(f"eagle-topk 1 is a chain: num-draft-tokens {nodes} {becomes}"))
        nodes = steps + 1
    if nodes is None:
        return [refused(f"eagle-topk {topk} needs {S}num-draft-tokens")]
    pool = 1 + topk + (steps - 1) * topk * topk if steps else 1
    if nodes > pool:
        most = f"{steps} steps of top-{topk} make {pool} nodes at most, root included"
        found.append(refused(f"num-draft-tokens {nodes}: {most}"))
    if topk > 1:
        found.append(note("eagle-topk > 1 with pages of several tokens: attention by flashinfer, fa3 or triton only"))
    out[f"{S}num-draft-tokens"] = nodes
    return found


def _own_triple(out: Mapping[str, Any], name: str) -> tuple[int, int, int]:
    """What the engine picks by the target's architecture, which only its name tells us."""
    llama = name != "STANDALONE" and "llama" in str(out.get("--model-path", "")).lower()
    return (5, 4, 8) if llama else (3, 1, 4)


def _ngram_rules(out: dict[str, Any]) -> list[Finding]:
    breadth = out.get(f"{S}ngram-max-bfs-breadth", _default("ngram-max-bfs-breadth"))
    nodes = out.setdefault(f"{S}num-draft-tokens", 12)
    device = out.get("--device", "cuda")
    found = [refused(f"NGRAM does not run with --device {device}")] * (device not in ("cuda", "cpu", "xpu"))
    if f"{S}eagle-topk" in out:
        found.append(changed(f"{S}eagle-topk becomes the breadth, {breadth}, whatever you say"))
        out[f"{S}eagle-topk"] = breadth
    if f"{S}ngram-external-corpus-path" in out:
        budget = out.get(f"{S}ngram-external-sam-budget", 0)
        if not 0 < budget <= nodes - 1:
            found.append(
                refused(f"a corpus needs {S}ngram-external-sam-budget from 1 to nodes - 1 = {nodes - 1}, not {budget}")
            )
    if breadth > 1:
        found.append(note("a breadth above 1 with pages of several tokens: attention by flashinfer only"))
    return found


def _sampling_rules(out: Mapping[str, Any], name: str) -> list[Finding]:
    """Verification: thresholds, p/q, blocks."""
    single, total = (float(out.get(f"{S}accept-threshold-{n}", 1.0)) for n in ("single", "acc"))
    block, pq = out.get(f"{S}use-block-verification"), out.get(f"{S}use-rejection-sampling")
    found = []
    if min(single, total) < 1:
        below = f"thresholds {single:g} and {total:g}: below 1"
        found.append(lossy(f"{below} the text's distribution is no longer the target's"))
    if block and out.get("--device", "cuda") != "cuda":
        found.append(refused(f"block verification does not run with --device {out['--device']}, only with cuda"))
    if block and name not in ("EAGLE", "EAGLE3", "DFLASH", "DSPARK"):
        found.append(refused(f"block verification is for EAGLE, EAGLE3, NEXTN, DFLASH and DSPARK, not {name}"))
    if pq or (block and name in ("EAGLE", "EAGLE3")):  # block verification turns p/q on
        if name not in ("EAGLE", "EAGLE3"):
            ignored = name == "NGRAM"
            text = f"{S}use-rejection-sampling is for EAGLE, EAGLE3 and NEXTN, not {name}"
            found.append(changed(f"{text}: the engine ignores it") if ignored else refused(text))
            if ignored:
                return found
        if out.get(f"{S}eagle-topk") not in (None, 1):
            found.append(refused("testing p against q needs a chain: eagle-topk 1"))
        if min(single, total) < 1:
            found.append(refused("testing p against q ignores thresholds, so both have to be 1"))
        found.append(note("p/q: a head whose draft vocabulary is reduced is refused when it is loaded"))
    elif name in CHAINLIKE:
        found.append(
            note(
                "drafts are the likeliest tokens, judged by p alone: lossless, but at T > 0 fewer are accepted than by "
                "p/q; without CUDA, verification may be greedy at any T"
            )
        )
    if out.get(f"{S}token-map") and name != "EAGLE":
        found.append(note(f"{S}token-map is for EAGLE-1 and EAGLE-2 heads: an EAGLE-3 head brings its own"))
    return found


def _default(name: str) -> Any:
    return ENGINES["sglang"]["flags"][f"{S}{name}"]["default"]


def to_sglang(config: SpecConfig, *, folder: str | None = None, eagle: int = 3) -> Launch:
    """The command for SGLang. Raises ValueError with the engine's rule for what it would refuse or change."""
    if folder is not None:
        weights = f"{folder}/head" if config.drafter in ("draft", "eagle") else None
        config = replace(config, target=f"{folder}/target", draft_model=weights)
    raise_on(common_refusals(config, "SGLang"))
    rows: list[Row] = [("target", "--model-path", config.target, "")]
    rows += [("dtype", "--dtype", config.dtype, "")] * (config.dtype != "auto") + _device(config.device)
    if config.drafter != "none" and config.budget.depth:
        rows += _drafting(config, eagle)
    values = {flag: value for _, flag, value, _ in rows if flag}
    raise_on(found := resolve(values)[1])
    words = [word for flag, value in values.items() for word in ([flag] if value is True else [flag, str(value)])]
    fields = tuple(
        Mapped(ours, f"{flag} {value}".strip() if value is not True else flag, why) for ours, flag, value, why in rows
    )
    return Launch("sglang", ENGINES["sglang"]["version"], ("python", "-m", "sglang.launch_server", *words),
                  request_of(config.sampling), fields, tuple(found))  # fmt: skip


def _device(device: str) -> list[Row]:
    kind, _, number = device.partition(":")
    if kind == "auto":
        return []
    if kind == "mps":
        raise ValueError("SGLang's speculation has no path for mps")
    rows: list[Row] = [("device", "--device", kind, "")]
    if number:
        if not number.isdecimal():
            raise ValueError(f"device {device!r} has no GPU number after the colon: write cuda or, say, cuda:1")
        rows.append(("device", "--base-gpu-id", int(number), "which of the GPUs"))
    return rows


def _drafting(config: SpecConfig, eagle: int) -> list[Row]:
    name = THEIRS.get(config.drafter, "EAGLE3" if eagle == 3 else "EAGLE")
    rows: list[Row] = [("drafter", f"{S}algorithm", name, "")]
    if config.draft_model is not None:
        rows.append(("draft_model", f"{S}draft-model-path", config.draft_model, ""))
    if config.adaptive is not None:
        if name not in ("EAGLE", "EAGLE3"):
            raise ValueError(f"adaptive {config.adaptive!r}: SGLang adapts the length of EAGLE's drafts only")
        rows.append(("adaptive", f"{S}adaptive", True, "its own controller: a running mean, tier by tier"))
    return rows + (_trie(config) if name == "NGRAM" else _tree(config.budget)) + _verifier(config, name)


def _tree(budget: DraftBudget) -> list[Row]:
    return [
        ("budget.depth", f"{S}num-steps", budget.depth, "levels below the root"),
        ("budget.topk", f"{S}eagle-topk", budget.topk, "children a node may have"),
        ("budget.nodes", f"{S}num-draft-tokens", budget.max_nodes, "nodes of the tree, the root included"),
    ]


def _trie(config: SpecConfig) -> list[Row]:
    trie = config.trie
    nodes: Row = ("budget.nodes", f"{S}num-draft-tokens", config.budget.max_nodes, "the root included")
    if config.drafter == "ngram":
        why = "SGLang has no look-up within one request: its trie is the server's, and a breadth of 1 is nearest"
        return [nodes, ("drafter", f"{S}ngram-max-bfs-breadth", 1, why)]
    if trie.corpus is not None:
        raise ValueError(
            f"trie.corpus: {S}ngram-external-corpus-path wants JSON lines and a budget; give those by hand"
        )
    breadth = min(config.budget.topk, trie.max_breadth)
    return [
        nodes,
        ("trie.match", f"{S}ngram-match-type", trie.match.upper(), "latest or most frequent first"),
        ("trie.max_depth", f"{S}ngram-max-trie-depth", trie.max_depth, "match and guesses together"),
        ("trie.min_breadth", f"{S}ngram-min-bfs-breadth", min(breadth, trie.min_breadth), ""),
        ("budget.topk", f"{S}ngram-max-bfs-breadth", breadth, "or trie.max_breadth, whichever is less"),
        ("trie.capacity", f"{S}ngram-capacity", trie.capacity, "nodes of the trie"),
        ("budget.depth", "", "", "no flag: nodes and the trie's depth bound a branch"),
    ]


def _verifier(config: SpecConfig, name: str) -> list[Row]:
    verifier, drafted = config.verifier, not config.sampling.greedy and name != "NGRAM"
    if verifier == "block":
        return [("verifier", f"{S}use-block-verification", True, "and with it p/q")]
    if verifier == "rejection" and drafted:
        return [("verifier", f"{S}use-rejection-sampling", True, "drafts drawn from q, kept with min(1, p/q)")]
    if verifier == "threshold":
        return [("verifier", f"{S}accept-threshold-single", ThresholdVerifier().single, "lossy, as here")]
    return [("verifier", "", "", "its default, target-only: a draw from p decides among the children")]


def from_sglang(values: Mapping[str, Any]) -> tuple[SpecConfig | None, list[Finding]]:
    """(the same in our words, or None for what this package does not have, and what the engine has to say)."""
    out, found = resolve(values)
    name = algorithm(values)
    if any(finding.kind == "refused" for finding in found) or (name and name not in OURS):
        return None, found
    config = SpecConfig(
        target=str(values.get("--model-path", SpecConfig().target)), dtype=str(values.get("--dtype", "auto"))
    )
    if not name:
        return replace(config, drafter="none"), found
    config = replace(config, drafter=OURS[name], draft_model=out.get(f"{S}draft-model-path"))
    nodes = int(out[f"{S}num-draft-tokens"])
    if name == "NGRAM":
        return replace(
            config, trie=_trie_of(out), budget=DraftBudget(nodes - 1, _trie_of(out).max_breadth, nodes)
        ), found
    steps, topk = int(out[f"{S}num-steps"]), int(out[f"{S}eagle-topk"])
    lossy = any(finding.kind == "lossy" for finding in found)
    block, pq = out.get(f"{S}use-block-verification"), out.get(f"{S}use-rejection-sampling")
    verifier = "threshold" if lossy else "block" if block else "rejection" if pq else "auto"
    sampling = SamplingParams(1.0 if verifier != "auto" else 0.0)
    return replace(config, budget=DraftBudget(steps, topk, nodes if topk > 1 else 0), verifier=verifier, lossy=lossy,
                   sampling=sampling), found  # fmt: skip


def _trie_of(out: Mapping[str, Any]) -> TrieOptions:
    names = {"match": "match-type", "max_depth": "max-trie-depth", "min_breadth": "min-bfs-breadth",
             "max_breadth": "max-bfs-breadth", "capacity": "capacity"}  # fmt: skip
    given = {ours: out.get(f"{S}ngram-{name}", _default(f"ngram-{name}")) for ours, name in names.items()}
    return TrieOptions(**{**given, "match": str(given["match"]).lower()})
