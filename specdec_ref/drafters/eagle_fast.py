"""A draft step of an EAGLE head with no more operations than it takes: `EagleHead`'s functions, for drafting on a CPU.

The head's layer is a Llama layer but for what comes before its attention, so the target's fast layer serves here too
(`models/fast.py`). Training and other devices use the head as it is.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.drafters.eagle_head import EagleHead
from specdec_ref.models.fast import Layer, rms_norm, rotation
from specdec_ref.models.kv_cache import SlotCache
from specdec_ref.models.packing import Product, can_pack

__all__ = ["FastHead"]


class FastHead:
    """Reads a head's weights, and computes what it computes."""

    def __init__(self, head: EagleHead) -> None:
        """Packs the weights where that pays; the head itself is not changed."""
        pack = can_pack(head)
        self.head, self.layer = head, Layer(head.layer, head.config.head_dim, pack=pack)
        self.fc = Product(head.fc, pack=pack) if head.version else None
        self.lm_head = Product(head.lm_head, pack=pack)

    def current(self) -> bool:
        """False once packed weights changed: then it has to be made anew."""
        products = (*self.layer.products, self.lm_head, *([self.fc] if self.fc else []))
        return not any(product.stale() for product in products)

    def fuse(self, features: Float[Tensor, "batch nodes features"]) -> Float[Tensor, "batch nodes hidden"]:
        """See `EagleHead.fuse`."""
        varied = self.head.variant.norm_before_fc or self.head.variant.fc_norm
        if self.fc is None or self.head.version != 3 or varied:
            return self.head.fuse(features)
        return self.fc(features)

    def step(
        self,
        g: Float[Tensor, "batch nodes width"],
        tokens: Int[Tensor, "batch nodes"],
        positions: Int[Tensor, "batch nodes"],
        mask: Tensor | None,
        cache: SlotCache,
    ) -> Float[Tensor, "batch nodes hidden"]:
        """See `EagleHead.step`."""
        head = self.head
        residual, x = head.inputs(g, tokens, rms_norm, self.fc)
        seen = torch.ones(*x.shape[:1], 1, x.shape[1], cache.window.stop, dtype=torch.bool) if mask is None else mask
        attention = self.layer.attention(seen, positions, cache.lengths, x.dtype)
        attended = self.layer.attend(x, rotation(head.rotary, x, positions), attention, cache, 0)
        after = self.layer.finish(residual, attended)
        return rms_norm(head.norm, after) if head.variant.norm_output else after

    def logits(self, g: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows draft_vocab"]:
        """See `EagleHead.logits`."""
        own_norm = self.head.version != 1 and not self.head.variant.norm_output
        return self.lm_head(rms_norm(self.head.norm, g) if own_norm else g)
