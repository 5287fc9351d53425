"""llama.cpp: a `SpecConfig` as the command of `llama-server`, and back. Chains only, fixed when the server starts.

Flags of llama-server as the wheel xllamacpp holds it. Older names, `--draft-max` and others, are still recognised there
and answered with an error that names the successor.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig
from specdec_ref.exporters.launch import EMBEDDED, Finding, Launch, Mapped, changed, lossy, note, raise_on, refused
from specdec_ref.exporters.table import ENGINES

__all__ = ["MATCH", "TYPES", "from_llamacpp", "to_llamacpp"]

MATCH = 3  # tokens an n-gram match needs; llama.cpp's default, 12, drafts nothing in short answers
SHORTEST = 3  # drafts of one or two tokens: ngram-simple was never seen to make them
TYPES = {"ngram": "ngram-simple", "draft": "draft-simple", "eagle": "draft-eagle3",
         "hybrid": "ngram-simple,draft-eagle3"}  # fmt: skip


def to_llamacpp(config: SpecConfig, *, folder: str | None = None, eagle: int = 3) -> Launch:
    """The command. `folder`: what `specdec train export --format gguf` wrote, with a float16 target.

    Raises ValueError with the engine's rule for what it would refuse, ignore or do differently.
    """
    if folder is not None:
        head = f"{folder}/head.gguf" if config.drafter in ("eagle", "hybrid") else config.draft_model
        config = replace(config, target=f"{folder}/target-f16.gguf", draft_model=head)
    raise_on(_refusals(config, eagle))
    words, fields = ["llama-server", "--model", config.target], [Mapped("target", f"--model {config.target}")]
    for ours, flag, value, why in _drafting(config):
        words += [flag, str(value)]
        fields.append(Mapped(ours, f"{flag} {value}", why))
    sampling = config.sampling
    request = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
               "min_p": sampling.min_p}  # fmt: skip
    return Launch(
        "llamacpp", ENGINES["llamacpp"]["version"], tuple(words), request, tuple(fields), tuple(_notes(config))
    )


def _drafting(config: SpecConfig) -> list[tuple[str, str, Any, str]]:
    """(our field, flag, value, why)."""
    depth, drafter = config.budget.depth, config.drafter
    if drafter == "none" or not depth:
        return []
    rows: list[tuple[str, str, Any, str]] = [("drafter", "--spec-type", TYPES[drafter], "")]
    if drafter in ("ngram", "hybrid"):
        rows.append(("drafter", "--spec-ngram-simple-size-n", MATCH, "one match length; ours tries 4 down to 1"))
        rows.append(("budget.depth", "--spec-ngram-simple-size-m", depth, ""))
    if drafter != "ngram":
        rows.append(("draft_model", "--spec-draft-model", config.draft_model, "a GGUF file"))
        rows.append(("budget.depth", "--spec-draft-n-max", depth, "drafts per round, the root not counted"))
    if drafter == "draft" and not config.sampling.greedy:
        rows.append(("sampling", "--spec-draft-sampling", "probabilistic", "T > 0: drawn from q, kept by p/q"))
    return rows


def _refusals(config: SpecConfig, eagle: int) -> list[Finding]:
    budget, drafter = config.budget, config.drafter
    weights = drafter in ("draft", "eagle", "hybrid")
    copies = drafter in ("ngram", "hybrid")
    checks = (
        (drafter not in ("none", *TYPES), f"llama.cpp does not draft by {drafter!r}"),
        (budget.topk > 1, f"topk {budget.topk}: llama.cpp verifies chains only"),
        (budget.depth > 0 and budget.max_nodes != budget.depth + 1,
         f"{budget.max_nodes} nodes for depth {budget.depth}: llama.cpp's chains have depth + 1"),
        (copies and 0 < budget.depth < SHORTEST,
         f"depth {budget.depth}: llama.cpp's n-gram drafts need at least {SHORTEST} tokens"),
        (budget.min_confidence > 0, "min_confidence: --spec-draft-p-min is another rule, set it by hand"),
        (weights and config.draft_model is None,
         f"drafter {drafter!r} needs its weights as a GGUF file: --draft-model, or --folder of "
         "`specdec train export --format gguf`"),
        (drafter in ("eagle", "hybrid") and eagle != 3, f"llama.cpp has no EAGLE-{eagle}"),
        (config.target == EMBEDDED, f"llama.cpp reads GGUF: `specdec train export --format gguf` writes {EMBEDDED} "
         "and its head to a folder, name that one (--folder), or let `specdec serve` do both"),
        (config.lossy or config.verifier not in ("auto", "greedy", "rejection"),
         f"verifier {config.verifier!r} is not in llama.cpp"),
        (config.verifier == "rejection" and drafter in ("eagle", "hybrid"),
         "verifier 'rejection': llama.cpp's EAGLE-3 keeps a draft only if it is the target's own sample"),
        (config.verifier == "greedy" and not config.sampling.greedy, "verifier 'greedy' is for temperature 0"),
        (config.adaptive is not None, f"adaptive {config.adaptive!r}: llama.cpp drafts a fixed length"),
        (config.dtype != "auto", f"dtype {config.dtype}: the GGUF file decides; export another with --type"),
        (config.device not in ("auto", "cpu"), f"device {config.device}: llama.cpp's build decides"),
    )  # fmt: skip
    return [refused(text) for wrong, text in checks if wrong]


def _notes(config: SpecConfig) -> list[Finding]:
    found = [note("its sampling defaults are 0.8, 40, 0.95 and 0.05: send all four with every request")]
    if config.drafter == "hybrid":
        found.append(note("no common tree: n-grams draft first, the head only where they find nothing"))
    if config.drafter in ("eagle", "hybrid") and not config.sampling.greedy:
        found.append(note("above T = 0 a draft must be the target's own sample: exact, but fewer are accepted"))
    return found


def from_llamacpp(values: Mapping[str, Any]) -> tuple[SpecConfig | None, list[Finding]]:
    """(the set-up, findings) of flags and their values; None if this package has no such drafter."""
    table = ENGINES["llamacpp"]["flags"]
    target = str(values.get("--model", EMBEDDED))
    types = [name for name in str(values.get("--spec-type", "none")).split(",") if name]
    if unknown := [name for name in types if name not in table["--spec-type"]["choices"]]:
        return None, [refused(f"no draft type {unknown[0]}; there are {', '.join(table['--spec-type']['choices'])}")]
    if "none" in types:
        idle = sorted(flag for flag in values if flag.startswith("--spec-") and flag != "--spec-type")
        text = f"without --spec-type nothing is drafted: no effect of {', '.join(idle)}"
        return SpecConfig(target, "none"), [note(text)] * bool(idle)
    found = _notes_on(types, values)
    ours = next((name for name, theirs in TYPES.items() if sorted(theirs.split(",")) == sorted(types)), None)
    if ours is None:
        return None, [*found, note(f"this package has no counterpart of {','.join(types)}")]
    draft = values.get("--spec-draft-model")
    flag = "--spec-draft-n-max" if ours != "ngram" else "--spec-ngram-simple-size-m"
    depth = int(values.get(flag, table[flag]["default"]))
    sampled = values.get("--spec-draft-sampling") == "probabilistic" and ours == "draft"
    config = SpecConfig(
        target,
        ours,
        None if draft is None else str(draft),
        "rejection" if sampled else "auto",
        budget=DraftBudget(depth),
        sampling=SamplingParams(1.0 if sampled else 0.0),
    )
    return (None if any(finding.kind == "refused" for finding in found) else config), found


def _notes_on(types: list[str], values: Mapping[str, Any]) -> list[Finding]:
    """What the engine makes of these types and values."""
    model = "--spec-draft-model" in values or "--spec-draft-hf" in values
    ngram = "ngram-simple" in types
    length, match = (
        int(values.get(f"--spec-ngram-simple-{name}", usual)) for name, usual in (("size-m", 48), ("size-n", 12))
    )
    checks = (
        ("draft-simple" in types and not model, refused("draft-simple needs --spec-draft-model")),
        ("draft-eagle3" in types and not model,
         changed("draft-eagle3 without --spec-draft-model: the engine starts, prints nothing and decodes plainly")),
        (ngram and match > 6,
         note(f"a match of {match} tokens is rare in short answers: --spec-ngram-simple-size-n 3 finds more")),
        (ngram and length < SHORTEST, note(f"ngram-simple was not seen to draft fewer than {SHORTEST} tokens")),
        (float(values.get("--spec-draft-p-min", 0)) > 0,
         note("--spec-draft-p-min stops a draft early; this package's nearest is min_confidence, another rule")),
        (any(flag.startswith("--spec-synth") for flag in values),
         lossy("synthetic acceptance is for timing: drafts are kept whether they are right or not")),
        (len(types) > 1, note("no common tree: of several types, the first that has a draft is used")),
        ("draft-eagle3" in types and values.get("--spec-draft-sampling") == "probabilistic",
         changed("--spec-draft-sampling probabilistic has no effect on draft-eagle3")),
    )  # fmt: skip
    return [finding for wrong, finding in checks if wrong]
