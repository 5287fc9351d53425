"""Our own decoders as entries of the capstone: plain decoding, the yardstick, and the reference to be beaten.

Both go through the adapter as a student's does, in a process of their own. Lossless.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from specdec_course.capstone.adapter import Model
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, TargetOutput
from specdec_ref.drafters.ngram import NgramDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.request import Limits

if TYPE_CHECKING:
    from specdec_ref.models.target import Target

__all__ = ["PlainDecoder", "ReferenceDecoder"]


class PlainDecoder:
    """One forward a token."""

    def generate(
        self, model: Model, prompt: list[int], max_new_tokens: int, eos: frozenset[int], rng: Randomness
    ) -> list[int]:
        """See `Decoder`."""
        new: list[int] = []
        while len(new) < max_new_tokens and not eos.intersection(new[-1:]):
            p = model.score([(new or prompt)[-1]])[0]
            model.keep([0])
            new.append(int(p.argmax()) if model.temperature == 0 else rng.draw(p))
        return new


class ReferenceDecoder:
    """`SpecEngine` with prompt lookup, six guesses a round: what `specdec generate --drafter ngram` runs."""

    def generate(
        self, model: Model, prompt: list[int], max_new_tokens: int, eos: frozenset[int], rng: Randomness
    ) -> list[int]:
        """See `Decoder`."""
        engine = SpecEngine(
            cast("Target", _Viewed(model)),
            NgramDrafter(),
            budget=DraftBudget(6),
            limits=Limits(max_new_tokens, eos),
            sampling=SamplingParams(0.0 if model.temperature == 0 else 1.0),
            randomness=lambda *key: rng,
        )
        return engine.generate([prompt])[0].tokens


class _Viewed:
    """As much of a `Target` as the engine uses, for one row: log p stands for the logits, and p is warped already."""

    backend, max_positions, batch = "torch", None, 0

    def __init__(self, model: Model) -> None:
        self.model, self.vocab_size = model, model.vocab_size
        self.feature_layers: tuple[int, ...] = ()
        self.cache = SimpleNamespace(select=lambda rows: None, truncate=lambda lengths: None)

    @property
    def lengths(self) -> list[int]:
        return [self.model.length]

    def start(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """The prompt is read already."""

    def check_batch(self, batch: int) -> None:
        """There is one batch."""

    def forward(self, trees: Sequence[DraftTree]) -> TargetOutput:
        return TargetOutput(self.model.score(trees[0].token_list, trees[0].parent_list).log()[None])

    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        self.model.keep(kept[0])
