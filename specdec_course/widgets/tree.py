"""Tree explorer: how deep, how wide and how large a tree pays, from how often the child of each rank is accepted.

value of a node = product of acceptance[rank] along its path       tau = sum of all values, the root's 1 included
time = depth * c + v(nodes)   in plain steps                       speed-up = tau / time

The shape is Sequoia's: the one that accepts most within depth, children per node and nodes. A round is a list of ranks,
one a level: which child the target would take there, if any. The same round meets every tree, so one can see what a
larger tree would have caught.
"""

from collections.abc import Callable, Sequence

import torch

from specdec_course.plots import Box, Number, tree
from specdec_course.widgets.base import Explorer, Knob, View
from specdec_ref.core import DraftTree, VerifyResult
from specdec_ref.trees.sequoia import expected_tokens, optimal_tree
from specdec_ref.trees.static import chain

__all__ = ["followed", "judged", "ranks_taken", "tree_explorer", "tree_view"]

Curve = Callable[[int], float]
MOST = 20  # nodes
KNOBS = (
    Knob("depth", "below the root, each a run of the draft", 1, 8, 4, 1, "levels"),
    Knob("top-k", "to go on from a node, at most", 1, 5, 3, 1, "ways"),
    Knob("nodes", "checked in one forward, the root included", 2, MOST, 10, 1, "nodes"),
    Knob("round", "another place in a text: what the target takes there", 1, 30, 3, 1),
)


def judged(
    drafted: DraftTree, result: VerifyResult, words: Callable[[Sequence[int]], str]
) -> tuple[list[Box], list[int]]:
    """(boxes, parents) of a verified tree, with the target's own token hung on the last node that was accepted.

    Rejected are the children that the target was asked about and did not take; the rest was never tested.
    """
    path = (0, *result.path)
    kinds = {node: "rejected" for seen in path for node in drafted.children(seen)}
    kinds |= dict.fromkeys(result.path, "accepted")
    boxes = [Box(words([token]), kinds.get(node, "prompt")) for node, token in enumerate(drafted.token_list)]
    return [*boxes, Box(words([result.next_token]), "bonus")], [*drafted.parent_list, path[-1]]


def ranks_taken(acceptance: Sequence[float], number: int, depth: int) -> list[int | None]:
    """Round `number`: at each level the rank of the child that the target takes; None: it is none of the ranks."""
    coins = torch.rand(64, generator=torch.Generator().manual_seed(number), dtype=torch.float64)[:depth]
    ends = torch.tensor(acceptance, dtype=torch.float64).cumsum(0)
    places = torch.searchsorted(ends, coins, right=True).tolist()
    return [place if place < len(acceptance) else None for place in places]


def followed(shape: DraftTree, taken: Sequence[int | None]) -> tuple[int, ...]:
    """The nodes that a round with these ranks accepts."""
    path, node = [], 0
    for rank in taken:
        children = shape.children(node)
        if rank is None or rank >= len(children):
            break
        path.append(node := children[rank])
    return tuple(path)


def tree_view(
    acceptance: Sequence[float], v: Curve, c: Number, depth: Number, topk: Number, nodes: Number, number: Number
) -> View:
    """`acceptance`: by rank; `v`: price of a forward over so many tokens; `c`: of a level of the draft, in plain steps.

    The tree, the path that one round takes in it, tau and time, and the best chain beside it.
    """
    row = tuple(acceptance[: round(topk)])
    parents, tau = optimal_tree([row], round(nodes), round(depth))
    shape = DraftTree(torch.arange(len(parents)), torch.tensor(parents))
    path = followed(shape, ranks_taken(acceptance, round(number), max(shape.depths)))
    cost = max(shape.depths) * c + v(len(shape))
    chains = {g: expected_tokens(chain(g), [row]) / (g * c + v(g + 1)) for g in range(1, 9)}
    best = max(chains, key=lambda g: chains[g])
    guesses, held = _many(len(shape) - 1, "guess", "guesses"), _many(len(path), "guess", "guesses")
    levels, tokens = _many(max(shape.depths), "level"), _many(len(path) + 1, "token")
    html = (
        f"<p>This tree: {guesses}, expected tau <b>{tau:.2f}</b>; a round takes {cost:.2f} plain steps, "
        f"{levels} of drafting and v({len(shape)}) = {v(len(shape)):.2f}: <b>{tau / cost:.2f}</b> "
        f"times plain. The best chain, of {best}: <b>{chains[best]:.2f}</b> times.</p>"
        f"<p>Round {round(number)}: <b>{held}</b> accepted, {tokens}.</p>"
    )
    boxes, above = judged(shape, VerifyResult(path, 0), lambda _: "")
    values, ranks = _values(shape, row)
    boxes = [Box("text" if not i else f"{ranks[i] + 1}: {values[i]:.2f}", box.kind) for i, box in enumerate(boxes[:-1])]
    title = f"depth {depth:g}, top-k {topk:g}, {nodes:g} nodes; round {number:g}: {tokens}"
    alt = f"A tree of {len(shape)} nodes, {max(shape.depths)} deep; {held} accepted in this round."
    return View(html, tree([*boxes, Box("own", "bonus")], above, alt=alt, title=title))


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or f'{one}s'}"


def _values(shape: DraftTree, row: Sequence[float]) -> tuple[list[float], list[int]]:
    """Chance of each node that it is accepted, and its rank among its siblings."""
    values, ranks = [1.0], [0]
    for node, parent in enumerate(shape.parent_list[1:], 1):
        ranks.append(shape.parent_list[:node].count(parent))
        values.append(values[parent] * row[ranks[node]])
    return values, ranks


def tree_explorer(acceptance: Sequence[float], v: Curve, c: Number) -> Explorer:
    """Four sliders. Raises ValueError if `acceptance` is no list of probabilities, or `v` is not known up to MOST."""
    v(MOST)
    return Explorer.build(KNOBS, lambda *knobs: tree_view(acceptance, v, c, *knobs))
