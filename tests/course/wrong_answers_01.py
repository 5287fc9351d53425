"""Plausible wrong answers to exercise 01."""

from wrong import Wrong, task

__all__ = ["ANSWERS"]


_roof = task("01_bottleneck", "roofline", "my_roofline(moved, work, bandwidth, peak)")
_kv = task("01_bottleneck", "kv", "my_kv_bytes(config, tokens, cache_dtype)")
_gamma = task("01_bottleneck", "gamma", "my_best_gamma(alpha, c, v, longest)")
_count = task("01_bottleneck", "step", "my_step(weights, size, texts, k, context, kv)")
_rate = task("01_bottleneck", "speedup", "my_speedup(alpha, gamma, seconds, draft_seconds)")


def _step(name: str, told: str, moved: str, work: str = "2 * weights * texts * k") -> Wrong:
    return _count(name, told, f"moved = {moved}\nreturn moved, {work}")


def _speed(name: str, told: str, tau: str, cost: str = "gamma * c + v") -> Wrong:
    body = f"""
    c, v = draft_seconds / seconds[1], seconds[gamma + 1] / seconds[1]
    tau = {tau}
    return tau / ({cost})
    """
    return _rate(name, told, body)


# What is right in tasks 1 and 4.
MOVED = "weights * size + texts * (context + k) * kv"
TAU = "sum(alpha**i for i in range(gamma + 1))"

ANSWERS = (
    _step("weights for every token", "read anew for every token", "weights * size * texts * k + texts * (context + k) * kv"),
    _step("weights for every text", "read anew for every text", "texts * (weights * size + (context + k) * kv)"),
    _step("numbers for bytes", "Weights are counted, not bytes", "weights + texts * (context + k) * kv"),
    _step("one cache", "each text has its own past", "size * weights + (context + k) * kv"),
    _step("no cache", "cache is left out", "weights * size"),
    _step("nothing written", "must be written, too", "weights * size + texts * context * kv"),
    _step("no additions", "Only multiplications are counted", MOVED, "weights * texts * k"),
    _step("one token's arithmetic", "arithmetic of one token", MOVED, "2 * weights"),
    _step("k forgotten", "k is left out", MOVED, "2 * texts * weights"),
    _step("operations by the byte", "counted by the byte", MOVED, "2 * weights * size * texts * k"),
    _roof("added", "Both times are added", """
        a, b = moved / bandwidth, work / peak
        return a + b, "memory" if a > b else "arithmetic"
        """),
    _roof("shorter", "shorter of both times", """
        times = {"memory": moved / bandwidth, "arithmetic": work / peak}
        limit = min(times, key=times.get)
        return times[limit], limit
        """),
    _roof("always memory", "whatever the step does", 'return moved / bandwidth, "memory"'),
    _roof("bytes against operations", "Bytes are compared with operations", """
        seconds = max(moved / bandwidth, work / peak)
        return seconds, "arithmetic" if work >= moved else "memory"
        """),
    _roof("named after the faster", "waits for is the slower one", """
        a, b = moved / bandwidth, work / peak
        if a > b:
            return a, "arithmetic"
        return b, "memory"
        """),
    _roof("seconds alone", "seconds and a word were expected", "return max(moved / bandwidth, work / peak)"),
    _kv("unmended", "This is the calculator unchanged", """
        size = config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * config.num_attention_heads * size * tokens * config.dtype.itemsize
        """),
    _kv("query heads", "counts query heads", """
        size = config.head_dim or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * config.num_attention_heads * size * tokens * cache_dtype.itemsize
        """),
    _kv("quotient", "still a quotient", """
        size = config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * config.num_key_value_heads * size * tokens * cache_dtype.itemsize
        """),
    _kv("dtype of the weights", "dtype of the weights", """
        size = config.head_dim or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * config.num_key_value_heads * size * tokens * config.dtype.itemsize
        """),
    _kv("keys alone", "a key and a value", """
        size = config.head_dim or config.hidden_size // config.num_attention_heads
        return config.num_hidden_layers * config.num_key_value_heads * size * tokens * cache_dtype.itemsize
        """),
    _kv("no head_dim in the file", "raised TypeError", """
        size = config.head_dim * config.num_key_value_heads
        return 2 * config.num_hidden_layers * size * tokens * cache_dtype.itemsize
        """),
    _speed("own token forgotten", "own token is not counted", "sum(alpha**i for i in range(1, gamma + 1))"),
    _speed("drafts alone are checked", "priced for the drafts alone", TAU, "gamma * c + seconds[gamma] / seconds[1]"),
    _speed("a check for one step", "cost one plain step", TAU, "gamma * c + 1"),
    _speed("drafting for nothing", "cost nothing", TAU, "v"),
    _speed("one draft paid", "One draft token is paid for", TAU, "c + v"),
    _speed("tokens for time", "tokens are not time", TAU, "1"),
    _speed("rates added", "rates are added", "1 + alpha * gamma"),
    _speed("share of the longest", "share alpha of the longest round", "alpha * (gamma + 1)"),
    _speed("seconds", "Tokens are divided by seconds", TAU, "gamma * draft_seconds + seconds[gamma + 1]"),
    _rate("the package's formula", "it calls `speedup`", """
        from specdec_ref.cost_model import speedup

        tau = sum(alpha**i for i in range(gamma + 1))
        return speedup(tau, gamma, draft_seconds / seconds[1], lambda k: seconds[k] / seconds[1])
        """),
    _speed("fraction", "raised ZeroDivisionError", "(1 - alpha ** (gamma + 1)) / (1 - alpha)"),
    _gamma("always drafts", "It always drafts", """
        return max(range(1, longest + 1), key=lambda g: speedup(expected_tau(alpha, g), g, c, v))
        """),
    _gamma("longest", "as many drafts as it can", """
        return max(range(longest + 1), key=lambda g: expected_tau(alpha, g))
        """),
    _gamma("stops too soon", "stops at the first length", """
        g, best = 0, 1.0
        while g < longest and speedup(expected_tau(alpha, g + 1), g + 1, c, v) > best:
            g += 1
            best = speedup(expected_tau(alpha, g), g, c, v)
        return g
        """),
    _gamma("short of the longest", "never tried", """
        return max(range(longest), key=lambda g: speedup(expected_tau(alpha, g), g, c, v))
        """),
    _gamma("v left out", "v is left out", """
        return max(range(longest + 1), key=lambda g: expected_tau(alpha, g) / (g * c + 1))
        """),
    _gamma("c left out", "cost next to nothing", """
        return max(range(longest + 1), key=lambda g: expected_tau(alpha, g) / v(g + 1))
        """),
    _gamma("first that pays", "first length that pays", """
        for g in range(1, longest + 1):
            if speedup(expected_tau(alpha, g), g, c, v) > 1:
                return g
        return 0
        """),
    _gamma("a speed-up for a length", "a whole number from 0 to", """
        return max(speedup(expected_tau(alpha, g), g, c, v) for g in range(longest + 1))
        """),
)  # fmt: skip
