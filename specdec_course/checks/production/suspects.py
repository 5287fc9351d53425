"""The wrong answers to exercise 08 that people give, each with the sentence that explains it. They serve `examine`."""

from collections.abc import Callable, Mapping
from typing import Any

from specdec_course.checks.examine import Suspect

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
    Suspect("This is the accept rate plus one. A rate is a share of drafts, tau counts tokens per round.",
            _reads(tau=lambda r, d, a: 1 + a / d)),
    Suspect("Positions are divided by proposed tokens. Asked for is the share of rounds.",
            _reads(shares=lambda r, d, a, counts: [count / d for count in counts])),
    Suspect("Positions are sorted as words, so 10 comes before 2.", _reads(shares=lambda r, d, a, counts: [
        counts[place] / r for place in sorted(range(len(counts)), key=str)
    ])),
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


def _limited(depth: int, topk: int, nodes: int | None, most: int) -> Any:
    """Right, but for the largest tree."""
    if topk > 1 and nodes is not None:
        return None if nodes > most else (depth, topk, nodes)
    return _checked(depth, topk, nodes, depth + 1)


def _steps_from_nodes(depth: int, topk: int, nodes: int | None) -> Any:
    made = _checked(depth, topk, nodes, depth + 1)
    return made and (made[2] - 1, topk, made[2])


FLAGS = (  # (depth, topk, nodes) -> flags, or ValueError; of those that explain as much the first is named
    Suspect("A full tree is counted, in which every level has topk times the nodes of the one above. SGLang goes on "
            "with topk nodes of a level only, so from the second level on a step adds topk² at most.",
            _says(lambda d, k, n: _limited(d, k, n, sum(k**i for i in range(d + 1))))),
    Suspect("The largest tree itself is refused: 1 + k + (steps - 1) k² nodes, the root included, are still possible.",
            _says(lambda d, k, n: _limited(d, k, n, _most(d, k) - 1))),
    Suspect("topk nodes a step are counted. Those are the nodes it goes on with; each of them proposes topk children.",
            _says(lambda d, k, n: _limited(d, k, n, 1 + d * k))),
    Suspect("num-draft-tokens is the number of drafts here. It counts the root as well: one more than drafts.",
            _says(lambda d, k, n: _checked(d, k, n, d))),
    Suspect("The steps are one too many: the root is not drafted. num-steps is the depth.",
            _says(lambda d, k, n: (d + 1, k, d + 1 if n is None else n))),
    Suspect("Only chains are checked. A tree of so many steps has no more than 1 + k + (steps - 1) k² nodes.",
            _says(lambda d, k, n: None if k == 1 and n not in (None, d + 1) else (d, k, d + 1 if n is None else n))),
    Suspect("A chain with too few nodes is passed on. A chain of num-steps has num-steps + 1 nodes, and SGLang changes "
            "any other number.",
            _says(lambda d, k, n: None if n is not None and n > _most(d, k) else (d, k, d + 1 if n is None else n))),
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
    Suspect("num-steps is taken from the number of nodes. It is the depth: in a tree the two have nothing to do with "
            "each other.", _says(lambda d, k, n: _steps_from_nodes(d, k, n))),
)  # fmt: skip


def _picks(
    tau: Callable[..., float] = lambda alive, g: 1 + sum(alive[:g]),
    cost: Callable[..., float] = lambda g, c, v, s: s * (g * c + v(g + 1)) + 1 - s,
    lengths: Callable[..., Any] = lambda alive: range(1, len(alive) + 1),
    enough: Callable[[float], float] = lambda margin: margin,
) -> Callable[..., tuple[str, int]]:
    """A chooser that is right but for what is given."""

    def pick(drafters: Mapping[str, Any], v: Callable[[int], float], margin: float) -> tuple[str, int]:
        ways = {
            (name, g): tau(alive, g) / cost(g, c, v, s)
            for name, (alive, c, s) in drafters.items()
            for g in lengths(alive)
        }
        best = max(ways, key=lambda way: ways[way], default=("none", 0))
        return best if ways.get(best, 0.0) >= enough(margin) else ("none", 0)

    return pick


def _last(drafters: Mapping[str, Any], v: Callable[[int], float], margin: float) -> tuple[str, int]:
    """Of the last drafter that promises enough, its best."""
    chosen = ("none", 0)
    for name in drafters:
        own = _picks()({name: drafters[name]}, v, margin)
        chosen = chosen if own[0] == "none" else own
    return chosen


def _averaged(drafters: Mapping[str, Any], v: Callable[[int], float], margin: float) -> tuple[str, int]:
    """The mean of the speed-ups of both kinds of rounds."""
    best, chosen = margin, ("none", 0)
    for name, (alive, c, s) in drafters.items():
        for g in range(1, len(alive) + 1):
            gain = (s + sum(alive[:g])) / (g * c + v(g + 1)) + 1 - s
            best, chosen = (gain, (name, g)) if gain >= best else (best, chosen)
    return chosen


def _shared(drafters: Mapping[str, Any], v: Callable[[int], float], margin: float) -> tuple[str, int]:
    """As if `alive` were of drafting rounds only."""
    return _picks()({n: (tuple(s * a for a in alive), c, s) for n, (alive, c, s) in drafters.items()}, v, margin)


CHOICES = (  # (drafters, v, margin) -> name, length
    Suspect("The margin is not asked for: whatever promises more than 1 is taken.", _picks(enough=lambda margin: 1.0)),
    Suspect("The margin is added to 1. It is the speed-up itself that must reach it: 1.05 means five per cent faster.",
            _picks(enough=lambda margin: 1 + margin)),
    Suspect("Two speed-ups are averaged, that of rounds with a draft and that of the others. Rounds differ in price: "
            "divide mean tokens by mean price.", _averaged),
    Suspect("Drafts are paid for in every round. Where a drafter has nothing to say, there is no draft to pay for.",
            _picks(cost=lambda g, c, v, s: g * c + s * v(g + 1) + 1 - s)),
    Suspect("The longest draft is taken, whatever a longer one brings and costs.", _picks(lengths=lambda a: [len(a)])),
    Suspect("Checking is taken to be free: v is left out. It is what ends speculation at a large batch.",
            _picks(cost=lambda g, c, v, s: s * (g * c + 1) + 1 - s)),
    Suspect("A round pays for one draft. Each of its drafts costs c.",
            _picks(cost=lambda g, c, v, s: s * (c + v(g + 1)) + 1 - s)),
    Suspect("Drafting is taken to be free: c is left out.", _picks(cost=lambda g, c, v, s: s * v(g + 1) + 1 - s)),
    Suspect("A round is charged for a draft even where there was none: a round without a match is a plain step.",
            _picks(cost=lambda g, c, v, s: g * c + v(g + 1))),
    Suspect("tau decides alone. More tokens per round are no gain if the round takes longer still.",
            _picks(cost=lambda g, c, v, s: 1.0)),
    Suspect("\"none\" is never the answer. Where the best promises less than the margin, decode plainly.",
            _picks(enough=lambda margin: 0.0)),
    Suspect("v is asked for gamma tokens. A round checks the drafts and the last token of the text: gamma + 1.",
            _picks(cost=lambda g, c, v, s: s * (g * c + v(g)) + 1 - s)),
    Suspect("The target's own token is forgotten in tau: every round brings one, whatever was accepted.",
            _picks(tau=lambda alive, g: sum(alive[:g]))),
    Suspect("Shares of rounds are multiplied as if they were acceptance rates. They are products already.",
            _picks(tau=lambda alive, g: 1 + sum(_products(alive[:g])))),
    Suspect("The longest length is never tried: a range ends before its end.",
            _picks(lengths=lambda alive: range(1, len(alive)))),
    Suspect("Rounds without a draft cost nothing here. They are plain steps, at a price of 1.",
            _picks(cost=lambda g, c, v, s: s * (g * c + v(g + 1)))),
    Suspect("`alive` is multiplied by `share` once more: it counts all rounds already.", _shared),
    Suspect("Each drafter is judged by itself, and the last that promises enough is kept, not the best.", _last),
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
    Suspect("One bonus is taken off for the whole request. There was one in every verification.",
            lambda e, n: (_sum(e) / len(e), (_sum(e) - 1) / (len(e) * (n - 1)))),
    Suspect("The bonus is counted twice in the length: `emitted` has it already.",
            lambda e, n: (_sum(e) / len(e) + 1, (_sum(e) - len(e)) / (len(e) * (n - 1)))),
)  # fmt: skip
