"""What an exporter returns, and what both have to say of a configuration."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from specdec_ref.config import SamplingParams, SpecConfig

__all__ = [
    "Finding", "Launch", "Mapped", "changed", "common_refusals", "lossy", "note", "raise_on", "refused", "request_of",
]  # fmt: skip

DTYPES = ("auto", "float16", "bfloat16", "float32")
EMBEDDED = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Finding:
    """What an engine does with a setting.

    "refused": it stops; "changed": it goes on with another; "lossy": the distribution of the text changes; "note": good
    to know.
    """

    kind: Literal["refused", "changed", "lossy", "note"]
    text: str


def refused(text: str) -> Finding:
    """The engine stops."""
    return Finding("refused", text)


def changed(text: str) -> Finding:
    """The engine goes on with another value."""
    return Finding("changed", text)


def lossy(text: str) -> Finding:
    """The text's distribution changes."""
    return Finding("lossy", text)


def note(text: str) -> Finding:
    """Good to know."""
    return Finding("note", text)


@dataclass(frozen=True, slots=True)
class Mapped:
    """A line of the field-by-field map. `theirs` is "" where the engine has nothing to set."""

    ours: str
    theirs: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command, not yet run. `request`: what a client must send along, since engines sample as each request asks."""

    engine: str
    version: str
    command: tuple[str, ...]
    request: dict[str, Any]
    fields: tuple[Mapped, ...]
    findings: tuple[Finding, ...] = field(default=())

    def shell(self) -> str:
        """For a shell, an option a line."""
        words = list(map(shlex.quote, self.command))
        first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
        lines, rest = [" ".join(words[:first])], words[first:]
        for word in rest:
            if word.startswith("--"):
                lines.append(f"    {word}")
            else:
                lines[-1] += f" {word}"
        return " \\\n".join(lines)


def request_of(sampling: SamplingParams) -> dict[str, Any]:
    """The sampling parameters as both engines spell them in a request; theirs for "no top-k" is -1."""
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or -1}


def common_refusals(config: SpecConfig, engine: str) -> list[Finding]:
    """What neither engine has."""
    checks = (
        (config.drafter not in ("none", "ngram", "trie", "suffix", "draft", "eagle"),
         f"no engine drafts by {config.drafter!r}; it is this package's own"),
        (config.drafter == "suffix" and engine == "SGLang",
         "SGLang has no suffix decoding; its nearest is NGRAM: --drafter trie"),
        (config.budget.min_confidence > 0, "min_confidence: no engine stops a draft at a confidence of yours"),
        (config.verifier in ("typical", "multi_round"),
         f"verifier {config.verifier!r} is in neither engine: sampled trees are not drafted there"),
        (config.sampling.min_p > 0,
         "min_p: vLLM refuses it under speculation, SGLang's verification applies top-k and top-p only"),
        (config.dtype not in DTYPES, f"dtype {config.dtype}: the engines know {', '.join(DTYPES)}"),
        (config.target == EMBEDDED,
         f"{engine} cannot load {EMBEDDED!r}, which is made on this machine: `specdec train export` writes target and "
         "head to a folder, name that one (folder=, --folder)"),
        (config.drafter in ("draft", "eagle") and config.draft_model is None,
         f"drafter {config.drafter!r} needs its weights in a form that {engine} reads: a folder or Hugging Face id as "
         "draft_model, or the folder of `specdec train export`"),
    )  # fmt: skip
    return [refused(text) for wrong, text in checks if wrong]


def raise_on(findings: Iterable[Finding], kinds: Iterable[str] = ("refused", "changed")) -> None:
    """Raises ValueError with every finding of these kinds."""
    wrong = [finding.text for finding in findings if finding.kind in kinds]
    if wrong:
        raise ValueError("; ".join(wrong))
