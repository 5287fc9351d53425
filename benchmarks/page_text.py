"""What docs/BENCHMARKS.md says between its tables; `page.py` has the numbers."""

__all__ = ["CLAIMED", "COUNTED", "ELSEWHERE", "FIVE", "HINDSIGHT", "INTRO", "NEVER", "PREDICTED", "PUBLISHED"]

HINDSIGHT = """\
### Adaptive length against the best fixed one, known in hindsight

From the runs with a row for each setting: geometric means over tasks, over plain; "worst" is the worst task. The best
is one setting for all tasks, or plain decoding where that is faster.

| dtype, clock | drafter | best fixed | over plain | adaptive | adaptive / best | worst |
|---|---|---|---:|---:|---:|---:|"""
INTRO = """\
# Benchmarks

One small model, smollm2-135m, on two CPU cores: what speculation brings here, task by task, beside transformers in the
same process. Ratios are paired: all methods answer a prompt one after the other, in changing order, and the ratio is of
seconds a token of whole calls, prefill included. A speed-up is over our plain decoder unless the column says otherwise.
Prompts are the held-out ones (`bench/heldout.jsonl`, test split). Each method runs at the setting of a small grid that
was fastest on the dev split, transformers' as well; with `--tune 0` in the command, both run at their defaults.
Absolute speeds are one machine's at one moment.
Each table has its date and its processor. Tables before 2026-11-30 were measured with an older forward: plain
decoding took about 1.7 times as long in bfloat16 (docs/LOG.md). Before 2026-11-29, 07:40, as in the float32 tables,
the controller of "adaptive" gave up after four misses at the start of a text.

"Same text" counts the greedy texts that are plain decoding's. Since 2026-11-30, 10:30, all of ours are, bit for bit: a
row's sums run in the same order beside any others (`models/row_attention.py`). In older tables, and for transformers'
methods, a pass over several tokens rounds differently from a pass over one: bfloat16 texts may part at near-ties.

This page is made from `specdec_ref/bench/rows/` by `python -m benchmarks.page`; no number is edited by hand.
"""
ELSEWHERE = """\
## Prompt lookup on another processor

One without AVX512. In float32 it checks six tokens at the price of 1.3 steps. Its bfloat16 is emulated: six tokens cost
three steps, guessing pays next to nothing, and `--dtype auto` takes float32. `specdec doctor` prints the curve."""
NEVER = """\
## Never slower

A controller that may say "do not speculate" should cost nothing where no draft pays: every drafter under it against
plain decoding, a draft model of random weights (`useless`) among them. Processor seconds, one thread, so that other
work on the machine does not count, in bfloat16 and float32; then the three that gain least in bfloat16 by the wall
clock, two threads."""
CLAIMED = """\
## Beside what is often said

A tutorial that names no model, no machine and no source, beside our rows at temperature 0 and batch 1. Ours is the
fastest of chain, tree and adaptive. Speed-up over plain decoding:

| dtype | task | EAGLE, said | EAGLE, here | n-grams, said | n-grams, here |
|---|---|---:|---:|---:|---:|"""
FIVE = """\

It also says that five drafts which are all accepted make about 4 times, and an acceptance of 60 to 80 % makes 2 to 3.
Five accepted drafts bring six tokens a round, the target's own included; independent acceptance of 0.6 to 0.8 brings
{low:.2f} to {high:.2f}. What is left of that is a matter of costs, v(6) and five drafts, which it does not give."""
PUBLISHED = """\
## What others published

Other models on other machines, so no yardstick for ours; what carries over is the shape: prompt lookup depends on the
task more than on anything else, and temperature costs every drafter. Each source has its own plain decoder below."""
COUNTED = """\
## Acceptance

Counts, no clock: mean tokens a round of chains with gamma = 4, and the share of rounds that accepted draft 1 to 4.
Every task counts alike. The tables by task are in the heads' cards (`specdec_ref/weights/*/README.md`)."""
PREDICTED = """\
## Predicted against measured

A method's speed-up on a task before it is run there: rounds counted on the dev split, seconds calibrated on the
machine, prefill of both sides included, since the measured ratios are of whole calls; the formula stands in
`benchmarks/predict.py`. Measured are the tables of the date below, with the drafters of then. "Reason" is why
the two differ by more than 10 %: *acceptance*, the test split accepts drafts more or less often than the dev split, and
with its own tau the prediction fits; *noise*, the prediction lies within the measured interval; *costs*, a round took
something else than calibration found."""
