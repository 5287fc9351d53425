"""The nouns that every part of the package passes around, and the seams (Protocols) between the parts.

One round of speculative decoding, in these words (Leviathan et al. 2023, §2; Chen et al. 2023, §2):

    Drafter.propose  -> DraftTree         guesses; node 0 is the last committed token
    Target.forward   -> TargetOutput      one forward pass scores every node
    Verifier         -> VerifyResult      the accepted path, and one more token drawn by the target
    Drafter.commit                        the drafter keeps what was accepted and forgets the rest

A chain is a tree in which every node has one child. Verifiers never see a model or a drafter; drafters never see a
verifier.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.transfer import at_hand

__all__ = [
    "BAD_LOGITS", "DraftTree", "Drafter", "Draw", "Randomness", "SupportsForget", "SupportsState", "SupportsUnread",
    "TargetOutput", "Verifier", "VerifyResult",
]  # fmt: skip

Draw = Literal["point", "iid", "without_replacement"]
BAD_LOGITS = "the model gave NaN or infinite logits: check its dtype (try float32) and its weights"


@dataclass(frozen=True, slots=True)
class DraftTree:
    """One row's guesses. `parents[i] < i`; siblings stand in the order in which they were drawn.

    `drawn` says HOW a node's children were drawn, which is what a verifier may assume:
    "point" (no chance: a top-k, an n-gram match), "iid" (independent draws from q, repeats kept) or
    "without_replacement" (q renormalised after each draw). `q` row i: the warped distribution that node i's children
    came from.

    `parents` are on the host. `tokens` may be on a GPU that has not computed them yet: `token_list` then waits for them
    at first use, unless a verifier has read them together with its verdict and passed them to `tell`.
    """

    tokens: Int[Tensor, " nodes"]
    parents: Int[Tensor, " nodes"]
    drawn: Draw = "point"
    q: Float[Tensor, "nodes draft_vocab"] | None = None
    q_vocab: Int[Tensor, " draft_vocab"] | None = None
    parent_list: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _tokens: tuple[int, ...] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read both tensors once: verifiers walk the tree in Python. Raises ValueError if it is no tree."""
        object.__setattr__(self, "parent_list", tuple(self.parents.tolist()))
        object.__setattr__(self, "_tokens", tuple(self.tokens.tolist()) if at_hand(self.tokens) else None)
        if not self.parent_list or self.parent_list[0] != -1:
            raise ValueError("a DraftTree starts with its root: parents[0] must be -1")
        if any(not 0 <= parent < node for node, parent in enumerate(self.parent_list) if node):
            raise ValueError(f"every parent must come before its child, got parents {self.parent_list}")
        if (self.q is None) != (self.drawn == "point"):
            raise ValueError(
                f"a tree drawn as {self.drawn!r} {'needs' if self.q is None else 'must not carry'} q; 'point' has none"
            )

    def __len__(self) -> int:
        return len(self.parent_list)

    @property
    def token_list(self) -> tuple[int, ...]:
        """The tokens as integers. If nobody has read them from the device yet, this waits for it."""
        if self._tokens is None:
            self.tell(self.tokens.tolist())
        assert self._tokens is not None  # for the type checker
        return self._tokens

    def tell(self, tokens: Sequence[int]) -> None:
        """Note what `tokens` holds, if not known. Raises ValueError for a negative token: the drafter gave NaN."""
        if self._tokens is None:
            if min(tokens) < 0:
                raise ValueError(BAD_LOGITS)
            object.__setattr__(self, "_tokens", tuple(tokens))

    @property
    def is_chain(self) -> bool:
        """True if every node has at most one child."""
        return self.parent_list == tuple(range(-1, len(self) - 1))

    @property
    def depths(self) -> list[int]:
        """Distance of each node from the root: the root has 0."""
        depths: list[int] = []
        for parent in self.parent_list:
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
        return depths

    def children(self, node: int) -> list[int]:
        """Indices of the node's children, in the order in which they were drawn."""
        return [child for child, parent in enumerate(self.parent_list) if parent == node]

    def path(self, node: int) -> tuple[int, ...]:
        """The nodes from the root's child down to `node`; () for the root itself."""
        nodes: list[int] = []
        while node > 0:
            nodes.append(node)
            node = self.parent_list[node]
        return tuple(reversed(nodes))

    def draft_distribution(self, node: int, vocab: int) -> Float[Tensor, " vocab"]:
        """q over the whole vocabulary for the children of `node`: zero outside `q_vocab`."""
        if self.q is None:
            raise ValueError("a 'point' tree has no q")
        if self.q_vocab is None:
            return self.q[node]
        return self.q.new_zeros(vocab).scatter_(0, self.q_vocab, self.q[node])

    def cut(self, depth: int) -> "DraftTree":
        """The tree without the nodes below `depth`. Depth does not depend on tokens, so the output stays exact."""
        keep = [node for node, d in enumerate(self.depths) if d <= depth]
        if len(keep) == len(self):
            return self
        new = {node: i for i, node in enumerate(keep)}
        first = keep[-1] == len(keep) - 1  # a slice, unlike a list of indices, needs no copy to the device
        rows = slice(len(keep)) if first else torch.tensor(keep)
        parents = torch.tensor([new.get(self.parent_list[node], -1) for node in keep])
        return DraftTree(self.tokens[rows], parents, self.drawn, None if self.q is None else self.q[rows], self.q_vocab)


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What stays of a tree, and the target's own token after it.

    `path`: accepted nodes from the root's child on, the root left out. `next_token` is called the bonus token if the
    path ends at a leaf and the correction otherwise. `distortion`, of lossy verifiers alone: summed over the tokens,
    how far the distribution by which each was chosen is from p, in total variation.
    """

    path: tuple[int, ...]
    next_token: int
    distortion: float = 0.0


@dataclass(frozen=True, slots=True)
class TargetOutput:
    """What one target forward says of every node: logits, and the features some drafters read.

    `features` holds the chosen `hidden_states` side by side, features = layers x hidden. After a prefill it covers all
    tokens of the prompts, logits only their last ones: hence two names for the middle axis.
    """

    logits: Float[Tensor, "batch nodes vocab"]
    features: Float[Tensor, "batch tokens features"] | None = None


@runtime_checkable
class Randomness(Protocol):
    """The only source of randomness: `exact.py` enumerates its outcomes, `randomness.py` replays a seed."""

    def accept(self, prob: float) -> bool:
        """True with probability min(1, prob); never true at 0."""
        ...

    def draw(self, weights: Float[Tensor, " n"]) -> int:
        """Index i with probability weights[i] / sum(weights); a weight of zero is never drawn."""
        ...


@runtime_checkable
class Drafter(Protocol):
    """Guesses tokens. Rows are request ids; a drafter may batch them or loop.

    `feature_layers` are indices into transformers' `hidden_states` (0 = embeddings, n = after the final norm) that
    the engine hands over; () for most drafters. Three more members are optional, each a protocol of its own below:
    `forget`, `unread` and `state`.
    """

    feature_layers: tuple[int, ...]

    def start(
        self,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:
        """New requests: whole prompts, and features of every prompt token but the last."""
        ...

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A tree a row, at most `budget.depth` deep; node 0 is the row's last committed token."""
        ...

    def commit(
        self,
        rows: Sequence[int],
        trees: Sequence[DraftTree],
        results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:
        """What was accepted. `features[i]` are those of the root and the accepted nodes of row i."""
        ...

    def finish(self, rows: Sequence[int]) -> None:
        """These requests are over: drop their state. Unknown rows are ignored."""
        ...


@runtime_checkable
class SupportsForget(Protocol):
    """A drafter that learns from requests that are over, as the trie does."""

    def forget(self) -> None:
        """Be as new: who measures twice wants to measure the same."""
        ...


@runtime_checkable
class SupportsUnread(Protocol):
    """A drafter that reads the text with a model of its own, as EAGLE does."""

    def unread(self) -> int:
        """Committed tokens that it would read before its next guess, in the row that waits longest."""
        ...


@runtime_checkable
class SupportsState(Protocol):
    """A drafter whose guesses depend on more than the committed text, on a cache for example."""

    def state(self) -> Hashable:
        """All of that: drafters with equal text and state propose alike. `exact.py` merges outcomes by it."""
        ...


@runtime_checkable
class Verifier(Protocol):
    """One row, pure: the readable specification. `lossless_for`: the ways of drawing that keep the output exact."""

    lossless_for: frozenset[str]

    def __call__(self, tree: DraftTree, p: Float[Tensor, "nodes vocab"], rng: Randomness) -> VerifyResult:
        """`p` row i is the target's warped distribution after node i."""
        ...
