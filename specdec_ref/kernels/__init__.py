"""GPU kernels for verification, each with a readable twin. `ops("torch")` and `ops("triton")` have the same functions.

    tree_links       parents -> links, positions, ancestor bits       reference.py   the specification, in torch
    greedy_walk      follow the argmax                                 links.py ...   one Triton op a file
    tree_sample      target-only sampling of a tree                    contract.py    the tensors they share
    chain_reject     rejection sampling of a chain, from raw logits    launch.py      how a kernel is started
    logit_floors     top-k, top-p, min-p as one threshold a row
    tree_attention   prefix and ancestors, over the slot cache
    move_slots       the accepted path to the front of the cache

No kernel here has run on a GPU yet: docs/GPU.md says what has been shown without one, and how to show the rest.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

import torch

__all__ = ["Backend", "ops", "resolve_backend"]

Backend = Literal["torch", "triton"]


def resolve_backend(backend: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Backend:
    """What "auto" means on this device: the kernels on CUDA where they passed their self-test, torch elsewhere.

    The self-test of a device and number format runs at the first call, once (`verdicts.py`). "triton" runs the kernels
    untested. Raises ValueError for another name, or for "triton" where it cannot run: it needs a GPU, or its
    interpreter.
    """
    kind = torch.device(device).type
    installed = find_spec("triton") is not None
    if backend == "auto":
        return "triton" if kind == "cuda" and installed and _passed(torch.device(device), dtype) else "torch"
    if backend == "torch":
        return "torch"
    if backend != "triton":
        raise ValueError(f"unknown backend {backend!r}; choose auto, torch or triton")
    if not installed:
        raise ValueError("backend 'triton' needs the extra: pip install 'specdec-ref[kernels]' (Linux only)")
    if kind != "cuda":
        from specdec_ref.kernels.launch import INTERPRETED

        if not INTERPRETED:
            raise ValueError(
                f"backend 'triton' on {kind!r} needs triton's interpreter: set TRITON_INTERPRET=1 before Python starts"
            )
    return "triton"


def _passed(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels may decide for this device and number format."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16) or not torch.cuda.is_available():
        return False
    if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return False  # sm_75 and older multiply no bfloat16
    from specdec_ref.kernels.verdicts import verdict

    index = torch.cuda.current_device() if device.index is None else device.index
    return verdict(torch.device("cuda", index), dtype).passed


def ops(backend: Backend) -> ModuleType:
    """The twins or the kernels: modules with the same functions."""
    return import_module(f"specdec_ref.kernels.{'triton_ops' if backend == 'triton' else 'reference'}")
