"""An unmodified transformers causal LM that scores a batch of token trees in one forward.

    row of the mask = [ prefix: slots 0 .. length-1 | tree: the node's ancestors and itself ] position = length + depth

Nothing in the model is patched: the mask is passed as transformers' 4-D `attention_mask`, the cache as
`past_key_values`, and a model that attends with "sdpa" is switched to our tree attention (`attention.py`). On CUDA that
reads the mask as bits, and links, positions and bits are made on the device. The same class runs a draft model. What a
mask cannot express (sliding windows, linear attention, ALiBi, whose bias comes from the 2-D mask) is refused when the
model is wrapped, with the reason. Source of the one-forward tree: SpecInfer (Miao et al. 2024, §4.2).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from specdec_ref.core import DraftTree, TargetOutput
from specdec_ref.kernels import Backend, ops, resolve_backend
from specdec_ref.kernels.contract import pack_bits
from specdec_ref.models.attention import TREE_ATTENTION, packed_mask, use_tree_attention
from specdec_ref.models.fast import FastForward, wants_fast
from specdec_ref.models.fits import alike, fast_forward
from specdec_ref.models.kv_cache import SlotCache
from specdec_ref.models.packing import can_pack
from specdec_ref.models.support import check_supported
from specdec_ref.transfer import upload
from specdec_ref.trees.masks import ancestor_mask, padded_trees, slot_mask

__all__ = ["Target"]

PREFILL_CHUNK = 512  # tokens a prefill forward: bounds the memory of its mask and activations


class Target:
    """A causal LM, its slot cache, and which rows are in it. `start` a batch, then `forward` and `commit` in turn."""

    model: Any  # an nn.Module; its attributes are transformers' affair

    def __init__(
        self,
        model: nn.Module,
        feature_layers: Sequence[int] = (),
        *,
        check: bool = True,
        backend: str = "auto",
        fast: bool | None = None,
        lean: bool = False,
    ) -> None:
        """`feature_layers`: which `hidden_states` a forward returns as features. `backend`: kernels.resolve_backend.

        `fast`: run the forward of `fast.py` where the model is of the kind that it knows; None: unless SPECDEC_FAST
        is 0. `forward_note` says what became of it. `lean`: packed layers free the model's own weights. They come
        back when its modules run; code that reads them, or modules that shared them before, would find none.

        Raises ValueError if the model needs anything but full attention over a 4-D mask; `check=False` skips the
        small forwards that test it, e.g. for a model that is already known.
        """
        self.model = model
        self.config = cast("Any", model).config
        self.feature_layers = tuple(feature_layers)
        self.backend: Backend = self._resolve(backend)
        if self.config._attn_implementation == "sdpa" and hasattr(model, "set_attn_implementation"):
            use_tree_attention(model)
        self.packed_mask = self.backend == "triton" and self.config._attn_implementation == TREE_ATTENTION
        self.additive_mask = self.config._attn_implementation == "eager"
        self.fast: FastForward | None = None
        self.forward_note = "off: switched off"
        self.wants_fast, self.lean = wants_fast(fast), lean
        self.batch = 0  # number of batches started so far: whoever decodes one compares it, see `check_batch`
        self.position_limit: int | None = None  # beyond it, a row would depend on the longest row of the batch
        self._speed_up()
        if check:
            self.position_limit = check_supported(self)
        self._slim()
        self.cache = SlotCache(self.config.num_hidden_layers, 0, 0)

    def _speed_up(self) -> None:
        """Take the fast forward if it gives what the model gives."""
        if self.wants_fast and not self.packed_mask:
            self.fast, self.forward_note = fast_forward(self.model, self._logits, pack=not self.lean)

    def _logits(self, forward: FastForward | None) -> Tensor:
        """Of a small batch, by this forward, or by the model's own."""
        self.fast = forward
        tokens = torch.arange(3, 15).view(2, -1) * max(1, self.vocab_size // 17) % self.vocab_size
        return self.score(tokens, torch.arange(6).expand(2, -1) * 3)

    def _slim(self) -> None:
        """Pack layer by layer and free each one's own weights: after the checks, which run the model's modules."""
        if not self.lean or self.fast is None or not can_pack(self.model):
            return
        unpacked = self.fast
        before, packed = self._logits(unpacked), FastForward(self.model, pack=True, lean=True)
        if alike(before, self._logits(packed), self.model):
            self.forward_note = "on, packed"
        else:  # running the model gives the weights back
            self._logits(None)
            self.fast, self.forward_note = unpacked, "on, not packed: packed products differ"

    def _resolve(self, backend: str) -> Backend:
        """The kernels attend in float32 or narrower, and only in a model of transformers' that can be switched."""
        if backend == "auto" and (self.dtype == torch.float64 or not hasattr(self.model, "set_attn_implementation")):
            return "torch"
        return resolve_backend(backend, self.device, self.dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast("torch.device", next(self.model.parameters()).device)

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored in."""
        return cast("torch.dtype", next(self.model.parameters()).dtype)

    @property
    def vocab_size(self) -> int:
        """Number of logits a node gets."""
        return int(self.config.vocab_size)

    @property
    def max_positions(self) -> int | None:
        """The longest text that the model can decode, in tokens; None if its configuration names no limit.

        Less than the model was built for where rows would depend on each other beyond `position_limit`.
        """
        stated: int | None = getattr(self.config, "max_position_embeddings", None)
        return stated if self.position_limit is None else self.position_limit

    @property
    def position_note(self) -> str:
        """Why texts end earlier than the model's configuration promises; "" if they do not."""
        if self.position_limit is None:
            return ""
        return (
            f" From position {self.position_limit} on, its RoPE frequencies follow the longest row of the batch, "
            "drafts included, so a text would not be the model's own."
        )

    @property
    def lengths(self) -> list[int]:
        """Cached tokens, a row each."""
        return self.cache.lengths

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], capacity: int) -> TargetOutput | None:
        """A fresh cache holding these prompts (prefill). `capacity`: slots to preallocate a row.

        Returns the logits after each prompt's last token (one node a row) and the features of all prompt tokens
        (rows padded on the right), or None if every prompt is empty.
        """
        self.batch += 1
        if self.fast is not None and not self.fast.current():
            self._speed_up()
            self._slim()
        self.cache = SlotCache(self.config.num_hidden_layers, len(prompts), capacity, self.backend)
        if self.fast is None or not all(prompts):
            return self._read(prompts)
        # The last token alone, as a round reads it that begins there: then plain decoding and drafting agree on it.
        before = self._read([prompt[:-1] for prompt in prompts])
        last = self.forward([DraftTree(torch.tensor(prompt[-1:]), torch.tensor([-1])) for prompt in prompts])
        self.commit([(0,)] * len(prompts))
        if last.features is None:
            return last
        features = last.features.new_zeros(len(prompts), max(map(len, prompts)), last.features.shape[-1])
        if before is not None and before.features is not None:
            features[:, :-1] = before.features
        features[range(len(prompts)), [len(prompt) - 1 for prompt in prompts]] = last.features[:, 0]
        return TargetOutput(last.logits, features)

    def _read(self, prompts: Sequence[Sequence[int]]) -> TargetOutput | None:
        longest = max(map(len, prompts), default=0)
        if longest == 0:
            return None
        logits = torch.full((len(prompts), 1, self.vocab_size), float("nan"), dtype=self.dtype, device=self.device)
        features = []
        for begin in range(0, longest, PREFILL_CHUNK):
            chunk = [list(prompt[begin : begin + PREFILL_CHUNK]) for prompt in prompts]
            here = [row for row, part in enumerate(chunk) if part and len(prompts[row]) == begin + len(part)]
            ends = {row: len(chunk[row]) - 1 for row in here}  # where a prompt's last token stands in this chunk
            output, kept = self._prefill(chunk, sorted(set(ends.values())) or [0])
            for row, end in ends.items():
                logits[row, 0] = output.logits[row, kept.index(end)]
            features += [output.features] if output.features is not None else []
        return TargetOutput(logits, torch.cat(features, 1) if self.feature_layers else None)

    def check_batch(self, batch: int) -> None:
        """Raises RuntimeError if the cache no longer holds the batch of that number: another one replaced it."""
        if batch != self.batch:
            raise RuntimeError(
                "another batch was started on this target before this one was finished, and a target holds one batch "
                "at a time: finish or close one before starting the next, or give each engine a Target of its own"
            )

    def _prefill(self, chunk: Sequence[Sequence[int]], kept: list[int]) -> tuple[TargetOutput, list[int]]:
        """Append a piece of every prompt; logits only at the positions `kept`, since a whole prompt's would be huge."""
        counts = [len(part) for part in chunk]
        width = max(counts)
        tokens = torch.tensor([[*part] + [0] * (width - len(part)) for part in chunk])
        depths = torch.arange(width).expand(len(chunk), -1)
        causal = ancestor_mask(range(-1, width - 1)).expand(len(chunk), -1, -1)
        output = self._run(tokens, self._positions(depths), self._mask(causal, counts), torch.tensor(kept))
        self.cache.commit([range(count) for count in counts])
        return output, kept

    @torch.inference_mode()
    def forward(self, trees: Sequence[DraftTree]) -> TargetOutput:
        """Score every node of every tree, one tree a row. Padding nodes get logits too: ignore them."""
        tokens, parents = padded_trees(trees, self.device)
        tokens = tokens.clamp_min(0)  # a drafter's mark for NaN, which the verifier reads, is no token to look up
        if self.packed_mask:
            lengths = upload(torch.tensor(self.lengths), self.device)
            links = ops(self.backend).tree_links(tokens, parents, lengths)
            return self._run(tokens, links.positions, packed_mask(lengths, links.bits))
        counts = [len(tree) for tree in trees]
        width = max(counts)
        depths = torch.tensor([tree.depths + [0] * (width - len(tree)) for tree in trees])
        block = torch.zeros(len(trees), width, width, dtype=torch.bool)
        for row, tree in enumerate(trees):
            block[row, : len(tree), : len(tree)] = ancestor_mask(tree.parent_list)
        return self._run(tokens, self._positions(depths), self._mask(block, counts))

    @torch.inference_mode()
    def extend(self, tokens: Int[Tensor, " batch"]) -> Float[Tensor, "batch vocab"]:
        """Append one token per row and return the logits after it. `tokens` on the device are never read back."""
        nodes, batch = tokens[:, None], len(tokens)
        if self.packed_mask:
            lengths = upload(torch.tensor(self.lengths), self.device)
            links = ops(self.backend).tree_links(nodes, torch.full_like(nodes, -1), lengths)
            output = self._run(nodes, links.positions, packed_mask(lengths, links.bits))
        else:
            own = torch.ones(batch, 1, 1, dtype=torch.bool)
            output = self._run(nodes, self._positions(torch.zeros(batch, 1).long()), self._mask(own, [1] * batch))
        self.cache.commit([range(1)] * batch)
        return output.logits[:, 0]

    @torch.inference_mode()
    def score(
        self, tokens: Int[Tensor, "batch nodes"], positions: Int[Tensor, "batch nodes"]
    ) -> Float[Tensor, "batch nodes vocab"]:
        """Logits of whole rows of one length at these positions, on a fresh cache. The load check's probes use it."""
        batch, width = tokens.shape
        self.cache = SlotCache(self.config.num_hidden_layers, batch, width, self.backend)
        causal = ancestor_mask(range(-1, width - 1)).expand(batch, -1, -1)
        return self._run(tokens, positions, self._mask(causal, [width] * batch)).logits

    @torch.inference_mode()
    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        """Row b keeps the nodes `kept[b]` of the last forward; the others are rolled back."""
        self.cache.commit(kept)

    def _run(
        self,
        tokens: Int[Tensor, "batch nodes"],
        positions: Int[Tensor, "batch nodes"],
        mask: Tensor,
        logits_to_keep: Int[Tensor, " kept"] | None = None,
    ) -> TargetOutput:
        self.cache.prepare(tokens.shape[1], self.device)
        if self.max_positions is not None:  # only a draft can stand beyond them: texts that would are refused
            positions = positions.clamp(max=self.max_positions - 1)
        if self.fast is not None and not self.fast.bypassed():
            return self.fast(tokens, positions, mask, self.cache, logits_to_keep, self.feature_layers)
        output = self.model(
            input_ids=upload(tokens, self.device),
            attention_mask=mask,
            position_ids=upload(positions, self.device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=0 if logits_to_keep is None else upload(logits_to_keep, self.device),
            output_hidden_states=bool(self.feature_layers),
        )
        features = None
        if self.feature_layers:
            features = torch.cat([output.hidden_states[layer] for layer in self.feature_layers], -1)
        return TargetOutput(output.logits, features)

    def _positions(self, depths: Int[Tensor, "batch nodes"]) -> Int[Tensor, "batch nodes"]:
        return depths + torch.tensor(self.lengths)[:, None]

    def _mask(self, block: Bool[Tensor, "batch nodes nodes"], counts: Sequence[int]) -> Tensor:
        """The 4-D mask, batch x 1 x nodes x slots: bits, boolean, or additive where the attention code adds it."""
        if self.packed_mask:
            return upload(packed_mask(torch.tensor(self.lengths), pack_bits(block)), self.device)
        mask = upload(slot_mask(block, self.lengths, counts), self.device)
        if not self.additive_mask:
            return mask
        open_ = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device)
        return open_.masked_fill_(~mask, torch.finfo(self.dtype).min)


def last_logits(output: TargetOutput, trees: Sequence[DraftTree]) -> Float[Tensor, "batch vocab"]:
    """The logits after each row's last node: what comes next on a chain."""
    return torch.stack([output.logits[row, len(tree) - 1] for row, tree in enumerate(trees)])
