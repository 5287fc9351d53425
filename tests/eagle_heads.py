"""Random EAGLE heads for tests: untrained, so what they guess is wrong in interesting ways."""

import torch
from torch import nn

from specdec_ref.drafters.eagle import EagleDrafter, default_layers
from specdec_ref.drafters.eagle_head import EagleHead, Version, new_head


def random_head(
    model: nn.Module, version: Version = 3, *, draft_vocab: int | None = 40, noise: float = 0.05, seed: int = 0
) -> EagleHead:
    """A warm-started head in float64 with every trained weight shaken; its draft vocabulary is every other token."""
    vocab = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    q_vocab = None
    if draft_vocab is not None:
        order = torch.randperm(vocab, generator=torch.Generator().manual_seed(seed))
        q_vocab = order[:draft_vocab].sort().values
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = new_head(model, version, q_vocab).double()
        for weight in head.parameters():
            if weight.requires_grad:
                weight.data += noise * torch.randn_like(weight)
    return head


def random_drafter(model: nn.Module, version: Version = 3, **options: object) -> EagleDrafter:
    """A drafter around it."""
    layers = default_layers(version, model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    return EagleDrafter(random_head(model, version, **options), layers)  # type: ignore[arg-type]
