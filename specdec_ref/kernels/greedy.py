"""Greedy tree walk: kernel (b). Follow the child whose token is the target's argmax, as deep as there is one.

One program a row, a few integers read a level. `predict` is one read of the logits by torch.argmax, which is as good as
a kernel of our own would be; a row without a finite maximum has no argmax and is marked. Lossless at temperature 0.
SGLang's verify_tree_greedy.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.kernels.contract import BAD_ROW, Links, Walk
from specdec_ref.kernels.launch import VARYING, launch

__all__ = ["greedy_walk", "predictions"]


@triton.jit(do_not_specialize=VARYING)
@no_type_check
def _greedy_walk(tokens, next_token, next_sibling, predict, accept_index, extra, nodes):
    row = tl.program_id(0).to(tl.int64)
    base = row * nodes
    node = row * 0
    steps = row * 0
    child = row * 0
    while child >= 0:  # one round a level: `child` is the one that was taken, the root at first
        node = child
        tl.store(accept_index + base + steps, node)
        steps += 1
        best = tl.load(predict + base + node)
        child = tl.load(next_token + base + node)
        searching = child >= 0
        while searching:
            if tl.load(tokens + base + child) == best:
                searching = child < 0
            else:
                child = tl.load(next_sibling + base + child)
                searching = child >= 0
    tl.store(extra + row, tl.load(predict + base + node))


def predictions(logits: Float[Tensor, "batch nodes vocab"]) -> Int[Tensor, "batch nodes"]:
    """The argmax of every row, or BAD_ROW where the maximum is not finite. Nothing here waits for the device."""
    best = logits.argmax(-1, keepdim=True)
    return best.where(logits.gather(-1, best).isfinite(), BAD_ROW).squeeze(-1)


def greedy_walk(tokens: Int[Tensor, "batch nodes"], links: Links, predict: Int[Tensor, "batch nodes"]) -> Walk:
    """`predict`: the target's argmax after each node."""
    batch, nodes = tokens.shape
    accept_index, extra = torch.full_like(tokens, -1), tokens.new_empty(batch)
    launch(
        _greedy_walk,
        (batch,),
        tokens.contiguous(),
        links.next_token,
        links.next_sibling,
        predict.contiguous(),
        accept_index,
        extra,
        nodes,
    )
    return Walk(accept_index, extra)
