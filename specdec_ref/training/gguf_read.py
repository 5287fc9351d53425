"""Read an EAGLE-3 head back from GGUF, strictly: what llama.cpp would load and misread is an error here.

Used right after an export, and before a file is given to llama.cpp, which aborts the process on a wrong layer or type.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specdec_ref.training.gguf_file import GGUFFile, Stored, open_gguf
from specdec_ref.training.gguf_head import ARCHITECTURE, TENSORS
from specdec_ref.weights.heads import LoadedHead

__all__ = ["GGUFHead", "compare", "read_gguf_head"]

NAMES = {theirs: ours for ours, theirs in TENSORS.items()}
NORMS = ("attn_norm", "attn_norm_2", "ffn_norm", "output_norm")


@dataclass(frozen=True, slots=True)
class GGUFHead:
    """A head as its file holds it: our parameter names and row order, the draft's target ids, layers and settings."""

    tensors: dict[str, Tensor]
    q_vocab: Tensor
    layers: tuple[int, ...]
    settings: dict[str, Any]


def read_gguf_head(path: Path, target: GGUFFile | None = None) -> GGUFHead:
    """The head in `path`; `target`: the target's file, whose sizes it must fit.

    Raises ValueError that names the key or tensor that is missing, unexpected, of the wrong type or out of range.
    """
    file = open_gguf(path)
    if file.told("general.architecture") != ARCHITECTURE:
        raise ValueError(f"{path} holds {file.told('general.architecture')!r}, an EAGLE-3 head is {ARCHITECTURE!r}")
    prefix = f"{ARCHITECTURE}."
    settings = {name.removeprefix(prefix): f.value for name, f in file.fields.items() if name.startswith(prefix)}
    _names(path, set(file.tensors), settings)
    _sizes(path, file.tensors, settings)
    ids = _ids(file)
    if target is not None:
        _target(file, target, settings)
    heads = {"attn_q": settings["attention.head_count"], "attn_k": settings["attention.head_count_kv"]}
    tensors = {NAMES[name]: _matrix(name, stored, heads) for name, stored in file.tensors.items() if name != "d2t"}
    return GGUFHead(tensors, ids, tuple(settings["target_layers"]), settings)


def compare(found: GGUFHead, wanted: LoadedHead) -> None:
    """Raises ValueError unless the file holds this head, up to float16's rounding."""
    head = wanted.head
    ids = torch.arange(head.config.vocab_size) if head.q_vocab is None else head.q_vocab.cpu()
    if not torch.equal(found.q_vocab, ids):
        raise ValueError("the file's d2t does not hold the target ids of the head's draft vocabulary")
    if found.layers != wanted.layers:
        raise ValueError(f"the file's layers are {list(found.layers)}, the head's {list(wanted.layers)}")
    if found.settings["norm_before_residual"] != head.variant.norm_before_residual:
        raise ValueError(f"the file's norm_before_residual is {found.settings['norm_before_residual']}, the head's not")
    if found.settings["rope.freq_base"] != head.config.rope_parameters["rope_theta"]:
        raise ValueError(f"the file's rope.freq_base is {found.settings['rope.freq_base']}, not the head's")
    state = head.state_dict()
    for name, tensor in found.tensors.items():
        if not torch.allclose(tensor, state[name].float().cpu(), rtol=2**-10, atol=1e-7):
            raise ValueError(f"{TENSORS[name]} in the file is not the head's {name}")


def _names(path: Path, found: set[str], settings: dict[str, Any]) -> None:
    wanted = {*NAMES, "d2t"}
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing or extra:
        parts = [f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("unexpected", extra)) if names]
        raise ValueError(f"{path}: {'; '.join(parts)}: llama.cpp refuses the file")
    needed = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
              "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "rope.freq_base", "target_layers",
              "target_hidden_size", "norm_before_residual")  # fmt: skip
    if absent := [name for name in needed if name not in settings]:
        raise ValueError(f"{path}: no {ARCHITECTURE}.{absent[0]}")
    if settings["block_count"] != 1 or len(settings["target_layers"]) != 3:
        raise ValueError(
            f"{path}: {settings['block_count']} layers that read {settings['target_layers']}: an EAGLE-3 "
            "head has one layer and reads three"
        )


def _sizes(path: Path, arrays: dict[str, Stored], settings: dict[str, Any]) -> None:
    """Every shape, inner dimension first as GGUF lists them, and vectors in float32."""
    width, inner, size = (settings[name] for name in ("embedding_length", "feed_forward_length", "target_hidden_size"))
    queries, keys = settings["attention.head_count"], settings["attention.head_count_kv"]
    dim = settings.get("attention.key_length", width // queries)
    draft = arrays["d2t"].shape[0]
    shapes = {"fc": (3 * size, width), "attn_q": (2 * width, queries * dim), "attn_k": (2 * width, keys * dim),
              "attn_v": (2 * width, keys * dim), "attn_output": (queries * dim, width), "ffn_gate": (width, inner),
              "ffn_up": (width, inner), "ffn_down": (inner, width), "output": (width, draft),
              **dict.fromkeys(NORMS, (width,))}  # fmt: skip
    for name in NAMES:
        part = name.split(".")[-2]
        if (found := arrays[name].shape) != shapes[part]:
            raise ValueError(f"{path}: {name} has shape {found}, expected {shapes[part]}")
        if part in NORMS and arrays[name].kind.name != "F32":
            raise ValueError(f"{path}: {name} is {arrays[name].kind.name}, expected F32")


def _ids(file: GGUFFile) -> Tensor:
    """The draft vocabulary's target ids."""
    stored, path, vocab = file.tensors["d2t"], file.path, len(file.told("tokenizer.ggml.tokens") or ())
    if stored.kind.name != "I64":
        raise ValueError(f"{path}: d2t is {stored.kind.name}, expected I64: llama.cpp aborts on another type")
    ids = stored.read()
    if len(ids.unique()) != len(ids) or int(ids.min()) < 0 or int(ids.max()) >= vocab:
        raise ValueError(f"{path}: d2t must hold {len(ids)} different target ids below {vocab}; does it hold offsets?")
    return ids


def _target(file: GGUFFile, target: GGUFFile, settings: dict[str, Any]) -> None:
    """Against the target's file: layers, width, and the vocabulary."""
    path, name, kind = file.path, target.path, target.told("general.architecture")
    layers, width = target.told(f"{kind}.block_count") or 0, target.told(f"{kind}.embedding_length")
    if any(not 0 <= layer <= layers for layer in settings["target_layers"]):
        raise ValueError(
            f"{path}: layers {settings['target_layers']} are outside 0 to {layers} of {name}: llama.cpp aborts on them"
        )
    if width != settings["target_hidden_size"]:
        raise ValueError(f"{path} is for a target {settings['target_hidden_size']} wide, {name} is {width}")
    if file.told("tokenizer.ggml.tokens") != target.told("tokenizer.ggml.tokens"):
        raise ValueError(f"{path} has another vocabulary than {name}: it was made for another target")


def _matrix(name: str, stored: Stored, heads: dict[str, int]) -> Tensor:
    """Float32, query and key rows in Hugging Face's order again."""
    tensor, part = stored.read(), name.split(".")[-2]
    if part not in heads:
        return tensor
    return tensor.reshape(heads[part], -1, 2, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
