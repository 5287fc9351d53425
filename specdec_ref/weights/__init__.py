"""Trained drafters that come with the package, each in a folder with a card, and how they and others are loaded."""

from pathlib import Path
from typing import TYPE_CHECKING

from specdec_ref.models.target import Target
from specdec_ref.weights.files import OWN_FILE, read_head

if TYPE_CHECKING:
    from specdec_ref.core import Drafter
    from specdec_ref.drafters.block import BlockDrafter
    from specdec_ref.drafters.eagle import EagleDrafter

__all__ = ["best_drafter", "load_block", "load_eagle", "load_trained", "shipped", "shipped_folder"]

_HERE = Path(__file__).parent
TRAINED = ("p-eagle", "mtp", "medusa")  # drafters of `specdec train eagle --kind`, for which nothing is shipped
SHIPPED = {
    "smollm2-135m": {"eagle": "eagle3-smollm2-135m", "draft": "plain-smollm2-135m"}
}  # target -> drafter -> folder


def shipped(target: Target, drafter: str = "eagle") -> Path | None:
    """The folder of what is shipped for this target and drafter, "eagle" or "draft" (plain, one layer), or None."""
    return shipped_folder(_name(target), drafter)


def shipped_folder(name: str, drafter: str = "eagle") -> Path | None:
    """The same for a target's name."""
    folder = _HERE / SHIPPED.get(name, {}).get(drafter, "none")
    return folder if (folder / OWN_FILE).is_file() else None


def _name(target: Target) -> str:
    return Path(str(getattr(target.config, "_name_or_path", ""))).name


def load_eagle(target: Target, source: str | Path | None = None) -> "EagleDrafter":
    """An EAGLE drafter for this target: the shipped head, or the one at `source`.

    Raises ValueError if there is none, or if it does not fit this target.
    """
    from specdec_ref.drafters.eagle import EagleDrafter
    from specdec_ref.weights.heads import build_head

    source = source or shipped(target)
    if source is None:
        raise ValueError(
            f"no EAGLE head is shipped for {_name(target) or 'this target'} (there is one for {', '.join(SHIPPED)}): "
            "name a folder or file with --draft-model, or train one with `specdec train eagle`"
        )
    loaded = build_head(read_head(source), target.model, target.dtype)
    return EagleDrafter(loaded.head, loaded.layers, fast=target.wants_fast)


def load_trained(target: Target, kind: str, source: str | Path | None) -> "Drafter":
    """A drafter of a kind that `specdec train eagle --kind` makes: "p-eagle", "mtp" or "medusa". None is shipped.

    Raises ValueError if `source` is None, or if it holds another kind or does not fit this target.
    """
    from specdec_ref.drafters.eagle import EagleDrafter
    from specdec_ref.drafters.medusa import MedusaDrafter
    from specdec_ref.drafters.parallel_eagle import ParallelDrafter
    from specdec_ref.weights.heads import build_head, build_medusa

    if source is None:
        raise ValueError(
            f"no head is shipped for drafter {kind!r}: name the folder of a run with --draft-model; "
            f"`specdec train eagle --kind {kind}` makes one in minutes"
        )
    files = read_head(source)
    if kind == "medusa":
        return MedusaDrafter(build_medusa(files, target.model, target.dtype), target.config.num_hidden_layers)
    loaded = build_head(files, target.model, target.dtype, kind)
    make = ParallelDrafter if kind == "p-eagle" else EagleDrafter
    return make(loaded.head, loaded.layers, fast=target.wants_fast)


def load_block(target: Target, source: str | Path | None = None) -> "BlockDrafter":
    """A block drafter for this target: the shipped head, or the one at `source`.

    Raises ValueError if there is none, or if it does not fit this target.
    """
    from specdec_ref.drafters.block import BlockDrafter
    from specdec_ref.drafters.eagle_head import default_layers
    from specdec_ref.weights.blocks import build_block

    source = source or shipped(target, "block")
    if source is None:
        raise ValueError(
            f"no block head is shipped for {_name(target) or 'this target'}: name a folder or file with --draft-model, "
            "or train one with `specdec train eagle --kind dspark`"
        )
    head = build_block(read_head(source), target.model, target.dtype, fast=target.wants_fast)
    return BlockDrafter(head, default_layers(3, target.config.num_hidden_layers))


def best_drafter(target: str) -> str:
    """The best drafter that ships for this target: hybrid where a trained head comes with the package, else ngram."""
    return "hybrid" if "eagle" in SHIPPED.get(Path(target).name, {}) else "ngram"
