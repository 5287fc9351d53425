"""Drafters made for tests. Each is a function of the committed text, so nothing in it can fall out of step."""

from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import DraftTree, Randomness, VerifyResult

Propose = Callable[[list[int], DraftBudget, SamplingParams, Randomness], DraftTree]


class FunctionDrafter:
    """A `Drafter` that asks `propose(text, budget, sampling, rng)` for every row's tree."""

    feature_layers: tuple[int, ...] = ()

    def __init__(self, propose: Propose) -> None:
        self.function = propose
        self.text: dict[int, list[int]] = {}

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]], features: Sequence[Tensor] | None) -> None:
        self.text.update({row: list(prompt) for row, prompt in zip(rows, prompts, strict=True)})

    def propose(
        self, rows: Sequence[int], budget: DraftBudget, sampling: SamplingParams, rngs: Sequence[Randomness]
    ) -> list[DraftTree]:
        return [self.function(self.text[row], budget, sampling, rng) for row, rng in zip(rows, rngs, strict=True)]

    def commit(
        self,
        rows: Sequence[int],
        trees: Sequence[DraftTree],
        results: Sequence[VerifyResult],
        features: Sequence[Tensor] | None,
    ) -> None:
        for row, tree, result in zip(rows, trees, results, strict=True):
            self.text[row] += [*(tree.token_list[node] for node in result.path), result.next_token]

    def finish(self, rows: Sequence[int]) -> None:
        for row in rows:
            self.text.pop(row, None)


def tree(tokens: Sequence[int], parents: Sequence[int]) -> DraftTree:
    """A "point" tree."""
    return DraftTree(torch.tensor(list(tokens)), torch.tensor(list(parents)))


def chain(tokens: Sequence[int]) -> DraftTree:
    """A "point" chain; the first token is the root."""
    return tree(tokens, range(-1, len(tokens) - 1))


def oracle_trees(
    answers: Sequence[Sequence[int]], vocab: int, shapes: Sequence[Sequence[int]], seed: int = 0, hit: float = 0.7
) -> FunctionDrafter:
    """Trees of the given shapes (lists of parents), one a round in turn, cut to the budget.

    `answers`: whole texts, prompt and greedy continuation. Node by node, a child on the path that greedy decoding will
    take gets the right token with probability `hit`, and a random one otherwise; so paths are accepted to any depth and
    through any sibling. Siblings are distinct.
    """

    def propose(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
        chance = Random(f"{seed} {text}")
        parents = list(shapes[len(text) % len(shapes)])[: budget.max_nodes]
        ahead = [*_continuation(answers, text), *range(len(parents))]
        tokens, depths, right = [text[-1]], [0], [True]
        for up in parents[1:]:
            taken = {tokens[node] for node, parent in enumerate(parents[: len(tokens)]) if node and parent == up}
            best = ahead[depths[up]]
            lucky = right[up] and best not in taken and chance.random() < hit
            tokens.append(best if lucky else chance.choice([t for t in range(vocab) if t not in taken]))
            depths.append(depths[up] + 1)
            right.append(right[up] and tokens[-1] == best)
        return tree(tokens, parents).cut(budget.depth)

    return FunctionDrafter(propose)


def _continuation(answers: Sequence[Sequence[int]], text: Sequence[int]) -> list[int]:
    """What follows `text` in the answer that begins with it. Raises StopIteration if the text left all of them."""
    return next(list(answer[len(text) :]) for answer in answers if list(answer[: len(text)]) == list(text))


def random_shapes(seed: int, count: int = 7, nodes: int = 9) -> list[list[int]]:
    """`count` random trees of up to `nodes` nodes; bushy ones and deep ones."""
    chance = Random(seed)
    return [
        [-1, *(max(0, node - chance.randint(1, reach)) for node in range(1, chance.randint(2, nodes)))]
        for reach in (chance.randint(1, 4) for _ in range(count))
    ]
