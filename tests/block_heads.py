"""Random block heads for tests: for a tiny Llama, and for a table model whose distribution is known."""

import torch
from torch import nn
from transformers import LlamaConfig

from specdec_ref.drafters.block import BlockDrafter
from specdec_ref.drafters.block_head import BlockHead
from specdec_ref.drafters.eagle_head import default_layers
from specdec_ref.training.block import new_block


def random_block(
    model: nn.Module,
    rank: int = 3,
    *,
    layers: int = 1,
    draft_vocab: int | None = 40,
    noise: float = 0.05,
    seed: int = 0,
) -> BlockHead:
    """A new head in float64 with every trained weight shaken."""
    vocab = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    q_vocab = None
    if draft_vocab is not None:
        order = torch.randperm(vocab, generator=torch.Generator().manual_seed(seed))
        q_vocab = order[:draft_vocab].sort().values
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = new_block(model, q_vocab, rank=rank, layers=layers).double()
        for weight in head.parameters():
            if weight.requires_grad:
                weight.data += noise * torch.randn_like(weight)
        if rank:
            head.after.weight.data.normal_(std=0.5)
    return head


def random_drafter(model: nn.Module, rank: int = 3, **options: object) -> BlockDrafter:
    """A drafter around it."""
    layers = default_layers(3, model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    return BlockDrafter(random_block(model, rank, **options), layers)  # type: ignore[arg-type]


def table_head(rank: int, *, seed: int = 0, layers: int = 1, block: int = 2) -> BlockHead:
    """A random head for a `TableLM` of three tokens, whose features are the table's rows; it drafts two of the three."""
    config = LlamaConfig(
        vocab_size=3, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_key_value_heads=2, head_dim=4,
        num_hidden_layers=layers, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    config.target_hidden_size = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = BlockHead(config, block, rank, torch.tensor([0, 2])).double()
        for weight in head.parameters():
            weight.data.add_(torch.randn_like(weight), alpha=0.5)
    return head.requires_grad_(False).eval()


def table_block(rank: int, **options: int) -> BlockDrafter:
    """A drafter around it."""
    return BlockDrafter(table_head(rank, **options), (0, 1, 1))  # type: ignore[arg-type]
