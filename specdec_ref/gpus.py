"""Memory bandwidth and 16-bit matrix rate of cards that people own: inputs of the cost model, not measurements.

The figures were written down from memory of the vendors' publications named here. **None has been checked against those
themselves.** Specification databases and press articles confirm, in November 2026: both figures of T4, RTX 3060, RTX
4090, RTX 5090, M1 Pro and M1 Max; the bandwidth of RTX 4060, 4070 and 4080; the rate of M1. Check other rows before you
rely on them.

    T4, A10                  NVIDIA's data sheets: dense tensor rate in float16
    RTX 30, RTX 40, RTX 50   NVIDIA's specification pages: bandwidth, and twice the shader rate (float32 sums)
    M1, M2                   Apple's announcements: the GPU's float32 rate, taken for 16 bits as well
    the others               `cost_model.GPUS`
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from specdec_ref.cost_model import GPUS, Machine

__all__ = ["CARDS", "find_card"]


def _shader(name: str, bandwidth_gb: float, shader_tflops: float) -> Machine:
    return Machine(f"NVIDIA GeForce {name}", bandwidth_gb * 1e9, 2e12 * shader_tflops)


CARDS: Mapping[str, Machine] = MappingProxyType(
    {
        **GPUS,
        "T4": Machine("NVIDIA T4", 320e9, 65e12),
        "A10": Machine("NVIDIA A10", 600e9, 125e12),
        "RTX 3060": _shader("RTX 3060 12 GB", 360.0, 12.7),
        "RTX 3070": _shader("RTX 3070", 448.0, 20.3),
        "RTX 3080": _shader("RTX 3080 10 GB", 760.0, 29.8),
        "RTX 3090": _shader("RTX 3090", 936.0, 35.6),
        "RTX 4060": _shader("RTX 4060", 272.0, 15.1),
        "RTX 4070": _shader("RTX 4070", 504.0, 29.1),
        "RTX 4080": _shader("RTX 4080", 717.0, 48.7),
        "RTX 4090": _shader("RTX 4090", 1008.0, 82.6),
        "RTX 5070": _shader("RTX 5070", 672.0, 30.9),
        "RTX 5080": _shader("RTX 5080", 960.0, 56.3),
        "RTX 5090": _shader("RTX 5090", 1792.0, 104.8),
        "M1": Machine("Apple M1", 68.25e9, 2.6e12),
        "M1 Pro": Machine("Apple M1 Pro", 200e9, 5.2e12),
        "M1 Max": Machine("Apple M1 Max", 400e9, 10.4e12),
        "M2": Machine("Apple M2", 100e9, 3.6e12),
    }
)
_VENDOR = re.compile(r"nvidia|geforce|apple|tesla|rtx|\d+ ?gb|sxm\d?|[^a-z0-9]")


def find_card(name: str) -> Machine:
    """The card meant by a loosely written name: "4090", "rtx-4090" and "NVIDIA GeForce RTX 4090" are the same.

    Raises ValueError for a name that is no card's, or only the beginning of several; it lists those.
    """
    asked = _VENDOR.sub("", name.lower())
    short = {_VENDOR.sub("", key.lower()): card for key, card in CARDS.items()}
    if asked in short:
        return short[asked]
    near = [key for key in CARDS if asked and asked in _VENDOR.sub("", key.lower())]
    raise ValueError(f"unknown card {name!r}; choose from {', '.join(near or CARDS)}")
