"""Linear layers that stay fast for a handful of rows on a CPU: what makes verification cheap without a GPU.

A decoding step (1 row) is bound by reading the weights once, and verifying 2 to 32 rows could cost nearly the same. But
the float32 matrix product that torch calls is slow at a few rows, and from 4 rows on copies ("packs") the whole weight
into its own layout first, every time. Here the weight is packed once, by oneDNN, and kept beside the original, which
still serves long prompts. Same function, rounded differently in the last bits, as any change of the number of rows is.

SmolLM2-135M, float32, one core with AVX-512, median ms of one forward (`specdec doctor` measures yours):

    rows       1     2     3     4
    torch     41    62    81    58
    packed    27    30    30    30        so v(2) falls from 1.5 to 1.1, and plain decoding is faster, too
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PackedLinear", "can_pack", "pack_linears"]

ROWS = range(1, 49)  # above, packing on the fly costs little


class PackedLinear(nn.Module):
    """A bias-free or biased float32 `nn.Linear` with a packed copy of its weight. Inference only."""

    packed: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Shares weight and bias with `linear`, so tied weights stay tied."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 8)
        self.register_buffer("packed", packed, persistent=False)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """x W^T + b."""
        if x.numel() // self.in_features not in ROWS:
            return F.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return product


def can_pack(model: nn.Module) -> bool:
    """True for float32 weights on a CPU whose torch has oneDNN. Depends on nothing that changes between runs."""
    weight = next(model.parameters())
    ready = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return ready and weight.device.type == "cpu" and weight.dtype == torch.float32


def pack_linears(model: nn.Module) -> int:
    """Replace every `nn.Linear` in place, doubling its memory. Returns how many; ValueError unless `can_pack`."""
    if not can_pack(model):
        raise ValueError("packing needs float32 weights on a CPU and a torch built with oneDNN")
    linears = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()
               if type(child) is nn.Linear]  # fmt: skip
    for parent, name, child in linears:
        setattr(parent, name, PackedLinear(child))
    return len(linears)
