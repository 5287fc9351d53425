"""Between host and device: copies that do not wait, and which tensors can be read without waiting."""

import torch
from torch import Tensor

__all__ = ["at_hand", "upload"]


def at_hand(tensor: Tensor) -> bool:
    """Whether its values can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def upload(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on `device`. A host tensor is pinned first: a copy from any other memory waits for the device."""
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
