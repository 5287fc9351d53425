"""Drafters: where guesses come from. `DRAFTERS` maps the names of the command line to functions that build one."""

from collections.abc import Callable

from specdec_ref.config import SpecConfig
from specdec_ref.core import Drafter, SupportsForget
from specdec_ref.drafters.ngram import NgramDrafter
from specdec_ref.drafters.suffix import SuffixDrafter
from specdec_ref.drafters.trie import TrieDrafter
from specdec_ref.models.target import Target

__all__ = ["DRAFTERS", "NgramDrafter", "SuffixDrafter", "TrieDrafter", "build_drafter", "forget"]


def _ngram(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
    return NgramDrafter()


def _trie(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
    return TrieDrafter(config.trie)


def _suffix(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
    return SuffixDrafter(config.suffix)


def _layer_skip(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
    from specdec_ref.drafters.layer_skip import layer_skip_drafter

    return layer_skip_drafter(target)


def _draft_model(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
    from specdec_ref.drafters.draft_model import DraftModelDrafter
    from specdec_ref.models.hub import load
    from specdec_ref.weights import shipped
    from specdec_ref.weights.files import is_own_head

    draft_model = draft_model or str(shipped(target, "draft") or "")
    if not draft_model:
        raise ValueError("drafter 'draft' needs a draft model: name a folder or Hugging Face id with --draft-model")
    if is_own_head(draft_model):  # a plain model of `specdec train draft`
        return _eagle(target, draft_model, config)
    model, _ = load(draft_model, dtype=target.dtype, device=str(target.device))
    return DraftModelDrafter(Target(model), target.vocab_size)


def _eagle(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
    from specdec_ref.weights import load_eagle

    return load_eagle(target, draft_model)


def _hybrid(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
    from specdec_ref.drafters.hybrid import HybridDrafter
    from specdec_ref.weights import load_eagle

    return HybridDrafter(load_eagle(target, draft_model), TrieDrafter(config.trie))


def _trained(kind: str) -> Callable[[Target, str | None, SpecConfig], Drafter]:
    def build(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
        from specdec_ref.weights import load_trained

        return load_trained(target, kind, draft_model)

    return build


def _block(target: Target, draft_model: str | None, config: SpecConfig) -> Drafter:
    from specdec_ref.weights import load_block

    return load_block(target, draft_model)


DRAFTERS: dict[str, Callable[[Target, str | None, SpecConfig], Drafter]] = {
    "ngram": _ngram,
    "trie": _trie,
    "suffix": _suffix,
    "layer-skip": _layer_skip,
    "draft": _draft_model,
    "eagle": _eagle,
    "hybrid": _hybrid,
    "p-eagle": _trained("p-eagle"),
    "mtp": _trained("mtp"),
    "medusa": _trained("medusa"),
    "block": _block,
}


def build_drafter(
    name: str, target: Target, draft_model: str | None = None, config: SpecConfig = SpecConfig()
) -> Drafter:
    """The drafter of that name; of `config`, its options alone are read.

    Raises ValueError for an unknown name or a missing or mismatched draft model.
    """
    if name not in DRAFTERS:
        raise ValueError(f"unknown drafter {name!r}; choose from none, {', '.join(DRAFTERS)}")
    return DRAFTERS[name](target, draft_model, config)


def forget(drafter: Drafter) -> None:
    """Drop what it learnt from requests that are over, if it does: who measures twice wants to measure the same."""
    if isinstance(drafter, SupportsForget):
        drafter.forget()
