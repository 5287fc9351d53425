"""The distributions of the sampling kernels, exactly: every combination of coins between break points, weighted by its width.

A coin matters only by the interval it falls into, so a finite batch of coins, one a cell, is the whole integral.
"""

from collections import Counter
from itertools import product

import torch
from scipy.stats import chisquare

from specdec_ref.kernels import ops
from specdec_ref.kernels.contract import DraftProbs

KERNEL = ops("triton")
LOGITS = torch.tensor([[0.3, -0.9, 1.1], [1.0, 0.2, -0.4], [-0.5, 0.8, 0.1], [0.0, 0.7, -1.2]])
P = LOGITS.double().softmax(-1)


def cells(weights: torch.Tensor) -> list[tuple[float, float]]:
    """(coin, share) near both ends of each interval between the running sums of these weights."""
    total, start, found = float(weights.sum()), 0.0, []
    for weight in (weights / total).tolist():
        if weight > 0:
            found += [(start + 0.1 * weight, weight / 2), (start + 0.9 * weight, weight / 2)]
        start += weight
    return found


def middles(weights: torch.Tensor) -> list[tuple[float, float]]:
    """(coin, width) of the middle of each interval."""
    ends = (weights / weights.sum()).cumsum(0).tolist()
    return [((low + high) / 2, high - low) for low, high in zip([0.0, *ends], ends, strict=False)]


def test_tree_sample_emits_p() -> None:
    """Root with two children, the first with one: the distribution of the first two tokens is that of plain sampling."""
    tokens, parents = torch.tensor([[0, 2, 0, 1]]), torch.tensor([[-1, 0, 0, 1]])
    links = KERNEL.tree_links(tokens, parents, torch.tensor([0]))
    at_root = middles(torch.stack([P[0, 2], P[0, 0], P[0, 1]]))
    below = middles(torch.stack([P[1, 1], P[1, [0, 2]].sum()]))
    ends = [
        cells(P[0].index_fill(0, torch.tensor([0, 2]), 0.0)), cells(P[1].index_fill(0, torch.tensor([1]), 0.0)),
        cells(P[2]), cells(P[3]),
    ]  # fmt: skip
    grid = [  # every node's own last draw: only the one where the walk ends is looked at
        (root, first, node, end) for root, first in product(at_root, below) for node in range(4) for end in ends[node]
    ]
    coins = torch.tensor([[root[0], first[0], 0.5, 0.5] for root, first, _, _ in grid]).double()
    last = torch.full((len(grid), 4), 0.5).double()
    last[range(len(grid)), [node for _, _, node, _ in grid]] = torch.tensor([end[0] for *_, end in grid]).double()
    size = len(grid)
    walk = KERNEL.tree_sample(
        LOGITS.expand(size, 4, 3),
        tokens.expand(size, 4).contiguous(),
        KERNEL.tree_links(tokens.expand(size, 4), parents.expand(size, 4), torch.zeros(size, dtype=torch.long)),
        coins,
        last,
        1.0,
    )
    assert links.next_token.tolist() == [[1, 3, -1, -1]]
    dist: Counter[tuple[int, ...]] = Counter()
    for (root, first, node, end), path, extra in zip(
        grid, walk.accept_index.tolist(), walk.next_token.tolist(), strict=True
    ):
        kept = [step for step in path if step >= 0]
        if kept[-1] == node:
            dist[(*(int(tokens[0, step]) for step in kept[1:]), extra)] += root[1] * first[1] * end[1]
    assert abs(sum(dist.values()) - 1) < 1e-6
    context = {0: 2, 2: 1}  # first token -> the node that stands for it
    for first in range(3):
        assert abs(sum(w for text, w in dist.items() if text[0] == first) - float(P[0, first])) < 1e-6
        for second in range(3) if first in context else ():
            node = context[first]
            whole = sum(w for text, w in dist.items() if text[:2] == (first, second))
            assert abs(whole - float(P[0, first] * P[node, second])) < 1e-6


def test_chain_reject_emits_p() -> None:
    """Drafts weighted by q, the test's coin at its break point p/q, the residual's at its own."""
    q = torch.tensor([0.5, 0.3, 0.2]).double()
    grid = []
    for draft in range(3):
        ratio = min(1.0, float(P[0, draft] / q[draft]))
        tests = [(ratio / 2, ratio), ((1 + ratio) / 2, 1 - ratio)]
        rest = (P[0] - q).clamp_min(0.0)
        for passed, (coin, width) in enumerate(reversed(tests)):
            for end, share in cells(P[1] if passed else rest) if width > 0 else ():
                grid.append((draft, coin, end, float(q[draft]) * width * share))
    size = len(grid)
    tokens = torch.tensor([[1, draft] for draft, *_ in grid])
    links = KERNEL.tree_links(tokens, torch.tensor([[-1, 0]] * size), torch.zeros(size, dtype=torch.long))
    coins, last = (torch.tensor([[row[i]] * 2 for row in grid]).double() for i in (1, 2))
    dists = DraftProbs([q.float().expand(2, 3).contiguous()] * size)
    walk = KERNEL.chain_reject(LOGITS[:2].expand(size, 2, 3), tokens, links, coins, last, 1.0, None, dists)
    dist = torch.zeros(3).double()
    for (draft, *_, weight), path, extra in zip(
        grid, walk.accept_index.tolist(), walk.next_token.tolist(), strict=True
    ):
        dist[draft if path[1] >= 0 else extra] += weight
    torch.testing.assert_close(dist, P[0], rtol=0, atol=1e-6)


def test_race_draws_p() -> None:
    """Gumbel-max over 600 keys: chi-squared at a fixed seed, so that it passes always or never."""
    size = 600
    tokens = torch.zeros(size, 1, dtype=torch.long)
    links = ops("torch").tree_links(tokens, tokens - 1, tokens[:, 0])
    keys = torch.randint(-(2**62), 2**62, (size,), generator=torch.Generator().manual_seed(5))
    coins = torch.zeros(size, 1).double()
    walk = KERNEL.chain_reject(LOGITS[:1].expand(size, 1, 3), tokens, links, coins, coins, 1.0, None, None, keys)
    assert chisquare(walk.next_token.bincount(minlength=3), size * P[0]).pvalue > 0.01
