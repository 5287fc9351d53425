"""The exact output distribution of an engine on a table model, by enumeration: the losslessness oracle.

Every source of chance is a `Randomness`. Here it is one that replays a script of choices and multiplies up their
probabilities; walking all scripts depth first visits every outcome of `SpecEngine.step()`, the very method that users
run, with commit and rollback. No second, analytic distribution of any verifier is needed.

    P(text) = sum over scripts that emit it of  prod_i P(choice_i)          lossless iff  P = prod_t p(x_t | x_<t)

Keep it small: a vocabulary of 3, five drawn nodes at most. After a round, engines with equal state are merged, the
state being all that the next round can depend on: committed text, what the caches really hold, the drafter's
`SupportsState.state`, and the controller, compared by ==. One without an == of its own is never merged: slower, but
never wrong.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from specdec_ref.config import SamplingParams
from specdec_ref.core import Randomness, SupportsState
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.toy import TableLM
from specdec_ref.sampling import warp

__all__ = ["chain_output", "engine_distribution", "outcomes", "table_distribution", "total_variation"]

Result = TypeVar("Result")
Number = TypeVar("Number", Fraction, float)
Text = tuple[int, ...]
Distribution = dict[tuple[int, ...], float]
_ROUNDING = 1e-9


class _State(NamedTuple):
    """An engine between two rounds, and how likely it is to get there."""

    weight: float
    engine: SpecEngine


class _Replay:
    """Follows `script`, then takes the first possible branch each time; `branches` records what was open."""

    def __init__(self, script: Sequence[int], before: Sequence[list[tuple[int, float]]] = ()) -> None:
        self.script, self.before = script, before  # the branches of the outcome before this one, along the script
        self.branches: list[list[tuple[int, float]]] = []  # what could be chosen, with probabilities
        self.taken: list[int] = []  # index into the branches

    def _choose(self, options: list[tuple[int, float]]) -> int:
        possible = _shares(options)
        at = len(self.taken)
        if at < len(self.before) and not _alike(possible, self.before[at]):
            raise ValueError("it asks for another random choice than in the same situation before: it keeps a memory")
        taken = self.script[at] if at < len(self.script) else 0
        self.branches.append(possible)
        self.taken.append(taken)
        return possible[taken][0]

    def accept(self, prob: float) -> bool:
        share = min(1.0, float(prob))  # float: learners pass tensors, and distributions are compared as numbers
        return bool(self._choose([(1, share), (0, 1.0 - share)]))

    def draw(self, weights: Float[Tensor, " n"]) -> int:
        shares = (weights.double() / weights.double().sum()).tolist()
        return self._choose(list(enumerate(shares)))

    @property
    def probability(self) -> float:
        prob = 1.0
        for options, taken in zip(self.branches, self.taken, strict=True):
            prob *= options[taken][1]
        return prob

    def next_script(self) -> list[int] | None:
        """The script of the next outcome in depth-first order; None after the last."""
        script = list(self.taken)
        while script and script[-1] + 1 == len(self.branches[len(script) - 1]):
            script.pop()
        if not script:
            return None
        script[-1] += 1
        return script


def _shares(options: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The possible ones. Their probabilities sum to 1, also where a weight was negative."""
    possible = [(value, prob) for value, prob in options if prob > 0.0]
    if not possible:
        raise ValueError("cannot draw: no outcome has positive weight")
    total = sum(prob for _, prob in possible)
    return possible if abs(total - 1.0) < _ROUNDING else [(value, prob / total) for value, prob in possible]


def _alike(first: list[tuple[int, float]], second: list[tuple[int, float]]) -> bool:
    return len(first) == len(second) and all(
        a == b and abs(p - q) < _ROUNDING for (a, p), (b, q) in zip(first, second, strict=True)
    )


def outcomes(run: Callable[[Randomness], Result]) -> Iterator[tuple[float, Result]]:
    """Every outcome of `run` with its probability; `run` must depend on nothing but the randomness it is given."""
    script: list[int] | None = []
    before: list[list[tuple[int, float]]] = []
    while script is not None:
        rng = _Replay(script, before[: len(script)])
        result = run(rng)
        if len(rng.taken) < len(script):
            raise ValueError("it asks for fewer random choices than in the same situation before: it keeps a memory")
        yield rng.probability, result
        script, before = rng.next_script(), rng.branches


def engine_distribution(engine: SpecEngine, prompt: Sequence[int], tokens: int, rounds: int) -> Distribution:
    """The distribution of the first `tokens` new tokens after at most `rounds` rounds (each emits at least one).

    Texts that are shorter after the last round keep their length. The engine's limits must not end a request sooner.
    """
    fresh = _fork(engine)
    fresh.start([list(prompt)])
    states = [_State(1.0, fresh)]
    dist: Distribution = defaultdict(float)
    for _ in range(rounds):
        merged: dict[Hashable, list[_State]] = defaultdict(list)
        for weight, state in states:
            for prob, after in outcomes(lambda rng, state=state: _stepped(state, rng)):  # type: ignore[misc]
                text = after.requests[0].tokens[len(prompt) :]
                if len(text) >= tokens:
                    dist[tuple(text[:tokens])] += weight * prob
                else:
                    _merge(merged[_key(after)], weight * prob, after)
        states = [state for alike in merged.values() for state in alike]
    for weight, state in states:
        dist[tuple(state.requests[0].tokens[len(prompt) :])] += weight
    return dict(dist)


def table_distribution(model: TableLM, prompt: Sequence[int], tokens: int, sampling: SamplingParams) -> Distribution:
    """The target's own distribution of `tokens` tokens, from the table alone."""
    dist: Distribution = {(): 1.0}
    for _ in range(tokens):
        dist = {
            (*text, token): weight * prob
            for text, weight in dist.items()
            for token, prob in enumerate(warp(model.logits((*prompt, *text)), sampling).tolist())
            if prob > 0.0
        }
    return dist


def chain_output(
    drafts: Mapping[Text, Number],
    tested: Callable[[Text], Sequence[Sequence[Number]]],
    target: Callable[[Text], Sequence[Number]],
    tokens: int,
) -> tuple[dict[Text, Number], Number]:
    """The exact distribution of the first `tokens` tokens, and the mean number of accepted drafts, of one round.

    drafts: how likely each whole draft is, however it was made. tested(draft): the q of each position that is verified;
    fewer rows than the draft has tokens cut it. target(text): p after that text. Tokens after the round come from the
    target itself. Use `fractions.Fraction` throughout for exact numbers.

    The output is the target's if, given all that was used before position i is tested (the drafts before it, the
    coins, whatever chose the draft and its length), x_i has the distribution q_i. Raises ValueError if a draft has
    probability 0 under its own q, or if a q is no distribution.
    """
    zero: Number = 0 * sum(drafts.values(), start=next(iter(drafts.values())))  # of the same kind of number
    emitted: dict[Text, Number] = defaultdict(lambda: zero)
    accepted = zero
    for draft, weight in drafts.items():
        rows = tested(draft) if weight else ()
        for at, q in enumerate(rows):
            before: Text = draft[:at]
            x, p = draft[at], target(before)
            if not q[x]:
                raise ValueError(
                    f"draft {draft} has probability 0 at position {at + 1} of the q that it is tested with"
                )
            stays = min(1 + zero, p[x] / q[x])
            rest = [max(a - b, zero) for a, b in zip(p, q, strict=True)]
            if stays < 1 and not any(rest):
                raise ValueError(f"q sums to {sum(q)} at position {at + 1}: a distribution sums to 1")
            for token, share in enumerate(rest if stays < 1 else ()):
                emitted[*before, token] += weight * (1 - stays) * share / sum(rest)
            weight = weight * stays
            accepted += weight
        emitted[draft[: len(rows)]] += weight
    whole: dict[Text, Number] = defaultdict(lambda: zero)
    for text, weight in emitted.items():
        _continue(whole, text, weight, target, tokens)
    return dict(whole), accepted


def _continue(
    whole: dict[Text, Number], text: Text, weight: Number, target: Callable[[Text], Sequence[Number]], tokens: int
) -> None:
    """Add a text's probability to those of its continuations by the target, or to that of its first tokens."""
    if len(text) >= tokens:
        whole[text[:tokens]] += weight
    elif weight:
        for token, share in enumerate(target(text)):
            _continue(whole, (*text, token), weight * share, target, tokens)


def total_variation(first: Mapping[Text, Number], second: Mapping[Text, Number]) -> Number:
    """Half the sum of |difference|: 0 for equal distributions, 1 for disjoint ones."""
    zero: Number = 0 * next(iter(first.values()))
    gaps = [abs(first.get(text, zero) - second.get(text, zero)) for text in {*first, *second}]
    return sum(gaps, start=zero) / 2


def _stepped(engine: SpecEngine, rng: Randomness) -> SpecEngine:
    """A copy of the engine one round further; all of the round's chance comes from `rng`."""
    after = _fork(engine)
    after.randomness = lambda seed, position, purpose: rng
    after.step()
    return after


def _fork(engine: SpecEngine) -> SpecEngine:
    """A deep copy that shares the models, which no round changes."""
    models = [engine.target.model]
    if isinstance(engine.drafter, DraftModelDrafter):
        models.append(engine.drafter.lm.model)
    shared = {id(model): model for model in models if isinstance(model, nn.Module)}
    return copy.deepcopy(engine, shared)


def _key(engine: SpecEngine) -> Hashable:
    """What the next round depends on, the controller apart."""
    drafter = engine.drafter
    state = drafter.state() if isinstance(drafter, SupportsState) else None
    return tuple(tuple(request.tokens) for request in engine.requests), engine.target.cache.state(), state


def _merge(alike: list[_State], weight: float, engine: SpecEngine) -> None:
    """Add an outcome to the state that it equals, or as a new one."""
    for i, known in enumerate(alike):
        if known.engine.control == engine.control:
            alike[i] = known._replace(weight=known.weight + weight)
            return
    alike.append(_State(weight, engine))
