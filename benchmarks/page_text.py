"""The prose between the tables of docs/BENCHMARKS.md; `page.py` supplies the numbers."""

__all__ = [
    "CLAIMED", "COUNTED", "DRAFTERS", "ELSEWHERE", "FIVE", "HINDSIGHT", "INTRO", "NEVER", "PREDICTED", "PUBLISHED",
]  # fmt: skip

HINDSIGHT = """\
### Adaptive length against the best fixed one, known in hindsight

From the runs with a row for each setting, this table gives geometric means over tasks of the speed-up over plain
decoding; "worst" is the worst task. The best fixed length is one setting for all tasks, or plain decoding where that is
faster.

| dtype, clock | drafter | best fixed | over plain | adaptive | adaptive / best | worst |
|---|---|---|---:|---:|---:|---:|"""
INTRO = """\
# Benchmarks

This page shows what speculation gains with one small model, smollm2-135m, on two CPU cores, task by task, next to
transformers in the same process. Ratios are paired: all methods answer each prompt one after the other, in changing
order, and we compare the seconds per token of whole calls, prefill included. A speed-up is over our plain decoder
unless the column says otherwise. The prompts are the held-out ones (`bench/heldout.jsonl`, test split). Our methods and
those of transformers run at the setting from a small grid that was fastest on the dev split; with `--tune 0` in the
command, each runs at the first setting of its grid. Absolute speeds are those of one machine at one moment.
Each table gives its date and processor. Tables from before 2026-11-30 were measured with an older forward, with which
plain decoding took about 1.7 times as long in bfloat16 (docs/LOG.md). Before 2026-11-29, 07:40, as in the float32
tables, the controller of "adaptive" gave up after four misses at the start of a text.

"Same text" counts the greedy texts that match plain decoding. Since 2026-11-30, 10:30, all of ours match, bit for bit:
the sums of a row run in the same order whatever other rows are computed with it (`models/row_attention.py`). In older
tables, and for the methods of transformers, a pass over several tokens rounds differently from a pass over one, so
bfloat16 texts may diverge at near-ties.

This page is generated from `specdec_ref/bench/rows/` by `python -m benchmarks.page`; no number is edited by hand.
"""
ELSEWHERE = """\
## Prompt lookup on another processor

This processor has no AVX512. In float32 it checks six tokens at the cost of 1.3 steps. Its bfloat16 is emulated: six
tokens cost three steps, guessing gains next to nothing, and `--dtype auto` chooses float32. `specdec doctor` prints the
curve."""
NEVER = """\
## Never slower

A controller that may decide against speculation should cost nothing where no draft pays off. Here, each drafter runs
under it and is compared with plain decoding; one is a draft model with random weights (`useless`). The bfloat16 and
float32 runs count processor seconds on one thread, which excludes other work on the machine. A third run measures the
three drafters that gain least in bfloat16 by the wall clock, on two threads."""
CLAIMED = """\
## Beside what is often said

This table compares the claims of a tutorial that names no model, machine or source with our rows at temperature 0 and
batch size 1. Our figure is the fastest of chain, tree and adaptive. All figures are speed-ups over plain decoding:

| dtype | task | EAGLE, said | EAGLE, here | n-grams, said | n-grams, here |
|---|---|---:|---:|---:|---:|"""
FIVE = """\

The tutorial also claims a speed-up of about 4 if five drafts are all accepted, and of 2 to 3 at an acceptance of 60 to
80 %. Five accepted drafts give six tokens per round, including the target's own; independent acceptance of 0.6 to 0.8
gives {low:.2f} to {high:.2f}. How much of that is left depends on costs that the tutorial does not give: v(6) and the
cost of five drafts."""
PUBLISHED = """\
## What others published

These figures come from other models on other machines, so ours cannot be measured against them. What carries over is
the pattern: prompt lookup depends on the task more than on anything else, and a higher temperature reduces the gain of
every drafter. Each source is compared with its own plain decoder."""
COUNTED = """\
## Acceptance

These are counts, not times: the mean tokens per round of chains with gamma = 4, and the share of rounds that accepted
draft 1 to 4. All tasks have equal weight. The tables by task are in the heads' cards
(`specdec_ref/weights/*/README.md`)."""
PREDICTED = """\
## Predicted against measured

Here, a method's speed-up on a task is predicted before it is run. Rounds are counted on the dev split, and seconds are
calibrated on the machine; both sides include prefill, since the measured ratios are of whole calls. The formula is in
`benchmarks/predict.py`. The measured values come from tables of the date below, with the drafters of that time.
"Reason" explains a difference of more than 10 %: *acceptance* means that the test split accepts drafts more or less
often than the dev split, and that the prediction fits with the test tau; *noise*, that the prediction lies within the
measured interval; *costs*, that a round took more or less time than in calibration."""
DRAFTERS = """\
## The drafters of chapter 10, by the clock

Prompt lookup, suffix decoding, and the heads of the table above with the shipped EAGLE-3 head, measured like the
methods in "Tasks" on a processor without AVX512. There, five tokens cost about 1.25 plain steps to check (docs/LOG.md).
`runs/` is the folder that `benchmarks.after_eagle` was given as `--work`."""
