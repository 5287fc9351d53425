"""The Triton kernels under the names of their twins in `reference.py`. Importing this needs triton."""

from specdec_ref.kernels.attention import tree_attention
from specdec_ref.kernels.chain import chain_reject
from specdec_ref.kernels.floors import logit_floors
from specdec_ref.kernels.gather import move_slots
from specdec_ref.kernels.greedy import greedy_walk, predictions
from specdec_ref.kernels.links import tree_links
from specdec_ref.kernels.tree_sample import tree_sample

__all__ = [
    "chain_reject", "greedy_walk", "logit_floors", "move_slots", "predictions", "tree_attention", "tree_links",
    "tree_sample",
]  # fmt: skip
