"""Links of a tree: what a kernel walks is the tree, no more and no less."""

import torch
from drafting import chain, tree
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick, tree_parents

from specdec_ref.core import DraftTree
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.trees.links import distinct_children, tree_links
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
    for node, best in enumerate([5, 7, 7, 0, 8]):
        p[node, best] = 1.0
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
