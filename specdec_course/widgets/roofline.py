"""Roofline explorer: how long a step takes on any machine, from bytes, FLOP and two speeds.

seconds = max(bytes / bandwidth, FLOP / peak)        v(k) = seconds(k) / seconds(1)
"""

from specdec_course.plots import Number, lines
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_ref.cost_model import Machine, ModelShape, ideal_curve

__all__ = ["roofline_explorer", "roofline_view"]

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
KNOBS = (
    Knob("model", "weights that every step reads, two bytes each", -3, 7, 3, 0.5, "billion", log2=True),
    Knob("memory bandwidth", "how fast weights reach the arithmetic units", 4, 13, 11.5, 0.5, "GB/s", log2=True),
    Knob("peak arithmetic", "products and sums per second, at best", -3, 11, 9, 0.5, "TFLOP/s", log2=True),
    Knob("batch", "texts decoded together", 0, 8, 0, 1, "texts", log2=True),
    Knob("context", "tokens already in each text's KV cache", 0, 15, 10, 1, "tokens", log2=True),
)


def shape_of(billions: Number) -> ModelShape:
    """A typical Llama-like shape of that size: 1/64 of the width in KV heads' keys, so that only size is a knob."""
    layers = max(8, round(32 * (billions / 8) ** 0.35))
    hidden = int((billions * 1e9 / (12 * layers)) ** 0.5)
    return ModelShape(round(billions * 1e9), layers, max(1, hidden // 128), max(1, hidden // 512), 128)


def roofline_view(billions: Number, bandwidth: Number, peak: Number, batch: Number, context: Number) -> View:
    """GB/s and TFLOP/s in; time a token and the ideal v(k) out."""
    shape, machine = shape_of(billions), Machine("yours", bandwidth * 1e9, peak * 1e12)
    rows, tokens = round(batch), round(context)
    memory, compute = (
        [f(machine, rows, k, tokens) * 1e3 for k in WIDTHS] for f in (shape.memory_seconds, shape.compute_seconds)
    )
    step = shape.step_seconds(machine, rows, 1, tokens)
    v = ideal_curve(shape, machine, rows, tokens)
    bound = "memory" if memory[0] > compute[0] else "arithmetic"
    free = max((k for k in range(1, 513) if v(k) < 1.1), default=1)
    html = (
        f"<p>{bandwidth:,.0f} GB/s and {peak:,.4g} TFLOP/s: {machine.ridge:,.1f} FLOP in the time to read one byte. "
        f"One step: <b>{step * 1e3:.3g} ms</b>, limited by <b>{bound}</b>; {rows / step:,.0f} tokens/s in all. "
        f"Each step moves {shape.step_bytes(rows, 1, tokens) / 1e9:.3g} GB of weights and caches. "
        f"Checking 5 tokens costs v(5) = <b>{v(5):.2f}</b> plain steps; up to k = {free}{'+' if free == 512 else ''} "
        "it costs less than 10 % more than one.</p>"
    )
    curves = {"moving bytes": (WIDTHS, memory), "arithmetic": (WIDTHS, compute)}
    alt = f"Time of one forward over k tokens: {bound} is the longer part at k = 1, v(5) = {v(5):.2f}."
    return View(
        html,
        lines(
            curves, x="k, tokens checked in one forward", y="time (ms)", alt=alt, log="xy", colours=("target", "grey")
        ),
    )


def roofline_explorer() -> Explorer:
    """Five sliders; starts at an 8-billion model on a data-centre GPU."""
    return Explorer.build(KNOBS, roofline_view)
