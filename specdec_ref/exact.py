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
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from specdec_ref.config import SamplingParams
from specdec_ref.core import Randomness, SupportsState
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.toy import TableLM
from specdec_ref.sampling import warp

__all__ = ["engine_distribution", "outcomes", "table_distribution", "total_variation"]

Result = TypeVar("Result")
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


def total_variation(first: Distribution, second: Distribution) -> float:
    """Half the sum of |difference|: 0 for equal distributions, 1 for disjoint ones."""
    return sum(abs(first.get(text, 0.0) - second.get(text, 0.0)) for text in {*first, *second}) / 2


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
