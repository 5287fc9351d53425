"""Read a GGUF file's fields and tensors quickly: one pass over the header, tensors mapped and de-quantised on demand.

`gguf.GGUFReader` keeps a numpy view per string and needs seconds for a tokenizer with 100 000 of them; this reader
needs tenths, so `specdec serve` can check its files before every start. Layout: the GGUF specification, version 3.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, dequantize
from torch import Tensor

__all__ = ["Field", "GGUFFile", "Stored", "open_gguf"]

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY, ALIGNMENT = 8, 9, "general.alignment"


@dataclass(frozen=True, slots=True)
class Field:
    """A field's value, its type, and for an array the type of its items."""

    value: Any
    kind: GGUFValueType
    inner: GGUFValueType | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file. `shape`: inner dimension first, as in GGUF; `offset`: bytes from the file's start."""

    path: Path
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int

    def read(self) -> Tensor:
        """The values, de-quantised to float32; integers as they are. The outer dimension comes first."""
        count = int(np.prod(self.shape))
        block, size = GGML_QUANT_SIZES[self.kind]
        raw = np.fromfile(self.path, np.uint8, count // block * size, offset=self.offset)
        plain = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}.get(self.kind.name)
        rows = self.shape[::-1]
        if plain is not None:
            values = torch.from_numpy(raw.view(plain)).reshape(rows)
            return values.float() if values.is_floating_point() else values
        return torch.from_numpy(dequantize(raw.reshape(*rows[:-1], -1), self.kind).copy()).reshape(rows)


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The fields and tensors of one file."""

    path: Path
    fields: dict[str, Field]
    tensors: dict[str, Stored]

    def told(self, name: str) -> Any:
        """A field's value, None if the file has no such field."""
        return self.fields[name].value if name in self.fields else None


def open_gguf(path: Path) -> GGUFFile:
    """Read the header. Raises ValueError for a file that is not there, no GGUF, or cut off."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with path.open("rb") as file:
        try:
            magic, version, tensors, fields = struct.unpack("<4sIQQ", file.read(24))
            if (magic, version) != (b"GGUF", 3):
                raise ValueError(f"it begins with {magic!r}, {version}, expected b'GGUF', 3")  # noqa: TRY301
            found = dict(_field(file.read) for _ in range(fields))
            listed = [_tensor(file.read) for _ in range(tensors)]
        except (ValueError, KeyError, struct.error, MemoryError, OverflowError) as error:
            raise ValueError(f"{path} is no GGUF file, or a damaged one: {error}") from error
        step = found[ALIGNMENT].value if ALIGNMENT in found else 32
        start = -(-file.tell() // step) * step
    stored = {name: Stored(path, shape, kind, start + offset) for name, shape, kind, offset in listed}
    for name, tensor in stored.items():
        block, size = GGML_QUANT_SIZES[tensor.kind]
        if tensor.offset + int(np.prod(tensor.shape)) // block * size > path.stat().st_size:
            raise ValueError(f"{path} is cut off: {name} ends behind its last byte")
    return GGUFFile(path, found, stored)


def _unpack(read: Callable[[int], bytes], code: str, count: int = 1) -> tuple[Any, ...]:
    spelled = f"<{count}{code}"
    return struct.unpack(spelled, read(struct.calcsize(spelled)))


def _string(read: Callable[[int], bytes]) -> str:
    return read(_unpack(read, "Q")[0]).decode()


def _value(read: Callable[[int], bytes], kind: int) -> Any:
    return _string(read) if kind == STRING else _unpack(read, SCALARS[kind])[0]


def _field(read: Callable[[int], bytes]) -> tuple[str, Field]:
    name, (kind,) = _string(read), _unpack(read, "I")
    if kind != ARRAY:
        return name, Field(_value(read, kind), GGUFValueType(kind))
    inner, count = struct.unpack("<IQ", read(12))
    many = [_string(read) for _ in range(count)] if inner == STRING else list(_unpack(read, SCALARS[inner], count))
    return name, Field(many, GGUFValueType.ARRAY, GGUFValueType(inner))


def _tensor(read: Callable[[int], bytes]) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
    name, (dimensions,) = _string(read), _unpack(read, "I")
    shape = tuple(int(size) for size in _unpack(read, "Q", dimensions))
    kind, offset = struct.unpack("<IQ", read(12))
    return name, shape, GGMLQuantizationType(kind), offset
