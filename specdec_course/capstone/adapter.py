"""The seam of the capstone: a decoder that somebody else wrote, and all that it may ask of the target.

    model.score(tokens, parents)  -> p     one forward: row i is the target's distribution of the token after node i
    model.keep(nodes)                      of that forward's nodes the cache keeps this path; the rest is rolled back

The target itself is out of reach, in its grader's process if need be (`entry.py`), so a `TargetView` sees everything
that was asked. At temperature 0 it can say of a text whether each of its tokens was really looked up: `unasked`.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, arange, tensor

from specdec_ref.config import SamplingParams
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.models.target import Target
from specdec_ref.sampling import warp

__all__ = ["MAX_NODES", "Decoder", "Model", "TargetView", "first_unasked"]

MAX_NODES = 64  # of one forward, the root included


@runtime_checkable
class Model(Protocol):
    """What a decoder gets to see of the target. `keep` what a round accepts: what is not kept is forgotten."""

    vocab_size: int
    temperature: float  # of this request; p is warped already. At 0, p is 1 at the target's choice and 0 elsewhere

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        ...

    @property
    def forwards(self) -> int:
        """Forwards of this request so far, the prompt's not counted."""
        ...

    def score(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> Float[Tensor, "nodes vocab"]:
        """One forward over the cached text and these nodes; `parents` as in `DraftTree`, None for a chain.

        Node 0 is the text's last token. Raises ValueError for nodes that are none.
        """
        ...

    def keep(self, nodes: Sequence[int]) -> None:
        """The cache keeps these nodes of the last forward, a path that begins with node 0. Raises ValueError."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """What a student hands in: made without arguments, a new one for each prompt."""

    def generate(
        self, model: Model, prompt: list[int], max_new_tokens: int, eos: frozenset[int], rng: Randomness
    ) -> list[int]:
        """The new tokens: `max_new_tokens`, or fewer if one of `eos` ends them, which is emitted.

        The model has read all of the prompt but its last token. All chance comes from `rng`.
        """
        ...


class TargetView:
    """A `Model` in this process. `open` it for each prompt; one at a time, for a target has one cache."""

    def __init__(self, target: Target, sampling: SamplingParams = SamplingParams()) -> None:
        self._target, self._sampling = target, sampling
        self.vocab_size, self.temperature = target.vocab_size, float(sampling.temperature)
        self.sizes: list[int] = []  # nodes of each forward
        self.said: dict[tuple[int, ...], int] = {}  # T = 0: (the prompt's last token, new ones ...) -> the choice there
        self._text: tuple[int, ...] = ()  # new tokens in the cache, the prompt's last one first
        self._tree: DraftTree | None = None
        self._most = 0  # forwards

    def open(self, prompt: Sequence[int], room: int) -> "TargetView":
        """Read a prompt, all but its last token; up to `room` new ones may follow. Raises ValueError if it is empty."""
        if not prompt:
            raise ValueError("a prompt has at least one token")
        self._target.feature_layers = ()
        self._target.start([list(prompt[:-1])], capacity=len(prompt) + room + MAX_NODES)
        self.sizes, self.said, self._text, self._tree = [], {}, (), None
        self._most = 2 * room + 8
        return self

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._target.lengths[0]

    @property
    def forwards(self) -> int:
        """Forwards since the prompt was read."""
        return len(self.sizes)

    def score(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> Float[Tensor, "nodes vocab"]:
        """See `Model`."""
        tree = _tree(tokens, parents, self.vocab_size)
        if len(self.sizes) >= self._most:
            raise ValueError(f"{self._most} forwards, and still no end: does every round make the text longer?")
        p = warp(self._target.forward([tree]).logits[0, : len(tree)], self._sampling)
        self.sizes.append(len(tree))
        self._tree = tree
        if self._sampling.greedy:
            paths: list[tuple[int, ...]] = []
            for token, parent in zip(tree.token_list, tree.parent_list, strict=True):
                paths.append((*(paths[parent] if parent >= 0 else self._text), token))
            self.said.update(zip(paths, p.argmax(-1).tolist(), strict=True))
        return p

    def keep(self, nodes: Sequence[int]) -> None:
        """See `Model`."""
        try:
            path, tree = [int(node) for node in nodes], self._tree
        except (TypeError, ValueError) as error:
            raise ValueError(f"keep() takes a list of nodes, [0, 1] say; it was given {nodes!r}") from error
        if tree is None:
            raise ValueError("keep() comes after a score(), once: there is no forward to keep nodes of")
        if not path or path[0] != 0:
            raise ValueError(
                f"keep() was given {path}: the path begins with node 0, the text's last token, whose keys and values "
                "were not in the cache before"
            )
        if path[-1] not in range(len(tree)) or tuple(path[1:]) != tree.path(path[-1]):
            raise ValueError(
                f"keep() was given {path}, and the nodes were 0 to {len(tree) - 1}: it takes the indices of a path, "
                "each the child of the one before it, not tokens"
            )
        self._target.commit([path])
        self._text += tuple(tree.token_list[node] for node in path)
        self._tree = None


def first_unasked(model: TargetView, prompt: Sequence[int], text: Sequence[int]) -> int | None:
    """T = 0: index of the first new token that is not what this request's forwards said there; None if all are."""
    for index, token in enumerate(text):
        if model.said.get((prompt[-1], *text[:index])) != token:
            return index
    return None


def _tree(tokens: Sequence[int], parents: Sequence[int] | None, vocab: int) -> DraftTree:
    """Raises ValueError, in the words of the adapter, for nodes that cannot be scored."""
    try:
        nodes = [int(token) for token in tokens]
        above = None if parents is None else [int(parent) for parent in parents]
    except (TypeError, ValueError) as error:
        raise ValueError(f"score() takes a list of token ids, and a list of parents for a tree: {error}") from error
    if not 1 <= len(nodes) <= MAX_NODES:
        raise ValueError(
            f"score() takes 1 to {MAX_NODES} nodes, the text's last token first; it was given {len(nodes)}"
        )
    if not all(0 <= node < vocab for node in nodes):
        raise ValueError(f"score() was given a token that is not in 0..{vocab - 1}")
    if above is not None and len(above) != len(nodes):
        raise ValueError(f"score() was given {len(nodes)} tokens and {len(above)} parents")
    return DraftTree(tensor(nodes), arange(-1, len(nodes) - 1) if above is None else tensor(above))
