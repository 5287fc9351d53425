"""Copies from host memory to the device that do not wait for it."""

import torch
from torch import Tensor

__all__ = ["upload"]


def upload(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on `device`. A host tensor is pinned first: a copy from any other memory waits for the device."""
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
