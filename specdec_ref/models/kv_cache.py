"""The KV cache of a batch of token trees, and the only file that knows transformers' cache classes.

Row b owns the slots 0 .. lengths[b]-1, one per committed token: slot = position. A forward writes its new nodes into
the slots behind them, and `commit` decides what becomes of those:

    rollback    lengths[b] stays where it is: the rejected slots are simply written over
    chain       lengths[b] += accepted: they already stand in place
    tree        one gather moves the accepted path to the front of the new slots (kernels: `move_slots`)

Slots are preallocated, so nothing grows or is concatenated in a decoding step, and a ragged batch leaves no holes.
A slot at or behind lengths[b] holds rubbish: the attention mask must never show it (`target.py` builds that mask).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from specdec_ref.kernels import Backend, ops
from specdec_ref.transfer import upload

__all__ = ["SlotCache"]


@dataclass(slots=True)
class _Window:
    """Where the forward under way writes: row b's node j goes to slot lengths[b] + j."""

    lengths: list[int]
    nodes: int
    capacity: int
    slots: Int[Tensor, "batch nodes"] | None = None  # None: every row starts at the same slot
    pending: bool = False  # written to, and not committed yet

    @property
    def stop(self) -> int:
        """One past the last slot that any row of this forward may look at."""
        return max(self.lengths) + self.nodes


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: buffers of shape batch x heads x capacity x head_dim, allocated on first use."""

    is_sliding = False

    def __init__(self, window: _Window) -> None:
        super().__init__()
        self.window, self.width = window, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor, ones: int = 0) -> None:
        """Allocate. Zeros, since a masked slot's weight 0 times NaN would still be NaN; `ones`: see `write`."""
        capacity, self.width = self.window.capacity, value_states.shape[3]
        self.keys = key_states.new_zeros(*key_states.shape[:2], capacity, key_states.shape[3])
        self.values = value_states.new_ones(*value_states.shape[:2], capacity, self.width + ones)
        self.values[..., : self.width] = 0
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new nodes; return every slot that the mask may show."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.write(key_states, value_states)
        return keys.to(key_states.dtype), values[..., : self.width].to(value_states.dtype)

    def write(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """The same in the buffers' own number format, and with the values' further columns."""
        assert self.keys is not None and self.values is not None  # for the type checker
        window = self.window
        if window.slots is None:
            start = window.lengths[0]
            self.keys[:, :, start : start + window.nodes] = key_states
            self.values[:, :, start : start + window.nodes, : self.width] = value_states
        else:
            rows = torch.arange(len(window.lengths), device=key_states.device)[:, None]
            self.keys[rows, :, window.slots] = key_states.transpose(1, 2).to(self.keys.dtype)
            self.values[rows, :, window.slots, : self.width] = value_states.transpose(1, 2).to(self.values.dtype)
        return self.keys[:, :, : window.stop], self.values[:, :, : window.stop]

    def get_seq_length(self, *args: Any) -> int:
        """Cached tokens of the longest row: transformers derives default positions from it, which we always pass."""
        return max(self.window.lengths, default=0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(slots a mask must cover, offset of the first)."""
        return self.window.stop, 0

    def get_max_length(self) -> int:
        """Slots a row has."""
        return self.window.capacity

    get_max_cache_shape = get_max_length  # its name before transformers 5.20


class SlotCache(Cache):
    """Give it to a model as `past_key_values`. One `prepare`, one model forward, one `commit`; then again."""

    def __init__(self, layers: int, batch: int, capacity: int, backend: Backend = "torch") -> None:
        """`capacity`: slots a row, for committed tokens and the widest tree together. `backend`: who moves slots."""
        self.backend: Backend = backend
        self.window = _Window([0] * batch, 0, capacity)
        super().__init__(layers=[_SlotLayer(self.window) for _ in range(layers)])

    @property
    def lengths(self) -> list[int]:
        """Committed tokens, a row each."""
        return self.window.lengths

    def write(
        self, keys: Tensor, values: Tensor, index: int, dtype: torch.dtype, ones: int
    ) -> tuple[Float[Tensor, "batch heads slots head_dim"], Float[Tensor, "batch heads slots columns"]]:
        """`update` of layer `index` for who attends in `dtype`: the buffers themselves, if it was the first to write.

        `ones` further columns of the values hold 1: the sum of the weights then comes with the weighted sum of values.
        """
        layer = self.layers[index]
        if not layer.is_initialized:
            layer.lazy_initialization(keys.to(dtype), values.to(dtype), ones)
        kept, valued = layer.write(keys, values)
        if valued.shape[3] == layer.width:  # another forward was the first
            valued = F.pad(valued, (0, ones), value=1.0)
        return kept.to(dtype), valued.to(dtype)

    def prepare(self, nodes: int, device: torch.device | str = "cpu") -> None:
        """Open a window of `nodes` slots behind every row's committed tokens, growing the buffers if they are full."""
        window = self.window
        if window.pending:
            self._wipe()
        window.nodes, window.pending = nodes, True
        if window.stop > window.capacity:
            self._grow(max(window.stop, window.capacity * 2))
        lengths = window.lengths
        uniform = min(lengths) == max(lengths)
        window.slots = None if uniform else upload(torch.tensor(lengths)[:, None] + torch.arange(nodes), device)

    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        """Row b keeps the nodes `kept[b]` of the last forward, ascending; all other new slots are forgotten."""
        window = self.window
        moved = [list(nodes) for nodes in kept]
        if any(nodes != list(range(len(nodes))) for nodes in moved):
            widest = max(map(len, moved))
            self._move(torch.tensor([nodes + [-1] * (widest - len(nodes)) for nodes in moved]))
        window.lengths[:] = [length + len(nodes) for length, nodes in zip(window.lengths, moved, strict=True)]
        window.pending = False

    def state(self) -> tuple[bytes, ...]:
        """All that a later forward may see: the committed slots' bytes, row by row in every layer. Slow; for tests."""
        buffers = [buffer for layer in self.layers for buffer in (layer.keys, layer.values) if buffer is not None]
        return tuple(
            buffer[row, :, :length].detach().double().cpu().numpy().tobytes()
            for buffer in buffers
            for row, length in enumerate(self.lengths)
        )

    def _move(self, kept: Int[Tensor, "batch moved"]) -> None:
        buffers = [buffer for layer in self.layers for buffer in (layer.keys, layer.values) if buffer is not None]
        for device in {buffer.device for buffer in buffers}:
            here = [buffer for buffer in buffers if buffer.device == device]
            ops(self.backend).move_slots(here, upload(torch.tensor(self.lengths), device), upload(kept, device))

    def truncate(self, lengths: Sequence[int]) -> None:
        """Roll each row back to its first `lengths[b]` tokens. Raises ValueError if a row holds fewer."""
        if any(not 0 <= new <= old for new, old in zip(lengths, self.lengths, strict=True)):
            raise ValueError(f"cannot roll back from {self.lengths} cached tokens to {list(lengths)}")
        self.window.lengths[:] = lengths

    def abandon(self, lengths: Sequence[int]) -> None:
        """Roll back as `truncate` does, after forwards that may have given NaN: what they wrote is zeroed."""
        self.truncate(lengths)
        self.window.pending = True

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order: how finished requests leave the batch."""
        for layer in self.layers:
            if layer.keys is not None and layer.values is not None:
                index = upload(torch.tensor(rows, dtype=torch.long), layer.keys.device)
                layer.keys, layer.values = layer.keys[index], layer.values[index]
        self.window.lengths[:] = [self.window.lengths[row] for row in rows]

    def _wipe(self) -> None:
        """Zero what an abandoned forward wrote: it may have been NaN, and a masked NaN still spoils its row."""
        for layer in self.layers:
            if layer.is_initialized:
                for row, length in enumerate(self.lengths):
                    layer.keys[row, :, length:] = layer.values[row, :, length:, : layer.width] = 0

    def _grow(self, capacity: int) -> None:
        self.window.capacity = capacity
        for layer in self.layers:
            if layer.keys is not None and layer.values is not None:
                layer.keys, layer.values = _widened(layer.keys, capacity), _widened(layer.values, capacity)
                layer.values[..., layer.width :] = 1


def _widened(
    buffer: Float[Tensor, "batch heads slots head_dim"], capacity: int
) -> Float[Tensor, "batch heads capacity head_dim"]:
    batch, heads, slots, head_dim = buffer.shape
    wide = buffer.new_zeros(batch, heads, capacity, head_dim)
    wide[:, :, :slots] = buffer
    return wide
