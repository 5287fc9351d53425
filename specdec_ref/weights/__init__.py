"""Trained drafters that come with the package, each in a folder with a card, and how they and others are loaded."""

from pathlib import Path
from typing import TYPE_CHECKING

from specdec_ref.models.target import Target

if TYPE_CHECKING:
    from specdec_ref.drafters.eagle import EagleDrafter

__all__ = ["load_eagle", "shipped_head"]

_HERE = Path(__file__).parent
SHIPPED = {"smollm2-135m": "eagle3-smollm2-135m"}  # target's name -> folder here


def shipped_head(target: Target) -> Path:
    """The folder of the head shipped for this target. Raises ValueError if there is none."""
    name = Path(str(getattr(target.config, "_name_or_path", ""))).name
    folder = _HERE / SHIPPED.get(name, "none")
    if not (folder / "head.safetensors").is_file():
        raise ValueError(
            f"no EAGLE head is shipped for {name or 'this target'} (there is one for {', '.join(SHIPPED)}): name a "
            "folder or file with --draft-model, or train one with `specdec train eagle`"
        )
    return folder


def load_eagle(target: Target, source: str | Path | None = None) -> "EagleDrafter":
    """An EAGLE drafter for this target: the shipped head, or the one at `source`.

    Raises ValueError if there is none, or if it does not fit this target.
    """
    from specdec_ref.drafters.eagle import EagleDrafter
    from specdec_ref.weights.files import read_head
    from specdec_ref.weights.heads import build_head

    loaded = build_head(read_head(shipped_head(target) if source is None else source), target.model, target.dtype)
    return EagleDrafter(loaded.head, loaded.layers)
