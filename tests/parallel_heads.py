"""Random P-EAGLE heads, MTP modules and Medusa heads for tests: untrained, so their guesses are wrong in many ways."""

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig

from specdec_ref.core import Drafter
from specdec_ref.drafters.eagle import EagleDrafter
from specdec_ref.drafters.eagle_head import EagleHead, new_head
from specdec_ref.drafters.medusa import MedusaDrafter, MedusaHeads, new_medusa
from specdec_ref.drafters.mtp import MtpHead, new_mtp
from specdec_ref.drafters.parallel_eagle import ParallelDrafter, add_masks

KINDS = ("p-eagle", "mtp", "medusa")


def shaken(network: Any, noise: float, seed: int) -> Any:
    """The network with every trained weight shaken."""
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data += noise * torch.randn(weight.shape, dtype=weight.dtype, generator=generator)
    return network


def random_network(kind: str, model: Any, *, noise: float = 0.05, seed: int = 0, draft_vocab: int | None = 40) -> Any:
    """A network for a model, in the model's number format; its draft vocabulary is every other token."""
    ids = None
    if draft_vocab is not None:
        order = torch.randperm(model.config.vocab_size, generator=torch.Generator().manual_seed(seed))
        ids = order[:draft_vocab].sort().values
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = {
            "p-eagle": lambda: add_masks(new_head(model, 3, ids)),
            "mtp": lambda: new_mtp(model, ids),
            "medusa": lambda: new_medusa(model, ids),
        }[kind]()
    return shaken(network.to(model.dtype), noise, seed)


def drafter_for(kind: str, network: Any, layers: tuple[int, ...]) -> Drafter:
    """A drafter around a network; `layers` as its kind reads them."""
    network.requires_grad_(False)
    if kind == "medusa":
        return MedusaDrafter(network, layers[0])
    return (ParallelDrafter if kind == "p-eagle" else EagleDrafter)(network, layers)


def random_parallel(kind: str, model: Any, **options: Any) -> Drafter:
    """A random drafter of this kind for a model of 6 layers."""
    return drafter_for(kind, random_network(kind, model, **options), (2, 3, 3) if kind == "p-eagle" else (6,))


def table_drafter(kind: str, seed: int = 0) -> Drafter:
    """A random drafter that reads a TableLM of 4 tokens, whose rows are its features; it can draft 3 of the tokens."""
    ids = torch.tensor([0, 2, 3])
    config = LlamaConfig(
        vocab_size=4,
        hidden_size=4,
        intermediate_size=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=2,
        num_hidden_layers=1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = {
            "p-eagle": lambda: add_masks(EagleHead(config, 3, q_vocab=ids)),
            "mtp": lambda: MtpHead(config, ids),
            "medusa": lambda: MedusaHeads(4, 4, 3, ids),
        }[kind]()
    return drafter_for(kind, shaken(network.double(), 0.5, seed), (0, 1, 1) if kind == "p-eagle" else (1,))
