"""Shapes of trees: their links, the fixed ones, those that grow by confidence, and the optimal ones."""

from collections.abc import Sequence
from functools import cache
from random import Random

import pytest
import torch
from drafting import chain, tree
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick, tree_parents

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Draw
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.trees import static
from specdec_ref.trees.dynamic import DynamicGrowth, best
from specdec_ref.trees.growth import Growth, children_of
from specdec_ref.trees.growth import static as static_growth
from specdec_ref.trees.links import distinct_children, tree_links
from specdec_ref.trees.sequoia import expected_tokens, optimal_tree
from specdec_ref.verifiers import GreedyVerifier


@st.composite
def small_trees(draw: st.DrawFn, tokens: int = 4) -> DraftTree:
    """Random shapes over few tokens, so that siblings repeat."""
    parents = draw(tree_parents(9))
    return tree([draw(st.integers(0, tokens - 1)) for _ in parents], parents)


def walk(row: int, child: torch.Tensor, sibling: torch.Tensor, node: int = 0) -> dict[int, list[int]]:
    """Children of every node that the links lead to."""
    found: dict[int, list[int]] = {node: []}
    at = int(child[row, node])
    while at != -1:
        found[node].append(at)
        found |= walk(row, child, sibling, at)
        at = int(sibling[row, at])
    return found


def test_links_by_hand() -> None:
    """0 -> 1, 2; 1 -> 3; 2 -> 4, 5, in a batch with a chain of two: its pads are linked nowhere."""
    links = tree_links([tree([7, 1, 2, 3, 4, 5], [-1, 0, 0, 1, 2, 2]), chain([9, 8])])
    assert links.candidates.tolist() == [[7, 1, 2, 3, 4, 5], [9, 8, 0, 0, 0, 0]]
    assert links.retrieve_index.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert links.retrieve_next_token.tolist() == [[1, 3, 4, -1, -1, -1], [1, -1, -1, -1, -1, -1]]
    assert links.retrieve_next_sibling.tolist() == [[-1, 2, -1, -1, 5, -1], [-1] * 6]


@quick(150)
@given(st.lists(small_trees(), min_size=1, max_size=3))
def test_the_links_lead_to_every_distinct_child_in_order(trees: list[DraftTree]) -> None:
    links = tree_links(trees)
    for row, one in enumerate(trees):
        found = walk(row, links.retrieve_next_token, links.retrieve_next_sibling)
        wanted = distinct_children(one)
        assert found == {node: wanted[node] for node in found}
        spelled = {tuple(one.token_list[n] for n in one.path(node)) for node in range(len(one))}
        assert len(found) == len(spelled)  # one node a distinct text: repeats are merged, nothing else is lost
        assert {tuple(one.token_list[n] for n in one.path(node)) for node in found} == spelled


def test_a_repeat_hands_its_children_to_the_first() -> None:
    """Siblings 1 and 2 are the same token; what was drawn below the second is still found, on its own true path."""
    repeated = tree([0, 5, 5, 6, 7], [-1, 0, 0, 1, 2])
    assert distinct_children(repeated) == [[1], [3, 4], [], [], []]
    p = torch.zeros(5, 9)
    for node, likeliest in enumerate([5, 7, 7, 0, 8]):
        p[node, likeliest] = 1.0
    result = GreedyVerifier()(repeated, p, KeyedRandomness(0, 0, "verify"))
    assert (result.path, result.next_token) == ((2, 4), 8)


@quick(100)
@given(small_trees(), st.integers(0, 99))
def test_a_path_leads_from_the_root_to_its_node(one: DraftTree, pick: int) -> None:
    node = pick % len(one)
    path = one.path(node)
    assert [one.parent_list[n] for n in path] == [0, *path][: len(path)]
    assert path[-1:] == ((node,) if node else ())
    assert len(path) == one.depths[node]


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_fixed_shapes_by_hand() -> None:
    assert static.chain(3) == [-1, 0, 1, 2]
    assert static.k_ary(2, 2) == [-1, 0, 0, 1, 1, 2, 2]
    assert static.k_ary(1, 3) == static.chain(3)
    assert static.choices([(1,), (0,), (0, 0), (0, 0, 0), (1, 0)]) == [-1, 0, 0, 1, 2, 3]
    budget = static.budget_of([-1, 0, 0, 0, 1, 4])
    assert (budget.depth, budget.topk, budget.max_nodes) == (3, 3, 6)
    assert static.budget_of([-1]) == DraftBudget(0, 1, 1)


@pytest.mark.parametrize("paths", [[(1,)], [(0,), (1, 0)], [(0,), (0, 1)], [(-1,)]])
def test_a_choice_that_could_never_be_filled_is_refused(paths: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="needs its parent"):
        static.choices(paths)


def grow(growth: Growth, logits: dict[tuple[int, ...], Sequence[float]], default: Sequence[float]) -> DraftTree:
    """Run a growth on logits that depend on the path's tokens."""
    while growth.nodes.frontier:
        paths = [
            tuple(growth.nodes.tokens[n] for n in growth.nodes.select(range(len(growth.nodes.tokens))).path(node))
            for node in growth.nodes.frontier
        ]
        growth.extend(torch.tensor([logits.get(path, default) for path in paths], dtype=torch.float64))
    return growth.tree()


def shape_of(one: DraftTree) -> set[tuple[int, ...]]:
    return {tuple(one.token_list[n] for n in one.path(node)) for node in range(len(one))}


@pytest.mark.parametrize("how", ["point", "iid", "without_replacement"])
def test_a_static_growth_fills_its_shape(how: Draw) -> None:
    shape = [-1, 0, 0, 1, 1, 2, 3]
    sampling, budget = SamplingParams(1.0), static.budget_of(shape)
    growth = static_growth(shape, how)(5, budget, sampling, KeyedRandomness(1, 0, "draft"), None)
    one = grow(growth, {}, [0.3, 0.1, -0.2, 0.2])
    assert (list(one.parent_list), one.token_list[0], one.drawn) == (shape, 5, how)
    if how == "point":
        assert one.token_list[1:5] == (0, 3, 0, 3)
    else:
        assert one.q is not None
        asked = [node for node in range(len(shape)) if node in shape]
        assert torch.allclose(
            one.q.sum(-1), torch.tensor([float(node in asked) for node in range(len(shape))]).double()
        )
    if how == "without_replacement":
        assert len({one.token_list[n] for n in one.children(0)}) == 2


def test_children_end_where_q_ends() -> None:
    q, rng = torch.tensor([0.5, 0.0, 0.5]), KeyedRandomness(0, 0, "draft")
    assert children_of(q, 3, "point", rng) in ([0, 2], [2, 0])
    assert sorted(children_of(q, 3, "without_replacement", rng)) == [0, 2]
    drawn = children_of(q, 30, "iid", rng)
    assert set(drawn) == {0, 2}
    assert len(drawn) == 30


def test_a_shape_is_cut_by_depth_and_by_confidence() -> None:
    """Below an unsure node nothing grows; the node itself stays."""
    rng, greedy = KeyedRandomness(0, 0, "draft"), SamplingParams(0.0)
    shape = static.k_ary(2, 3)
    cut = grow(static_growth(shape)(0, DraftBudget(2, 2, 15), greedy, rng, None), {}, [1.0, 0.0])
    assert list(cut.parent_list) == static.k_ary(2, 2)
    assert grow(static_growth(shape)(0, DraftBudget(0, 2, 15), greedy, rng, None), {}, [1.0, 0.0]).token_list == (0,)
    sure = grow(static_growth(shape)(0, DraftBudget(3, 2, 15, 0.5), greedy, rng, None), {}, [1.0, 0.0])
    assert shape_of(sure) == {(), (0,), (1,), (0, 0), (0, 1), (0, 0, 0), (0, 0, 1)}


# --- dynamic trees ----------------------------------------------------------------------------------------------------


def test_the_dynamic_tree_by_hand() -> None:
    """Beam 2, depth 2: four candidates at depth 2, of which a rerank to four drafts keeps the two best."""
    log = torch.log
    first, after0, after1 = ([0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.9, 0.05, 0.05])
    tables = {(): first, (0,): after0, (1,): after1}
    logits = {path: log(torch.tensor(how)).tolist() for path, how in tables.items()}
    growth = DynamicGrowth(7, DraftBudget(2, 2, 5), SamplingParams(0.0))
    one = grow(growth, logits, [0.0, 0.0, 0.0])
    assert shape_of(one) == {(), (0,), (1,), (0, 0), (1, 0)}  # .6 .3 .30 .27; (0, 1) has .24
    assert one.drawn == "point"
    assert growth.nodes.read == [0, 1, 2]


def test_tied_parent_and_child_leave_no_orphan() -> None:
    """A child of confidence 1 is worth what its parent is. torch.topk may take the child alone; the stable rule cannot."""
    orphans, chance = 0, Random(0)
    for _ in range(200):
        values = [-chance.random() * 5 for _ in range(810)]
        cut = sorted(values, reverse=True)[59]
        parent = chance.randrange(400)
        child = parent + chance.randrange(1, 400)
        values[parent] = values[child] = cut + 1e-9  # exactly one of the two fits
        values = [value if i in (parent, child) or value != cut else cut - 1.0 for i, value in enumerate(values)]
        kept = best(values, 59)
        assert child not in kept or parent in kept
        assert sorted(values[i] for i in kept) == sorted(sorted(values, reverse=True)[:59])
        plain = set(torch.tensor(values).topk(59).indices.tolist())
        orphans += child in plain and parent not in plain
    assert orphans > 10, "torch.topk no longer shows the bug: this test proves nothing any more"


def test_a_certain_child_is_never_proposed_without_its_parent() -> None:
    """The same, by a growth: everything below the first choice has confidence 1, so whole branches tie."""
    certain = [0.0, -1e9, -1e9, -1e9]
    for nodes in range(1, 9):
        one = grow(DynamicGrowth(9, DraftBudget(6, 3, nodes), SamplingParams(0.0)), {(): [0.0, 0.0, 0.0, 0.0]}, certain)
        assert len(one) == nodes  # DraftTree itself refuses an orphan


@quick(60)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4), st.integers(1, 14))
def test_the_dynamic_tree_keeps_the_best_candidates(seed: int, topk: int, depth: int, nodes: int) -> None:
    """No candidate that was left out is worth more than one that stays, and the budget holds."""
    generator = torch.Generator().manual_seed(seed)
    growth = DynamicGrowth(0, DraftBudget(depth, topk, nodes), SamplingParams(0.0))
    while growth.nodes.frontier:
        assert len(growth.nodes.frontier) <= topk
        growth.extend(2 * torch.randn(len(growth.nodes.frontier), 5, generator=generator))
    one = growth.tree()
    assert len(one) <= nodes
    assert max(one.depths) <= depth
    left = [value for node, value in enumerate(growth.values) if node not in growth.origin]
    assert not left or min(growth.values[node] for node in growth.origin) >= max(left) - 1e-12
    for node, number in enumerate(growth.origin):
        assert one.token_list[node] == growth.nodes.tokens[number]
        assert number in (0, *growth.origin[1:])


# --- Sequoia ----------------------------------------------------------------------------------------------------------


@cache
def all_shapes(nodes: int) -> frozenset[tuple[tuple[int, ...], ...]]:
    """Every ordered tree of exactly that many nodes, as sets of rank paths."""
    if nodes == 1:
        return frozenset({((),)})
    found = set()
    for paths in all_shapes(nodes - 1):
        for path in paths:
            rank = sum(len(other) == len(path) + 1 and other[: len(path)] == path for other in paths)
            found.add(tuple(sorted((*paths, (*path, rank)))))
    return frozenset(found)


@quick(25)
@given(st.data(), st.integers(1, 7), st.integers(0, 4))
def test_the_optimal_tree_equals_brute_force(data: st.DataObject, nodes: int, depth: int) -> None:
    """Every ordered tree of up to seven nodes, acceptance that depends on depth and rank, in any order, zeros included."""
    shares = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.6, 0.9, 1.0])
    acceptance = [data.draw(st.lists(shares, min_size=1, max_size=4)) for _ in range(data.draw(st.integers(1, 3)))]
    parents, tau = optimal_tree(acceptance, nodes, depth)
    assert len(parents) <= nodes
    assert max(tree([0] * len(parents), parents).depths) <= depth
    assert expected_tokens(parents, acceptance) == pytest.approx(tau, abs=1e-12)
    brute = max(
        expected_tokens(static.choices(paths), acceptance)
        for count in range(1, nodes + 1)
        for paths in all_shapes(count)
        if max(map(len, paths)) <= depth
    )
    assert tau == pytest.approx(brute, abs=1e-12)


def test_optimal_trees_by_hand() -> None:
    """A sure first child makes a chain; even chances make a bush; a chain's tau is the geometric sum."""
    assert optimal_tree([[0.9, 0.05]], 4, 9)[0] == static.chain(3)
    assert optimal_tree([[0.3, 0.29, 0.28]], 4, 9)[0] == static.k_ary(3, 1)
    assert optimal_tree([[0.5]], 4, 9) == (static.chain(3), 1 + 0.5 + 0.25 + 0.125)
    assert optimal_tree([[0.9, 0.05]], 4, 1)[0] == [-1, 0, 0]  # no deeper, and no third rank
    assert expected_tokens([-1, 0, 0, 1, 1], [[0.6, 0.2], [0.5, 0.3]]) == pytest.approx(1 + 0.8 + 0.6 * 0.8)


@pytest.mark.parametrize(
    ("acceptance", "nodes", "depth"), [([], 4, 2), ([[1.2]], 4, 2), ([[0.5]], 0, 2), ([[0.5]], 4, -1)]
)
def test_a_bad_acceptance_vector_or_budget_is_refused(acceptance: list[list[float]], nodes: int, depth: int) -> None:
    with pytest.raises(ValueError, match=r"acceptance needs|at least its root"):
        optimal_tree(acceptance, nodes, depth)
