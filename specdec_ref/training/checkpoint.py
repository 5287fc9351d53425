"""Checkpoints of a head in training: complete or absent, small, and loadable without running anybody's code.

head.safetensors   the trained tensors under their published names, and d2t: what a drafter needs beside the target
state.pt           the same, the optimiser's moments and where the run stands, for an exact resume (weights_only)
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from specdec_ref.drafters.eagle_head import EagleHead
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import build_head

__all__ = ["Progress", "load_head", "load_state", "save", "trained_tensors"]


@dataclass(slots=True)
class Progress:
    """Where a run stands. A pass goes once over the blocks that were there when it began."""

    steps: int = 0
    tokens: int = 0  # response tokens trained on, each counted once however deep it was unrolled
    passes: int = 0
    batch: int = 0  # batches of this pass that are done
    blocks: list[str] = field(default_factory=list)


def trained_tensors(head: Any) -> dict[str, Tensor]:
    """What training changes, and d2t (offsets: target id = draft id + d2t[draft id]) if the vocabulary is reduced."""
    tensors = {name: p.detach() for name, p in head.named_parameters() if p.requires_grad}
    if head.q_vocab is not None:
        tensors["d2t"] = head.q_vocab - torch.arange(len(head.q_vocab), device=head.q_vocab.device)
    return tensors


def save(folder: Path, head: Any, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write both files, each by a rename. Raises OSError if the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = trained_tensors(head)
    about = {"version": head.kind, "progress": json.dumps({"tokens": progress.tokens, "steps": progress.steps})}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "head.tmp", metadata=about)
    state = {"tensors": tensors, "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
    torch.save(state, folder / "state.tmp")
    os.replace(folder / "head.tmp", folder / "head.safetensors")
    os.replace(folder / "state.tmp", folder / "state.pt")


def load_state(folder: Path) -> dict[str, Any] | None:
    """What `save` wrote to state.pt, or None if there is no checkpoint."""
    path = folder / "state.pt"
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


def load_head(file: Path, target: nn.Module, dtype: torch.dtype | None = None) -> EagleHead:
    """A head for this target from a `head.safetensors`; embeddings and LM head are sliced from the target.

    `dtype`: the target's, if None. Raises ValueError that names any tensor that is missing, extra or mis-shaped.
    """
    return build_head(read_head(file), target, dtype).head


@torch.no_grad()
def assign(head: nn.Module, tensors: dict[str, Tensor], own: Sequence[str] = ()) -> None:
    """Copy trained tensors into the head, d2t aside; those named in `own` may be missing, and then stay as they are.

    Raises ValueError if names or shapes are not exactly the head's.
    """
    wanted = {name: p for name, p in head.named_parameters() if p.requires_grad}
    given: dict[str, Tensor] = {name: wanted[name] for name in own if name in wanted}
    given |= {name: tensor for name, tensor in tensors.items() if name != "d2t"}
    if wanted.keys() != given.keys():
        missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        raise ValueError(f"not a checkpoint of this head: missing {missing}, unexpected {extra}")
    for name, parameter in wanted.items():
        if parameter.shape != given[name].shape:
            raise ValueError(f"{name} has shape {tuple(given[name].shape)}, this head needs {tuple(parameter.shape)}")
        parameter.copy_(given[name])
