"""From files to a head, strictly: a missing, unexpected or mis-shaped tensor is an error that names it.

The engines skip what they do not know, so there a misspelt name is silent, and drafts are merely never accepted. Here
every layout is brought to the names of `eagle_head.py` first, then all names and shapes have to be exactly its own:

    EAGLE repository   layers.0.* (EAGLE-1/2), midlayer.* (EAGLE-3)            norm.weight, lm_head.weight, d2t, t2d
    SGLang             the same, perhaps behind "model."; aux_norm_low/mid/high = fc_norm.0/1/2
    speculators        EAGLE-3 as layers.0.*, the layer's config one level down, and verifier_* that are not the head's
    ours               what was trained and d2t alone: embeddings and LM head are sliced from the target

`d2t` holds offsets: target id = draft id + d2t[draft id]. `t2d` marks the target ids that have a draft id.
Layer ids mean different things: vLLM and speculators count as transformers' `hidden_states` does (id = input of that
layer), and so do we; under SGLang's `eagle_config` an id names a layer's output, which is the next one's input: + 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from specdec_ref.drafters.eagle import default_layers
from specdec_ref.drafters.eagle_head import EagleHead, Variant, Version, head_config
from specdec_ref.drafters.medusa import MedusaHeads
from specdec_ref.drafters.mtp import MtpHead
from specdec_ref.drafters.parallel_eagle import MASKS, add_masks
from specdec_ref.weights.files import HeadFiles

__all__ = [
    "LoadedHead", "build_head", "build_medusa", "check_kind", "check_shapes", "check_target", "expected_shapes",
    "norm_sum", "q_vocab_of",
]  # fmt: skip

_LEGACY = {"aux_norm_low": "fc_norm.0", "aux_norm_mid": "fc_norm.1", "aux_norm_high": "fc_norm.2"}
_VERSIONS: dict[str, Version] = {"0": 0, "1": 1, "3": 3, "mtp": 1}
_VERIFIER = ("verifier_lm_head.", "verifier_norm.")  # speculators may keep the target's own beside the head


@dataclass(frozen=True, slots=True)
class LoadedHead:
    """A head and the layers of the target it was trained on, as indices into `hidden_states`."""

    head: EagleHead
    layers: tuple[int, ...]


def build_head(
    files: HeadFiles, target: nn.Module, dtype: torch.dtype | None = None, kind: str = "eagle"
) -> LoadedHead:
    """The head in these files, for this target; `dtype`: the target's, if None. Works on the meta device as well.

    `kind`: "eagle", "p-eagle" or "mtp". Raises ValueError that names the tensor or the setting that does not fit, or
    the kind that the files hold.
    """
    model: Any = target
    check_kind(files, kind)
    if files.config is None:
        version = _VERSIONS.get(files.metadata["version"], 3)
        tensors, config, variant = dict(files.tensors), head_config(model.config, version), Variant()
        layers = tuple(int(layer) for layer in files.metadata.get("layers", "").split(",") if layer)
        check_target(files, model)
    else:
        version, tensors = _canonical(files)
        config, variant = _head_settings(files, version, tensors)
        layers = _layers(files.config, model.config.num_hidden_layers)
    masks = {name: tensors.pop(name) for name in MASKS if kind == "p-eagle"}
    q_vocab = _draft_vocabulary(files, tensors, config)
    tensors = _with_the_target_s(tensors, model, version, q_vocab, own=files.config is None)
    with torch.device("meta"):  # no memory yet: every parameter is replaced by a tensor from the file
        mtp = kind == "mtp"
        head = MtpHead(config, q_vocab) if mtp else EagleHead(config, version, variant=variant, q_vocab=q_vocab)
    check_shapes(f"{files.source}", tensors, expected_shapes(head))
    number_format = dtype or model.dtype
    head.load_state_dict({name: tensor.to(number_format) for name, tensor in tensors.items()}, assign=True)
    head.q_vocab = q_vocab
    head.rotary = LlamaRotaryEmbedding(config)  # its frequencies are computed, not stored
    if kind == "p-eagle":
        add_masks(head).load_state_dict({name: t.to(number_format) for name, t in masks.items()}, strict=False)
    head.requires_grad_(False).eval()
    place = model.get_input_embeddings().weight.device
    return LoadedHead(head.to(place), layers or default_layers(version, model.config.num_hidden_layers))


def check_kind(files: HeadFiles, kind: str) -> None:
    """Raises ValueError if the files hold another kind of drafter, or if a P-EAGLE head lacks a mask vector."""
    found = (files.metadata or {}).get("version", "3")
    found = "eagle" if found in ("0", "1", "3") else found
    if found != kind:
        raise ValueError(f"{files.source} holds a drafter of kind {found!r}, not {kind!r}: choose --drafter {found}")
    if kind == "p-eagle" and (missing := [name for name in MASKS if name not in files.tensors]):
        raise ValueError(f"{files.source} lacks {', '.join(missing)}, so it cannot draft in parallel")


def build_medusa(files: HeadFiles, target: nn.Module, dtype: torch.dtype | None = None) -> MedusaHeads:
    """The Medusa heads in these files; `dtype`: the target's, if None. Raises ValueError if they do not fit."""
    model: Any = target
    check_kind(files, "medusa")
    tensors, rows = dict(files.tensors), model.get_output_embeddings().weight
    q_vocab = q_vocab_of(tensors.pop("d2t")) if "d2t" in tensors else None
    tensors["lm_head.weight"] = rows if q_vocab is None else rows[q_vocab]
    count = sum(name.endswith(".weight") for name in tensors) - 1
    heads = MedusaHeads(rows.shape[1], len(rows), count, q_vocab)
    check_shapes(f"{files.source}", tensors, {name: tuple(tensor.shape) for name, tensor in heads.state_dict().items()})
    heads.load_state_dict({name: tensor.to(dtype or model.dtype) for name, tensor in tensors.items()}, assign=True)
    return heads.requires_grad_(False).eval().to(rows.device)


def norm_sum(target: Any) -> float:
    """A number that tells one target from another in any dtype: the sum of its final norm's weights."""
    return float(target.base_model.norm.weight.double().sum())


def check_target(files: HeadFiles, model: Any) -> None:
    """Raises ValueError if a head was trained on another target's features; shipped ones name theirs."""
    told = files.metadata.get("target_norm")
    if told is not None and abs(norm_sum(model) - float(told)) > 1e-3 * abs(float(told)):  # rounding to bfloat16: 1e-4
        raise ValueError(f"{files.source} was trained on another target: its features would mean nothing to this one's")


def expected_shapes(head: EagleHead) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the head consists of."""
    return {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}


def q_vocab_of(d2t: Int[Tensor, " draft_vocab"]) -> Int[Tensor, " draft_vocab"]:
    """Target ids of the draft vocabulary, from the offsets that a checkpoint holds."""
    return d2t.long() + torch.arange(len(d2t), device=d2t.device)


def _canonical(files: HeadFiles) -> tuple[Version, dict[str, Tensor]]:
    """Our names, whichever layout it is; and which EAGLE."""
    tensors = {name: tensor for name, tensor in files.tensors.items() if not name.startswith(_VERIFIER)}
    prefixed = [name for name in tensors if name.startswith("model.")]
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("model.") if prefixed else name
        for old, new in _LEGACY.items():
            plain = plain.replace(old, new)
        if plain in renamed:
            raise ValueError(f"{files.source}: {plain} is there twice, once as {name}")
        renamed[plain] = tensor
    told = (files.config or {}).get("speculators_model_type") == "eagle3"
    if not told and not any(name.startswith("midlayer.") or "hidden_norm" in name for name in renamed):
        return 1, renamed
    return 3, {name.replace("layers.0.", "midlayer."): tensor for name, tensor in renamed.items()}


def _head_settings(files: HeadFiles, version: Version, tensors: Mapping[str, Tensor]) -> tuple[LlamaConfig, Variant]:
    """The config of the one layer, and the variant, from a published config.json.

    EAGLE's own loader gives an EAGLE-1 head an fc.bias unless its config declines, and published configs lack the key:
    there the file decides. The file also decides the number of layers: published configs copy the target's.
    """
    config: Mapping[str, Any] = files.config or {}
    nested = _table(config, "eagle_config", files)
    inner = dict(_table(config, "transformer_layer_config", files) or config)
    if inner.get("model_type", "llama") != "llama":
        raise ValueError(f"the head's layer is of type {inner['model_type']!r}: only Llama's is implemented")
    stacked = {name.split(".")[1] for name in tensors if name.startswith("layers.") and name.count(".") > 1}
    stacked |= {"midlayer" for name in tensors if name.startswith("midlayer.")}
    if len(stacked) > 1:
        raise ValueError(f"the head has {len(stacked)} layers: EAGLE heads have one")
    inner |= {"num_hidden_layers": 1, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    inner["attention_bias"] = bool(inner.get("attention_bias", False) or inner.get("qkv_bias", False))
    hidden, heads = _size(inner, "hidden_size", files), _size(inner, "num_attention_heads", files)
    _size(inner, "vocab_size", files)
    inner["head_dim"] = inner.get("head_dim") or hidden // heads
    try:
        settings = LlamaConfig(**{k: v for k, v in inner.items() if k not in ("architectures", "model_type")})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{files.source}: config.json is no Llama layer's: {error}") from error
    settings.draft_vocab_size = config.get("draft_vocab_size") or settings.vocab_size
    settings.target_hidden_size = config.get("target_hidden_size")
    flags = {f.name: bool(nested.get(f.name, config.get(f.name, False))) for f in dataclass_fields(Variant)}
    if version == 1:
        declined = config.get("bias") is False and "LlamaForCausalLMEagle" not in (config.get("architectures") or ())
        flags = {"bias": flags["bias"] or ("fc.bias" in tensors and not declined)}
    return settings, Variant(**flags)


def _table(config: Mapping[str, Any], name: str, files: HeadFiles) -> Mapping[str, Any]:
    """A nested object of the config; empty if it is absent or null."""
    found = config.get(name) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{files.source}: {name} in config.json must be an object, got {found!r}")  # noqa: TRY004
    return found


def _size(settings: Mapping[str, Any], name: str, files: HeadFiles) -> int:
    """A positive whole number of the config."""
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{files.source}: config.json needs {name}, a positive whole number, got {value!r}")
    return value


def _layers(config: Mapping[str, Any], count: int) -> tuple[int, ...]:
    """The layers that a config names, as indices into `hidden_states` of `count` layers; () if it names none."""
    name = "eagle_aux_hidden_state_layer_ids"
    nested = (config.get("eagle_config") or {}).get(name)
    given, shift = (nested, 1) if nested else (config.get(name) or (), 0)
    if not isinstance(given, list | tuple) or any(type(layer) is not int for layer in given):
        raise ValueError(f"{name} must be a list of whole numbers, got {given!r}")
    layers = tuple(layer + shift for layer in given)
    if any(not 0 <= layer <= count for layer in layers):
        most = count - shift
        raise ValueError(f"{name} {list(given)}: this target has {count} layers, so ids go from {-shift} to {most}")
    return layers


def _draft_vocabulary(files: HeadFiles, tensors: dict[str, Tensor], config: LlamaConfig) -> Tensor | None:
    """q_vocab from d2t, which it takes out of `tensors` together with t2d; None if the vocabulary is whole."""
    d2t, t2d = tensors.pop("d2t", None), tensors.pop("t2d", None)
    size, vocab = (config.vocab_size if d2t is None else len(d2t)), config.vocab_size
    if files.config is not None and size != config.draft_vocab_size:
        raise ValueError(
            f"{files.source}: d2t {'is missing' if d2t is None else f'has {size} entries'}, but config.json says "
            f"draft_vocab_size {config.draft_vocab_size} of {vocab}"
        )
    config.draft_vocab_size = size
    if d2t is None:
        return None
    if d2t.is_meta:
        return torch.zeros(size, dtype=torch.long, device="meta")
    q_vocab = q_vocab_of(d2t)
    if int(q_vocab.min()) < 0 or int(q_vocab.max()) >= vocab or len(q_vocab.unique()) < size:
        raise ValueError(
            f"{files.source}: d2t does not lead to {size} different tokens below {vocab}; are they offsets?"
        )
    if t2d is not None and not torch.equal(t2d.bool().nonzero()[:, 0], q_vocab.sort().values):
        raise ValueError(f"{files.source}: t2d and d2t name different tokens")
    return None if size == vocab and bool((d2t == 0).all()) else q_vocab


def _with_the_target_s(
    tensors: dict[str, Tensor], model: Any, version: Version, q_vocab: Tensor | None, *, own: bool
) -> dict[str, Tensor]:
    """The target's embeddings, and its LM head where the layout leaves that to the target, added."""
    embeddings, lm_head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    full = {"embed_tokens.weight": embeddings, **tensors}
    if own or version == 1:
        full.pop("lm_head.weight", None)
        full["lm_head.weight"] = lm_head if q_vocab is None else lm_head[q_vocab]
    return full


def check_shapes(source: str, given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError that names the tensors that are missing, unexpected or of a wrong shape."""
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra:
        parts = [f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("unexpected", extra)) if names]
        raise ValueError(f"{source} is no head for this target: {'; '.join(parts)}")
    for name, shape in wanted.items():
        if tuple(given[name].shape) != shape:
            raise ValueError(f"{source}: {name} has shape {tuple(given[name].shape)}, the head needs {shape}")
