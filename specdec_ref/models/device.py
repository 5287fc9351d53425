"""Which device and which number format a model runs in, decided from the hardware alone, so that it never flips.

A timing could come out one way today and the other tomorrow; CPU and GPU features do not. The rule: bfloat16 where
products of bfloat16 numbers are native, float32 elsewhere. `SPECDEC_DTYPE` or an explicit name overrides it.
"""

import os

import torch

__all__ = ["describe_dtype", "pick_device", "pick_dtype"]

DTYPES = {
    "float64": torch.float64,
    "fp64": torch.float64,
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is CUDA if there is any, else the CPU; MPS only by name. Raises ValueError if it is not there."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}: use auto, cpu, cuda, cuda:1 or mps") from error
    missing = (picked.type == "mps" and not torch.backends.mps.is_available()) or (
        picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count()
    )
    if missing:
        raise ValueError(f"device {device!r} is not available to this PyTorch ({torch.__version__}): use auto or cpu")
    return picked


def pick_dtype(dtype: str | torch.dtype = "auto", device: str | torch.device = "auto") -> torch.dtype:
    """The number format to load weights in. Raises ValueError on an unknown name, here or in SPECDEC_DTYPE."""
    return _choose(dtype, pick_device(device))[0]


def describe_dtype(dtype: str | torch.dtype = "auto", device: str | torch.device = "auto") -> str:
    """One sentence saying what `pick_dtype` chooses for the same arguments, and why."""
    picked, why = _choose(dtype, pick_device(device))
    return f"{str(picked).removeprefix('torch.')}, because {why}."


def _choose(dtype: str | torch.dtype, device: torch.device) -> tuple[torch.dtype, str]:
    if dtype != "auto":
        return _named(dtype, "dtype"), "it was asked for"
    override = os.environ.get("SPECDEC_DTYPE", "auto")
    if override != "auto":
        return _named(override, "SPECDEC_DTYPE"), "SPECDEC_DTYPE says so"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "this GPU computes in it natively"
        return torch.float16, "this GPU has no native bfloat16"
    if device.type != "cpu":
        return torch.float32, f"nothing narrower has been measured on {device.type}"
    feature = _native_bfloat16()
    if feature:
        return torch.bfloat16, f"this CPU multiplies bfloat16 natively ({feature})"
    return torch.float32, "this CPU has no native bfloat16 products (AVX512-BF16, AMX or Arm BF16)"


def _named(dtype: str | torch.dtype, where: str) -> torch.dtype:
    picked = DTYPES.get(str(dtype).lower().removeprefix("torch."))
    if picked is None:
        raise ValueError(f"unknown {where} {dtype!r}: use auto, {', '.join(DTYPES)}")
    return picked


def _native_bfloat16() -> str | None:
    """The CPU feature that makes bfloat16 products native, if PyTorch can use it: it does so through oneDNN alone."""
    if not torch.backends.mkldnn.is_available():
        return None
    # not in every release we support: `get_capabilities`, and without it the two probes below
    listed: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"):
        if listed.get(name):
            return name
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        if getattr(torch.cpu, probe, bool)():
            return probe.removeprefix("_is_").removesuffix("_supported")
    return None
