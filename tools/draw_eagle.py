"""Draw the diagrams of chapter 03 as SVG: how pairs are formed, and what the three EAGLEs differ in.

    python tools/draw_eagle.py pairs > docs/images/eagle-pairs.svg
    python tools/draw_eagle.py versions > docs/images/eagle-versions.svg

Both have a ground of their own, so they can be read on a light and on a dark page.
"""

import sys
from collections.abc import Iterator
from html import escape

from specdec_ref.palette import PALETTE

__all__ = ["PICTURES", "pairs", "versions"]

FILLS = {"target": "#d9ebf7", "draft": "#fdf0d5", "grey": "#f3f4f6", "layer": "#ffffff"}
EDGES = {"target": PALETTE["target"], "draft": PALETTE["draft"], "grey": "#8c959f", "layer": "#1f2328"}
STYLE = """\
text{font-family:system-ui,-apple-system,"Segoe UI",Helvetica,Arial,"DejaVu Sans",sans-serif;font-size:14px}
text{fill:#1f2328}
.h{font-size:17px;font-weight:700}.s{font-size:12.5px;fill:#57606a}.m{text-anchor:middle}.e{text-anchor:end}
.a{fill:none;stroke:#57606a;stroke-width:1.5}"""
ARROW = '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
ARROW += '<path d="M0 0 10 5 0 10z" fill="#57606a"/></marker></defs>'


def page(width: int, height: int, title: str, words: str, parts: Iterator[str]) -> str:
    """A whole document; `words` describe the picture to readers who do not see it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    head += (
        f'role="img" aria-labelledby="t d">\n<title id="t">{escape(title)}</title>\n<desc id="d">{escape(words)}</desc>'
    )
    ground = f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="12" fill="#fff" stroke="#d0d7de"/>'
    return "\n".join([head, f"<style>\n{STYLE}\n</style>", ARROW, ground, *parts, "</svg>", ""])


def box(x: float, y: float, width: float, text: str, kind: str, *, dashed: bool = False, height: float = 32) -> str:
    """A box with its text, its left upper corner at (x, y)."""
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{FILLS[kind]}" '
        f'stroke="{EDGES[kind]}" stroke-width="2"{dash}/>'
        f'<text class="m" x="{x + width / 2:g}" y="{y + height / 2 + 5:g}">{escape(text)}</text>'
    )


def label(x: float, y: float, text: str, look: str = "s") -> str:
    return f'<text class="{look}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def arrow(path: str) -> str:
    return f'<path class="a" d="{path}" marker-end="url(#a)"/>'


def pairs() -> str:
    """Feature i beside token i + 1, and the head's own output where features end."""
    words = "A text, The cat sat on, of which the target has read all tokens but the last. Column by column, the head "
    words += "reads a pair: feature 0 with cat, feature 1 with sat, feature 2 with on. From there it guesses the. It "
    words += "then reads its own output with the, guesses mat, and so on."

    def parts() -> Iterator[str]:
        text, beside = ["The", "cat", "sat", "on", "the"], ["cat", "sat", "on", "the", "mat"]
        left, step, wide = 176, 138, 104
        for name, note, y in (("token i", "of the text", 52), ("feature i", "vector for token i", 112),
                              ("token i + 1", "the one after it", 168), ("guess", "token i + 2", 298)):  # fmt: skip
            yield label(24, y + 15, name, "h")
            yield label(24, y + 32, note)
        yield label(left, 32, "columns that the target has read", "s")
        yield label(left + 3 * step, 32, "columns that the head adds while drafting", "s")
        yield f'<path d="M{left + 3 * step - 17} 20V346" stroke="#8c959f" stroke-dasharray="5 4"/>'
        yield box(left - 8, 104, 5 * step - 18, "", "grey", height=104)
        for i, (token, after) in enumerate(zip(text, beside, strict=True)):
            x, own = left + i * step, i > 2
            yield box(x, 52, wide, token, "draft" if i > 3 else "grey")
            yield box(x, 112, wide, f"g {i}" if own else f"f {i}", "draft" if own else "target", dashed=own)
            yield box(x, 168, wide, after, "draft" if own else "grey")
            yield label(x + wide / 2, 160, "+", "m")
            yield arrow(f"M{x + wide / 2} 208V232")
        layer = "one layer: each column also attends to the columns on its left"
        yield box(left - 8, 236, 5 * step - 18, layer, "layer")
        for i, guess in ((2, "the"), (3, "mat"), (4, ".")):
            x = left + i * step
            yield arrow(f"M{x + wide / 2} 268V294")
            yield box(x, 298, wide, guess, "draft")
            if i < 4:
                yield arrow(f"M{x + wide} 314C{x + wide + 30} 314 {x + wide + 4} 184 {x + step - 2} 184")
                yield arrow(f"M{x + wide - 16} 236C{x + wide + 20} 216 {x + wide - 4} 128 {x + step - 2} 128")
        yield label(left, 372, "f: computed by the target. g: the head's own output, used where no feature exists yet.")

    return page(880, 392, "Pairs of an EAGLE head", words, parts())


def versions() -> str:
    """What goes in, what is fed back, and what turns g into a distribution."""
    words = "EAGLE-1: the last layer of the target and the embedding of the token go through fc and one layer without "
    words += "a norm in front; its output g is fed back and read by the target's LM head. EAGLE-2: the same network, "
    words += "but its draft tree adapts. EAGLE-3: three layers of the target are fused by fc; norms on both inputs; "
    words += "an LM head of its own over a reduced vocabulary."
    plain_layer, targets_head = "one layer, no norm in front", "the target's LM head"
    layer_3, head_3 = "one layer, two norms in front", "norm, LM head of 8k-32k words"
    columns = [
        ("EAGLE-1", targets_head, plain_layer, ["last layer"], "a fixed tree"),
        ("EAGLE-2", targets_head, plain_layer, ["last layer"], "a tree that adapts"),
        ("EAGLE-3", head_3, layer_3, ["low", "middle", "high"], "as EAGLE-2"),
    ]

    def parts() -> Iterator[str]:
        for n, (name, head, layer, reads, draft) in enumerate(columns):
            x, wide = 24 + 288 * n, 256
            last = name == "EAGLE-3"
            yield label(x, 36, name, "h")
            yield label(x + 84, 36, f"drafts {draft}")
            yield box(x, 54, wide, "q, the draft's distribution", "draft")
            yield arrow(f"M{x + 110} 112V90")
            yield box(x, 114, wide, head, "draft" if last else "target")
            yield arrow(f"M{x + 110} 172V150")
            yield box(x + 66, 174, 88, "g", "draft")
            yield arrow(f"M{x + 110} 232V210")
            yield box(x, 234, wide - 30, layer, "layer")
            yield arrow(f"M{x + 154} 190H{x + 246}V{330 if last else 310}H{x + 230}")
            yield label(x + 160, 184, "fed back")
            if last:
                yield arrow(f"M{x + 64} 312V270")
                yield arrow(f"M{x + 168} 312V270")
                yield box(x, 314, 108, "token", "grey")
                yield box(x + 120, 314, 106, "g", "draft", dashed=True)
                yield arrow(f"M{x + 168} 372V350")
                yield box(x + 120, 374, 106, "fc", "layer")
            else:
                yield arrow(f"M{x + 110} 294V270")
                yield box(x, 294, wide - 30, "fc", "layer")
                yield arrow(f"M{x + 64} 372V330")
                yield arrow(f"M{x + 168} 372V330")
                yield box(x, 374, 108, "token", "grey")
                yield box(x + 120, 374, 106, "feature", "target")
            yield arrow(f"M{x + 168} 432V410")
            each = (wide - 30 - 8 * (len(reads) - 1)) / len(reads)
            for i, one in enumerate(reads):
                yield box(x + i * (each + 8), 434, each, one, "target")
            notes = {
                "EAGLE-1": "Trained to match the next feature.",
                "EAGLE-2": "Same network, another tree.",
                "EAGLE-3": "Trained on q alone, several steps deep.",
            }
            yield label(x, 486, "hidden states of the target" if not last else "hidden states of three layers")
            yield label(x, 510, notes[name])

    return page(880, 528, "EAGLE-1, EAGLE-2 and EAGLE-3", words, parts())


PICTURES = {"pairs": pairs, "versions": versions}

if __name__ == "__main__":
    sys.stdout.write(PICTURES[sys.argv[1]]())
