"""The shared n-gram trie against brute force: raw streams scanned from front to back, no tree anywhere."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from helpers import VOCAB, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from specdec_ref.config import DraftBudget, SamplingParams, TrieOptions
from specdec_ref.drafters.trie import NgramTrie, Node, TrieDraft, TrieDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.request import Limits

Gram = tuple[int, ...]
WIDE = DraftBudget(99, 99, 9999)


def paths(draft: TrieDraft) -> set[Gram]:
    """The token strings from the root's children down, of every node."""
    tree = draft.nodes.select(range(len(draft.nodes.tokens)))
    return {tuple(tree.token_list[i] for i in tree.path(node)) for node in range(1, len(tree))}


@dataclass
class Streams:
    """Several texts that grow in turns, a trie that follows them, and all that a reference needs: who said what when."""

    options: TrieOptions
    texts: dict[int, list[int]] = field(default_factory=dict)
    times: dict[int, list[int]] = field(default_factory=dict)
    now: int = 0

    def __post_init__(self) -> None:
        self.trie = NgramTrie(self.options)
        self.suffixes: dict[int, list[Node]] = {}

    def say(self, who: int, token: int) -> None:
        self.now += 1
        self.texts.setdefault(who, []).append(token)
        self.times.setdefault(who, []).append(self.now)
        self.suffixes[who] = self.trie.follow(self.suffixes.get(who, []), token)

    def followers(self, gram: Gram) -> dict[int, tuple[int, int]]:
        """token -> (how often it followed the gram, when last): by looking at every place of every text."""
        counts, last = Counter[int](), dict[int, int]()
        for who, text in self.texts.items():
            for end in range(len(gram), len(text)):
                if tuple(text[end - len(gram) : end]) == gram:
                    counts[text[end]] += 1
                    last[text[end]] = max(last.get(text[end], 0), self.times[who][end])
        return {token: (counts[token], last[token]) for token in counts}

    def ranked(self, gram: Gram) -> list[tuple[int, int]]:
        """(token, count) of the children to consider, best first."""
        found = self.followers(gram)
        key = {"bfs": lambda t: found[t][1], "prob": lambda t: found[t]}[self.options.match]
        order = sorted(found, key=key, reverse=True)[: self.options.max_breadth]
        return [(token, found[token][0]) for token in order if len(gram) < self.options.max_depth]

    def grams(self, who: int) -> Iterator[Gram]:
        """Every suffix of a text that could be a path, longest first."""
        text = self.texts[who]
        for length in range(min(len(text), self.options.max_depth), 0, -1):
            yield tuple(text[-length:])


def everything(streams: Streams, who: int) -> set[Gram]:
    """All that ever followed any suffix, as far as the depth allows: the tree without limits."""
    found: set[Gram] = set()
    for suffix in streams.grams(who):
        level: list[Gram] = [()]
        while level:
            level = [(*path, token) for path in level for token, _ in streams.ranked((*suffix, *path))]
            found |= set(level)
    return found


def reference(streams: Streams, who: int, budget: DraftBudget) -> set[Gram]:
    """The tree within all limits, by scanning: a list that is searched for its best entry, paths as tuples."""
    o, kept = streams.options, set[Gram]()

    def put(path: Gram) -> bool:
        siblings = [other for other in kept if other[:-1] == path[:-1] and len(other) == len(path)]
        fits = len(kept) < budget.max_nodes - 1 and len(siblings) < budget.topk and len(path) <= budget.depth
        if path not in kept and fits:
            kept.add(path)
        return path in kept

    for suffix in streams.grams(who):
        waiting: list[tuple[float, Gram]] = [(1.0, ())]  # nodes to expand (bfs), or to place (prob)
        while waiting and len(kept) < budget.max_nodes - 1:
            at = max(range(len(waiting)), key=lambda i: (waiting[i][0], -i)) if o.match == "prob" else 0
            share, path = waiting.pop(at)
            if o.match == "prob" and path and not put(path):
                continue
            children = streams.ranked((*suffix, *path))
            if o.match == "prob":
                total = sum(count for _, count in children)
                waiting += [(share * count / total, (*path, token)) for token, count in children]
                continue
            level = o.max_depth - 1 - len(suffix) - len(path)
            breadth = max(1, int(o.min_breadth + (o.max_breadth - o.min_breadth) / max(1, o.max_depth - 1) * level))
            waiting += [(1.0, (*path, token)) for token, _ in children[:breadth] if put((*path, token))]
    return kept


streams_of = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=40)
options = st.builds(
    TrieOptions,
    match=st.sampled_from(["bfs", "prob"]),
    max_depth=st.integers(2, 6),
    min_breadth=st.integers(1, 2),
    max_breadth=st.integers(2, 4),
)
budgets = st.builds(DraftBudget, depth=st.integers(0, 5), topk=st.integers(1, 4), nodes=st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(streams_of, st.sampled_from(["bfs", "prob"]), st.integers(2, 6))
def test_without_limits_the_paths_are_all_that_ever_followed(
    said: list[tuple[int, int]], match: str, depth: int
) -> None:
    streams = Streams(TrieOptions(match, depth, 9, 9))
    for who, token in said:
        streams.say(who, token)
    for who, suffixes in streams.suffixes.items():
        draft = streams.trie.draft(streams.texts[who][-1], suffixes, WIDE)
        assert paths(draft) == everything(streams, who)
        assert len(paths(draft)) == len(draft.source) - 1, "the same path stands there twice"


@settings(max_examples=100, deadline=None)
@given(streams_of, options, budgets)
def test_within_limits_the_paths_are_those_of_brute_force(
    said: list[tuple[int, int]], chosen: TrieOptions, budget: DraftBudget
) -> None:
    streams = Streams(chosen)
    for who, token in said:
        streams.say(who, token)
    for who, suffixes in streams.suffixes.items():
        draft = streams.trie.draft(streams.texts[who][-1], suffixes, budget)
        assert paths(draft) == reference(streams, who, budget)


class Bounded:
    """Eviction by brute force: a table n-gram -> (count, last use); the leaf that was used longest ago goes."""

    def __init__(self, depth: int, capacity: int) -> None:
        self.depth, self.capacity, self.now = depth, capacity, 0
        self.table: dict[Gram, tuple[int, int]] = {}

    def say(self, text: Sequence[int], live: set[int]) -> set[int]:
        """`live`: lengths of the suffixes known before the last token, and still kept; returns those known now."""
        kept = [n for n in sorted(live, reverse=True) if tuple(text[-1 - n : -1]) in self.table]
        lengths = [n + 1 for n in kept if n < self.depth]
        for n in [*lengths, 1]:
            self.now += 1
            gram = tuple(text[-n:])
            self.table[gram] = (self.table.get(gram, (0, 0))[0] + 1, self.now)
        while len(self.table) > self.capacity:
            inner = {gram[:-1] for gram in self.table}
            del self.table[min((g for g in self.table if g not in inner), key=lambda g: self.table[g][1])]
        return {*lengths, 1}


def contents(trie: NgramTrie) -> dict[Gram, tuple[int, int]]:
    """n-gram -> (count, last use), read by walking down; checks on the way what a node says of itself."""
    found, stack = dict[Gram, tuple[int, int]](), [((), trie.root)]
    while stack:
        gram, node = stack.pop()
        assert all(child.parent is node and token == child.token for token, child in node.children.items())
        best = sorted(node.children.values(), key=trie._rank, reverse=True)[: trie.options.max_breadth]
        assert node.best == best, "the children to propose are not the best ones"
        for token, child in node.children.items():
            found[*gram, token] = (child.count, child.used)
            stack.append(((*gram, token), child))
    return found


@settings(max_examples=100, deadline=None)
@given(streams_of, st.sampled_from(["bfs", "prob"]), st.integers(2, 5), st.integers(5, 25), st.integers(1, 3))
def test_eviction_is_that_of_brute_force(
    said: list[tuple[int, int]], match: str, depth: int, capacity: int, breadth: int
) -> None:
    trie, table = NgramTrie(TrieOptions(match, depth, 1, breadth, capacity)), Bounded(depth, capacity)
    texts: dict[int, list[int]] = {}
    suffixes: dict[int, list[Node]] = {}
    live: dict[int, set[int]] = {}
    for who, token in said:
        texts.setdefault(who, []).append(token)
        known = {node.depth for node in suffixes.get(who, []) if node.parent is not None}
        suffixes[who] = trie.follow(suffixes.get(who, []), token)
        live[who] = table.say(texts[who], known)
        assert len(trie) == len(table.table) <= capacity
        assert contents(trie) == table.table


def test_a_request_that_slept_while_its_nodes_were_evicted_goes_on() -> None:
    trie = NgramTrie(TrieOptions(max_depth=3, capacity=6))
    early = trie.insert([1, 2, 3])
    trie.insert([7, 8, 9, 7, 8, 9])
    assert all(node.parent is None for node in early), "they should be gone"
    late = trie.follow(early, 4)
    assert [node.depth for node in late] == [1]
    assert len(trie) <= 6


def test_a_text_never_finds_its_own_end() -> None:
    trie = NgramTrie()
    assert paths(trie.draft(3, trie.insert([1, 2, 3]), WIDE)) == set()


def test_recency_prefers_the_last_and_frequency_the_most() -> None:
    text = [1, 2, 1, 2, 1, 3, 1]
    for match, first in (("bfs", 3), ("prob", 2)):
        drafter = TrieDrafter(TrieOptions(match))
        drafter.start([0], [text], None)
        assert drafter.draft(0, DraftBudget(1)).nodes.tokens == [1, first]


@pytest.mark.parametrize(
    "wrong",
    [{"match": "dfs"}, {"max_depth": 1}, {"min_breadth": 0}, {"min_breadth": 3, "max_breadth": 2}, {"capacity": 5}],
)
def test_nonsense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="the trie's"):
        TrieOptions(**wrong)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model()


@pytest.mark.parametrize(("match", "budget"), [("bfs", DraftBudget(5)), ("prob", DraftBudget(5, 3, 10))])
def test_greedy_text_does_not_depend_on_who_else_is_there(model: nn.Module, match: str, budget: DraftBudget) -> None:
    """Alone, in a batch, and in a batch that finds what the first one said: drafts differ, texts do not."""
    target, limits, chance = Target(model, check=False), Limits(max_new_tokens=24), Random(1)
    prompts = [[chance.randrange(VOCAB) for _ in range(n)] for n in (3, 14, 5)]
    plain = SpecEngine(target, TrieDrafter(), budget=DraftBudget(0), limits=limits)
    wanted = [plain.generate([prompt])[0].tokens for prompt in prompts]
    drafter = TrieDrafter(TrieOptions(match))
    engine = SpecEngine(target, drafter, budget=budget, limits=limits)
    first, again = engine.generate(prompts), engine.generate(prompts[::-1])
    assert [done.tokens for done in first] == wanted
    assert [done.tokens for done in again[::-1]] == wanted
    rounds = [sum(done.stats.rounds for done in group) for group in (first, again)]
    assert rounds[1] < rounds[0], "the second time everything is known: it must need fewer rounds"
    drafter.forget()
    assert sum(done.stats.rounds for done in engine.generate(prompts)) == rounds[0]


@pytest.mark.parametrize("sampling", [SamplingParams(1.0), SamplingParams(0.7, top_k=2), SamplingParams()])
@pytest.mark.parametrize("match", ["bfs", "prob"])
def test_the_distribution_is_the_target_s(sampling: SamplingParams, match: str) -> None:
    """By enumeration through step(), with a trie that knows a text beforehand."""
    table, prompt = TableLM(3, seed=1), [0, 1, 2, 0, 1]
    drafter = TrieDrafter(TrieOptions(match, max_depth=4))
    drafter.warm([0, 1, 1, 2, 0, 2, 1, 0, 1, 2, 2, 0])
    engine = SpecEngine(
        Target(table), drafter, budget=DraftBudget(2, 2, 6), sampling=sampling, limits=Limits(max_new_tokens=50)
    )
    emitted = engine_distribution(engine, prompt, 3, 3)
    assert total_variation(emitted, table_distribution(table, prompt, 3, sampling)) < 1e-12
