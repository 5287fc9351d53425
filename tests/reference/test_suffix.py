"""Suffix decoding against brute force: every substring of the stored texts counted one by one, no tree anywhere."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from helpers import VOCAB, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from specdec_ref.config import DraftBudget, SamplingParams, SuffixOptions
from specdec_ref.core import DraftTree, Draw
from specdec_ref.drafters.suffix import SuffixDrafter
from specdec_ref.drafters.suffix_tree import BREADTH, Place, SuffixDraft, SuffixNode, SuffixTree
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, table_distribution, total_variation
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM
from specdec_ref.request import Limits

String = tuple[int, ...]
Make = Callable[[int, int | None], SuffixTree]


class Counts:
    """The uncompressed structure: how often every substring occurs, and where it was last seen."""

    def __init__(self, texts: Sequence[Sequence[int]], depth: int) -> None:
        self.count, self.last, position = Counter[String](), dict[String, int](), 0
        self.followed: dict[String, set[int]] = defaultdict(set)
        for text in texts:
            for end in range(1, len(text) + 1):
                position += 1
                for begin in range(max(0, end - depth), end):
                    string = tuple(text[begin:end])
                    self.count[string] += 1
                    self.last[string] = position
                    self.followed[string[:-1]].add(string[-1])

    def ranked(self, string: String) -> list[int]:
        """What followed a string: the most frequent token first, among equals the one seen last."""
        key = lambda token: (self.count[*string, token], self.last[*string, token])  # noqa: E731
        return sorted(self.followed.get(string, ()), key=key, reverse=True)

    def explicit(self) -> dict[String, int]:
        """The strings that a compressed tree has a node for: not always followed by one and the same token."""
        after = {s: [self.count[*s, token] for token in self.followed.get(s, ())] for s in self.count}
        return {s: n for s, n in self.count.items() if after[s] != [n]}

    def draft(self, text: Sequence[int], budget: DraftBudget, options: SuffixOptions) -> tuple[float, int, set[String]]:
        """(score, match length, drafted paths), every match length tried."""
        found = [(0.0, 0, set[String]())]
        for match in range(1, min(len(text), options.max_depth - 1) + 1):
            most = min(int(options.factor * match + 1e-6), budget.max_nodes - 1)
            score, paths = self.grow(tuple(text[-match:]), most, budget, options.min_prob)
            if paths:
                found.append((score, match, paths))
        return max(found, key=lambda each: each[:2])

    def grow(self, suffix: String, most: int, budget: DraftBudget, min_prob: float) -> tuple[float, set[String]]:
        """Best first: a list that is searched for its largest P; of equals the deepest, then the first."""
        waiting, paths, score = [(1.0, String())], set[String](), 0.0
        while waiting and len(paths) < most + 1:
            prob, path = waiting.pop(max(range(len(waiting)), key=lambda i: (waiting[i][0], len(waiting[i][1]), -i)))
            paths.add(path)
            score += prob if path else 0.0
            if len(path) == budget.depth:
                continue
            followed = sum(self.count[*suffix, *path, token] for token in self.followed.get(suffix + path, ()))
            for token in self.ranked(suffix + path)[: min(budget.topk, BREADTH)]:
                share = prob * self.count[*suffix, *path, token] / followed
                if share >= min_prob:
                    waiting.append((share, (*path, token)))
        return score, paths - {()}


def contents(tree: SuffixTree) -> dict[String, int]:
    """string -> count of every node, read by walking down; checks on the way what nodes hold besides."""
    found, stack = dict[String, int](), list[tuple[String, SuffixNode]]([((), tree.root)])
    while stack:
        above, node = stack.pop()
        if node is not tree.root:
            order = sorted(node.children.values(), key=lambda child: child.rank, reverse=True)[:BREADTH]
            assert node.best == order, "the children to draft from are not the best ones"
            assert node.ends == node.count - sum(child.count for child in node.children.values())
        for token, child in node.children.items():
            label = tree.label(child)
            assert len(label) == child.length
            assert label[0] == token
            assert child.parent is node
            string = (*above, *label)
            found[string] = child.count
            stack.append((string, child))
    return found


def paths(draft: SuffixDraft) -> set[String]:
    """The token strings from the root's children down, of every node."""
    tree = draft.nodes.select(range(len(draft.nodes.tokens)))
    found = [tuple(tree.token_list[i] for i in tree.path(node)) for node in range(1, len(tree))]
    assert len(set(found)) == len(found), "the same path stands there twice"
    return set(found)


texts_of = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=5)
chosen_options = st.builds(
    SuffixOptions,
    max_depth=st.integers(2, 7),
    factor=st.sampled_from([0.5, 1.0, 2.0]),
    min_prob=st.sampled_from([0.0, 0.1, 0.4]),
    capacity=st.integers(1, 40),
)
budgets = st.builds(DraftBudget, depth=st.integers(1, 6), topk=st.integers(1, 5), nodes=st.integers(2, 12))


def kept(texts: Sequence[Sequence[int]], capacity: int) -> list[Sequence[int]]:
    """The newest texts that fit."""
    stored: list[Sequence[int]] = []
    for text in texts:
        stored.append(text)
        while sum(map(len, stored)) > capacity:
            del stored[0]
    return stored


def check_counts(make: Make, texts: Sequence[Sequence[int]], depth: int, capacity: int) -> None:
    """After every single token, and after evictions: the compressed tree is that of the brute-force counts."""
    tree = make(depth, capacity)
    for number, text in enumerate(texts):
        for end, token in enumerate(text, 1):
            tree.append(token)
            growing = [*kept(texts[:number], capacity), text[:end]]
            assert contents(tree) == Counts(growing, depth).explicit()
        tree.close()
        now = kept(texts[: number + 1], capacity)
        assert contents(tree) == Counts(now, depth).explicit()
        assert len(tree) == sum(map(len, now)) <= capacity
        assert tree.size == len(contents(tree)) <= 2 * len(tree)


def check_draft(make: Make, texts: Sequence[list[int]], options: SuffixOptions, budget: DraftBudget) -> None:
    """The last text still grows; drafts after it, after a stored text and after a mixture."""
    tree = make(options.max_depth, None)
    for text in texts[:-1]:
        for token in text:
            tree.append(token)
        tree.close()
    for token in texts[-1]:
        tree.append(token)
    counts = Counts(texts, options.max_depth)
    for text, ends in (
        (texts[-1], tree.ending()),
        (texts[-1], None),
        (texts[0], None),
        ([2, 1, 0, *texts[-1][:3]], None),
    ):
        draft = tree.draft(text, budget, options, ends)
        score, match, drafted = counts.draft(text, budget, options)
        assert (draft.match, paths(draft)) == (match, drafted)
        assert draft.score == pytest.approx(score)


@settings(max_examples=150, deadline=None)
@given(texts_of, st.integers(2, 7), st.integers(1, 40))
def test_tree_counts_every_substring_of_the_texts_it_keeps(texts: list[list[int]], depth: int, capacity: int) -> None:
    check_counts(SuffixTree, texts, depth, capacity)


@settings(max_examples=250, deadline=None)
@given(texts_of, chosen_options, budgets)
def test_draft_is_that_of_brute_force(texts: list[list[int]], options: SuffixOptions, budget: DraftBudget) -> None:
    check_draft(SuffixTree, texts, options, budget)


class NeverCompressed(SuffixTree):
    """Planted: nodes with a single continuation stay."""

    def _compress(self, node: SuffixNode) -> None:
        pass


class ForgetsCountAtASplit(SuffixTree):
    """Planted: the upper part starts at zero."""

    def _split(self, node: SuffixNode, token: int, child: SuffixNode) -> SuffixNode:
        upper = super()._split(node, token, child)
        upper.count = 0
        return upper


class EvictsNothingOfTheCounts(SuffixTree):
    """Planted: tokens go, counts stay."""

    def _remove(self, string: Sequence[int]) -> None:
        pass


class EvictsFirstTokensAlone(SuffixTree):
    """Planted: of each suffix, only its first token is subtracted."""

    def _remove(self, string: Sequence[int]) -> None:
        super()._remove(string[:1])


class FindsItsOwnEnd(SuffixTree):
    """Planted: any prefix that can be read will do."""

    def find(self, string: Sequence[int]) -> Place | None:
        return super().find(string) or super().find(string[1:])


class ShortestMatchWins(SuffixTree):
    """Planted: one token is enough."""

    def search(self, text: Sequence[int]) -> dict[int, Place]:
        return {1: place} if (place := self.find(text[-1:])) else {}


class CountsEndsAsContinuations(SuffixTree):
    """Planted: P divides by all occurrences, those at the end of a text included."""

    def _grow(self, *args: Any) -> SuffixDraft:
        nodes, stack = list[tuple[SuffixNode, int]](), [self.root]
        while stack:
            node = stack.pop()
            nodes.append((node, node.ends))
            node.ends = 0
            stack += node.children.values()
        try:
            return super()._grow(*args)
        finally:
            for node, ends in nodes:
                node.ends = ends


@pytest.mark.parametrize("planted", SuffixTree.__subclasses__(), ids=lambda planted: planted.__name__)
def test_planted_bug_is_found(planted: Make) -> None:
    """The same checks on random texts: no bug survives them."""
    chance, found = Random(3), 0
    for _ in range(40):
        texts = [[chance.randrange(3) for _ in range(chance.randint(3, 12))] for _ in range(4)]
        try:
            check_counts(planted, texts, 4, 20)
            check_draft(planted, texts, SuffixOptions(5, 1.0, 0.1), DraftBudget(4, 2, 6))
        except (AssertionError, KeyError, IndexError, ValueError):
            found += 1
    assert found >= 10


def test_match_decides_the_length_and_the_counts_the_token() -> None:
    """After 7 comes 1 twice and 2 once; after "9 7" only 2. The longer match is surer, and may draft two tokens."""
    tree = SuffixTree(8)
    for text in ([7, 1, 3], [7, 1, 4], [9, 7, 2, 5, 6]):
        for token in text:
            tree.append(token)
        tree.close()
    short, long = (tree.draft(text, DraftBudget(9), SuffixOptions(8, factor=1.0)) for text in ([7], [9, 7]))
    assert (short.nodes.tokens, short.match) == ([7, 1], 1)
    assert short.score == pytest.approx(2 / 3)
    assert (long.nodes.tokens, long.match, long.score) == ([7, 2, 5], 2, 2.0)
    wide = tree.draft([7], DraftBudget(3, 2, 9), SuffixOptions(8, factor=2.0))
    assert paths(wide) == {(1,), (2,)} or paths(wide) == {(1,), (1, 4)}


def test_text_never_finds_its_own_end() -> None:
    tree = SuffixTree(8)
    for token in (1, 2, 3):
        tree.append(token)
    assert tree.draft([1, 2, 3], DraftBudget(9), SuffixOptions()).nodes.tokens == [3]


@pytest.mark.parametrize("wrong", [{"max_depth": 1}, {"factor": 0.0}, {"min_prob": 1.5}, {"capacity": 0}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the suffix"):
        SuffixOptions(**wrong)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model()


@pytest.mark.parametrize("budget", [DraftBudget(5), DraftBudget(5, 3, 10)], ids=["chain", "tree"])
def test_greedy_text_is_that_of_plain_decoding(model: nn.Module, budget: DraftBudget) -> None:
    """Alone, in a batch, and in a batch that finds the first answers in the global tree: drafts differ, texts do not."""
    target, limits, chance = Target(model, check=False), Limits(max_new_tokens=24), Random(1)
    prompts = [[chance.randrange(VOCAB) for _ in range(n)] for n in (3, 14, 5)]
    plain = SpecEngine(target, SuffixDrafter(), budget=DraftBudget(0), limits=limits)
    wanted = [plain.generate([prompt])[0].tokens for prompt in prompts]
    drafter = SuffixDrafter()
    engine = SpecEngine(target, drafter, budget=budget, limits=limits)
    first, again = engine.generate(prompts), engine.generate(prompts[::-1])
    assert [done.tokens for done in first] == wanted
    assert [done.tokens for done in again[::-1]] == wanted
    assert not drafter._local, "finished requests are still there"
    rounds = [sum(done.stats.rounds for done in group) for group in (first, again)]
    assert rounds[1] < rounds[0], "the second time every answer is in the global tree: it must need fewer rounds"
    drafter.forget()
    assert sum(done.stats.rounds for done in engine.generate(prompts)) == rounds[0]


def distance(kind: type[SuffixDrafter], sampling: SamplingParams, budget: DraftBudget) -> float:
    """Total variation between three emitted tokens, by enumeration through step(), and what the target says."""
    table, prompt = TableLM(3, seed=1), [0, 1, 2, 0, 1]
    drafter = kind(SuffixOptions(max_depth=5, factor=2.0))
    for token in (0, 1, 1, 2, 0, 2, 1, 0, 1, 2, 2, 0):
        drafter.everyone.append(token)
    drafter.everyone.close()
    engine = SpecEngine(Target(table), drafter, budget=budget, sampling=sampling, limits=Limits(max_new_tokens=50))
    emitted = engine_distribution(engine, prompt, 3, 3)
    return total_variation(emitted, table_distribution(table, prompt, 3, sampling))


@pytest.mark.parametrize("budget", [DraftBudget(2), DraftBudget(2, 2, 6)], ids=["chain", "tree"])
@pytest.mark.parametrize("sampling", [SamplingParams(1.0), SamplingParams(0.7, top_k=2), SamplingParams()])
def test_output_distribution_is_exact(sampling: SamplingParams, budget: DraftBudget) -> None:
    """With an answer in the global tree."""
    assert distance(SuffixDrafter, sampling, budget) < 1e-12


class ArgmaxWithTheCountsAsQ(SuffixDrafter):
    """Planted: the most frequent token is drafted, and the shares of the counts are passed on as the q it came from."""

    how: Draw = "iid"

    def propose(self, *args: Any) -> list[DraftTree]:
        """q: 0.6 for the token that was drafted, 0.2 for each of the two others."""
        return [replace(tree, drawn=self.how, q=self.shares(tree)) for tree in super().propose(*args)]

    @staticmethod
    def shares(tree: DraftTree) -> Tensor:
        rows = torch.full((len(tree), 3), 0.2, dtype=torch.float64)
        for node in range(len(tree)):
            for child in tree.children(node)[:1]:
                rows[node, tree.token_list[child]] = 0.6
        return rows


class TreeWithTheCountsAsQ(ArgmaxWithTheCountsAsQ):
    """Planted: the same on a tree, whose siblings are said to be drawn one after the other."""

    how = "without_replacement"


@pytest.mark.parametrize(
    ("planted", "budget"),
    [(ArgmaxWithTheCountsAsQ, DraftBudget(2)), (TreeWithTheCountsAsQ, DraftBudget(2, 2, 6))],
)
def test_wrong_output_distribution_is_noticed(planted: type[SuffixDrafter], budget: DraftBudget) -> None:
    assert distance(planted, SamplingParams(1.0), budget) > 0.01


class HearsRunningRequests(SuffixDrafter):
    """Planted: tokens enter the global tree as soon as they are committed."""

    def extend(self, row: int, tokens: Sequence[int]) -> None:
        super().extend(row, tokens)
        for token in tokens:
            self.everyone.append(token)


def heard(model: nn.Module, drafter: SuffixDrafter) -> list[tuple[int, int]]:
    """(tokens in the global tree, tokens of the answers that are over) after each round of three requests, two alike."""
    limits = Limits(max_new_tokens=24)
    engine = SpecEngine(Target(model, check=False), drafter, budget=DraftBudget(5), limits=limits)
    requests, found = engine.start([[1, 2, 3], [1, 2, 3], [7, 8]]), list[tuple[int, int]]()
    while engine.requests:
        engine.step()
        over = [request for request in requests if request.finish_reason]
        found.append((len(drafter.everyone), sum(len(request.result().tokens) for request in over)))
    return found


def test_global_tree_holds_only_answers_of_finished_requests(model: nn.Module) -> None:
    """Two equal requests run side by side: neither may draft from what the other has just emitted."""
    rounds = heard(model, SuffixDrafter())
    assert all(stored == over for stored, over in rounds)
    assert rounds[0] == (0, 0)
    assert rounds[-1][0] == 72
    assert any(stored != over for stored, over in heard(model, HearsRunningRequests()))


def test_answers_beyond_the_capacity_leave_the_global_tree() -> None:
    """Five answers of twenty tokens, room for fifty: the last two stay, and no node of the others."""
    drafter, chance = SuffixDrafter(SuffixOptions(capacity=50)), Random(2)
    answers = [[chance.randrange(4) for _ in range(20)] for _ in range(5)]
    for row, answer in enumerate(answers):
        drafter.start([row], [[9, 9]], None)
        drafter.extend(row, answer)
        drafter.finish([row])
    assert contents(drafter.everyone) == Counts(answers[-2:], 24).explicit()
    drafter.start([9], [[9, 9]], None)
    drafter.extend(9, [5] * 60)
    drafter.finish([9])
    assert contents(drafter.everyone) == Counts([[5] * 50], 24).explicit()
