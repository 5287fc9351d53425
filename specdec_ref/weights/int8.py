"""Matrices in 8 bits: row by row, w is about scale * n with whole numbers n from -127 to 127.

Half the size of bfloat16, and read back into the number format of the target when a head is loaded. A matrix `x` is
stored as `x` (int8) and `x.scale` (float16, a number per row); vectors stay as they are.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["from_int8", "to_int8"]

_SCALE, _LARGEST = ".scale", 127


def to_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every floating-point matrix as whole numbers and scales."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2 or not tensor.is_floating_point():
            packed[name] = tensor
            continue
        rows = tensor.float()
        scale = (rows.abs().amax(1) / _LARGEST).clamp_min(torch.finfo(torch.float16).tiny).half()
        whole = (rows / scale.float()[:, None]).round().clamp(-_LARGEST, _LARGEST)
        packed |= {name: whole.to(torch.int8), name + _SCALE: scale}
    return packed


def from_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, float32 where something was packed. Raises ValueError for a scale without its matrix."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(_SCALE)}
    for name in tensors.keys() - found.keys():
        matrix = found.get(name.removesuffix(_SCALE))
        if matrix is None or matrix.dim() != 2 or len(matrix) != len(tensors[name]):
            raise ValueError(f"{name} needs a matrix {name.removesuffix(_SCALE)} with {len(tensors[name])} rows")
        found[name.removesuffix(_SCALE)] = matrix.float() * tensors[name].float()[:, None]
    return found
