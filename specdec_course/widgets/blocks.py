"""Block explorer: four passes of a head that sees every word, or one pass whose words do not see each other.

    chain   tau = 1 + a + a^2 + ...                         gamma c + v(gamma + 1) plain steps
    block   tau = 1 + a + a (a k) + a (a k) (a k^2) + ...         c + v(gamma + 1)

a is the conditional acceptance of a draft that sees the word before it, k the share of it that a block keeps from each
position to the next, and v(n) = 1 + slope (n - 1).
"""

from specdec_course.plots import Number, lines
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_ref.cost_model import best_gamma, expected_chain, speedup

__all__ = ["block_explorer", "block_view"]

MOST = 8  # drafts
KNOBS = (
    Knob("acceptance", "of a draft that sees the word before it", 0.05, 0.95, 0.6, 0.01),
    Knob("kept in a block", "the share of it that is left at each further position", 0.0, 1.0, 0.6, 0.01),
    Knob("cost of a pass", "of the head", 0.0, 0.5, 0.08, 0.01, "plain steps"),
    Knob("each further token", "what it adds to the check", 0.0, 0.5, 0.02, 0.01, "plain steps"),
)


def block_view(acceptance: Number, kept: Number, c: Number, slope: Number) -> View:
    """The best length of both, and the share at which a block breaks even; speed-up against draft length."""

    def v(k: int) -> float:
        return 1.0 + slope * (k - 1)

    def in_block(share: Number) -> list[float]:
        return [acceptance * share**j for j in range(MOST)]

    chain = [float(acceptance)] * MOST
    (one, gain), (other, block_gain) = best_gamma(chain, c, v), best_gamma(in_block(kept), 0.0, v, c)
    enough = next((s / 100 for s in range(101) if best_gamma(in_block(s / 100), 0.0, v, c)[1] >= gain), 1.0)
    if one == other == 0:
        answer = "<b>Neither gains: do not speculate.</b>"
    else:
        answer = f"<b>{'The block' if block_gain > gain else 'The chain'}</b> is faster."
    html = (
        f"<p>Best length of a chain: <b>{one}</b>, {gain:.2f} times plain. Best length of a block: <b>{other}</b>, "
        f"{block_gain:.2f} times plain. {answer}</p><p>A block catches up with the chain here if it keeps "
        f"<b>{enough:.0%}</b> of the acceptance from each position to the next.</p>"
    )
    lengths = list(range(MOST + 1))
    curves = {
        "chain: a pass per draft": [speedup(expected_chain(chain[:g]), g, c, v) for g in lengths],
        "block: one pass": [
            speedup(expected_chain(in_block(kept)[:g]), g, 0.0, v, c if g else 0.0) for g in lengths
        ],
    }  # fmt: skip
    alt = f"Speed-up by draft length: chain {gain:.2f} at {one} drafts, block {block_gain:.2f} at {other}."
    picture = lines(
        {name: (lengths, values) for name, values in curves.items()},
        x="draft length (tokens)", y="speed-up (times plain)", alt=alt, guide=1.0,
    )  # fmt: skip
    return View(html, picture)


def block_explorer(acceptance: Number = 0.6, kept: Number = 0.6, c: Number = 0.08, slope: Number = 0.02) -> Explorer:
    """Four sliders, which start at these values."""
    starts = (acceptance, kept, c, slope)
    knobs = [knob.starting_at(value) for knob, value in zip(KNOBS, starts, strict=True)]
    return Explorer.build(knobs, block_view)
