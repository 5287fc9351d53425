"""Reads the files of a draft head: tensors, and the config that says what they are. Nothing in them is ever run.

    a file     *.safetensors            a checkpoint of `specdec train`
    a folder   head.safetensors         the same
               config.json + model.safetensors, its shards, or pytorch_model.bin     a published head

A pickled file is opened with `weights_only=True`, which admits tensors and plain containers alone.
"""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from specdec_ref.models.download import is_pointer
from specdec_ref.weights.int8 import from_int8

__all__ = ["OWN_FILE", "HeadFiles", "is_own_head", "read_head"]

OWN_FILE = "head.safetensors"


@dataclass(frozen=True, slots=True)
class HeadFiles:
    """What lies on disk. `config` is None for a checkpoint of our own, whose `metadata` says what a config would."""

    source: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    config: dict[str, Any] | None


def read_head(source: Path | str) -> HeadFiles:
    """Read a file or a folder. Raises ValueError that says what is wrong with it and what belongs there."""
    path = Path(source).expanduser()
    if path.is_file():
        return _own(path)
    if not path.is_dir():
        raise ValueError(f"no head at {path}: name a *.safetensors checkpoint or the folder of a published head")
    if (path / OWN_FILE).is_file():
        return _own(path / OWN_FILE)
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} holds neither {OWN_FILE} nor config.json, so it is no draft head")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise ValueError(f"{path / 'config.json'} holds a {kind}: a head's settings are a JSON object")  # noqa: TRY004  (a wrong text)
    return HeadFiles(path, _published(path), {}, config)


def is_own_head(source: Path | str) -> bool:
    """Whether a checkpoint of our own lies there, and no transformers model."""
    path = Path(source).expanduser()
    return path.suffix == ".safetensors" or (path / OWN_FILE).is_file()


def _own(path: Path) -> HeadFiles:
    tensors, metadata = _safetensors(path)
    if "version" not in metadata:
        raise ValueError(f"{path} does not say which head it is: name the folder it came in, with its config.json")
    return HeadFiles(path, from_int8(tensors), metadata, None)


def _published(folder: Path) -> dict[str, Tensor]:
    shards = sorted(folder.glob("model*.safetensors"))
    if shards:
        tensors: dict[str, Tensor] = {}
        for shard in shards:
            found, _ = _safetensors(shard)
            if twice := sorted(found.keys() & tensors.keys()):
                raise ValueError(f"{folder}: {twice[0]} stands in two files, {shard.name} and another")
            tensors |= found
        return tensors
    pickled = folder / "pytorch_model.bin"
    if not pickled.is_file():
        raise ValueError(f"{folder} holds no weights: model.safetensors or pytorch_model.bin")
    try:
        found = torch.load(pickled, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{pickled} is damaged, or holds more than tensors, which is refused: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{pickled} is no table of tensors")
    return {str(name): tensor for name, tensor in found.items()}


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        if is_pointer(path):
            raise ValueError(
                f"{path} is a git-lfs pointer, not the weights: run `git lfs pull`, or download the file"
            ) from error
        raise ValueError(f"{path} is not a safetensors file, or a damaged one: {error}") from error
