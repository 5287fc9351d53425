"""Tree drafters for the exact-distribution tests: any shape, any distribution of drawing, from a table whose distribution depends on the context."""

from collections.abc import Sequence
from random import Random

import torch
from drafting import FunctionDrafter
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Draw, Randomness
from specdec_ref.models.toy import TableLM
from specdec_ref.sampling import warp

DRAWS: tuple[Draw, ...] = ("point", "iid", "without_replacement")
FORK, CHAIN, COMB = [-1, 0, 0], [-1, 0, 1], [-1, 0, 0, 1]  # two siblings; two in a row; siblings and a grandchild
TWIG, BUSHY = [-1, 0, 0, 2, 2], [-1, 0, 0, 1, 1, 2]  # siblings below the second child; below both


def drawn_tree(
    shape: Sequence[int], how: Draw, draft: TableLM, text: Sequence[int], sampling: SamplingParams, rng: Randomness
) -> DraftTree:
    """Fill `shape` (parents) node by node. A node for which nothing is left to draw falls away with all below it."""
    vocab = draft.vocab
    tokens, parents, where, ways = [text[-1]], [-1], {0: 0}, [torch.zeros(vocab, dtype=torch.float64)]
    for node, up in enumerate(shape):
        if node == 0 or up not in where:
            continue
        parent = where[up]
        path = DraftTree(torch.tensor(tokens), torch.tensor(parents)).path(parent)
        ways[parent] = q = warp(draft.logits((*text, *(tokens[i] for i in path))), sampling)
        taken = [tokens[i] for i, above in enumerate(parents) if above == parent]
        left = q if how == "iid" else q.index_fill(0, torch.tensor(taken, dtype=torch.long), 0.0)
        if not bool(left.any()):
            continue
        where[node] = len(tokens)
        tokens.append(int(left.argmax()) if how == "point" else rng.draw(left))
        parents.append(parent)
        ways.append(torch.zeros_like(q))
    q_rows: Tensor | None = None if how == "point" else torch.stack(ways)
    return DraftTree(torch.tensor(tokens), torch.tensor(parents), how, q_rows)


def table_trees(shape: Sequence[int], how: Draw, seed: int = 2, order: int = 3) -> FunctionDrafter:
    """Trees of this shape in every round, drawn from a table of its own."""
    draft = TableLM(3, seed=seed, order=order)

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        return drawn_tree(shape, how, draft, text, sampling, rng)

    return FunctionDrafter(propose)


def random_shape(seed: int, drawn: int) -> list[int]:
    """Parents of a random tree with `drawn` nodes below the root, and at least two siblings somewhere."""
    chance = Random(seed)
    while True:
        shape = [-1, *(chance.randrange(node) for node in range(1, drawn + 1))]
        if len(set(shape)) < len(shape):
            return shape
