"""Suffix decoding's counts: find where the end of the text occurred before, and draft its most frequent continuation.

A tree counts every substring of up to `max_depth` tokens. For every match length l (the last l tokens occur in it):

    path      from the match, always the child that followed most often
    P(i)      product of count(child) / count(node) along the path, up to draft i; the path ends before P < min_prob
    length    at most floor(factor * l) drafts, within the budget: a longer match may draft more
    score     P(1) + P(2) + ...: the number of accepted drafts that the counts predict

The draft with the best score wins; on a tie the longer match. With `topk` above 1 the draft is a tree instead: the
nodes with the largest P, found best first; of equals the deepest. Drafts are one-hot ("point"), so any temperature is
exact.

The tree is path-compressed: a node stands for a string that is followed by different tokens, or by none at an end of
a text. The tokens on its edge are a slice of the stored text, so there are at most two nodes per token. Eviction
removes whole requests, oldest first, and subtracts their counts exactly.

Source: Oliaro et al. 2024, SuffixDecoding, arXiv 2411.04975 (`factor` is its alpha in MAX_SPEC = alpha p; the score is
its sum of D(N)); Arctic Inference, from which this differs in three points: an end of a text does not count as a
continuation in P, answers enter the global tree when their request is over, and that tree is bounded in tokens.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush, nlargest
from itertools import count

from specdec_ref.config import DraftBudget, SuffixOptions
from specdec_ref.drafters.trie import promote
from specdec_ref.trees.growth import Nodes

__all__ = ["SuffixDraft", "SuffixNode", "SuffixTree"]

BREADTH = 4  # children that a node keeps sorted; a draft tree is no wider


class SuffixNode:
    """A string and how often it occurs. Its edge is the last `length` tokens; its latest occurrence stops at `end`."""

    __slots__ = ("best", "children", "count", "end", "ends", "length", "parent")

    def __init__(self, parent: "SuffixNode | None", length: int = 0, end: int = 0) -> None:
        self.parent, self.length, self.end = parent, length, end
        self.count = self.ends = 0  # occurrences, and those of them that no token follows (yet)
        self.children = LEAF  # by the first token of their edge
        self.best = CHILDLESS  # the most frequent of them, the latest first among equals

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts the children of a node: by count, then by when their first token was last seen."""
        return self.count, self.end - self.length

    def adopt(self, token: int, child: "SuffixNode") -> None:
        """Hang a child below; most nodes are leaves and hold no containers of their own."""
        if not self.children:
            self.children, self.best = {}, []
        self.children[token], child.parent = child, self

    def refresh(self) -> None:
        """Sort the children anew, after a count fell."""
        self.best = nlargest(BREADTH, self.children.values(), key=lambda child: child.rank)

    def replace(self, token: int, new: "SuffixNode") -> None:
        """Put `new` where the child for `token` was."""
        old, self.children[token], new.parent = self.children[token], new, self
        if old in self.best:
            self.best[self.best.index(old)] = new


Place = tuple[SuffixNode, int]  # where a string ends: a node, and how many tokens of its edge are left
LEAF: dict[int, SuffixNode] = {}  # of all leaves, never written to
CHILDLESS: list[SuffixNode] = []


@dataclass(frozen=True, slots=True)
class SuffixDraft:
    """Drafted nodes, the root first; the score; how many tokens matched."""

    nodes: Nodes
    score: float = 0.0
    match: int = 0


class SuffixTree:
    """Counts of all substrings of up to `depth` tokens of the stored texts, of which the last one may still grow."""

    def __init__(self, depth: int, capacity: int | None = None) -> None:
        """`capacity`: most tokens of all closed texts together; None: no bound."""
        self.depth, self.capacity, self.root = depth, capacity, SuffixNode(None)
        self.size = 0  # nodes, without the root
        self._tokens: list[int] = []  # all texts, one after the other; position i of them is _tokens[i - _first]
        self._first = 0
        self._lengths: deque[int] = deque()  # of the closed texts
        self._live: list[SuffixNode] = []  # where the suffixes of the growing text end, longest first

    def __len__(self) -> int:
        return len(self._tokens)

    def label(self, node: SuffixNode) -> list[int]:
        """The tokens on a node's edge."""
        stop = node.end - self._first
        return self._tokens[stop - node.length : stop]

    def append(self, token: int) -> None:
        """Let the text grow by a token: each of its suffixes does."""
        self._tokens.append(token)
        self._live = [self._step(node, token) for node in (*self._live, self.root)]
        if len(self._live) == self.depth:  # this one is as long as strings get
            del self._live[0]

    def _step(self, node: SuffixNode, token: int) -> SuffixNode:
        """Count `node`'s string followed by `token`, the newest of all; returns the node of the longer string."""
        end = self._first + len(self._tokens)
        child = node.children.get(token)
        if child is None and node.count == 1:  # the only occurrence, and nothing follows it: its edge grows
            node.length, node.end = node.length + 1, end
            return node
        if child is None:
            child = SuffixNode(node, 1, end)
            node.adopt(token, child)
            self.size += 1
        elif child.length > 1:
            child = self._split(node, token, child)
        child.count, child.ends, child.end = child.count + 1, child.ends + 1, end
        node.ends -= 1
        promote(node.best, child, BREADTH, by_count=True)
        self._compress(node)
        return child

    def _split(self, node: SuffixNode, token: int, child: SuffixNode) -> SuffixNode:
        """Cut the edge to `child` after its first token; returns the new node there."""
        upper = SuffixNode(node, 1, child.end - child.length + 1)
        upper.count = child.count
        node.replace(token, upper)
        child.length -= 1
        upper.adopt(self._tokens[child.end - child.length - self._first], child)
        upper.best.append(child)
        self.size += 1
        return upper

    def _compress(self, node: SuffixNode) -> None:
        """Drop a node that is always followed by the same token: its edge becomes part of its child's."""
        if node.parent is None or node.ends or len(node.children) != 1:
            return
        (child,) = node.children.values()
        child.length += node.length
        node.parent.replace(self.label(child)[0], child)
        self.size -= 1

    def close(self) -> None:
        """The growing text is complete; forget the oldest texts until the capacity holds."""
        self._live = []
        self._lengths.append(len(self._tokens) - sum(self._lengths))
        while self.capacity is not None and len(self._tokens) > self.capacity:
            length = self._lengths.popleft()
            for begin in range(length):
                self._remove(self._tokens[begin : min(begin + self.depth, length)])
            del self._tokens[:length]  # no node points there any more: each has its latest occurrence
            self._first += length

    def _remove(self, string: Sequence[int]) -> None:
        """Subtract one occurrence of a string and of all its beginnings."""
        node, at = self.root, 0
        while at < len(string):
            child = node.children[string[at]]
            child.count -= 1
            if not child.count:
                del node.children[string[at]]
                self.size -= 1
            if child in node.best and node is not self.root:  # nothing is drafted from the root
                node.refresh()
            if not child.count:
                break
            node, at = child, at + child.length
        else:
            node.ends -= 1
        self._compress(node)

    def find(self, string: Sequence[int]) -> Place | None:
        """Where a string ends. None where nothing follows it."""
        node, left, at = self.root, 0, 0
        while at < len(string):
            child = node.children.get(string[at])
            if child is None:
                return None
            used, start = min(child.length, len(string) - at), child.end - child.length - self._first
            if used > 1 and self._tokens[start : start + used] != string[at : at + used]:
                return None
            node, left, at = child, child.length - used, at + used
        return (node, left) if left or node.children else None

    def search(self, text: Sequence[int]) -> dict[int, Place]:
        """Suffixes of `text` that something follows, by length: the longest of them, and others met on the way."""
        found, low, high = dict[int, Place](), 0, min(len(text), self.depth - 1)
        while low < high:  # every shorter one has that property, too
            middle = (low + high + 1) // 2
            if place := self.find(text[len(text) - middle :]):
                low, found[middle] = middle, place
            else:
                high = middle - 1
        return found

    def ending(self) -> dict[int, Place]:
        """All that `search` looks for, of the growing text: there it is known where the suffixes end."""
        return {len(self._live) - i: (node, 0) for i, node in enumerate(self._live) if node.children}

    def draft(
        self, text: Sequence[int], budget: DraftBudget, options: SuffixOptions, found: dict[int, Place] | None = None
    ) -> SuffixDraft:
        """The draft with the best score over all match lengths; just the root where nothing matches.

        `found`: the suffixes of `text` that something follows, if they are known.
        """
        best = SuffixDraft(Nodes(text[-1]))
        found = self.search(text) if found is None else found
        most = {length: self._most(length, budget, options) for length in range(1, max(found, default=0) + 1)}
        for length in sorted(most, key=lambda length: most[length], reverse=True):
            if best.score > most[length] or not most[length]:  # no P is above 1
                break
            if place := found.get(length) or self.find(text[len(text) - length :]):
                draft = self._grow(text[-1], *place, most[length], budget, options.min_prob)
                if draft.score and (draft.score, length) > (best.score, best.match):
                    best = replace(draft, match=length)
        return best

    def _most(self, match: int, budget: DraftBudget, options: SuffixOptions) -> int:
        """How many tokens may be drafted after a match of that length."""
        most = min(int(options.factor * match + 1e-6), budget.max_nodes - 1)
        return min(most, budget.depth, self.depth - match) if budget.topk == 1 else most

    def _grow(
        self, root: int, node: SuffixNode, left: int, most: int, budget: DraftBudget, min_prob: float
    ) -> SuffixDraft:
        """Up to `most` drafts after a match, those of the largest P first: a chain if `topk` is 1."""
        nodes, score, arrivals = Nodes(root), 0.0, count()
        waiting: list[tuple[float, int, int, int, SuffixNode, int]] = []  # -P, -depth, arrival, parent, node, edge left

        def offer(parent: int, node: SuffixNode, prob: float) -> None:
            """The children may follow."""
            for child in node.best[: budget.topk]:
                share = prob * child.count / (node.count - node.ends)
                if share >= min_prob:
                    heappush(waiting, (-share, -nodes.depths[parent], next(arrivals), parent, child, child.length))

        if left:
            waiting.append((-1.0, 0, next(arrivals), 0, node, left))
        else:
            offer(0, node, 1.0)
        while waiting and len(nodes.tokens) <= most:
            minus, depth, _, parent, node, left = heappop(waiting)
            room = min(left, most + 1 - len(nodes.tokens), budget.depth + depth)
            at = node.end - left - self._first
            for token in self._tokens[at : at + room]:  # the whole edge: nothing deeper is as likely
                parent = nodes.add(token, parent)
                score -= minus
            if nodes.depths[parent] < budget.depth:
                offer(parent, node, -minus)
        return SuffixDraft(nodes, score)
