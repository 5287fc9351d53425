"""The attention mask of a tree: a node sees its ancestors and itself.

    mask[i, j] = 1  iff  j = i or mask[parent(i), j] = 1          (SpecInfer, Miao et al. 2024, §4.2: topology-aware mask)

A chain gives the lower triangle, i.e. ordinary causal attention.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

__all__ = ["ancestor_mask"]


def ancestor_mask(parents: Sequence[int]) -> Bool[Tensor, "nodes nodes"]:
    """Row i marks what node i may attend to inside the tree. `parents[0] = -1`, `parents[i] < i`."""
    n = len(parents)
    if all(parent == node - 1 for node, parent in enumerate(parents)):
        return torch.ones(n, n, dtype=torch.bool).tril_()
    mask = torch.eye(n, dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask
