"""The shared n-gram trie: guess whatever followed these words before, in any request, as a tree of guesses.

Every n-gram of up to `max_depth` tokens is a path from the root, so after a text the trie holds a node for each suffix
of it; what hangs below these nodes is what followed. All of them, longest first, are merged into one draft tree:

    BFS   recency: level by level, of each node the children that were seen last. Breadth shrinks from `max_breadth` to
          `min_breadth` with every level, and starts lower the longer the match: breadth = min + (D - 1 - d)
          (max - min) / (D - 1) at a node of depth d, where D = max_depth
    PROB  frequency: whatever is likeliest next, by the product of the shares count / sum of counts along the path

A text's own end has nothing below it, so it never finds itself. Siblings of one token are one node, and where the trie
knows no more, the tree ends: no duplicates and no pads. When `capacity` nodes are exceeded, the least recently used
leaf goes. q is one-hot ("point"), lossless at any temperature under a verifier for such drafts. What is drafted
depends on what other requests said; the text at T = 0 does not, and at T > 0 its distribution does not.

Source: SGLang's NGRAM (its trie of recent n-grams, match types BFS and PROB). There a round inserts the last
`max_depth` tokens anew, so an n-gram counts once a round while it is among them; here once each time it occurs.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import heappop, heappush, nlargest
from itertools import count
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams, TrieOptions
from specdec_ref.core import DraftTree, Randomness, VerifyResult
from specdec_ref.trees.growth import Nodes

__all__ = ["NgramTrie", "Node", "TrieDraft", "TrieDrafter", "promote"]


class Node:
    """An n-gram: its last token below the n-gram without it. `best`: the children to propose, best first."""

    __slots__ = ("best", "children", "count", "depth", "parent", "token", "used")

    def __init__(self, token: int, parent: "Node | None") -> None:
        self.token, self.parent = token, parent  # no parent: the root, or evicted
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.count = self.used = 0  # how often it occurred, and when last
        self.children: dict[int, Node] = {}
        self.best: list[Node] = []


class TrieDraft:
    """A draft tree under construction: one node a path, within the budget. `source[i]`: the trie's node behind i."""

    def __init__(self, root: int, budget: DraftBudget) -> None:
        self.nodes, self.budget = Nodes(root), budget
        self.source: list[Node | None] = [None]
        self._below: list[dict[int, int]] = [{}]  # token -> child, of each node

    @property
    def full(self) -> bool:
        """True if nothing more fits."""
        return len(self.source) >= self.budget.max_nodes

    def place(self, parent: int, node: Node) -> int | None:
        """The child of `parent` with that node's token, added if it is new; None if the budget has no room for it."""
        below = self._below[parent]
        if node.token in below:
            return below[node.token]
        if self.full or len(below) >= self.budget.topk or self.nodes.depths[parent] >= self.budget.depth:
            return None
        below[node.token] = self.nodes.add(node.token, parent)
        self.source.append(node)
        self._below.append({})
        return below[node.token]


@runtime_checkable
class Counted(Protocol):
    """A node that counts how often it occurred."""

    count: int


Child = TypeVar("Child", bound=Counted)


def promote(best: list[Child], child: Child, most: int, *, by_count: bool) -> None:
    """Keep the best `most` children sorted, by count or by recency: only `child` has risen, and it was seen last."""
    if best and best[0] is child:
        return
    if child in best:
        best.remove(child)
    place = 0
    while by_count and place < len(best) and best[place].count > child.count:
        place += 1
    best.insert(place, child)
    del best[most:]


class NgramTrie:
    """What followed what, in at most `capacity` nodes; about 0.6 kB each."""

    def __init__(self, options: TrieOptions = TrieOptions()) -> None:
        self.options, self.root = options, Node(-1, None)
        self._size = self._clock = 0
        self._order: OrderedDict[Node, None] = OrderedDict()  # least recently used first; see `_evict`

    def __len__(self) -> int:
        return self._size

    def follow(self, suffixes: Sequence[Node], token: int) -> list[Node]:
        """Learn that `token` followed `suffixes`, nodes of what the text ended with, longest first; returns the new.

        A node that was evicted in the meantime is left out: an n-gram enters only below its own beginning.
        """
        depth = self.options.max_depth
        known = [node for node in suffixes if node.depth < depth and node.parent is not None]
        found = [self._step(node, token) for node in (*known, self.root)]
        self._evict()
        return found

    def insert(self, tokens: Sequence[int]) -> list[Node]:
        """Learn a whole text; returns the nodes of its suffixes."""
        suffixes: list[Node] = []
        for token in tokens:
            suffixes = self.follow(suffixes, token)
        return suffixes

    def _step(self, node: Node, token: int) -> Node:
        child = node.children.get(token)
        if child is None:
            child = node.children[token] = Node(token, node)
            self._order[child] = None
            self._size += 1
        self._clock += 1
        child.count, child.used = child.count + 1, self._clock
        self._order[child] = None  # it may have left the queue
        self._order.move_to_end(child)
        promote(node.best, child, self.options.max_breadth, by_count=self.options.match == "prob")
        return child

    def _evict(self) -> None:
        """Drop the least recently used leaves until the capacity holds.

        A node that has children when its turn comes leaves the queue, and stands at its front again when the last of
        them goes: whatever is queued was used after it.
        """
        while self._size > self.options.capacity:
            oldest, _ = self._order.popitem(last=False)
            parent = oldest.parent
            if oldest.children or parent is None:
                continue
            del parent.children[oldest.token]
            oldest.parent = None
            self._size -= 1
            if oldest in parent.best:
                parent.best.remove(oldest)
                if len(parent.children) > len(parent.best):  # somebody else moves up
                    parent.best = nlargest(self.options.max_breadth, parent.children.values(), key=self._rank)
            if not parent.children and parent is not self.root and parent not in self._order:
                self._order[parent] = None
                self._order.move_to_end(parent, last=False)

    def _rank(self, node: Node) -> tuple[int, int]:
        return (0 if self.options.match == "bfs" else node.count, node.used)

    def draft(self, root: int, suffixes: Sequence[Node], budget: DraftBudget) -> TrieDraft:
        """The merged tree of everything that followed these suffixes, longest first; `root` is the last token."""
        draft = TrieDraft(root, budget)
        expand = self._by_recency if self.options.match == "bfs" else self._by_frequency
        for suffix in suffixes:
            if draft.full:
                break
            expand(draft, suffix)
        return draft

    def _by_recency(self, draft: TrieDraft, suffix: Node) -> None:
        options = self.options
        shrink = (options.max_breadth - options.min_breadth) / max(1, options.max_depth - 1)
        level = deque([(0, suffix)])
        while level and not draft.full:
            at, node = level.popleft()
            breadth = max(1, int(options.min_breadth + shrink * (options.max_depth - 1 - node.depth)))
            for child in node.best[:breadth]:
                place = draft.place(at, child)
                if place is not None:
                    level.append((place, child))

    def _by_frequency(self, draft: TrieDraft, suffix: Node) -> None:
        heap: list[tuple[float, int, int, Node]] = []  # minus the product of shares, order of arrival, where, what
        arrivals = count()

        def open_up(place: int, node: Node, product: float) -> None:
            total = sum(child.count for child in node.best)
            for child in node.best:
                heappush(heap, (-product * child.count / total, next(arrivals), place, child))

        open_up(0, suffix, 1.0)
        while heap and not draft.full:
            minus, _, parent, node = heappop(heap)
            place = draft.place(parent, node)
            if place is not None:
                open_up(place, node, -minus)


class TrieDrafter:
    """A `Drafter` around one trie for all requests, those that are over included; each request keeps its suffixes."""

    feature_layers: tuple[int, ...] = ()

    def __init__(self, options: TrieOptions = TrieOptions()) -> None:
        self.trie, self._corpus = NgramTrie(options), list[list[int]]()
        self._suffixes: dict[int, list[Node]] = {}

    def warm(self, tokens: Sequence[int]) -> None:
        """Learn a text beforehand: a corpus of what is likely to be said."""
        self._corpus.append(list(tokens))
        self.trie.insert(tokens)

    def forget(self) -> None:
        """Back to what `warm` taught, so that a measurement does not find its own answer. Not while requests run."""
        self.trie = NgramTrie(self.trie.options)
        for tokens in self._corpus:
            self.trie.insert(tokens)

    def start(
        self,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:
        """Learn the prompts."""
        for row, prompt in zip(rows, prompts, strict=True):
            self._suffixes[row] = self.trie.insert(prompt)

    def draft(self, row: int, budget: DraftBudget) -> TrieDraft:
        """The guesses for one row, with the nodes of the trie that they come from."""
        suffixes = self._suffixes[row]
        return self.trie.draft(suffixes[-1].token, suffixes, budget)

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        """A tree a row, a chain if `topk` is 1; just the root where nothing is known."""
        drafts = [self.draft(row, budget).nodes for row in rows]
        return [nodes.select(range(len(nodes.tokens))) for nodes in drafts]

    def commit(
        self,
        rows: Sequence[int],
        trees: Sequence[DraftTree],
        results: Sequence[VerifyResult],
        features: Sequence[Float[Tensor, "tokens features"]] | None,
    ) -> None:
        """Learn what was emitted."""
        for row, tree, result in zip(rows, trees, results, strict=True):
            for token in [*(tree.token_list[node] for node in result.path), result.next_token]:
                self._suffixes[row] = self.trie.follow(self._suffixes[row], token)

    def finish(self, rows: Sequence[int]) -> None:
        """Forget where these texts were; what they said stays in the trie."""
        for row in rows:
            self._suffixes.pop(row, None)
