"""Self-checks of exercise 01: a step's bytes and FLOP, the roofline, a KV calculator with bugs, speed-up, draft length.

What is right is counted, not computed by the formula that is asked for: tensors of a model's shape without contents,
PyTorch's own FLOP counter, a cache that is laid out tensor by tensor, and all courses that a round can take.
"""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from specdec_course.checks.bottleneck import suspects as wrong
from specdec_course.checks.examine import CLOSE, Trial, Trouble, attempt, examine, numbers, unaided
from specdec_course.checks.report import Report
from specdec_ref import cost_model
from specdec_ref.core import Randomness
from specdec_ref.cost_model import VerifyCurve
from specdec_ref.exact import outcomes

__all__ = ["Step", "gamma", "kv_bytes", "roofline", "speedup", "step"]

Step = tuple[torch.dtype, int, int, int]  # dtype, texts, tokens of each, tokens that each has in the cache

LAYERS, WIDTH, KV_WIDTH = 6, 512, 128
STEPS: tuple[Step, ...] = (
    (torch.float32, 1, 1, 0),
    (torch.float32, 1, 8, 0),
    (torch.bfloat16, 8, 1, 100),
    (torch.bfloat16, 8, 4, 1000),
)


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor that has a shape and a dtype, and no contents."""
    return torch.empty(*shape, dtype=dtype, device="meta")


def size(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def counted(texts: int, k: int, context: int, dtype: torch.dtype) -> tuple[int, int]:
    """(bytes, FLOP) of one forward of a toy model: its weights, its cache laid out text by text, its products run."""
    weights = [empty(WIDTH, WIDTH, dtype=dtype) for _ in range(LAYERS)]
    cache = [empty(2, context + k, KV_WIDTH, dtype=dtype) for _ in range(LAYERS * texts)]
    state = empty(texts * k, WIDTH, dtype=dtype)
    with FlopCounterMode(display=False) as counter:
        for weight in weights:
            state = state @ weight
    return size(weights) + size(cache), counter.get_total_flops()


def against(value: float, right: float, unit: str) -> tuple[bool, str]:
    """Whether it is right and, if not, by how much it is off."""
    gave = f"it gave {value:,.0f} {unit}" if abs(value) >= 1 else f"it gave {value:.3g} {unit}"
    if abs(value - right) <= CLOSE * abs(right):
        return True, f"{gave}, as counted"
    if not value > 0:
        return False, gave
    factor = max(value / right, right / value)
    off = f"by a factor of {factor:.3g}" if factor > 1.5 else f"by {abs(value / right - 1):.2%}"
    return False, f"{gave}, too {'many' if value > right else 'few'} {off}"


def step(function: Callable[..., tuple[float, float]], steps: Sequence[Step] = STEPS) -> Report:
    """Of `function(weights, size, texts, k, context, kv)`: bytes that one forward moves, and its FLOP."""

    def trial(which: int, case: Step, right: float) -> Trial:
        dtype, texts, k, context = case
        given = LAYERS * WIDTH**2, dtype.itemsize, texts, k, context, 2 * LAYERS * KV_WIDTH * dtype.itemsize
        unit = ("bytes", "FLOP")[which]
        asks = f"{unit}: {texts} text{'s' * (texts > 1)} x {k} token{'s' * (k > 1)}, {context:,} cached for each text"
        return Trial(
            f"{asks}, {dtype.itemsize} bytes per number",
            lambda code: numbers(attempt(code, *given), 2)[which],
            lambda value: against(value, right, unit),
        )

    rights = [counted(texts, k, context, dtype) for dtype, texts, k, context in steps]
    trials = [trial(which, case, right[which]) for which in (0, 1) for case, right in zip(steps, rights, strict=True)]
    return examine("Task 1, a step", function, trials, wrong.STEPS)


Load = tuple[float, float, float, float]  # bytes, FLOP, bytes a second, FLOP a second

LOADS: tuple[Load, ...] = ((16e9, 16e9, 2e12, 300e12), (16e9, 8e12, 2e12, 300e12), (1e9, 5e8, 2e12, 300e12))


def roofline(function: Callable[..., tuple[float, str]], loads: Sequence[Load] = LOADS) -> Report:
    """Of `function(moved, work, bandwidth, peak)`: seconds of a step, and "memory" or "arithmetic"."""

    def outcome(load: Load) -> Callable[[Any], tuple[float, str]]:
        def run(code: Any) -> tuple[float, str]:
            came = attempt(code, *load)
            if not isinstance(came, tuple | list) or len(came) != 2 or not isinstance(came[1], str):
                raise Trouble(f"it returned {came!r}, and seconds and a word were expected")
            return numbers(came[0], 1)[0], came[1]

        return run

    trials = []
    for load in loads:
        about = "{:,.0f} GB, {:,.0f} GFLOP; {:,.0f} GB/s, {:,.0f} GFLOP/s".format(*(number / 1e9 for number in load))
        side = _limit(load) == "memory"  # where `moved / bandwidth, "memory"` is right
        trials.append(Trial(f"Seconds ({about})", outcome(load), _takes_as_long(load), side=side))
        trials.append(Trial(f"The limit ({about})", outcome(load), _names_the_limit(load), weight=0.5, side=side))
    return examine("Task 2, the roofline", function, trials, wrong.ROOFLINES)


def _takes_as_long(load: Load) -> Callable[[Any], tuple[bool, str]]:
    moved, work, bandwidth, peak = load
    parts = {"moving the bytes": moved / bandwidth, "the arithmetic": work / peak}

    def judge(came: tuple[float, str]) -> tuple[bool, str]:
        seconds = came[0]
        gave = f"it gave {1e3 * seconds:.4g} ms"
        for name, alone in parts.items():
            if seconds < alone * (1 - CLOSE):
                return False, f"{gave}, and {name} alone takes longer"
        longer = max(parts.values())
        right = abs(seconds - longer) <= CLOSE * longer
        return right, gave if right else f"{gave}: the machine would be idle for part of that time"

    return judge


def _limit(load: Load) -> str:
    moved, work, bandwidth, peak = load
    return "memory" if moved / bandwidth > work / peak else "arithmetic"


def _names_the_limit(load: Load) -> Callable[[Any], tuple[bool, str]]:
    """By what helps: the limit is what would make the step shorter if there were more of it."""
    limit = _limit(load)

    def judge(came: tuple[float, str]) -> tuple[bool, str]:
        word = came[1]
        if word not in ("memory", "arithmetic"):
            return False, f"it said {word!r}, and “memory” or “arithmetic” was expected"
        helps = "would" if word == limit else "would not"
        return word == limit, f"it said {word!r}: twice as much of that {helps} make the step shorter"

    return judge


Config = tuple[int, int, int, int, int | None]  # hidden size, layers, query heads, KV heads, head_dim

CONFIGS: tuple[tuple[str, Config, torch.dtype], ...] = (
    ("as many KV heads as query heads", (1024, 4, 16, 16, None), torch.bfloat16),
    ("grouped queries", (1024, 4, 16, 2, None), torch.bfloat16),
    ("heads wider than their share", (1024, 4, 16, 4, 128), torch.bfloat16),
    ("a cache of 1 byte per number", (1024, 4, 16, 16, 64), torch.float8_e4m3fn),
)


def kv_bytes(function: Callable[..., float], configs: Sequence[Any] = CONFIGS, tokens: int = 50) -> Report:
    """Of `function(config, tokens, cache_dtype)`: bytes of one text's KV cache. config: named as in transformers."""

    def trial(name: str, shape: Config, dtype: torch.dtype) -> Trial:
        hidden, layers, heads, kv_heads, head_dim = shape
        config = SimpleNamespace(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            dtype=torch.bfloat16,
        )
        keys = [empty(kv_heads, tokens, head_dim or hidden // heads, dtype=dtype) for _ in range(layers)]
        values = [torch.empty_like(key) for key in keys]
        right = size([*keys, *values])
        return Trial(
            f"{name[0].upper()}{name[1:]}",
            lambda code: numbers(attempt(code, config, tokens, dtype), 1)[0],
            lambda value: against(value, right, "bytes"),
            weight=0.5 if kv_heads == heads and dtype is torch.bfloat16 else 1.0,
        )

    return examine("Task 3, the bug", function, [trial(*config) for config in configs], wrong.CACHES)


Round = tuple[float, int, float]  # alpha, gamma, seconds of a draft token

SECONDS = {1: 0.020, 2: 0.021, 3: 0.023, 4: 0.026, 5: 0.030, 6: 0.031, 7: 0.032, 8: 0.033}
ROUNDS: tuple[Round, ...] = ((0.7, 4, 0.001), (0.5, 2, 0.0), (1.0, 3, 0.004), (0.3, 6, 0.002))


def mean_tokens(alpha: float, drafts: int) -> tuple[float, int]:
    """Tokens of a round, by all its courses, and how many there are."""

    def one_round(rng: Randomness) -> int:
        kept = 0
        while kept < drafts and rng.accept(alpha):
            kept += 1
        return kept + 1

    found = list(outcomes(one_round))
    return sum(prob * tokens for prob, tokens in found), len(found)


def speedup(
    function: Callable[..., float], rounds: Sequence[Round] = ROUNDS, seconds: Mapping[int, float] = SECONDS
) -> Report:
    """Of `function(alpha, gamma, seconds, draft_seconds)`: how many times faster than plain decoding."""

    def trial(alpha: float, drafts: int, draft_seconds: float) -> Trial:
        tokens, courses = mean_tokens(alpha, drafts)
        right = tokens / (drafts * draft_seconds + seconds[drafts + 1]) * seconds[1]

        def judge(value: float) -> tuple[bool, str]:
            good = abs(value - right) < CLOSE
            word = "as counted" if good else "too fast" if value > right else "too slow"
            plural = f"over all {courses} possible outcomes" if courses > 1 else "for the only possible outcome"
            return good, f"it gave {value:.4f}, {word} {plural} of such a round"

        price = f"at {1e3 * draft_seconds:g} ms" if draft_seconds else "for nothing"
        return Trial(
            f"{drafts} draft{'s' * (drafts > 1)} {price}, alpha = {alpha:g}",
            lambda code: numbers(attempt(code, alpha, drafts, dict(seconds), draft_seconds), 1)[0],
            judge,
        )

    own = unaided(function, cost_model.expected_tau, cost_model.speedup)
    return examine("Task 4, the speed-up", own, [trial(*case) for case in rounds], wrong.SPEEDUPS)


Choice = tuple[str, float, float, Sequence[float]]  # what it is, alpha, c, v(1), v(2), ...

CHOICES: tuple[Choice, ...] = (
    ("A cost that jumps in the middle", 0.8, 0.05, (1, 1.02, 1.05, 1.1, 1.8, 1.9, 2.0, 2.1)),
    ("A strong draft, a flat curve", 0.95, 0.02, (1, 1.01, 1.02, 1.03, 1.04, 1.05)),
    ("A weak draft", 0.2, 0.15, (1, 1.1, 1.2, 1.3, 1.4)),
    ("A curve with a step at its start", 0.8, 0.02, (1, 1.9, 1.92, 1.94, 1.96, 1.98, 2.9, 3.0)),
    ("A costly draft", 0.75, 0.3, (1, 1.02, 1.04, 1.06, 1.08, 1.1)),
)


def gamma(function: Callable[..., int], choices: Sequence[Choice] = CHOICES) -> Report:
    """Of `function(alpha, c, v, longest)`: how many drafts, 0 to longest, are fastest."""

    def trial(name: str, alpha: float, c: float, prices: Sequence[float]) -> Trial:
        v, longest = VerifyCurve(dict(enumerate(prices, 1))), len(prices) - 1
        speeds = [mean_tokens(alpha, drafts)[0] / (drafts * c + v(drafts + 1)) for drafts in range(longest + 1)]

        def outcome(code: Any) -> int:
            chosen = numbers(attempt(code, alpha, c, v, longest), 1)[0]
            if chosen not in range(longest + 1):
                raise Trouble(f"it returned {chosen:g}, and a whole number from 0 to {longest} was expected")
            return int(chosen)

        def judge(chosen: int) -> tuple[bool, str]:
            good = speeds[chosen] >= max(speeds) - CLOSE
            better = "" if good else f"; another length, from 0 to {longest}, is faster"
            return good, f"it chose {chosen}, which decodes {speeds[chosen]:.2f} times as fast as plain{better}"

        return Trial(f"{name} (alpha = {alpha:g}, c = {c:g})", outcome, judge)

    return examine("Task 5, the draft length", function, [trial(*choice) for choice in choices], wrong.LENGTHS)
