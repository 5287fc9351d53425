"""Choice explorer: when speculation pays on a large GPU, by batch, context, acceptance and the draft's cost.

speed-up(gamma) = tau(gamma) / (gamma c + v(gamma + 1)),   v from the roofline of an 8-billion model on an H100

A model of a machine that is not here. Large batches are limited by arithmetic, long contexts by the cache that each row
has to itself: the one ends speculation, the other brings it back.
"""

from specdec_course.plots import Number, lines
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_ref.choose import MARGIN, SHAPES, Option, choose, roofline_cost
from specdec_ref.cost_model import GPUS

__all__ = ["choice_explorer", "choice_view"]

MOST = 10  # drafts
KNOBS = (
    Knob("batch", "requests decoded together", 0, 11, 8, 1, "rows", log2=True),
    Knob("context", "tokens each of them has cached", 6, 17, 10, 1, "tokens", log2=True),
    Knob("acceptance", "of a draft, once it is tested", 0.05, 0.95, 0.7, 0.05),
    Knob("draft cost", "of one draft token", 0.0, 0.5, 0.05, 0.01, "steps"),
)


def choice_view(batch: Number, context: Number, alpha: Number, c: Number) -> View:
    """What `choose` says there, and speed-up against draft length."""
    rows, cached = round(batch), round(context)
    cost, v = roofline_cost(SHAPES["8b"], GPUS["H100"], float(c), rows, cached)
    option = Option("draft", tuple(float(alpha) ** (j + 1) for j in range(MOST)), cost)
    choice = choose([option], v, batch=rows)
    lengths = list(range(MOST + 1))
    values = [option.weigh(gamma).speedup for gamma in lengths]
    answer = (
        f"Draft <b>{choice.gamma}</b>: {choice.speedup:.2f} times plain."
        if choice.gamma
        else f"<b>Do not speculate</b>: the best length promises {max(values[1:]):.2f}, less than {MARGIN:.2f}."
    )
    html = f"<p>{answer} Checking 5 tokens per text costs {v(5):.2f} plain steps, 9 cost {v(9):.2f}.</p>"
    alt = f"Speed-up by draft length, batch {rows}: {choice.method}, best at {choice.gamma} drafts."
    mark = (float(choice.gamma), f"best: {choice.gamma}") if choice.gamma else None
    return View(
        html,
        lines(
            {"speed-up": (lengths, values)},
            x="draft length (tokens)",
            y="speed-up (times plain)",
            alt=alt,
            guide=1.0,
            mark=mark,
        ),
    )


def choice_explorer() -> Explorer:
    """Four sliders."""
    return Explorer.build(KNOBS, choice_view)
