"""Traffic explorer: the bytes a verification moves, by three ways to do it, and the time they take at a bandwidth.

stored: softmax of every row as float32, a zeroed buffer of that size as well; two passes over one row of both
race:   each row with a draft to test is read once; the one row that is drawn from, once more
blocks: the same first pass; the draw reads one or two blocks again, or a row whose sums are not known yet
"""

from specdec_course.plots import Number, bars
from specdec_course.widgets.base import Explorer, Knob, View

__all__ = ["traffic_explorer", "traffic_view", "verify_bytes"]

BLOCK = 4096  # as in `kernels/launch.py`, which needs triton
KNOBS = (
    Knob("vocabulary", "scores that every row of logits holds", 13, 18, 17, 0.5, "tokens", log2=True),
    Knob("drafts", "gamma, guesses per text and round", 1, 16, 4, 1, "drafts"),
    Knob("batch", "texts verified together", 0, 8, 0, 1, "texts", log2=True),
    Knob("all accepted", "share of rounds in which every draft passed, so that a bonus is drawn", 0, 1, 0.3, 0.1),
    Knob("memory bandwidth", "how fast a GPU reads and writes", 6, 13, 11.5, 0.5, "GB/s", log2=True),
)


def verify_bytes(vocab: Number, drafts: Number, batch: Number, bonus: Number, size: int = 2) -> dict[str, float]:
    """Bytes moved per round, for logits of `size` bytes; `bonus`: the share of rounds that end in one."""
    row, block, wide = vocab * size, min(BLOCK, vocab) * size, vocab * 4
    stored = (drafts + 1) * (row + 2 * wide) + 4 * wide
    blocks = drafts * row + bonus * row + (2 - bonus) * block
    ways = {"stored": stored, "race": (drafts + 1) * row, "blocks": blocks}
    return {way: float(batch * one) for way, one in ways.items()}


def traffic_view(vocab: Number, drafts: Number, batch: Number, bonus: Number, bandwidth: Number) -> View:
    """Quantities in; microseconds at full bandwidth out."""
    moved = verify_bytes(vocab, drafts, batch, bonus)
    names = {"stored": "probabilities stored", "race": "raw logits, race", "blocks": "raw logits, block sums"}
    times = {names[way]: count / bandwidth / 1e3 for way, count in moved.items()}
    html = (
        f"<p>Moved per round: {moved['stored'] / 1e6:.3g} MB with stored probabilities, {moved['race'] / 1e6:.3g} MB "
        f"from raw logits with a race, <b>{moved['blocks'] / 1e6:.3g} MB</b> with block sums: "
        f"<b>{moved['stored'] / moved['blocks']:.1f} times</b> fewer. At {bandwidth:,.0f} GB/s that is at best "
        f"{times[names['stored']]:.3g}, {times[names['race']]:.3g} and <b>{times[names['blocks']]:.3g} µs</b>.</p>"
    )
    alt = f"Time of the bytes of one verification: {', '.join(f'{n} {t:.3g} µs' for n, t in times.items())}."
    picture = bars(
        times,
        x="time of its bytes at full bandwidth (µs)",
        alt=alt,
        form="{:.3g}",
        colours=["rejected", "draft", "target"],
    )
    return View(html, picture)


def traffic_explorer() -> Explorer:
    """Five sliders; starts at a vocabulary like Llama 3's on a data-centre GPU."""
    return Explorer.build(KNOBS, traffic_view)
