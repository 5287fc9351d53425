"""Step 5: what the other steps left, as Markdown to attach to an issue, with the JSON at its end."""

import json
from typing import Any

from benchmarks.gpu.journal import Facts, Journal
from specdec_ref.kernels.tables import render

__all__ = ["written"]

STEPS = {
    "step1": "Self-test and tests",
    "step2": "Kernels",
    "step3": "Engine",
    "step4": "EAGLE head from a larger corpus",
}
COLUMNS = {
    "step1": ("passed", "fault", "checks", "seconds_cold", "compiling", "seconds_warm", "failed", "skipped"),
    "step2": ("kernel_us", "floor_us", "of_copy", "twin_us", "compiled_us", "memory_bound", "difference", "copy_GBps"),
    "step3": ("identical", "ok", "tokens_per_second", "tau", "waits_per_round"),
    "step4": ("conversations", "response_tokens", "tokens", "tau", "new", "shipped"),
}


def written(journal: Journal, dry: bool) -> str:
    """The report. A step that has no files yet is named as missing."""
    steps = {step: journal.found(step) for step in STEPS}
    facts = json.loads((journal.folder / "machine.json").read_text(encoding="utf-8"))
    parts = ["# Dry run: no GPU was used, no figure here means anything" if dry else "# On a GPU"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    for step, title in STEPS.items():
        parts.append(f"## {title}")
        parts.append(_step(step, steps[step]) if steps[step] else f"Missing: {step} was not run here.")
    parts.append(f"## All of it\n\n```json\n{json.dumps(steps)}\n```\n")
    return "\n\n".join(parts)


def _step(step: str, found: dict[str, Facts]) -> str:
    failed = {name: facts["error"] for name, facts in found.items() if "error" in facts}
    names = [name for name in COLUMNS[step] if any(name in facts for facts in found.values())]
    rows: list[dict[str, Any]] = [
        {"unit": unit, **{name: facts.get(name) for name in names}}
        for unit, facts in found.items()
        if "error" not in facts
    ]
    lines = [f"```\n{render(rows)}\n```"] if rows else []
    lines += [f"- **{name} failed**: {error}" for name, error in failed.items()]
    if step == "step2":
        lines.append(_memory_bound(found))
    return "\n".join(lines)


def _memory_bound(found: dict[str, Facts]) -> str:
    """The share of the copy's bandwidth that was asked for: 70 % where a kernel is bound by memory."""
    bound = {name: facts["of_copy"] for name, facts in found.items() if facts.get("memory_bound")}
    below = [f"{name} ({share:.0%})" for name, share in bound.items() if share < 0.7]
    return f"\n{len(bound)} units are bound by memory; below 70 % of a copy's bandwidth: {', '.join(below) or 'none'}."
