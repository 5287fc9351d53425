"""What `specdec bench` compares: methods, each at every setting of a small stated grid, on one loaded model.

    plain                 our plain decoder, the denominator
    NAME                  chains of a drafter of `DRAFTERS`, or of NAME=FOLDER for a trained one
    NAME tree             the same drafter, EAGLE-2's dynamic trees
    NAME adaptive         chains whose length the cost-model controller decides (`adaptive.Optimal`), up to 12
    useless               if asked for: a random model as drafter, which only costs; what should adaptive do about it?
    hf ...                transformers' generate(), see `peers.py`

A drafter that cannot be had for this model, and a method that a setting rules out, is left out with its reason.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specdec_ref.calibrate import controller
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter
from specdec_ref.drafters import DRAFTERS, build_drafter, forget
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.metrics import RunStats
from specdec_ref.models.hub import ModelError
from specdec_ref.models.target import Target
from specdec_ref.models.toy import tiny_llama
from specdec_ref.request import Limits
from specdec_ref.session import Session

__all__ = ["PLAIN", "Answer", "Call", "Setting", "Side", "chain_side", "ours", "plain_side", "usable_drafters"]

PLAIN = "plain"
CHAINS = {"ngram": (5, 8, 11), "trie": (5, 8, 11), "suffix": (5, 11, 16), "layer-skip": (1, 2, 4), "block": (2, 3, 4)}
ANY_CHAIN = (2, 3, 5)
CHAINS_ONLY = {"ngram"}
TREES = (DraftBudget(3, 2, 6), DraftBudget(4, 2, 8), DraftBudget(5, 3, 12))
CAP = 12  # levels that the controller may choose from


@dataclass(frozen=True, slots=True)
class Answer:
    """New tokens of one prompt; its rounds, or those of the whole call where only the forwards could be counted."""

    tokens: list[int]
    stats: RunStats | None = None


Call = Callable[[Sequence[list[int]], Sequence[int]], list[Answer]]  # prompts of a batch, a seed each


@dataclass(frozen=True, slots=True)
class Setting:
    """What all methods of a table have in common."""

    session: Session
    sampling: SamplingParams
    limits: Limits
    batch: int


@dataclass(frozen=True, slots=True)
class Side:
    """A method at one setting. `begin` gives a call that knows nothing of earlier requests."""

    method: str
    setting: str
    begin: Callable[[], Call]


def usable_drafters(session: Session, spelled: Sequence[str] = ()) -> tuple[dict[str, Drafter], dict[str, str]]:
    """Drafters by spelling: NAME, NAME=FOLDER, useless (none given: all of `DRAFTERS`); and why others cannot be had.

    Raises ValueError for one that was asked for and cannot be had.
    """
    found: dict[str, Drafter] = {}
    missing: dict[str, str] = {}
    for name in spelled or DRAFTERS:
        try:
            found[name] = _useless(session) if name == "useless" else named_drafter(name, session.target)
        except (ValueError, ModelError) as error:
            if spelled:
                raise
            missing[name] = str(error)
    return found, missing


def _useless(session: Session) -> Drafter:
    """A small model of random weights that is never right but by luck: what a bad drafter costs."""
    model = tiny_llama(0, vocab=session.target.vocab_size, layers=1, dtype=session.target.dtype)
    return DraftModelDrafter(Target(model.to(session.target.device)), session.target.vocab_size)


def ours(setting: Setting, drafters: Mapping[str, Drafter]) -> Iterator[Side]:
    """Our sides: plain first, then every drafter's settings."""
    yield plain_side(setting)
    for name, drafter in drafters.items():
        kind = name.partition("=")[0]
        for depth in CHAINS.get(kind, ANY_CHAIN):
            yield chain_side(setting, name, drafter, DraftBudget(depth))
        if kind not in CHAINS_ONLY:
            for budget in TREES:
                words = f"depth {budget.depth}, topk {budget.topk}, nodes {budget.nodes}"
                yield Side(f"{name} tree", words, _beginner(setting, name, drafter, budget))
        yield Side(f"{name} adaptive", f"up to {CAP}", _beginner(setting, name, drafter, DraftBudget(CAP), "optimal"))


def plain_side(setting: Setting) -> Side:
    """Our plain decoder."""

    def call(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        done = setting.session.plain(prompts, sampling=setting.sampling, limits=setting.limits, seeds=seeds)
        return [Answer(answer.tokens) for answer in done]

    return Side(PLAIN, "", lambda: call)


def chain_side(setting: Setting, name: str, drafter: Drafter, budget: DraftBudget) -> Side:
    """A drafter at a fixed length."""
    return Side(name, f"gamma {budget.depth}", _beginner(setting, name, drafter, budget))


def _beginner(
    setting: Setting, name: str, drafter: Drafter, budget: DraftBudget, adaptive: str | None = None
) -> Callable[[], Call]:
    def begin() -> Call:
        control, limited = controller(adaptive, setting.session, name, drafter, budget) if adaptive else (None, budget)
        engine: Any = setting.session.engine(
            drafter, budget=limited, sampling=setting.sampling, limits=setting.limits, control=control
        )

        def call(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
            forget(drafter)  # sides share it, and a trie would have heard this very answer from another side
            return [Answer(done.tokens, done.stats) for done in engine.generate(prompts, seeds)]

        return call

    return begin


def named_drafter(spelled: str, target: Target) -> Drafter:
    """`name` or `name=folder-or-file`. Raises ValueError or ModelError if it cannot be had."""
    name, _, source = spelled.partition("=")
    return build_drafter(name, target, source or None)
