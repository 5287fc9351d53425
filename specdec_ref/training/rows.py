"""Decoding many texts side by side with a preallocated KV cache; a finished row is refilled while the others go on.

The transformers model runs unmodified. Two things are its own: a cache that writes each row at its own slot, and an
attention function (registered with transformers) in which each row reads only its own length. Measured with the
135M target in float32 on one 2.8 GHz AVX-512 core, 96 rows: a batched attention padded to the longest row takes
1.7 times as long as this loop at ragged lengths of 60 to 500 slots, and keys and values stored in bfloat16 save
another third, because reading them is what binds. A forward written by hand was no faster (516 ms against 513 ms).
Lossless up to the rounding of keys and values to `cache_dtype`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface

from specdec_ref.models.device import pick_dtype

__all__ = ["RowDecoder"]


class _RowCache:
    """What transformers calls as `past_key_values`: `update` writes the new keys and values, and returns the rows'."""

    is_sliding = (False,)

    def __init__(self, config: Any, rows: int, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, slots, head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.rows = torch.zeros(0, 1, dtype=torch.long)  # this forward's rows ...
        self.places = torch.zeros(0, 1, dtype=torch.long)  # ... and the slots, rows x tokens, its tokens go to

    def update(
        self,
        key: Float[Tensor, "batch kv_heads nodes head_dim"],
        value: Float[Tensor, "batch kv_heads nodes head_dim"],
        layer: int,
        *_: Any,
        **__: Any,
    ) -> tuple[Float[Tensor, "rows kv_heads slots head_dim"], Float[Tensor, "rows kv_heads slots head_dim"]]:
        """Write what is new; return the whole layer, every row and slot of it."""
        keys, values = self.keys[layer], self.values[layer]
        keys[self.rows, :, self.places] = key.transpose(1, 2).to(keys.dtype)
        values[self.rows, :, self.places] = value.transpose(1, 2).to(values.dtype)
        return keys, values

    def get_seq_length(self, layer: int = 0) -> int:
        """Never asked for a position: positions are always passed."""
        return 0


def _attend_by_row(
    module: nn.Module,
    query: Float[Tensor, "batch heads nodes head_dim"],
    key: Float[Tensor, "rows kv_heads slots head_dim"],
    value: Float[Tensor, "rows kv_heads slots head_dim"],
    mask: Bool[Tensor, "1 1 nodes length"] | None,
    **options: Any,
) -> tuple[Float[Tensor, "batch nodes heads head_dim"], None]:
    """Attention of each batch entry over the first slots of its own row; `spans` holds their (row, length)."""
    if "spans" not in options:
        raise ValueError(
            f"{type(module).__name__} hands no options to its attention function, so texts cannot be decoded side "
            "by side; let a server write the corpus (`specdec train corpus --endpoint`), or take a Llama-like target"
        )
    batch, heads, tokens, head_dim = query.shape
    if tokens == 1:  # query heads that share a key head become its queries: each key is read once
        query = query.reshape(batch, key.shape[1], heads // key.shape[1], head_dim)
    queries, keys, values = query.to(key.dtype).split(1), key.split(1), value.split(1)
    read = [
        F.scaled_dot_product_attention(
            queries[i],
            keys[row][:, :, :length],
            values[row][:, :, :length],
            attn_mask=mask,
            scale=options["scaling"],
            enable_gqa=tokens > 1,
        )
        for i, (row, length) in enumerate(options["spans"])
    ]
    joined = torch.cat(read).to(query.dtype)
    return (joined.reshape(batch, 1, heads, head_dim) if tokens == 1 else joined.transpose(1, 2)), None


def _attend_together(
    module: nn.Module,
    query: Float[Tensor, "batch heads nodes head_dim"],
    key: Float[Tensor, "rows kv_heads slots head_dim"],
    value: Float[Tensor, "rows kv_heads slots head_dim"],
    mask: Bool[Tensor, "_ 1 nodes length"],
    **options: Any,
) -> tuple[Float[Tensor, "batch nodes heads head_dim"], None]:
    """The same in one call, padded to the longest row, for a GPU, where starting a kernel per row takes longest."""
    rows, length = options["rows"], mask.shape[-1]
    keys, values = key[rows, :, :length], value[rows, :, :length]
    read = F.scaled_dot_product_attention(
        query.to(key.dtype), keys, values, attn_mask=mask, scale=options["scaling"], enable_gqa=True
    )
    return read.transpose(1, 2).to(query.dtype), None


class RowDecoder:
    """`rows` texts of at most `slots` tokens. The caller keeps count of each row's length.

    A row's last token is not in the cache yet: `step` writes it and returns the logits of the next one.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: int,
        slots: int,
        cache_dtype: torch.dtype | None = None,
        layers: Sequence[int] = (),
        together: bool | None = None,
    ) -> None:
        """`model`: a transformers causal LM with full attention. Its attention implementation is changed.

        `cache_dtype`: None is bfloat16 on a CPU that computes in it, else float32: emulated, it is slower; on a GPU it
        is the model's own. `layers`: of these `hidden_states` and of the last one, every token's are kept in float16
        for `features`. `together`: attend for all rows in one call; None: on a GPU.

        Raises ValueError if the model cannot be run this way.
        """
        self.model: Any = model.eval()
        config: Any = self.model.config
        if set(getattr(config, "layer_types", None) or ()) - {"full_attention", "attention"}:
            raise ValueError(f"{config.model_type} has layers other than full attention: use a model that has none")
        weight = next(self.model.parameters())
        self.slots, self.device = slots, weight.device
        self.together = self.device.type != "cpu" if together is None else together
        AttentionInterface.register("specdec_rows", _attend_by_row)
        AttentionInterface.register("specdec_rows_together", _attend_together)
        config._attn_implementation = "specdec_rows_together" if self.together else "specdec_rows"
        dtype = cache_dtype or (pick_dtype("auto", "cpu") if self.device.type == "cpu" else weight.dtype)
        self.cache = _RowCache(config, rows, slots, dtype, self.device)
        self.layers = (*layers, -1) if layers else ()
        width = len(self.layers) * config.hidden_size
        self.states = torch.zeros(rows, slots, width, dtype=torch.float16, device=self.device)

    @torch.inference_mode()
    def share_prefix(self, tokens: Sequence[int]) -> None:
        """Write the same first tokens into every row: what all prompts begin with need not be computed again."""
        self.fill(0, 0, tokens)
        for stored in (self.cache.keys, self.cache.values):
            stored[:, :, :, : len(tokens)] = stored[:, :1, :, : len(tokens)]
        self.states[:, : len(tokens)] = self.states[:1, : len(tokens)]

    @torch.inference_mode()
    def fill(self, row: int, start: int, tokens: Sequence[int]) -> None:
        """Write `tokens` to the slots from `start` on (prefill). Raises ValueError if they do not fit."""
        if start + len(tokens) > self.slots:
            raise ValueError(f"{start + len(tokens)} tokens do not fit into {self.slots} slots: raise slots")
        if not tokens:
            return
        places = torch.arange(start, start + len(tokens))[None]
        seen = torch.arange(start + len(tokens))
        self._forward([row], [tokens], places, mask=(seen <= places[0, :, None])[None, None])

    @torch.inference_mode()
    def step(self, rows: Sequence[int], tokens: Sequence[int], places: Sequence[int]) -> Float[Tensor, "rows vocab"]:
        """One token a row, written at its place. Returns the logits after it, float32."""
        seen = None
        if self.together:
            seen = (torch.arange(max(places) + 1) <= torch.tensor(places)[:, None])[:, None, None]
        hidden = self._forward(rows, [[token] for token in tokens], torch.tensor(places)[:, None], mask=seen)
        logits: Tensor = self.model.get_output_embeddings()(hidden[:, -1])
        return logits.float()

    def features(self, row: int, prompt: int, length: int) -> tuple[Tensor, Tensor]:
        """(fused, final) of the text in this row, as in `training.features`; its last token need not be written."""
        width: int = self.model.config.hidden_size
        fused, final = self.states[row, : length - 2, :-width], self.states[row, prompt - 1 : length - 1, -width:]
        return fused.clone(), final.clone()

    def _forward(
        self,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        places: Int[Tensor, "batch nodes"],
        mask: Bool[Tensor, "_ 1 nodes length"] | None,
    ) -> Float[Tensor, "batch nodes hidden"]:
        where = torch.tensor(rows, device=self.device)
        self.cache.rows, self.cache.places = where[:, None], places.to(self.device)
        spans = [(row, int(last) + 1) for row, last in zip(rows, places[:, -1], strict=True)]
        output = self.model.base_model(
            input_ids=torch.tensor(tokens, device=self.device),
            attention_mask=None if mask is None else mask.to(self.device),
            position_ids=self.cache.places,
            past_key_values=self.cache,
            use_cache=True,
            spans=spans,
            rows=where,
            output_hidden_states=bool(self.layers),
        )
        if self.layers:
            wanted = torch.cat([output.hidden_states[layer] for layer in self.layers], -1)
            self.states[self.cache.rows, self.cache.places] = wanted.half()
        hidden: Float[Tensor, "batch nodes hidden"] = output.last_hidden_state
        return hidden
