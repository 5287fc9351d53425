"""Toy models: for tests and exact output distributions, never for a claim of speed.

`TableLM` is a causal LM whose every conditional distribution is a table row, so its output distribution is known
exactly; yet it is run like any transformers model: it writes (token, position) into the KV cache, sees what the 4-D
mask shows, and looks up the row of that context. A wrong mask, position or rollback therefore changes its distribution.
`tiny_llama` is a random Llama.
"""

from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["TableLM", "tiny_llama"]


class TableLM(nn.Module):
    """p(. | context) = softmax(logits drawn once from a normal, seeded by the context's last `order` tokens)."""

    def __init__(self, vocab: int, seed: int = 0, order: int = 3, spread: float = 1.0) -> None:
        """`spread`: standard deviation of the logits; larger is more peaked."""
        super().__init__()
        self.vocab, self.seed, self.order, self.spread = vocab, seed, order, spread
        self.config = SimpleNamespace(
            model_type="table",
            num_hidden_layers=1,
            vocab_size=vocab,
            max_position_embeddings=4096,
            _attn_implementation="sdpa",
        )
        self.anchor = nn.Parameter(torch.zeros(1, dtype=torch.float64), requires_grad=False)
        self.rows: dict[tuple[int, ...], Tensor] = {}

    def logits(self, context: tuple[int, ...]) -> Float[Tensor, " vocab"]:
        """The table row of this context, float64."""
        key = context[-self.order :]
        if key not in self.rows:
            generator = torch.Generator().manual_seed(hash((self.seed, *key)) & 0x7FFFFFFF)
            self.rows[key] = self.spread * torch.randn(self.vocab, dtype=torch.float64, generator=generator)
        return self.rows[key]

    def forward(
        self,
        input_ids: Int[Tensor, "batch nodes"],
        attention_mask: Tensor,
        position_ids: Int[Tensor, "batch nodes"],
        past_key_values: Any,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> SimpleNamespace:
        """The transformers call signature, as far as `Target` uses it; `hidden_states` are one-hot contexts' logits."""
        written = torch.stack([input_ids, position_ids], -1)[:, None].double()
        seen, _ = past_key_values.update(written, written, 0)
        batch, nodes = input_ids.shape
        rows = [
            self._look_up(seen[row, 0][attention_mask[row, 0, node]]) for row in range(batch) for node in range(nodes)
        ]
        logits = torch.stack(rows).view(batch, nodes, self.vocab)
        kept = logits[:, logits_to_keep] if isinstance(logits_to_keep, Tensor) else logits
        return SimpleNamespace(logits=kept, hidden_states=(logits, logits))

    def _look_up(self, visible: Float[Tensor, "slots pair"]) -> Float[Tensor, " vocab"]:
        in_order = visible[visible[:, 1].argsort(stable=True)]
        return self.logits(tuple(int(token) for token in in_order[:, 0]))


def tiny_llama(
    seed: int = 0,
    *,
    vocab: int = 97,
    layers: int = 3,
    hidden: int = 64,
    dtype: torch.dtype = torch.float64,
    attention: str = "sdpa",
) -> Any:
    """A random Llama of about 100 k weights, wide enough apart in its logits that greedy decoding does not loop."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        attn_implementation=attention,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(dtype).eval()
    return model.requires_grad_(False)
