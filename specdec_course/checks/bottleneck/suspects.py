"""The wrong answers to exercise 01 that people give, each with the sentence that explains it. They serve `examine`."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from specdec_course.checks.examine import Suspect
from specdec_ref.cost_model import expected_tau

__all__ = ["CACHES", "LENGTHS", "ROOFLINES", "SPEEDUPS", "STEPS"]

Numbers = tuple[float, float]


def _bytes(moved: Callable[..., float]) -> Callable[..., Numbers]:
    """`moved` of (w, s, n, k, t, kv) for weights, bytes of one, texts, tokens, context, cache; the FLOP are right."""
    return lambda w, s, n, k, t, kv: (moved(w, s, n, k, t, kv), 2 * w * n * k)


def _flop(work: Callable[..., float]) -> Callable[..., Numbers]:
    return lambda w, s, n, k, t, kv: (w * s + n * (t + k) * kv, work(w, s, n, k))


STEPS = (  # (weights, size, texts, k, context, kv) -> bytes, FLOP
    Suspect(
        "The weights are read anew for every token. One forward reads them once, for all its tokens.",
        _bytes(lambda w, s, n, k, t, kv: w * s * n * k + n * (t + k) * kv),
    ),
    Suspect(
        "The weights are read anew for every text. All texts of a batch share one reading.",
        _bytes(lambda w, s, n, k, t, kv: w * s * n + n * (t + k) * kv),
    ),
    Suspect(
        "Weights are counted, not bytes: each of them takes `size` bytes.",
        _bytes(lambda w, s, n, k, t, kv: w + n * (t + k) * kv),
    ),
    Suspect(
        "One cache serves the whole batch. Weights are shared; the cache is not: each text has its own past.",
        _bytes(lambda w, s, n, k, t, kv: w * s + (t + k) * kv),
    ),
    Suspect(
        "The cache is left out. It is read in every step, and with many or long texts it outgrows the weights.",
        _bytes(lambda w, s, n, k, t, kv: w * s),
    ),
    Suspect(
        "The new entries of the cache are missing: the new tokens' keys and values must be written, too.",
        _bytes(lambda w, s, n, k, t, kv: w * s + n * t * kv),
    ),
    Suspect(
        "The cache is read anew for each of the k tokens. They belong to one text, and are checked in one forward.",
        _bytes(lambda w, s, n, k, t, kv: w * s + n * k * (t + 1) * kv),
    ),
    Suspect(
        "Only multiplications are counted. Each product is also added to a sum, and that is an operation as well.",
        _flop(lambda w, s, n, k: w * n * k),
    ),
    Suspect(
        "The arithmetic of one token is counted. Reading is shared by the tokens, arithmetic is not.",
        _flop(lambda w, s, n, k: 2 * w),
    ),
    Suspect(
        "The arithmetic is that of one token per text: k is left out. Reading is shared by tokens, arithmetic is not.",
        _flop(lambda w, s, n, k: 2 * w * n),
    ),
    Suspect(
        "The arithmetic is that of one text: the batch is left out. Reading is shared by texts, arithmetic is not.",
        _flop(lambda w, s, n, k: 2 * w * k),
    ),
    Suspect(
        "Operations are counted by the byte. A weight takes two operations, whether it is stored in 4 bytes or in 2.",
        _flop(lambda w, s, n, k: 2 * w * s * n * k),
    ),
)


def _limit(m: float, a: float) -> str:
    return "memory" if m > a else "arithmetic"


ROOFLINES = (  # (moved, work, bandwidth, peak) -> seconds, limit
    Suspect(
        "Both times are added. Memory and arithmetic work at the same time, so the step ends with the slower one.",
        lambda moved, work, bw, peak: (moved / bw + work / peak, _limit(moved / bw, work / peak)),
    ),
    Suspect(
        "This is the shorter of both times. The step is not over before the slower part is.",
        lambda moved, work, bw, peak: (min(moved / bw, work / peak), _limit(moved / bw, work / peak)),
    ),
    Suspect(
        "Memory is taken for the limit whatever the step does. With enough tokens for each byte, arithmetic is.",
        lambda moved, work, bw, peak: (moved / bw, "memory"),
    ),
    Suspect(
        "Arithmetic is taken for the limit, as if reading were free. In plain decoding, reading takes nearly all "
        "of the time.",
        lambda moved, work, bw, peak: (work / peak, "arithmetic"),
    ),
    Suspect(
        "Bytes are compared with operations. They are not of the same kind: only the times that they take can be "
        "compared.",
        lambda moved, work, bw, peak: (max(moved / bw, work / peak), _limit(moved, work)),
    ),
    Suspect(
        'The limit is always "memory" here. It is arithmetic where the work takes longer than the reading.',
        lambda moved, work, bw, peak: (max(moved / bw, work / peak), "memory"),
    ),
    Suspect(
        "The limit is named after the part that is done first. What the step waits for is the slower one.",
        lambda moved, work, bw, peak: (max(moved / bw, work / peak), _limit(work / peak, moved / bw)),
    ),
    Suspect(
        "This is the shorter of both times, and the limit is named after it. The slower part sets the pace.",
        lambda moved, work, bw, peak: (min(moved / bw, work / peak), _limit(work / peak, moved / bw)),
    ),
)


def _cache(
    heads: str = "num_key_value_heads", *, own_width: bool = True, own_dtype: bool = True, both: float = 2
) -> Callable[..., float]:
    """A calculator that is right in what it is not told otherwise."""

    def kv_bytes(config: Any, tokens: int, dtype: Any) -> float:
        share = config.hidden_size // config.num_attention_heads
        width = (config.head_dim or share) if own_width else share
        item = (dtype if own_dtype else config.dtype).itemsize
        return float(both * config.num_hidden_layers * getattr(config, heads) * width * tokens * item)

    return kv_bytes


QUERY_HEADS = "num_attention_heads"
CACHES = (  # (config, tokens, cache_dtype) -> bytes
    Suspect(
        "It counts query heads. Queries are not kept: with grouped queries several of them share one key and value.",
        _cache(QUERY_HEADS),
    ),
    Suspect(
        "The width of a head is still a quotient. Where the configuration names head_dim, the two need not agree.",
        _cache(own_width=False),
    ),
    Suspect(
        "The cache is sized by the dtype of the weights. A server may keep it in fewer bytes than those.",
        _cache(own_dtype=False),
    ),
    Suspect("Only the heads are fixed: look at the width of a head, and at the bytes of a number.",
            _cache(own_width=False, own_dtype=False)),
    Suspect("Only the width is fixed: look at which heads are kept, and at the bytes of a number.",
            _cache(QUERY_HEADS, own_dtype=False)),
    Suspect("Only the bytes of a number are fixed: look at which heads are kept, and at their width.",
            _cache(QUERY_HEADS, own_width=False)),
    Suspect(
        "This is the calculator unchanged. It has three bugs, and each of the failing cases shows one of them.",
        _cache(QUERY_HEADS, own_width=False, own_dtype=False),
    ),
    Suspect("Half of the cache is missing: a token leaves a key and a value.", _cache(both=1)),
    Suspect(
        "The factor for keys and values is applied twice. It was there already.",
        _cache(both=4),
    ),
)  # fmt: skip


def _speed(
    tau: Callable[[float, int], float] = expected_tau,
    cost: Callable[[int, float, Callable[[int], float]], float] = lambda g, c, v: g * c + v(g + 1),
) -> Callable[..., float]:
    """A speed-up that is right in what it is not told otherwise. c and v are in plain steps."""

    def speedup(alpha: float, gamma: int, seconds: dict[int, float], draft_seconds: float) -> float:
        plain = seconds[1]
        return tau(alpha, gamma) / cost(gamma, draft_seconds / plain, lambda k: seconds[k] / plain)

    return speedup


SPEEDUPS = (  # (alpha, gamma, seconds, draft_seconds) -> speed-up
    Suspect(
        "The target's own token is not counted: every round yields one, however many drafts are kept.",
        _speed(tau=lambda a, g: expected_tau(a, g) - 1),
    ),
    Suspect(
        "The check is priced for the drafts alone. The text's last token is checked, too: gamma + 1 tokens in all.",
        _speed(cost=lambda g, c, v: g * c + v(g)),
    ),
    Suspect(
        "The check is taken to cost one plain step. The first papers assumed this; your curve costs more.",
        _speed(cost=lambda g, c, v: g * c + 1),
    ),
    Suspect("Drafting is taken to cost nothing.", _speed(cost=lambda g, c, v: v(g + 1))),
    Suspect(
        "One draft token is paid for. A chain is drafted token by token, and each of them takes that time.",
        _speed(cost=lambda g, c, v: c + v(g + 1)),
    ),
    Suspect(
        "These are tokens per round. A round takes longer than a plain step: tokens are not time.",
        _speed(cost=lambda g, c, v: 1.0),
    ),
    Suspect(
        "The rates are added as if every draft were tested. The second is tested only if the first was kept.",
        _speed(tau=lambda a, g: 1 + g * a),
    ),
    Suspect(
        "A share alpha of the longest round is taken. A round ends with the first rejection, and what was drafted "
        "after it is lost.",
        _speed(tau=lambda a, g: a * (g + 1)),
    ),
    Suspect(
        "Only the round in which all drafts pass is counted. A round with a rejected draft yields tokens, too.",
        _speed(tau=lambda a, g: (g + 1) * a**g),
    ),
    Suspect(
        "One power of alpha too many: gamma drafts bring at most gamma + 1 tokens.",
        _speed(tau=lambda a, g: expected_tau(a, g + 1)),
    ),
    Suspect(
        "Tokens are divided by seconds. A speed-up compares with plain decoding, where a token takes seconds[1].",
        lambda a, g, seconds, draft: expected_tau(a, g) / (g * draft + seconds[g + 1]),
    ),
    Suspect(
        "Seconds and plain steps are added. c is the cost of a draft token in plain steps, like v.",
        lambda a, g, seconds, draft: expected_tau(a, g) / (g * draft + seconds[g + 1] / seconds[1]),
    ),
)


def _best(
    cost: Callable[[int, float, Callable[[int], float]], float] = lambda g, c, v: g * c + v(g + 1),
    shortest: int = 0,
    short_of: int = 0,
) -> Callable[..., int]:
    """The length that is fastest by this cost, of shortest ... longest - short_of."""

    def choose(alpha: float, c: float, v: Callable[[int], float], longest: int) -> int:
        lengths = range(shortest, longest + 1 - short_of)
        return max(lengths, key=lambda g: expected_tau(alpha, g) / cost(g, c, v))

    return choose


def _speeds(alpha: float, c: float, v: Callable[[int], float], longest: int) -> list[float]:
    return [expected_tau(alpha, g) / (g * c + v(g + 1)) for g in range(longest + 1)]


def _climb(alpha: float, c: float, v: Callable[[int], float], longest: int) -> int:
    steps = enumerate(pairwise(_speeds(alpha, c, v, longest)))
    return next((g for g, (here, further) in steps if further <= here), longest)


def _first_that_pays(alpha: float, c: float, v: Callable[[int], float], longest: int) -> int:
    return next((g for g, speed in enumerate(_speeds(alpha, c, v, longest)) if speed > 1), 0)


def _last_that_pays(alpha: float, c: float, v: Callable[[int], float], longest: int) -> int:
    return max(g for g, speed in enumerate(_speeds(alpha, c, v, longest)) if speed >= 1)


LENGTHS = (  # (alpha, c, v, longest) -> gamma
    Suspect(
        "It always drafts. Below break-even every length loses, and the best number of drafts is 0.",
        _best(shortest=1),
    ),
    Suspect("It is the longest length that still pays, and a shorter one may pay better.", _last_that_pays),
    Suspect(
        "It takes as many drafts as it can. Such a round yields the most tokens, but also takes longest.",
        lambda alpha, c, v, longest: longest,
    ),
    Suspect(
        "It stops at the first length that brings nothing more. The gain can come after a jump of the curve.",
        _climb,
    ),
    Suspect("The longest length is never tried: a range ends before its last number.", _best(short_of=1)),
    Suspect(
        "The check is priced for the drafts alone. The text's last token is checked, too: gamma + 1 tokens in all.",
        _best(cost=lambda g, c, v: g * c + v(max(g, 1))),
    ),
    Suspect("The check is taken to cost one plain step: v is left out.", _best(cost=lambda g, c, v: g * c + 1)),
    Suspect(
        "Drafting is taken to cost next to nothing. c is the cost of one draft token, and a chain has gamma of them.",
        _best(cost=lambda g, c, v: v(g + 1)),
    ),
    Suspect("It is the first length that pays, and a longer one may pay better.", _first_that_pays),
)
