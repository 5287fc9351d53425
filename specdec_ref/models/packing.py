"""Matrix products that stay fast for a handful of rows on a CPU: what makes verification cheap without a GPU.

A decoding step (1 row) is bound by reading the weights once, and verifying 2 to 32 rows could cost nearly the same. But
the product that torch calls is slow at a few rows: in float32 it copies ("packs") the whole weight into its own layout
from 4 rows on, every time. Here the weight is packed once, by oneDNN. Linear layers that read the same input become one
product: fewer, larger ones come closer to the memory's speed. Same function, rounded differently in the last bits; a
row comes out the same whatever the number of rows.
All products of a forward of SmolLM2-135M, AMD EPYC, 2 threads, median ms:

                           rows    1     2     4     8    16      its weights at the memory's speed
    bfloat16   torch              25    25    25    27    32
               packed, fused      15    18    15    15    21      10
    float32    torch              46    77    66    57    69
               packed, fused      29    27    18    24    32      20

With AVX512, oneDNN takes longer for one or two rows by a large weight than for six, and each row of the six comes out
the same, so one or two rows are padded with zeros. A forward of one row then takes 8 % less time, of two rows 12 %
(bfloat16: 2 and 5 %; paired, same machine). So more rows never cost less, which the prices of longer drafts rely on.
With AVX2 alone, fewer rows are faster anyway, and padding would make a forward of one row take 26 % longer (two: 12 %).

A packed weight stands beside the original, unless `lean` is asked for: the original's memory is freed then, and whoever
runs the layer itself has it unpacked again. Where both would fill more than half of the machine's memory nothing is
packed.
"""

import ctypes
import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from specdec_ref.machine import memory_gb

__all__ = ["PackedLinear", "Product", "can_pack", "pack_linears"]

_PACKED: Any = WeakTensorKeyDictionary()  # first weight -> (all weights' versions, packed, bias): models may share them

_ROWS = 8  # oneDNN picks the layout for so many; the product takes any number
_PADDED, _LARGE = 6, 800_000  # rows that one or two are padded to, for a weight of at least so many numbers
_PADS = torch.backends.cpu.get_cpu_capability() == "AVX512"


def can_pack(model: nn.Module) -> bool:
    """True for float32 or bfloat16 weights on a CPU whose torch has oneDNN for them, if memory holds them twice.

    Depends on nothing that changes between runs.
    """
    weight, memory = next(model.parameters()), memory_gb()
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    ready = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    if weight.dtype == torch.bfloat16:
        ready = ready and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return ready and weight.dtype in (torch.float32, torch.bfloat16) and (memory is None or 4 * size < memory * 1e9)


class Product:
    """x W^T + b of linear layers that read the same x, side by side: one product if packed. Inference only."""

    def __init__(self, *linears: nn.Module, pack: bool, lean: bool = False) -> None:
        """`pack`: keep a packed copy of the weights, shared by every `Product` of the same ones; `lean`: only that."""
        self.linears = cast("tuple[Any, ...]", linears)
        self.packed: Tensor | None = None
        self.bias: Tensor | None = None
        if pack:
            self.packed, self.bias = self._pack()
            if lean:
                _release(self.linears, self.packed)

    def _pack(self) -> tuple[Tensor, Tensor | None]:
        weights = [linear.weight for linear in self.linears]
        known = _PACKED.get(weights[0])
        if known is None or known[0] != self._versions():
            rows = torch.cat([weight.detach() for weight in weights]) if len(weights) > 1 else weights[0].detach()
            parts = [linear.bias for linear in self.linears]
            bias = None
            if any(part is not None for part in parts):
                filled = [
                    weight.new_zeros(len(weight)) if part is None else part.detach()
                    for weight, part in zip(weights, parts, strict=True)
                ]
                bias = torch.cat(filled)
            known = self._versions(), torch.ops.mkldnn._reorder_linear_weight(rows, _ROWS), bias
            _PACKED[weights[0]] = known
        self.made_of = known[0]
        return known[1], known[2]

    def _versions(self) -> list[tuple[int, int]]:
        tensors = [tensor for linear in self.linears for tensor in (linear.weight, linear.bias) if tensor is not None]
        return [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]

    def stale(self) -> bool:
        """True if a weight was replaced, or changed in place, since it was packed."""
        return self.packed is not None and self.made_of != self._versions()

    def __call__(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """The layers' outputs, side by side."""
        if self.packed is not None:
            return _product(x, self.packed, self.bias)
        parts = [F.linear(x, linear.weight, linear.bias) for linear in self.linears]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    rows = x.numel() // x.shape[-1]
    if _PADS and 0 < rows <= 2 and packed.numel() >= _LARGE:
        padded = F.pad(x.reshape(rows, -1), (0, 0, 0, _PADDED - rows))
        return _product(padded, packed, bias)[:rows].view(*x.shape[:-1], -1)
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")
    return product


def _release(linears: Sequence[Any], packed: Tensor) -> None:
    """Free the weights of packed layers. Whoever runs one of the layers finds them unpacked again, bit for bit."""
    weights = [linear.weight for linear in linears]
    sizes = [linear.out_features for linear in linears]

    def restore(*_: Any) -> None:
        with torch.inference_mode(False):
            if not weights[0].numel():
                for weight, rows in zip(weights, packed.to_dense().split(sizes), strict=True):
                    weight.data = rows
        for handle in handles:
            handle.remove()

    handles = [linear.register_forward_pre_hook(restore) for linear in linears]
    for weight in weights:
        weight.data = weight.new_empty(0)
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)  # glibc would keep the freed blocks, and their sizes do not fit what is packed next


class PackedLinear(nn.Module):
    """An `nn.Linear` with a packed copy of its weight, for models whose own modules stay in use. Inference only."""

    packed: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Shares weight and bias with `linear`, so tied weights stay tied."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self.register_buffer("packed", packed, persistent=False)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """x W^T + b."""
        return _product(x, self.packed, self.bias)


def pack_linears(model: nn.Module) -> int:
    """Replace every `nn.Linear` in place, doubling its memory. Returns how many; ValueError unless `can_pack`."""
    if not can_pack(model):
        raise ValueError("packing needs float32 or bfloat16 weights on a CPU, a torch with oneDNN, and memory for both")
    linears = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    for parent, name, child in linears:
        setattr(parent, name, PackedLinear(child))
    return len(linears)
