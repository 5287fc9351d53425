"""Data-parallel training on CPUs by accelerate: every process takes its share of a batch, all take the same step.

    gradient = sum over processes of d(sum of losses over its rows) / number of rows of all processes

So n processes end where one would, up to the order of sums and to which rejected columns go deeper (drawn by each).
Started by torchrun, which sets what accelerate reads; features have to be there already:

    torchrun --nproc-per-node 2 -m specdec_ref train eagle --features STORE --out HEAD
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

__all__ = ["Workers"]

Item = TypeVar("Item")


class Workers:
    """The processes of this run; a single one unless torchrun says otherwise."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            state = PartialState(cpu=True)
            self.rank, self.size = state.process_index, state.num_processes

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `size`-th of these, another one in each process."""
        return items[self.rank :: self.size]

    def total(self, value: float | int) -> float:
        """The sum over processes. All of them have to ask at the same place."""
        if self.size == 1:
            return float(value)
        whole = torch.tensor([value], dtype=torch.float64)
        torch.distributed.all_reduce(whole)
        return float(whole)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes the sum over processes."""
        if self.size > 1:
            for parameter in parameters:
                if parameter.requires_grad:
                    if parameter.grad is None:  # no row of this process reached it
                        parameter.grad = torch.zeros_like(parameter)
                    torch.distributed.all_reduce(parameter.grad)

    @contextmanager
    def until_stopped(self) -> Iterator[Callable[[], bool]]:
        """A question that is answered yes, to all alike, once SIGTERM or SIGINT has come to one of them."""
        caught: list[int] = []
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, lambda received, _: caught.append(received)) for number in numbers]
        try:
            yield lambda: self.total(len(caught)) > 0
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
