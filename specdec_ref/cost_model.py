"""What a step costs and what a draft buys, from a handful of numbers.

    seconds of a step   = max(bytes moved / bandwidth, FLOP / peak)                 the roofline: whichever takes longer
    bytes moved         = weights + KV cache of every row,    FLOP = 2 * weights * batch * k + attention
    tau                 = 1 + alpha + ... + alpha^gamma = (1 - alpha^(gamma+1)) / (1 - alpha)
    speed-up            = tau / (gamma c + v(gamma + 1))

v(k) = T(k) / T(1) is the price of checking k tokens at once, c the price of one draft token, both in plain steps.
Sources: Williams et al. 2009 (roofline); Leviathan et al. 2023, eq. 1 and Thm. 3.8, who take v = 1. Nothing here
runs a model: the measured curve comes from `bench.curve`.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Machine", "ModelShape", "VerifyCurve", "expected_tau", "ideal_curve", "speedup"]


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
        known = sorted(self.seconds)
        if not 1 <= k <= known[-1]:
            raise ValueError(f"v was measured for k from 1 to {known[-1]}, not for {k}")
        right = bisect_left(known, k)
        if known[right] == k:
            return self.seconds[k] / self.seconds[1]
        low, high = known[right - 1], known[right]
        share = (k - low) / (high - low)
        return ((1 - share) * self.seconds[low] + share * self.seconds[high]) / self.seconds[1]


def expected_tau(alpha: float, gamma: int) -> float:
    """Mean tokens a round of a chain of gamma drafts, each accepted with probability alpha independently.

    Raises ValueError unless 0 <= alpha <= 1 and gamma >= 0. Source: Leviathan et al. 2023, eq. 1.
    """
    if not 0.0 <= alpha <= 1.0 or gamma < 0:
        raise ValueError(f"alpha must be in [0, 1] and gamma >= 0, got {alpha} and {gamma}")
    return sum(alpha**i for i in range(gamma + 1))  # equals the fraction above, without 0/0 at alpha = 1


def speedup(tau: float, gamma: int, c: float, v: Callable[[int], float]) -> float:
    """Plain steps that a round replaces over plain steps that it costs; below 1 drafting loses."""
    return tau / (gamma * c + v(gamma + 1))
