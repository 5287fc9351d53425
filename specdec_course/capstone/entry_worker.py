"""The process that a capstone entry runs in: the student's code, with the target behind a socket.

It never has the target, the grader's clock or our decoders: an import of `specdec_ref` or `specdec_course` fails.
Messages are JSON, one per line; the rows of p come through shared memory. `box` has set the limits; docs/CAPSTONE.md
lists what is prevented.
Nothing here may import more than torch.
"""

import importlib
import json
import mmap
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["CLASS", "main"]

CLASS = "MyDecoder"
OURS = ("specdec_ref", "specdec_course")


class _Refused(Exception):  # noqa: N818  (it says what the entry did, not what went wrong here)
    """What the student's code is told where the grader says no."""


class _Wire:
    """A question, an answer; both sides speak JSON, a line each."""

    def __init__(self, control: socket.socket, rows: mmap.mmap) -> None:
        self.file, self.rows = control.makefile("rw", encoding="utf-8"), rows

    def ask(self, **message: Any) -> Any:
        self.file.write(json.dumps(message) + "\n")
        self.file.flush()
        answer = json.loads(self.file.readline() or "null")
        if answer is None:
            raise SystemExit("the grader has gone")
        if "refused" in answer:
            raise ValueError(answer["refused"])
        return answer

    def p(self, rows: int, vocab: int, dtype: str) -> Tensor:
        """A copy: the next forward writes over the buffer."""
        shared = torch.frombuffer(self.rows, dtype=getattr(torch, dtype), count=rows * vocab)
        return shared.view(rows, vocab).clone()


class _RemoteModel:
    """`adapter.Model`, from afar."""

    def __init__(self, wire: _Wire, vocab_size: int, temperature: float, length: int) -> None:
        self._wire, self.vocab_size, self.temperature = wire, vocab_size, temperature
        self.length, self.forwards = length, 0

    def score(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> Tensor:
        answer = self._wire.ask(
            call="score",
            tokens=[int(t) for t in tokens],
            parents=None if parents is None else [int(i) for i in parents],
        )
        self.forwards += 1
        return self._wire.p(answer["rows"], self.vocab_size, answer["dtype"])

    def keep(self, nodes: Sequence[int]) -> None:
        self.length = self._wire.ask(call="keep", nodes=[int(node) for node in nodes])["length"]


class _RemoteRandomness:
    """`core.Randomness`, from afar: the grader tosses the coins, and can enumerate them."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def accept(self, prob: float) -> bool:
        return bool(self._wire.ask(call="accept", prob=float(prob))["coin"])

    def draw(self, weights: Any) -> int:
        return int(self._wire.ask(call="draw", weights=[float(weight) for weight in weights])["index"])


class _NotHere:
    """An import hook: an entry is what its author wrote."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if (package := name.partition(".")[0]) in OURS:
            raise ImportError(f"{package} cannot be imported in an entry: the decoder is to be your own")


def main(argv: Sequence[str]) -> None:
    """argv: the two file descriptors. The first message brings the source."""
    control, buffer = map(int, argv)
    torch.set_num_threads(1)
    wire = _Wire(socket.socket(fileno=control), mmap.mmap(buffer, 0))
    job = wire.ask(call="hello")
    try:
        make = _loaded(job)
        answer = wire.ask(call="ready")
    except BaseException as error:  # noqa: BLE001  (SystemExit too: whatever the student's file raises)
        wire.ask(call="failed", why=_sentence(error))
        return
    while True:
        try:
            answer = wire.ask(call="done", tokens=_generate(make, wire, answer))
        except Exception as error:  # noqa: BLE001  (whatever the student's decoder raises)
            answer = wire.ask(call="failed", why=_sentence(error))


def _loaded(job: dict[str, Any]) -> Callable[[], Any]:
    if "ours" in job:
        module, _, name = job["ours"].partition(":")
        ours: Callable[[], Any] = getattr(importlib.import_module(module), name)
        return ours
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    sys.meta_path.insert(0, _NotHere())
    space: dict[str, Any] = {"__name__": "entry", "torch": torch}
    exec(compile(job["source"], "<entry>", "exec"), space)
    if CLASS not in space:
        raise _Refused(f"there is no class {CLASS} in it")
    found: Callable[[], Any] = space[CLASS]
    return found


def _generate(make: Callable[[], Any], wire: _Wire, about: dict[str, Any]) -> list[int]:
    model = _RemoteModel(wire, about["vocab_size"], about["temperature"], about["length"])
    prompt, eos = list(about["prompt"]), frozenset(about["eos"])
    text = make().generate(model, prompt, about["max_new_tokens"], eos, _RemoteRandomness(wire))
    return [int(token) for token in text]


def _sentence(error: BaseException) -> str:
    """The error, and the line of the entry that it came from."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<entry>"]
    where = f" in line {own[-1].lineno}" if own else ""
    return f"it raised {type(error).__name__}{where}: {' '.join(str(error).split())}"[:500]


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # whatever threads the entry left behind
