"""The wrong answers to exercise 02 that people give, each with the sentence that explains it. They serve `examine`.

Those to its verifier are in `rounds.py`.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from specdec_course.checks.examine import Suspect
from specdec_ref.core import DraftTree, Draw, Randomness

__all__ = ["ACCEPTANCE", "CORRECTION", "DRAFTS", "TAU", "certain_chain", "sampled_chain"]

Row = Float[Tensor, " vocab"]
Rows = Float[Tensor, "nodes vocab"]
Drawn = Float[Tensor, "drafts vocab"]

ACCEPTANCE = (  # (p, q, x) -> probability
    Suspect(
        "The ratio has no cap. Where p(x) is larger than q(x) it exceeds 1, and a probability cannot.",
        lambda p, q, x: float(p[x] / q[x]),
    ),
    Suspect(
        "p and q are the wrong way round: this favours words that the draft proposes too often.",
        lambda p, q, x: min(1.0, float(q[x] / p[x])),
    ),
    Suspect(
        "q is left out. p(x) is the rule for a deterministic draft, where q(x) = 1; this word was drawn from q.",
        lambda p, q, x: float(p[x]),
    ),
    Suspect(
        "This is the overlap at x, the probability that x is drafted AND kept. The task asks how likely it is kept, "
        "given that it was drafted.",
        lambda p, q, x: min(float(p[x]), float(q[x])),
    ),
    Suspect(
        "This is rejection sampling: p(x) / (M q(x)), with M the largest ratio. It is a valid way to draw from p if a "
        "rejected word is followed by a new draw from q. With the correction fewer words are rejected: min(1, p/q).",
        lambda p, q, x: float(p[x] / q[x] / (p / q).max()),
    ),
    Suspect(
        "This is the rule of temperature 0: only the target's favourite is kept.",
        lambda p, q, x: float(x == int(p.argmax())),
    ),
    Suspect(
        "This is a threshold instead of a probability: a word is always kept if p(x) is at least q(x), else never.",
        lambda p, q, x: float(p[x] >= q[x]),
    ),
)


def _share(weights: Row) -> Row:
    return weights / weights.sum()


def _in_place(p: Row, q: Row) -> Row:
    p -= q
    return _share(p.clamp_(min=0.0))


_CORRECTION = (  # (p, q) -> distribution
    Suspect(
        "The sum is 0 if p = q, and 0/0 is not a number. Nothing should be rejected then, but rounding may still "
        "bring a program to this line. Return any distribution, for instance p.",
        lambda p, q: _share((p - q).clamp_min(0.0)),
    ),
    Suspect(
        "This is p itself. Words that were drafted too often then get a second chance, but only words that were "
        "drafted too rarely may be drawn here.",
        lambda p, q: p,
    ),
    Suspect(
        "Negative differences stay in. A word that was drafted too often must have weight 0.",
        lambda p, q: p - q,
    ),
    Suspect(
        "This is the absolute difference: a word that was drafted too often must have weight 0.",
        lambda p, q: _share((p - q).abs()),
    ),
    Suspect(
        "p and q are the wrong way round: this draws words that the draft proposed too often already.",
        lambda p, q: _share((q - p).clamp_min(0.0)),
    ),
    Suspect(
        "It is not scaled: the differences sum to the probability of a rejection, not to 1.",
        lambda p, q: (p - q).clamp_min(0.0),
    ),
    *(
        Suspect(
            "A small number is added to the sum, so that nothing is divided by 0. If p = q, all weights are then 0, "
            "and no word can be drawn from them. Return any distribution there, for instance p.",
            lambda p, q, small=small: (p - q).clamp_min(0.0) / ((p - q).clamp_min(0.0).sum() + small),
        )
        for small in (1e-6, 1e-8, 1e-9, 1e-10, 1e-12)
    ),
    Suspect(
        "The words with p > q are the right ones, but their weights are not. The weight of a word is what p has more "
        "than q, p(x) - q(x); here it is p(x).",
        lambda p, q: _share(p * (p > q)) if bool((p > q).any()) else p.clone(),
    ),
    Suspect(
        "Only one word gets any weight. Every word with p(x) > q(x) was drafted too rarely, and has the weight "
        "p(x) - q(x).",
        lambda p, q: torch.nn.functional.one_hot((p - q).argmax(), len(p)).to(p),
    ),
    Suspect(
        "An operation ending in _ or an augmented assignment changes the tensor it is given, so all code that uses p "
        "later gets a wrong distribution. vllm-ascend had this bug (#2881).",
        _in_place,
    ),
)


def _guarded(code: Callable[[Row, Row], Row]) -> Callable[[Row, Row], Row]:
    """The same mistake in code that returns p where p = q, so that nothing is divided by 0."""
    return lambda p, q: p.clone() if torch.equal(p, q) else code(p, q)


CORRECTION = (*_CORRECTION, *(Suspect(each.says, _guarded(each.code)) for each in _CORRECTION[1:]))


def overlaps(p: Rows, q: Drawn) -> list[float]:
    """alpha of each place, by the row that it is tested with."""
    return [float(torch.minimum(a, b).sum()) for a, b in zip(p, q, strict=False)]


def chained(alphas: Sequence[float], start: float = 1.0) -> float:
    """start + a + a b + a b c + ..."""
    total, alive = start, 1.0
    for alpha in alphas:
        alive *= alpha
        total += alive
    return total


TAU = (  # (p, q) -> mean tokens
    Suspect(
        "The target's own token is not counted: every round yields one, bonus or correction.",
        lambda p, q: chained(overlaps(p, q), 0.0),
    ),
    Suspect(
        "The bonus is forgotten: when all drafts pass, the round yields one token more than there are drafts.",
        lambda p, q: chained(overlaps(p, q)[:-1]),
    ),
    Suspect(
        "The rates are added as if every draft were tested. The second is tested only if the first was kept.",
        lambda p, q: 1 + sum(overlaps(p, q)),
    ),
    Suspect(
        "The distance lacks its factor of one half: TV is half the sum of |p - q|.",
        lambda p, q: chained([1 - float((a - b).abs().sum()) for a, b in zip(p, q, strict=False)]),
    ),
    Suspect(
        "The sum of p(x) q(x) is the probability that two independent draws agree. A draft is kept more often.",
        lambda p, q: chained([float((a * b).sum()) for a, b in zip(p, q, strict=False)]),
    ),
    Suspect(
        "The rates of different places are averaged first. A product of means is not the mean of the product.",
        lambda p, q: chained([sum(overlaps(p, q)) / len(q)] * len(q)),
    ),
    Suspect(
        "A draft is compared with the row after its own. Draft i is tested with row i of p.",
        lambda p, q: chained(overlaps(p[1:], q)),
    ),
    Suspect(
        "Only the round in which all drafts pass is counted. A round that ends early yields tokens too.",
        lambda p, q: (len(q) + 1) * (chained(overlaps(p, q)) - chained(overlaps(p, q)[:-1])),
    ),
)

Distribution = Callable[[list[int]], Row]


def sampled_chain(dist: Distribution, text: list[int], gamma: int, rng: Randomness) -> DraftTree:
    """Draw each word from q, and say so: right."""
    return _chain(dist, text, gamma, rng.draw, "iid")


def certain_chain(dist: Distribution, text: list[int], gamma: int, rng: Randomness) -> DraftTree:
    """Take the favourite each time, and call it certain: right as well."""
    return _chain(dist, text, gamma, _favourite, "point")


def _favourite(q: Row) -> int:
    return int(q.argmax())


def _chain(
    dist: Distribution, text: list[int], gamma: int, pick: Callable[[Row], int], says: Draw, stuck: bool = False
) -> DraftTree:
    chain, rows = [text[-1]], []
    for _ in range(gamma):
        rows.append(dist(text if stuck else [*text, *chain[1:]]))
        chain.append(pick(rows[-1]))
    q = torch.stack([*rows, torch.zeros_like(dist(text))]) if says == "iid" else None
    return DraftTree(torch.tensor(chain), torch.arange(-1, gamma), says, q)


DRAFTS = (  # (distribution, text, gamma, rng) -> chain
    Suspect(
        "This drafts as the library did. Compare how the words are chosen with what the tree declares about it: the "
        "ratio p/q is right only for words that are drawn from q.",
        lambda dist, text, gamma, rng: _chain(dist, text, gamma, _favourite, "iid"),
    ),
    Suspect(
        "The words are drawn at random, but the tree declares them as deterministic. The verifier then uses q(x) = "
        "1, and its correction rules out only one word.",
        lambda dist, text, gamma, rng: _chain(dist, text, gamma, rng.draw, "point"),
    ),
    Suspect(
        "Every word is drafted for the same text: the second draft must be computed after the first was appended.",
        lambda dist, text, gamma, rng: _chain(dist, text, gamma, rng.draw, "iid", stuck=True),
    ),
    Suspect(
        "Nothing is drafted any more. That is lossless, but it is no longer speculation.",
        lambda dist, text, gamma, rng: _chain(dist, text, 0, rng.draw, "point"),
    ),
)
