"""Small forwards that measure what a row's logits depend on. They must depend on the row's own text alone.

    sibling    an unrelated branch in the tree             split     a prompt read at once or in pieces
    neighbour  a longer row in the batch, with padding     position  another row, or a draft, much further on
    own        the model's forward without our mask, positions and cache: what plain transformers would decode

The last one finds RoPE variants whose frequencies follow the largest position of a forward (LongRoPE, dynamic NTK).
Positions are passed as `position_ids`, so no long text is needed. `position_limit` then searches for the number of
positions up to which all rows are independent.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.core import DraftTree, TargetOutput

__all__ = ["Probed", "dependence", "exact_rows", "position_limit"]

SPANS = (8, 512)  # positions that a probed row covers: a change may only show far from the start
UNSTATED = 4096  # positions to probe where the configuration names no limit
WIDTH = 6  # tokens a row


@runtime_checkable
class Probed(Protocol):
    """What the probes use of a wrapped model."""

    model: Any
    config: Any

    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102
    @property
    def vocab_size(self) -> int: ...  # noqa: D102
    @property
    def max_positions(self) -> int | None: ...  # noqa: D102
    def start(self, prompts: Sequence[Sequence[int]], capacity: int) -> TargetOutput | None: ...  # noqa: D102
    def forward(self, trees: Sequence[DraftTree]) -> TargetOutput: ...  # noqa: D102
    def commit(self, kept: Sequence[Sequence[int]]) -> None: ...  # noqa: D102
    def score(  # noqa: D102
        self, tokens: Int[Tensor, "batch nodes"], positions: Int[Tensor, "batch nodes"]
    ) -> Float[Tensor, "batch nodes vocab"]: ...


def dependence(target: Probed) -> str | None:
    """What a row's logits wrongly depend on, as one clause, or None. Raises RuntimeError if they are NaN."""
    if reason := _unsteady(target):
        return reason
    passed, failed = 0, list[str]()
    for tokens in _samples(target):  # half precision is chaotic on some tokens: two of three decide
        reason = _context_matters(target, tokens)
        if reason:
            failed.append(reason)
        passed += not reason
        if passed > 1:
            return None
    return failed[0]


def exact_rows(target: Probed) -> bool:
    """Whether a node of a tree gets, bit for bit, the logits of decoding its path token by token: one sample.

    Then a greedy text is plain decoding's in any number format. Elsewhere rounding can decide a near-tie either way.
    """
    prompt, (a, b, sibling) = [3, 5, 7], (11, 13, 17)
    target.start([prompt], capacity=8)
    tree = DraftTree(torch.tensor([a, sibling, b]), torch.tensor([-1, 0, 0]))
    checked = target.forward([tree]).logits[0, 2].clone()
    target.start([prompt], capacity=8)
    for token in (a, b):
        alone = target.forward([DraftTree(torch.tensor([token]), torch.tensor([-1]))]).logits[0, 0]
        target.commit([(0,)])
    return torch.equal(checked, alone)


def position_limit(target: Probed) -> int | None:
    """The positions up to which no row depends on the largest position in the forward; None if there is no limit."""
    top = target.max_positions or UNSTATED
    limits = [limit for span in SPANS if span == SPANS[0] or 4 * span < top if (limit := _limit(target, span, top))]
    return min(limits, default=None)


def _limit(target: Probed, span: int, top: int) -> int | None:
    """Bisection over the neighbour's largest position: it has no effect at `low`, and an effect at `high`."""
    width = min(WIDTH, top)
    near = torch.linspace(0, min(span, top) - 1, width).long()
    tokens = _two_rows(target, width)
    alone = target.score(tokens, near.expand(2, -1))[0]

    def changed(position: int) -> bool:
        far = (position - torch.arange(width - 1, -1, -1)).clamp_min(0)
        moved = target.score(tokens, torch.stack([near, far]))[0]
        return _differs(target, alone, moved)

    low, high = int(near[-1]), top - 1
    if low >= high or not changed(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if changed(middle) else (middle, high)
    target.score(tokens, near.expand(2, -1))  # a dynamic RoPE forgets the far positions
    return high


def _unsteady(target: Probed) -> str | None:
    """Asked twice, and beside another text of the same length, a row has to get the same logits."""
    width = min(WIDTH, target.max_positions or WIDTH)
    tokens, positions = _two_rows(target, width), torch.arange(width).expand(2, -1)
    first = target.score(tokens, positions)[0]
    if bool(first.isnan().any()):
        raise RuntimeError("its logits are NaN")
    if _differs(target, first, target.score(tokens, positions)[0]):
        return "the same tokens get other logits each time; is it in training mode? Call model.eval()"
    other = torch.stack([tokens[0], tokens[1].flip(0)])
    if _differs(target, first, target.score(other, positions)[0]):
        return (
            "a row's logits change with the text of another row, as when activations are quantised with one scale for "
            "the batch"
        )
    return None


def _differs(target: Probed, one: Tensor, other: Tensor) -> bool:
    """Shapes are equal, so in a dense model not a bit may change; experts round by what else they are given."""
    experts = any("expert" in name for name in getattr(target.config, "to_dict", dict)())
    limit = 1e-4 if target.dtype.itemsize >= 4 else 0.25 if experts else 1e-3
    return bool((one - other).double().std() > limit * one.double().std())


def _two_rows(target: Probed, width: int) -> Int[Tensor, "2 width"]:
    return (torch.arange(2 * width).view(2, -1) * 7 + 3) * max(1, target.vocab_size // 97) % target.vocab_size


def _samples(target: Probed) -> Iterator[Tensor]:
    return (torch.arange(first, 90, 13) * target.vocab_size // 100 for first in (11, 3, 7))


def _context_matters(target: Probed, tokens: Tensor) -> str | None:
    """Is a chain scored alike with a sibling in between, read at once, and beside a longer row?

    "Alike" is measured in units of the change that the sibling makes where it may be seen, since shapes differ here
    and so does rounding.
    """
    limit = 0.25 if target.dtype.itemsize < 4 else 0.01
    prompt, a, b, c, sibling = tokens[:2].tolist(), *tokens[2:6].tolist()
    alone = _last_logits(target, prompt, [a, b, c], [-1, 0, 1])
    unit = limit * (alone - _last_logits(target, prompt, [a, sibling, b, c], [-1, 0, 1, 2])).std()
    variants: tuple[tuple[Callable[[], Tensor], str], ...] = (
        (lambda: _last_logits(target, prompt, [a, sibling, b, c], [-1, 0, 0, 2]),
         "a token's logits change when an unrelated sibling stands beside it, so its 4-D mask is not obeyed"),
        (lambda: _prefill(target, [[*prompt, a, b, c]]),
         "a text's logits change with the pieces that it is read in"),
        (lambda: _prefill(target, [[*prompt, a, b, c], [sibling, a, sibling, *prompt, b, c]]),
         "a row's logits change beside a longer row, with the padding that this takes"),
        (lambda: _own(target, [*prompt, a, b, c], alone),
         "its own forward, given the tokens alone, gives other logits, so it counts positions or masks in another way"),
    )  # fmt: skip
    return next((reason for scored, reason in variants if not bool((alone - scored()).std() <= unit)), None)


def _last_logits(target: Probed, prompt: list[int], tokens: list[int], parents: list[int]) -> Tensor:
    target.start([prompt], capacity=8)
    return target.forward([DraftTree(torch.tensor(tokens), torch.tensor(parents))]).logits[0, -1].double()


def _own(target: Probed, tokens: list[int], otherwise: Tensor) -> Tensor:
    """Of a model of transformers': what `generate` would see. Others have no forward of that kind."""
    if not hasattr(target.model, "set_attn_implementation"):
        return otherwise
    ids = torch.tensor([tokens], device=next(target.model.parameters()).device)
    logits: Tensor = target.model(input_ids=ids, use_cache=False).logits
    return logits[0, -1].double()


def _prefill(target: Probed, prompts: list[list[int]]) -> Tensor:
    output = target.start(prompts, capacity=8)
    if output is None:
        raise RuntimeError("prefill of non-empty prompts gave no logits")
    return output.logits[0, -1].double()
