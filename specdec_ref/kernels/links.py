"""Links, positions and ancestor bits of a batch of trees, from parents: kernel (a).

    next_token[i] = min {k : parent(k) = i}      next_sibling[i] = min {k > i : parent(k) = parent(i)}
    position[i]   = length + depth(i)            bit j of bits[i] = 1  iff  j = i or j is an ancestor of i

Repeated siblings are one outcome: the later ones are linked nowhere and their children hang on the first, as in
`trees.links`; positions and bits are those of the tree as it was drafted. One program a row; a node climbs to the root
in parallel with all others, so the climb takes depth steps. Idea: SGLang's build_tree kernel; SpecInfer (Miao et al.
2024, §4.2).
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from specdec_ref.kernels.contract import Links
from specdec_ref.kernels.launch import VARYING, launch, padded

__all__ = ["tree_links"]


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _build_links(
    parents, tokens, lengths, next_token, next_sibling, positions, bits, nodes, words, NODES: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, NODES).to(tl.int64)
    there = lane < nodes
    parent = tl.load(parents + row * nodes + lane, mask=there, other=-1)
    token = tl.load(tokens + row * nodes + lane, mask=there, other=-1)

    # Climb: lane i walks up its branch and marks what it passes, the word of 64 nodes at hand.
    for word in range(words):
        mark, depth = tl.zeros([NODES], tl.int64), tl.zeros([NODES], tl.int64)
        up = tl.where(there, lane, -1)
        while tl.max(up, 0) >= 0:
            mark |= tl.where((up >= 0) & (up // 64 == word), tl.full([NODES], 1, tl.int64) << (up % 64), 0)
            up = tl.load(parents + row * nodes + up, mask=up >= 0, other=-1)
            depth += (up >= 0).to(tl.int64)
        tl.store(bits + (row * nodes + lane) * words + word, mark, mask=there)
        tl.store(positions + row * nodes + lane, tl.load(lengths + row) + depth, mask=there)

    # Merge repeats: stands[i] is the node that stands for i, home[i] the parent it hangs on (-1: linked nowhere).
    stands, home = lane, tl.full([NODES], -1, tl.int64)
    for node in range(1, nodes):
        above = tl.sum(tl.where(lane == node, parent, 0), 0)
        here = tl.sum(tl.where(lane == above, stands, 0), 0)
        mine = tl.sum(tl.where(lane == node, token, 0), 0)
        elder = (home == here) & (token == mine) & (lane < node) & (above >= 0)
        first = tl.min(tl.where(elder, lane, node), 0)
        stands = tl.where(lane == node, first, stands)
        home = tl.where((lane == node) & (first == node) & (above >= 0), here, home)

    for node in range(nodes):
        child = tl.min(tl.where(home == node, lane, NODES), 0)
        hung = tl.sum(tl.where(lane == node, home, 0), 0)
        after = tl.min(tl.where((home == hung) & (lane > node) & (hung >= 0), lane, NODES), 0)
        tl.store(next_token + row * nodes + node, tl.where(child < NODES, child, -1))
        tl.store(next_sibling + row * nodes + node, tl.where(after < NODES, after, -1))


def tree_links(
    tokens: Int[Tensor, "batch nodes"], parents: Int[Tensor, "batch nodes"], lengths: Int[Tensor, " batch"]
) -> Links:
    """`parents`: -1 for the root and for pads; `lengths`: committed tokens before the root's own position."""
    batch, nodes = parents.shape
    words = -(-nodes // 64)
    child, sibling, positions = (torch.empty_like(parents) for _ in range(3))
    bits = parents.new_zeros(batch, nodes, words)
    launch(
        _build_links,
        (batch,),
        parents.contiguous(),
        tokens.contiguous(),
        lengths.contiguous(),
        child,
        sibling,
        positions,
        bits,
        nodes,
        words,
        NODES=padded(nodes),
    )
    return Links(child, sibling, positions, bits)
