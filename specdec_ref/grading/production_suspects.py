"""The wrong answers to exercise 08 that people give, each with the sentence that explains it. They serve `examine`."""

from collections.abc import Callable, Mapping
from typing import Any

from specdec_ref.grading.examine import Suspect

__all__ = ["CHOICES", "FLAGS", "RATES", "READINGS"]

P = "vllm:spec_decode_num_"


def _page(page: Mapping[str, float]) -> tuple[float, float, float, list[float]]:
    """(rounds, proposed, accepted, rounds by position)."""
    name = f"{P}accepted_tokens_per_pos_total"
    places = sorted(int(key.partition('"')[2].rstrip('"}')) for key in page if key.startswith(name))
    counts = [page[f'{name}{{position="{place}"}}'] for place in places]
    return page[f"{P}drafts_total"], page[f"{P}draft_tokens_total"], page[f"{P}accepted_tokens_total"], counts


def _reads(
    tau: Callable[..., float] = lambda r, d, a: 1 + a / r,
    rate: Callable[..., float] = lambda r, d, a: a / d,
    shares: Callable[..., list[float]] | None = None,
) -> Callable[[Mapping[str, float]], Any]:
    """A reader that is right but for what is given."""

    def read(page: Mapping[str, float]) -> Any:
        rounds, proposed, accepted, counts = _page(page)
        own = shares(rounds, proposed, accepted, counts) if shares else [count / rounds for count in counts]
        return tau(rounds, proposed, accepted), rate(rounds, proposed, accepted), own

    return read


def _conditional(r: float, d: float, a: float, counts: list[float]) -> list[float]:
    before = [r, *counts]
    return [count / before[i] if before[i] else 0.0 for i, count in enumerate(counts)]


READINGS = (  # page -> tau, rate, shares
    Suspect("The bonus is forgotten: vLLM's accepted tokens leave out the token that the target adds in every round, "
            "and tau counts it.", _reads(tau=lambda r, d, a: a / r)),
    Suspect("num_drafts is taken for a number of draft tokens. It counts rounds.", _reads(rate=lambda r, d, a: a / r)),
    Suspect("The bonus is counted as an accepted draft. No draft was accepted there; the target wrote it.",
            _reads(rate=lambda r, d, a: (a + r) / d)),
    Suspect("Each position is divided by the one before it. That is the acceptance of a draft once it is tested; asked "
            "for is the share of all rounds.", _reads(shares=_conditional)),
    Suspect("Positions are divided by all accepted tokens, so they sum to one. Asked for is the share of rounds.",
            _reads(shares=lambda r, d, a, counts: [count / a if a else 0.0 for count in counts])),
    Suspect("This is the accept rate plus one. A rate is a share of drafts, tau counts tokens a round.",
            _reads(tau=lambda r, d, a: 1 + a / d)),
)  # fmt: skip

NAMES = ("--speculative-num-steps", "--speculative-eagle-topk", "--speculative-num-draft-tokens")


def _says(make: Callable[[int, int, int | None], Any]) -> Callable[..., Any]:
    """Flags from a function of (depth, topk, nodes); it may return None for a refusal."""

    def run(depth: int, topk: int, nodes: int | None) -> dict[str, int]:
        made = make(depth, topk, nodes)
        if made is None:
            raise ValueError("refused")
        return dict(zip(NAMES, made, strict=True))

    return run


def _most(depth: int, topk: int) -> int:
    return 1 + topk + (depth - 1) * topk**2


def _checked(depth: int, topk: int, nodes: int | None, chain: int) -> Any:
    """Right, but for the nodes of a chain that nobody gave."""
    if nodes is not None and (nodes != depth + 1 if topk == 1 else nodes > _most(depth, topk)):
        return None
    return depth, topk, chain if nodes is None else nodes


FLAGS = (  # (depth, topk, nodes) -> flags, or ValueError
    Suspect("num-draft-tokens is the number of drafts here. It counts the root as well: one more than drafts.",
            _says(lambda d, k, n: _checked(d, k, n, d))),
    Suspect("The steps are one too many: the root is not drafted. num-steps is the depth.",
            _says(lambda d, k, n: (d + 1, k, d + 1 if n is None else n))),
    Suspect("Only chains are checked. A tree of so many steps has no more than 1 + k + (steps - 1) k² nodes.",
            _says(lambda d, k, n: None if k == 1 and n not in (None, d + 1) else (d, k, d + 1 if n is None else n))),
    Suspect("Nothing is refused. A chain of num-steps has num-steps + 1 nodes, and the engine quietly changes any "
            "other number; a tree cannot have more nodes than its steps draft.",
            _says(lambda d, k, n: (d, k, d + 1 if n is None else n))),
    Suspect("A wrong number of nodes is put right in silence, as the engine does it. Asked for is a ValueError: nobody "
            "who wrote 8 wants 4.",
            _says(lambda d, k, n: (d, k, d + 1 if k == 1 or n is None else min(n, _most(d, k))))),
    Suspect("Every tree is refused that is larger than a chain. SGLang verifies trees.",
            _says(lambda d, k, n: None if n not in (None, d + 1) else (d, k, d + 1))),
    Suspect("nodes is passed on without the root: what is asked for counts it, and so does the flag.",
            _says(lambda d, k, n: (d, k, d + 1 if n is None else n + 1))),
)  # fmt: skip


def _picks(
    tau: Callable[..., float] = lambda alive, g: 1 + sum(alive[:g]),
    cost: Callable[..., float] = lambda g, c, v, s: s * (g * c + v(g + 1)) + 1 - s,
    lengths: Callable[..., Any] = lambda alive: range(1, len(alive) + 1),
    stops: bool = True,
) -> Callable[..., tuple[str, int]]:
    """A chooser that is right but for what is given."""

    def pick(drafters: Mapping[str, Any], v: Callable[[int], float], margin: float) -> tuple[str, int]:
        ways = {
            (name, g): tau(alive, g) / cost(g, c, v, s)
            for name, (alive, c, s) in drafters.items()
            for g in lengths(alive)
        }
        best = max(ways, key=lambda way: ways[way])
        return best if ways[best] >= margin or not stops else ("none", 0)

    return pick


CHOICES = (  # (drafters, v, margin) -> name, length
    Suspect("The longest draft is taken, whatever a longer one brings and costs.", _picks(lengths=lambda a: [len(a)])),
    Suspect("Checking is taken to be free: v is left out. It is what ends speculation at a large batch.",
            _picks(cost=lambda g, c, v, s: s * (g * c + 1) + 1 - s)),
    Suspect("Drafting is taken to be free: c is left out.", _picks(cost=lambda g, c, v, s: s * v(g + 1) + 1 - s)),
    Suspect("A round is charged for a draft even where there was none: a round without a match is a plain step.",
            _picks(cost=lambda g, c, v, s: g * c + v(g + 1))),
    Suspect("tau decides alone. More tokens a round are no gain if the round takes longer still.",
            _picks(cost=lambda g, c, v, s: 1.0)),
    Suspect("\"none\" is never the answer. Where the best promises less than the margin, decode plainly.",
            _picks(stops=False)),
    Suspect("v is asked for gamma tokens. A round checks the drafts and the last token of the text: gamma + 1.",
            _picks(cost=lambda g, c, v, s: s * (g * c + v(g)) + 1 - s)),
    Suspect("The target's own token is forgotten in tau: every round brings one, whatever was accepted.",
            _picks(tau=lambda alive, g: sum(alive[:g]))),
    Suspect("Shares of rounds are multiplied as if they were acceptance rates. They are products already.",
            _picks(tau=lambda alive, g: 1 + sum(_products(alive[:g])))),
)  # fmt: skip


def _products(shares: tuple[float, ...]) -> list[float]:
    reached, found = 1.0, []
    for share in shares:
        reached *= share
        found.append(reached)
    return found


def _sum(emitted: list[int]) -> float:
    return float(sum(emitted))


RATES = (  # (emitted, num_draft_tokens) -> length, rate
    Suspect("The rate is cut off at 1. The number is wrong below 1 as well.",
            lambda e, n: (_sum(e) / len(e), min(1.0, _sum(e) / (len(e) * (n - 1))))),
    Suspect("Still the bonus: every round's last token was written by the target, and is no accepted draft.",
            lambda e, n: (_sum(e) / len(e), _sum(e) / (len(e) * (n - 1)))),
    Suspect("The root is counted as a draft: num-draft-tokens counts it, one fewer is drafted. A rate below 1 hides "
            "that bonuses are still among the accepted.", lambda e, n: (_sum(e) / len(e), _sum(e) / (len(e) * n))),
    Suspect("The root is counted as a draft: num-draft-tokens counts it, and one fewer is drafted.",
            lambda e, n: (_sum(e) / len(e), (_sum(e) - len(e)) / (len(e) * n))),
    Suspect("The length lost its bonus. SGLang's accept length counts it; only the rate must not.",
            lambda e, n: ((_sum(e) - len(e)) / len(e), (_sum(e) - len(e)) / (len(e) * (n - 1)))),
)  # fmt: skip
