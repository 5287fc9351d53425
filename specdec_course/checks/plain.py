"""Values as JSON and back, between the grader and a student's notebook: no pickle, and no class of the student's.

A value is None, a bool, an int, a float or a string as it is, or a list that begins with a tag: a container, a tensor
as dtype, shape and bytes, one of our dataclasses by name. What is none of these arrives as an `Opaque`: the name of its
type, its text, and its numbers, so that a report can quote it.
"""

import base64
import importlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from specdec_course.checks.wire import Garbled, built

__all__ = ["KNOWN", "MANY", "Codec", "Counted", "Opaque"]

DEEP, MANY, LONG = 40, 10_000, 2_000  # levels of nesting, items of what is no container, characters of a text about it
DTYPES = ("float16 float32 float64 bfloat16 float8_e4m3fn float8_e5m2 int8 int16 int32 int64 uint8 bool").split()
ARRAYS = ("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64").split()
KNOWN = {
    "DraftTree": "specdec_ref.core", "VerifyResult": "specdec_ref.core", "DraftBudget": "specdec_ref.config",
    "StepRecord": "specdec_ref.metrics", "RunStats": "specdec_ref.metrics",
}  # fmt: skip
CONTAINERS: dict[str, Callable[[Iterable[Any]], Any]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque,
}  # fmt: skip
MAPPINGS: dict[str, type[dict[Any, Any]]] = {"dict": dict, "Counter": Counter, "OrderedDict": OrderedDict}


class Counted(int):
    """A token that counts how often it is looked at, in the process that looks."""

    looks: ClassVar[list[int]] = [0]

    def __eq__(self, other: object) -> bool:
        self.looks[0] += 1
        return int(self) == other

    def __hash__(self) -> int:
        self.looks[0] += 1
        return hash(int(self))


class Opaque:
    """Something of the student's that is no plain data. Equal to nothing but itself; its class has its type's name."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _opaque(name: str, text: str, number: float | None, items: list[Any] | None) -> Opaque:
    inside: dict[str, Any] = {}
    if number is not None:
        inside["__float__"] = lambda self: number
    if items is not None:
        inside["__iter__"] = lambda self: iter(items)
    found: Opaque = type(name if name.isidentifier() else "object", (Opaque,), inside)(text)
    return found


class Codec:
    """Values as JSON and back. `seen`: the lists, dicts and tensors met on the way, the same order on both sides."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def pack(self, value: Any, deep: int = 0) -> Any:
        """As JSON. Raises Garbled if it is nested too deeply."""
        if deep > DEEP:
            raise Garbled(f"something nested more than {DEEP} levels deep")
        kind = type(value)
        if value is None or kind in (bool, str, float) or (kind is int and value.bit_length() < 8_000):
            return value
        if issubclass(kind, Tensor):
            return self._pack_tensor(value)
        if kind is Counted:
            return ["counted", int(value)]
        if issubclass(kind, np.ndarray | np.generic) and str(value.dtype) in ARRAYS:
            array = np.ascontiguousarray(value)
            tag = "array" if issubclass(kind, np.ndarray) else "scalar"
            return [tag, str(value.dtype), list(value.shape), base64.b64encode(array.tobytes()).decode()]
        if kind in (bytes, bytearray, torch.dtype, range, complex):
            return _simple(value)
        if issubclass(kind, Exception):
            return [
                "error",
                *(base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"),
                str(value)[:LONG],
            ]
        if kind is SimpleNamespace:
            return ["namespace", [[name, self.pack(each, deep + 1)] for name, each in vars(value).items()]]
        if KNOWN.get(kind.__name__) == kind.__module__:
            return [
                "known",
                kind.__name__,
                [
                    [f.name, self._field(f.name, partial(self.pack, getattr(value, f.name), deep + 1))]
                    for f in fields(value)
                    if f.init
                ],
            ]
        return self._pack_container(value, kind, deep)

    def _pack_container(self, value: Any, kind: type, deep: int) -> Any:
        other = self.pack_other(value)
        if other is not None:
            return other
        for base in (int, float, str):  # a subclass of the student's becomes the plain value
            if issubclass(kind, base) and (base is not int or int(value).bit_length() < 8_000):
                return self.pack(base(value) if base is not str else str.__str__(value), deep)
        for name, type_ in (("list", list), ("tuple", tuple), ("set", set), ("frozenset", frozenset), ("deque", deque)):
            if issubclass(kind, type_):
                packed = [name, [self.pack(each, deep + 1) for each in type_.__iter__(value)]]
                if kind is list:
                    self.seen.append(value)
                return packed
        if issubclass(kind, dict):
            name = kind.__name__ if kind in (Counter, OrderedDict) else "dict"
            pairs = [[self.pack(key, deep + 1), self.pack(each, deep + 1)] for key, each in dict.items(value)]
            if kind is dict:
                self.seen.append(value)
            return [name, pairs]
        return self._described(value, kind, deep)

    def _pack_tensor(self, value: Tensor) -> Any:
        plain = torch.Tensor.detach(value).as_subclass(Tensor).cpu().contiguous()
        name = str(plain.dtype).removeprefix("torch.")
        if name not in DTYPES or plain.is_sparse:
            raise Garbled(f"a tensor of {plain.dtype}")
        data = base64.b64encode(plain.reshape(-1).view(torch.uint8).numpy().tobytes()).decode()
        self.seen.append(value)
        return ["tensor", name, list(plain.shape), data, self.grows(value)]

    def _described(self, value: Any, kind: type, deep: int) -> Any:
        """What a report may want of it: `described`, `float`, a loop over it. Each is code of the student's."""
        text = number = items = None
        try:
            text = repr(value)[:LONG]
            number = float(value) if hasattr(kind, "__float__") else None
            items = [self.pack(each, deep + 1) for each in islice(value, MANY)] if hasattr(kind, "__iter__") else None
        except Exception:  # noqa: BLE001  (then that much is not known of it)
            pass
        return ["opaque", kind.__name__[:80], text or f"<{kind.__name__}>", number, items]

    def _field(self, name: str, run: Callable[[], Any]) -> Any:
        """Of a dataclass only `q` may be changed by a call: what else it holds is shared."""
        before = len(self.seen)
        value = run()
        if name != "q":
            del self.seen[before:]
        return value

    def unpack(self, packed: Any, deep: int = 0) -> Any:
        """What was packed. Raises Garbled for what cannot have been."""
        if deep > DEEP:
            raise Garbled("it sent something nested too deeply")
        if packed is None or type(packed) in (bool, int, float):
            return packed
        if type(packed) is str:
            return packed.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text
        try:
            return self._unpack_tagged(packed[0], packed[1:], deep)
        except Garbled:
            raise
        except Exception as error:
            raise Garbled("it sent data of no known form") from error

    def _unpack_tagged(self, tag: str, rest: list[Any], deep: int) -> Any:
        def inner(each: Any) -> Any:
            return self.unpack(each, deep + 1)

        if tag in CONTAINERS or tag in MAPPINGS:
            return self._unpack_container(tag, rest[0], inner)
        match tag, *rest:
            case ["tensor", str(name), list(shape), str(data), grows] if name in DTYPES:
                flat = torch.frombuffer(bytearray(base64.b64decode(data)) or bytearray(8), dtype=torch.uint8)
                count = int(np.prod(shape, dtype=object)) if shape else 1
                dtype: torch.dtype = getattr(torch, name)
                tensor = flat[: count * dtype.itemsize].view(dtype).reshape([int(n) for n in shape])
                self.seen.append(self.grown(tensor, grows))
                return self.seen[-1]
            case [("array" | "scalar") as kind, str(name), list(shape), str(data)] if name in ARRAYS:
                array = np.frombuffer(base64.b64decode(data), dtype=name).reshape(shape).copy()
                return array if kind == "array" else array[()]
            case ["bytes", str(data)]:
                return base64.b64decode(data)
            case ["counted", int(number)]:
                return Counted(number)
            case ["dtype", str(name)] if name in DTYPES:
                return getattr(torch, name)
            case ["range", int(start), int(stop), int(step)] if abs(stop - start) <= 100 * MANY * abs(step):
                return range(start, stop, step)
            case ["complex", float(real), float(imag)]:
                return complex(real, imag)
            case ["namespace", list(pairs)]:
                return SimpleNamespace(**{str(name): inner(each) for name, each in pairs})
            case ["error", *names, str(text)]:
                return built(names, inner(text))
            case ["known", str(name), list(pairs)] if name in KNOWN:
                given = {str(key): self._field(str(key), partial(inner, each)) for key, each in pairs}
                return self.known(name)(**given)
            case ["opaque", str(name), str(text), number, items] if number is None or type(number) is float:
                return _opaque(name, inner(text[:LONG]), number, None if items is None else [*map(inner, items)])
        return self.unpack_other(tag, rest)

    def _unpack_container(self, tag: str, items: list[Any], inner: Callable[[Any], Any]) -> Any:
        if tag in CONTAINERS:
            value = CONTAINERS[tag](map(inner, items))
        else:
            value = MAPPINGS[tag]()
            for key, each in items:  # one by one: keys may have been chosen so that all their hashes are equal
                value[inner(key)] = inner(each)
        if tag in ("list", "dict"):
            self.seen.append(value)
        return value

    def known(self, name: str) -> Any:
        """One of our dataclasses."""
        return getattr(importlib.import_module(KNOWN[name]), name)

    def pack_other(self, value: Any) -> Any:
        """As JSON, or None: what only one side has."""
        return None

    def unpack_other(self, tag: str, rest: list[Any]) -> Any:
        """What the other side packed so."""
        raise Garbled("it sent data of no known form")

    def grows(self, value: Tensor) -> Any:
        """What the other side must know of a tensor's gradient."""
        return None

    def grown(self, tensor: Tensor, how: Any) -> Tensor:
        """The tensor, with that."""
        return tensor


def _simple(value: Any) -> list[Any]:
    if isinstance(value, torch.dtype):
        return ["dtype", str(value).removeprefix("torch.")]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    return ["bytes", base64.b64encode(value).decode()]
