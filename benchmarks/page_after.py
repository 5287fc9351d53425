"""The sections of docs/BENCHMARKS.md about what came after EAGLE-3, and about suffix decoding by the clock."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from specdec_ref.bench.rows import committed

__all__ = ["after_eagle", "break_even", "suffix_decoding"]

AFTER = """\
## EAGLE-3 and what came after it

Every head below but the last two learned from the same {tokens:,} response tokens of the target, with the same rate,
batches and draft vocabulary; the two blocks with the loss of DSpark's paper, all others with cross-entropy. A head that
began as another one has read them a second time ("trained on" counts both), so P-EAGLE is to be compared with "eagle,
longer". These are small heads after little training, so look at their order and not at the level; their shares at
positions 3 and 4 rest on few drafts.

"Conditional" is the accepted share of drafts 1 to 4, of those whose predecessors were accepted. Counted at temperature
0 with chains of gamma = {depth} along stored answers of plain decoding, test split; every task counts alike in tau.
"Draft" is the time of all four drafts in plain steps (processor time of one thread, the two in turn). "Predicted" is
tau / (v(5) + draft): a speed-up without prefill and overhead, not a measured one. v(5) = {v5:.2f} is the time of
checking five tokens, measured in turn with the drafts (median of the methods)."""
PRICE = """\
**Break-even of a parallel drafter on this machine.** Four EAGLE drafts one after the other take {sequential:.2f} plain
steps, one pass that gives all four takes {parallel:.2f}, and the check of five tokens v(5) = {v5:.2f}. So the parallel
drafter is as fast as EAGLE if it keeps (v(5) + {parallel:.2f}) / (v(5) + {sequential:.2f}) = **{needed:.2f}** of
EAGLE's tau. After equal training it keeps {kept:.2f} ("p-eagle" over "eagle, longer"). Made from the shipped head it
keeps {shipped:.2f}: the first position is as good as before, the others have only begun to learn. MTP trained on one
step shows at positions 3 and 4 what it costs to apply a module again that was not trained for it."""


SUFFIX = """\
## Suffix decoding against prompt lookup

Every prompt is decoded by both in turn, each with its own default draft length, and neither has heard the answer.
"Over lookup" is prompt lookup's seconds per token over suffix decoding's: the geometric mean of the task's prompts,
and their median with a 95 % interval."""


def break_even(rows: Sequence[Mapping[str, Any]], split: str = "test") -> dict[str, float]:
    """Prices in plain steps, and the shares of EAGLE's tau that a parallel drafter needs and keeps."""
    prices = {one["method"]: one["costs"] for one in rows if "costs" in one}
    taus = {one["method"]: one["tau"] for one in rows if one.get("task") == "mean" and one["split"] == split}
    v5 = median(one["check"] for one in prices.values())
    sequential, parallel = prices["eagle, longer"]["draft"], prices["p-eagle"]["draft"]
    return {
        "sequential": sequential, "parallel": parallel, "v5": v5, "needed": (v5 + parallel) / (v5 + sequential),
        "kept": taus["p-eagle"] / taus["eagle, longer"], "shipped": taus["p-eagle, shipped"] / taus["shipped"],
    }  # fmt: skip


def after_eagle() -> Iterator[str]:
    """One table, and what it means for a parallel drafter here."""
    about, rows = committed("after-eagle")
    found = break_even(rows)
    yield AFTER.format(tokens=about["tokens"], depth=about["depth"], v5=found["v5"])
    yield from ("", "```sh", about["command"], "```", "")
    yield f"{about['target']} in {about['dtype'].removeprefix('torch.')}, {about['machine']}, torch {about['torch']}."
    yield from (
        "",
        "| method | trained on | weights | conditional | tau | worst task | draft | predicted |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    )
    costs = {row["method"]: row for row in rows if "costs" in row}
    for row in rows:
        if row.get("task") == "mean" and row["split"] == "test":
            cost = costs[row["method"]]
            draft = cost["costs"]["draft"]
            yield (
                f"| {row['method']} | {cost['tokens_trained'] / 1e6:.2f} M | {cost['weights'] / 1e6:.1f} M "
                f"| {' '.join(f'{share:.2f}' for share in row['conditional'])} | {row['tau']:.2f} "
                f"| {row['tau_worst']:.2f} | {draft:.3f} | {row['tau'] / (found['v5'] + draft):.2f} |"
            )
    yield from ("", PRICE.format(**found), "")


def suffix_decoding() -> Iterator[str]:
    """A row a task; the last one is the mean of the tasks."""
    about, rows = committed("suffix-lookup")
    yield from (SUFFIX, "", "```sh", about["command"], "```", "")
    yield (
        f"{about['target']} in {about['dtype'].removeprefix('torch.')}, {about['machine']}, torch {about['torch']}, "
        f"{about['prompts']} {about['split']} prompts a task of {about['tokens']} tokens."
    )
    yield from (
        "",
        "| task | tau of lookup | of suffix | lookup over plain | suffix over plain | over lookup, mean | median |",
        "|---|---:|---:|---:|---:|---:|---|",
    )
    sides = {(row["task"], row["side"]): row for row in rows}
    for task in dict.fromkeys(row["task"] for row in rows):
        lookup, suffix = sides[task, "ngram"], sides[task, "suffix"]
        taus, plain = (f"{lookup[key]:.2f} | {suffix[key]:.2f}" for key in ("tau", "over_plain_mean"))
        ends = suffix.get("over_ngram_ci")
        interval = f" ({ends[0]:.2f}-{ends[1]:.2f})" if ends else ""
        yield (
            f"| {task} | {taus} | {plain} | {suffix['over_ngram_mean']:.2f} | {suffix['over_ngram']:.2f}{interval} |"
        )
