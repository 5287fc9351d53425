"""What a step costs and what a draft buys, from a handful of numbers.

    seconds of a step   = max(bytes moved / bandwidth, FLOP / peak)                 the roofline: whichever takes longer
    bytes moved         = weights + KV cache of every row,    FLOP = 2 * weights * batch * k + attention
    tau of a chain      = 1 + a_1 + a_1 a_2 + ...       = (1 - alpha^(gamma+1)) / (1 - alpha)  where all a_j = alpha
    tau of a tree       = sum over nodes of the products of its path's rank acceptances   (`trees.sequoia`)
    speed-up            = tau / (gamma c + v(gamma + 1) + overhead)

v(k) = T(k) / T(1) is the price of checking k tokens at once, c the price of one draft token, both in plain steps.
Sources: Williams et al. 2009 (roofline); Leviathan et al. 2023, eq. 1 and Thm. 3.8, who take v = 1. Nothing here
runs a model: measured costs come from `calibrate.py`.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any, ClassVar

__all__ = [
    "GPUS", "ExpertShape", "Machine", "ModelShape", "RoundCosts", "VerifyCurve", "best_gamma", "distinct_experts",
    "expected_chain", "expected_tau", "ideal_curve", "speedup",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a model runs: bytes a second from memory, FLOP a second of matrix products."""

    name: str
    bandwidth: float
    peak: float

    def __post_init__(self) -> None:
        if not (self.bandwidth > 0 and self.peak > 0):
            raise ValueError("bandwidth (bytes/s) and peak (FLOP/s) must be positive")

    @property
    def ridge(self) -> float:
        """FLOP a byte at which both take equally long. Below it memory is the limit, above it arithmetic."""
        return self.peak / self.bandwidth


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the cost of a step depends on. `weights`: those read in every step (an untied input embedding is not)."""

    weights: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    bytes_per_weight: float = 2.0
    bytes_per_cached: float = 2.0

    @classmethod
    def of(cls, model: Any, bytes_per_value: float | None = None) -> "ModelShape":
        """The shape of a transformers causal LM (Llama and relatives); bytes from its dtype unless given."""
        config = model.config
        size = float(model.dtype.itemsize) if bytes_per_value is None else bytes_per_value
        weights = sum(weight.numel() for weight in model.parameters())  # a shared matrix is listed once
        if not config.tie_word_embeddings:
            weights -= config.vocab_size * config.hidden_size
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        return cls(weights, config.num_hidden_layers, heads, kv_heads, head_dim, size, size)

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes that one token leaves in the KV cache: a key and a value a layer and KV head."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_cached

    def step_bytes(self, batch: int = 1, k: int = 1, context: int = 0) -> float:
        """Bytes one forward moves: the weights once, whatever batch and k; each row's cache once; its k new entries."""
        return self.weights * self.bytes_per_weight + batch * (context + k) * self.kv_bytes_per_token

    def step_flops(self, batch: int = 1, k: int = 1, context: int = 0) -> float:
        """A multiplication and an addition a weight and token, and two products with the cache in attention."""
        attention = 4 * self.layers * self.heads * self.head_dim * (context + (k + 1) / 2)
        return batch * k * (2 * self.weights + attention)

    def memory_seconds(self, machine: Machine, batch: int = 1, k: int = 1, context: int = 0) -> float:
        """Time to move the bytes."""
        return self.step_bytes(batch, k, context) / machine.bandwidth

    def compute_seconds(self, machine: Machine, batch: int = 1, k: int = 1, context: int = 0) -> float:
        """Time to do the arithmetic."""
        return self.step_flops(batch, k, context) / machine.peak

    def step_seconds(self, machine: Machine, batch: int = 1, k: int = 1, context: int = 0) -> float:
        """The longer of the two: a lower bound, which good kernels come near."""
        return max(self.memory_seconds(machine, batch, k, context), self.compute_seconds(machine, batch, k, context))


def distinct_experts(experts: int, chosen: int, tokens: int) -> float:
    """Expected number of different experts that `tokens` tokens use, if each picks `chosen` of them independently.

    Raises ValueError unless 1 <= chosen <= experts and tokens >= 0.
    """
    if not 1 <= chosen <= experts or tokens < 0:
        raise ValueError(f"need 1 <= chosen <= experts and tokens >= 0, got {chosen} of {experts}, {tokens} tokens")
    return experts * (1 - (1 - chosen / experts) ** tokens)


@dataclass(frozen=True, slots=True)
class ExpertShape(ModelShape):
    """A mixture of experts: of `expert_weights`, a step reads those of the experts that its tokens use.

    `weights` counts all of them. Real tokens share experts more often than independent ones, so this is an upper bound.
    """

    experts: int = 1
    chosen: int = 1
    expert_weights: int = 0

    def __post_init__(self) -> None:
        distinct_experts(self.experts, self.chosen, 1)
        if not 0 <= self.expert_weights <= self.weights:
            raise ValueError(f"expert_weights must be between 0 and all weights, got {self.expert_weights}")

    def step_bytes(self, batch: int = 1, k: int = 1, context: int = 0) -> float:
        """Bytes one forward moves: the experts in use and all else once, each row's cache once."""
        unused = 1 - distinct_experts(self.experts, self.chosen, batch * k) / self.experts
        spared = self.expert_weights * unused * self.bytes_per_weight
        return ModelShape.step_bytes(self, batch, k, context) - spared

    def step_flops(self, batch: int = 1, k: int = 1, context: int = 0) -> float:
        """As in a dense model, without the experts that a token does not use."""
        idle = self.expert_weights * (1 - self.chosen / self.experts)
        return ModelShape.step_flops(self, batch, k, context) - batch * k * 2 * idle


GPUS = {  # inputs of a model, not measurements: bandwidth and dense bfloat16 peak of NVIDIA's data sheets
    "L4": Machine("NVIDIA L4", 300e9, 121e12),
    "L40S": Machine("NVIDIA L40S", 864e9, 362e12),
    "A100": Machine("NVIDIA A100 SXM 80 GB", 2039e9, 312e12),
    "H100": Machine("NVIDIA H100 SXM", 3350e9, 989e12),
    "H200": Machine("NVIDIA H200 SXM", 4800e9, 989e12),
}


def ideal_curve(shape: ModelShape, machine: Machine, batch: int = 1, context: int = 0) -> Callable[[int], float]:
    """v(k) as the roofline has it."""
    one = shape.step_seconds(machine, batch, 1, context)
    return lambda k: shape.step_seconds(machine, batch, k, context) / one


@dataclass(frozen=True, slots=True)
class VerifyCurve:
    """A measured curve: seconds of one forward over k tokens. Called with k it gives v(k), straight between points."""

    seconds: Mapping[int, float]

    def __post_init__(self) -> None:
        if 1 not in self.seconds or not all(k > 0 and t > 0 for k, t in self.seconds.items()):
            raise ValueError("a verify curve needs positive seconds for k = 1 and any further k > 1")

    def __call__(self, k: int) -> float:
        """Raises ValueError outside the measured range: a cost that was not measured is not known."""
        if not 1 <= k <= max(self.seconds):
            raise ValueError(f"v was measured for k from 1 to {max(self.seconds)}, not for {k}")
        return _between(self.seconds, k) / self.seconds[1]


EXTRAS = ("overhead", "row", "cached", "cached_node")  # what of `RoundCosts` is no curve


def _between(points: Mapping[int, float], at: int) -> float:
    """Straight between measured points; behind the last, where arithmetic is the limit, in proportion."""
    known = sorted(points)
    if at >= known[-1]:
        return points[known[-1]] * at / known[-1]
    right = bisect_left(known, at)
    if known[right] == at:
        return points[at]
    low, high = known[right - 1], known[right]
    share = (at - low) / (high - low)
    return (1 - share) * points[low] + share * points[high]


@dataclass(frozen=True, slots=True)
class RoundCosts:
    """What a round takes here, measured in seconds: a forward over n tokens, a draft of so many levels, the rest.

    `overhead`: verifying, committing, counting. `per_row`: what each further row adds to the draft, by levels; empty:
    unknown, and a draft for many rows takes the same share of their step as one row's. A forward of b rows with k nodes
    each multiplies the weights with b k tokens, as in `verify`; besides that, each further row adds `row`, and each row
    adds `cached` + k `cached_node` for every token that its cache holds beyond `CONTEXT`.
    """

    CONTEXT: ClassVar[int] = 128  # cached tokens behind which `verify` is measured

    verify: Mapping[int, float]
    draft: Mapping[int, float]
    overhead: float = 0.0
    per_row: Mapping[int, float] = field(default_factory=dict)
    row: float = 0.0
    cached: float = 0.0
    cached_node: float = 0.0

    def __post_init__(self) -> None:
        VerifyCurve(self.verify)  # refuses the same nonsense
        drafting = [*self.draft.items(), *self.per_row.items()]
        if not (
            self.draft
            and all(getattr(self, name) >= 0 for name in EXTRAS)
            and all(d > 0 and t >= 0 for d, t in drafting)
        ):
            raise ValueError("draft costs need seconds >= 0 for at least one depth >= 1, and an overhead >= 0")

    def forward(self, nodes: int, batch: int = 1, context: float = 0) -> float:
        """Seconds of one forward over `nodes` a row, behind `context` cached tokens a row."""
        beyond = max(0.0, context - self.CONTEXT)
        reading = batch * beyond * (self.cached + nodes * self.cached_node)
        return _between(self.verify, batch * nodes) + (batch - 1) * self.row + reading

    def c(self, depth: int, batch: int = 1, context: float = 0) -> float:
        """Proposing so many levels for every row, in plain steps of that batch."""
        one, step = _between({0: 0.0, **self.draft}, depth), self.forward(1, batch, context)
        if batch == 1:
            return one / step
        if not self.per_row:
            return one / self.verify[1]
        return (one + (batch - 1) * _between({0: 0.0, **self.per_row}, depth)) / step

    def reading(self, tokens: int) -> float:
        """Reading so many tokens before the first guess, in plain steps: as the target's cost of them rises."""
        return self.c(1) * _between(self.verify, tokens) / self.verify[1] if tokens else 0.0

    def round(self, depth: int, nodes: int, batch: int = 1, context: float = 0) -> float:
        """A round in plain steps of that batch and context: draft, verification of `nodes` a row, overhead."""
        step = self.forward(1, batch, context)
        return self.c(depth, batch, context) + (self.forward(nodes, batch, context) + self.overhead) / step

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RoundCosts":
        """The inverse of `to_dict`; JSON has made strings of the keys. Raises ValueError if something is missing."""
        try:
            names = ("verify", "draft", "per_row")
            verify, draft, per_row = ({int(k): float(t) for k, t in values[name].items()} for name in names)
            return cls(verify, draft, per_row=per_row, **{name: float(values[name]) for name in EXTRAS})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no round costs: {error!r}") from error


def expected_chain(acceptance: Sequence[float]) -> float:
    """Mean tokens a round of a chain whose draft j, once it is tested, is accepted with probability acceptance[j]."""
    return 1.0 + sum(accumulate(acceptance, lambda reached, share: reached * share))


def expected_tau(alpha: float, gamma: int) -> float:
    """Mean tokens a round of a chain of gamma drafts, each accepted with probability alpha independently.

    Raises ValueError unless 0 <= alpha <= 1 and gamma >= 0. Source: Leviathan et al. 2023, eq. 1.
    """
    if not 0.0 <= alpha <= 1.0 or gamma < 0:
        raise ValueError(f"alpha must be in [0, 1] and gamma >= 0, got {alpha} and {gamma}")
    return expected_chain([alpha] * gamma)  # equals the fraction above, without 0/0 at alpha = 1


def speedup(tau: float, gamma: int, c: float, v: Callable[[int], float], overhead: float = 0.0) -> float:
    """Plain steps that a round replaces over plain steps that it costs; below 1 drafting loses."""
    return tau / (gamma * c + v(gamma + 1) + overhead)


def best_gamma(
    acceptance: Sequence[float], c: float, v: Callable[[int], float], overhead: float = 0.0
) -> tuple[int, float]:
    """The gamma from 0 to len(acceptance) with the largest speed-up, and that speed-up; 0: do not speculate."""
    gammas = range(len(acceptance) + 1)
    ways = {g: speedup(expected_chain(acceptance[:g]), g, c, v, overhead if g else 0.0) for g in gammas}
    best = max(gammas, key=lambda g: ways[g])
    return best, ways[best]
