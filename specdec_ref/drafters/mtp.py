"""A multi-token-prediction module as DeepSeek-V3 has it (arXiv 2412.19437, section 2.2), trained here after the target.

    x = eh_proj [norm embed(token); norm h]      h: the target's last hidden state, after its final norm
    one full decoder layer of the target's own kind, then a norm; its output is the next h and goes to the LM head

Its input is EAGLE-1's with two norms, and its layer has the norm before attention that EAGLE-1 leaves out. Drafting
applies the same module again to its own output, as `EagleDrafter` does. DeepSeek trains the module together with the
model; here the target is frozen, so this has the shape of MTP and not its training. `eh_proj` is called `fc` here.
"""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from specdec_ref.drafters.eagle_head import EagleHead, Normed, Variant, new_head

__all__ = ["MtpHead", "new_mtp"]


class MtpHead(EagleHead):
    """One module; in the loops of training and drafting it takes the place of an EAGLE-1 head."""

    def __init__(self, config: LlamaConfig, q_vocab: Tensor | None = None) -> None:
        super().__init__(config, 1, q_vocab=q_vocab)
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.kind, self.variant = "mtp", Variant(norm_output=True)
        self.enorm, self.hnorm, self.norm = (LlamaRMSNorm(hidden, eps) for _ in range(3))
        self.layer.input_layernorm = LlamaRMSNorm(hidden, eps)

    def inputs(
        self, g: Float[Tensor, "batch nodes hidden"], tokens: Int[Tensor, "batch nodes"], normed: Normed, fc: Any
    ) -> tuple[Float[Tensor, "batch nodes hidden"], Float[Tensor, "batch nodes hidden"]]:
        """See `EagleHead.inputs`."""
        x = fc(torch.cat([normed(self.enorm, self.embed_tokens(tokens)), normed(self.hnorm, g)], -1))
        return x, normed(self.layer.input_layernorm, x)


def new_mtp(target: nn.Module, q_vocab: Int[Tensor, " draft_vocab"] | None = None) -> MtpHead:
    """An untrained module, its layer and norm those of the target's end; float32."""
    return cast("MtpHead", new_head(target, 1, q_vocab, lambda config: MtpHead(config, q_vocab)))
