"""Plausible wrong answers to exercise 07."""

from textwrap import dedent

from wrong import Wrong, function, task

__all__ = ["ANSWERS"]

EXERCISE = "07_kernels"
_bytes = task(EXERCISE, "bytes", "my_bytes(vocab, size, gamma)")


def _kernel(task_name: str, signature: str, name: str, told: str, body: str) -> Wrong:
    return Wrong(EXERCISE, task_name, name, told, "@triton.jit\n" + function(signature, body))


def _max(name: str, told: str, body: str) -> Wrong:
    return _kernel("maxima", "my_block_max(x, stride, peak, vocab, blocks, BLOCK: tl.constexpr)", name, told, body)


def _stats(name: str, told: str, **changed: str) -> Wrong:
    signature = "my_row_stats(x, stride, peak, mass, best, vocab, temperature, BLOCK: tl.constexpr)"
    return _kernel("stats", signature, name, told, dedent(STATS).format(**{**RIGHT, **changed}))


def _keeps(name: str, told: str, **changed: str) -> Wrong:
    signature = "my_keeps(logits, stride, drafts, coins, kept, vocab, BLOCK: tl.constexpr)"
    return _kernel("accept", signature, name, told, dedent(KEEPS).format(**{**FIXED, **changed}))


def _walk(name: str, told: str, **changed: str) -> Wrong:
    signature = "my_walk(tokens, nodes, first_child, next_sibling, best, path, extra)"
    return _kernel("walk", signature, name, told, dedent(WALK).format(**{**GOOD, **changed}))


# The frames of right kernels; the wrong ones replace a part.
STATS = """
    row = {row}
    top = -float("inf")
    total = 0.0
    first = 0
    for start in range(0, {end}, BLOCK):
        token = start + tl.arange(0, BLOCK)
        v = tl.load(x + row * stride + token, mask={mask}, other={other})
        high = tl.max(v, 0)
        first = tl.where(high {beats} top, {index}, first)
        new = tl.maximum(top, high)
        base = {base}
        total = total * {factor} + tl.sum({terms}, 0)
        top = new
    tl.store(peak + row, {peak})
    tl.store(mass + row, total)
    tl.store(best + row, first)
    """
RIGHT = {
    "row": "tl.program_id(0).to(tl.int64)", "end": "vocab", "mask": "token < vocab", "other": '-float("inf")',
    "beats": ">", "index": "start + tl.argmax(v, 0)", "base": 'tl.where(new > -float("inf"), new, 0.0)',
    "factor": "tl.exp((top - base) / temperature)", "terms": "tl.exp((v - base) / temperature)", "peak": "top",
}  # fmt: skip
KEEPS = """
    row = {row}
    start = logits + row * stride
    token = tl.arange(0, BLOCK)
    x = tl.load(start + token, mask=token < vocab, other={other})
    peak = tl.max(x, 0)
    log_sum = peak + tl.log(tl.sum(tl.exp(x - peak), 0))
    log_p = tl.load(start + tl.load(drafts + row)) - log_sum
    tl.store(kept + row, tl.where({test}, 1, 0))
    """
FIXED = {
    "row": "tl.program_id(0).to(tl.int64)", "other": '-float("inf")', "test": "tl.log(tl.load(coins + row)) < log_p",
}  # fmt: skip
WALK = """
    text = {text}
    base = {base}
    node = text * 0
    steps = text * {first}
    walking = node >= 0
    while walking:
        tl.store(path + text * nodes + steps, {stored}{store_mask})
        steps += 1
        wanted = tl.load(best + base + node)
        child = tl.load(first_child + base + node)
        taken = text * 0 - 1
        while child >= 0:
            hit = tl.load(tokens + base + child) == wanted
            taken = tl.where(hit, child, taken)
            child = {after}
        walking = taken >= 0
        node = tl.where(walking, taken, node)
    tl.store(extra + text, {extra})
    """
GOOD = {
    "text": "tl.program_id(0).to(tl.int64)", "base": "text * nodes", "first": "0", "stored": "node", "store_mask": "",
    "after": "tl.where(hit, -1, tl.load(next_sibling + base + child))", "extra": "tl.load(best + base + node)",
}  # fmt: skip

RAW = "(gamma + 1) * vocab * size"
STORED = "(gamma + 1) * vocab * (size + 8) + 16 * vocab"
LOAD = "tl.load(x + row * stride + token, mask=token < vocab, other=-float('inf'))"
WHERE = "row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)\ntoken = block * BLOCK + tl.arange(0, BLOCK)\n"
STORE = "tl.store(peak + row * blocks + block, tl.max(v, 0))"

ANSWERS = (
    _bytes("bonus row forgotten", "bonus row is left out", f"return gamma * vocab * (size + 8) + 16 * vocab, {RAW}"),
    _bytes("probabilities in bfloat16", "at the logits' size", f"return (gamma + 1) * vocab * 3 * size + 4 * vocab * size, {RAW}"),
    _bytes("no zeros", "zeroed buffer is left out", f"return (gamma + 1) * vocab * (size + 4) + 16 * vocab, {RAW}"),
    _bytes("one pass", "Half of the last draw", f"return (gamma + 1) * vocab * (size + 8) + 8 * vocab, {RAW}"),
    _bytes("no draw", "last draw is left out", f"return (gamma + 1) * vocab * (size + 8), {RAW}"),
    _bytes("drawn row forgotten", "is read, too", f"return {STORED}, gamma * vocab * size"),
    _bytes("bonus row twice", "has no draft to test", f"return {STORED}, (gamma + 2) * vocab * size"),
    _bytes("raw in float32", "Raw logits are counted as float32", f"return {STORED}, (gamma + 1) * vocab * 4"),
    _bytes("numbers", "Numbers are counted", "return (gamma + 1) * vocab * 3 + 4 * vocab, (gamma + 1) * vocab"),
    _max("no mask", "behind the end of a row of x", f"{WHERE}v = tl.load(x + row * stride + token)\n{STORE}"),
    _max("tail of 0", "The tail counts as 0", f"{WHERE}v = tl.load(x + row * stride + token, mask=token < vocab, other=0.0)\n{STORE}"),
    _max("no other", "The tail counts as 0", f"{WHERE}v = tl.load(x + row * stride + token, mask=token < vocab)\n{STORE}"),
    _max("32 bits", "wrapped around at 2^31", f"{WHERE.replace('.to(tl.int64)', '')}v = {LOAD}\n{STORE}"),
    _max("first row", "looks at the first row", f"{WHERE}v = {LOAD.replace('row * stride + ', '')}\n{STORE}"),
    _max("first block", "looks at the first block", f"{WHERE.replace('block * BLOCK + ', '')}v = {LOAD}\n{STORE}"),
    _max("overwritten", "All rows store to the same places", f"{WHERE}v = {LOAD}\n{STORE.replace('row * blocks + ', '')}"),
    _max("masked by the block", "behind the end of a row of x", f"{WHERE}v = {LOAD.replace('token < vocab', 'token < vocab + 1')}\n{STORE}"),
    _stats("not rescaled", "is not scaled when the maximum rises", factor="1.0"),
    _stats("rescaled the wrong way", "wrong way round", factor="tl.exp((base - top) / temperature)"),
    _stats("no temperature in the factor", "left out of the factor", factor="tl.exp(top - base)"),
    _stats("no temperature", "The temperature is left out.", factor="tl.exp(top - base)", terms="tl.exp(v - base)"),
    _stats("peak divided", "divided by the temperature as well", peak="top / temperature"),
    _stats("no maximum", "No maximum is subtracted", factor="1.0", terms="tl.exp(v / temperature)"),
    _stats("tail of 0", "The tail counts as 0", other="0.0"),
    _stats("NaN", "-inf minus -inf is NaN", base="new"),
    _stats("last of equals", "the last one wins", beats=">="),
    _stats("index in the block", "beginning of its block", index="tl.argmax(v, 0)"),
    _stats("last block", "mass is 1, too small", base="high", factor="0.0", beats="> -9e9 + 0 *", peak="high"),
    _stats("first block", "Only the first block counts", end="BLOCK"),
    _stats("no mask", "behind the end of a row of x", mask="token >= 0"),
    _stats("32 bits", "wrapped around at 2^31", row="tl.program_id(0)"),
    _kernel("stats", "my_row_stats(x, stride, peak, mass, best, vocab, temperature, BLOCK: tl.constexpr)", "two passes",
            "was read 2.00 times", """
        row = tl.program_id(0).to(tl.int64)
        lanes = tl.arange(0, BLOCK)
        top = -float("inf")
        first = 0
        for start in range(0, vocab, BLOCK):
            v = tl.load(x + row * stride + start + lanes, mask=start + lanes < vocab, other=-float("inf"))
            first = tl.where(tl.max(v, 0) > top, start + tl.argmax(v, 0), first)
            top = tl.maximum(top, tl.max(v, 0))
        total = 0.0
        for start in range(0, vocab, BLOCK):
            v = tl.load(x + row * stride + start + lanes, mask=start + lanes < vocab, other=-float("inf"))
            total += tl.sum(tl.exp((v - top) / temperature), 0)
        tl.store(peak + row, top)
        tl.store(mass + row, total)
        tl.store(best + row, first)
        """),
    _keeps("tail of 0", "The tail counts as 0", other="0.0"),
    _keeps("not strict", "must be strict", test="tl.log(tl.load(coins + row)) <= log_p"),
    _keeps("32 bits", "wrapped around at 2^31", row="tl.program_id(0)"),
    _keeps("upside down", "is the wrong way round", test="tl.log(tl.load(coins + row)) > log_p"),
    _keeps("no logarithm", "without its logarithm", test="tl.load(coins + row) < log_p"),
    _keeps("two of three", "The tail counts as 0", other="0.0", test="tl.log(tl.load(coins + row)) <= log_p"),
    _walk("first children only", "Only first children are tried", after="child * 0 - 1"),
    _walk("first text", "walks in the first text", base="text * 0"),
    _walk("root left out", "The root is left out", first="0 - 1", store_mask=", mask=steps >= 0"),
    _walk("tokens", "These are tokens", stored="tl.load(tokens + base + node)"),
    _walk("choice after the root", "is the choice after the root", extra="tl.load(best + base)"),
    _walk("last draft again", "last accepted draft once more", extra="tl.load(tokens + base + node)"),
    _walk("never ends", "does not come to an end", after="tl.where(hit, -1, child)"),
    _walk("a placeholder followed", "where -1 points, of tokens", text="tl.program_id(0).to(tl.int64)",
          after="tl.where(hit, -1, tl.load(next_sibling + base + child))", extra="tl.load(tokens + base + taken)"),
)  # fmt: skip
