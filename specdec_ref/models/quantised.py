"""A target with 8-bit weights: every linear layer but the output head keeps int8 weights and a scale per output row.

    quantise_linears(model)          in place; then Target(model) as usual

Weight only: activations and sums keep the model's number format. In bfloat16, products of a few rows read the 8-bit
weights (`torch.ops.aten._weight_int8pack_mm`, part of torch); in float32, where that operation has no fast code, and
for a prompt's many rows, the weights are widened for each product. Measured, 576 x 1536, one thread, bfloat16: 1 row
0.049 ms (torch's product of bfloat16 weights 0.082), 4 rows 0.097 (0.098), 60 rows 1.39, widened 0.67 (0.53).
Such a model runs transformers' forward, not `fast.py`.
Verification makes the output that of the quantised model: a draft head that was trained on the original only loses
acceptance.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Int8Linear", "quantise_linears"]

_FEW = 8  # rows up to which the 8-bit product is the faster one


class Int8Linear(nn.Module):
    """An `nn.Linear` with its weights rounded to 255 levels per output row. Inference only."""

    levels: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """The largest weight of a row becomes 127 or -127."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("levels", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """x W^T + b with the rounded W."""
        rows = x.reshape(-1, self.in_features)
        if x.dtype == torch.bfloat16 and len(rows) <= _FEW:
            product: Tensor = torch.ops.aten._weight_int8pack_mm(rows, self.levels, self.scale)
        else:
            product = F.linear(rows, self.levels.to(x.dtype)) * self.scale
        out = product.reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


def quantise_linears(model: nn.Module, keep: Sequence[str] = ("lm_head",)) -> int:
    """Replace every `nn.Linear` in place but those whose name ends in one of `keep`. Returns how many.

    Raises ValueError if there are none, or if the model is on a GPU.
    """
    parts: Any = model
    if next(parts.parameters()).device.type != "cpu":
        raise ValueError("8-bit weights run on a CPU here; move the model first: model.to('cpu')")
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and not name.endswith(tuple(keep))
    ]
    if not found:
        raise ValueError(f"no linear layers to quantise, apart from {', '.join(keep)}")
    for parent, name, child in found:
        setattr(parent, name, Int8Linear(child))
    return len(found)
