"""Head explorer: what a head reads, how deep it was unrolled in training, which tokens it may draft, and what is right.

Nothing is computed but tau = 1 + the sum of the chain's shares: each position of the sliders is a head that was trained
and measured (`bench/heads.py`), beside the plain model of the same training, which reads tokens alone.
"""

from functools import cache
from typing import Any

from specdec_course.plots import Number, Picture, lines
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_ref.bench.rows import committed

__all__ = ["head_explorer", "head_view"]

READS = ("tokens", "features", "three layers")  # as the rows call it, in the order of the slider
WORDS = ("tokens alone", "features alone", "features of three layers and tokens")
FILES = ("heads", "heads-shipped")
RUNS = ("a small run, like the one above", "the heads of the package")
KNOBS = (
    Knob("reads", "what the head is given", 0, 2, 2, choices=WORDS),
    Knob("unrolled", "how deep the head was trained on its own output", 0, 2, 1, 1, "steps", log2=True),
    Knob("draft vocabulary", "tokens that the head can draft", 8, 12, 12, 1, "tokens", log2=True),
    Knob("training", "where the head comes from", 0, 1, 0, choices=RUNS),
)
WEIGHTS, WIDTH = 5.1, 576  # millions of its own, without the LM head; numbers a token takes there


@cache
def measured(file: str) -> dict[tuple[str, int, int], dict[str, Any]]:
    """(reads, steps, vocab) -> row."""
    return {(row["reads"], row["steps"], row["vocab"]): row for row in committed(file)[1]}


def head_view(reads: Number, steps: Number, vocab: Number, training: Number) -> View:
    """The committed measurement of the head at this place, or of its nearest kin where this depth was not trained."""
    rows, which, size = measured(FILES[round(training)]), READS[round(reads)], round(vocab)
    depths = sorted(deep for name, deep, words in rows if name == which and words == size)
    deep = round(steps) if round(steps) in depths else depths[-1]
    row, plain = rows[which, deep, size], rows["tokens", 1, size]
    how = "not unrolled, since it reads no output of its own" if which == "tokens" else f"unrolled {deep} deep"
    if which != "tokens" and deep != round(steps):
        how += f" ({round(steps)} was not trained; the deepest is shown)"
    if which == "features" and round(training):
        how += ", trained with tokens, which are now taken away"
    single, chain, lm_head = row["single"], row["chain"], size * WIDTH / 1e6
    html = (
        f"<p>Reads <b>{WORDS[round(reads)]}</b>; {how}; trained on {row['tokens']:,} tokens; "
        f"drafts from {size:,} tokens. Draft token 1 is right in <b>{single[0]:.0%}</b> of the places, token 2, "
        f"given the text's own token 1, in <b>{single[1]:.0%}</b>. Whole drafts of {len(chain)}: "
        f"<b>tau = {1 + sum(chain):.2f}</b>, against {1 + sum(plain['chain']):.2f} for tokens alone. "
        f"A draft token reads {WEIGHTS + lm_head:.1f} million weights, {lm_head:.1f} of them in the LM head.</p>"
    )
    return View(html, _picture(single, plain["single"], f"{WORDS[round(reads)]}, {how}, {size:,} tokens"))


def _picture(single: list[float], plain: list[float], what: str) -> Picture:
    places = range(1, len(single) + 1)
    shares = ", ".join(f"{share:.2f}" for share in single)
    alt = f"Share of draft tokens that are right at each position, for a head that reads {what}: {shares}."
    curves = {"this head": (places, single), "tokens alone": (places, plain)}
    return lines(
        curves,
        x="position in the draft (tokens)",
        y="right, each by itself (share)",
        alt=alt,
        top=0.7,
        colours=("draft", "grey"),
        dashed=("tokens alone",),
    )


def head_explorer() -> Explorer:
    """Four sliders; starts at EAGLE-3's way of reading."""
    return Explorer.build(KNOBS, head_view)
