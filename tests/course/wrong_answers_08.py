"""Plausible wrong answers to exercise 08."""

from wrong import Wrong, task

__all__ = ["ANSWERS"]

_read = task("08_production", "reading", "my_reading(page)")
_flags = task("08_production", "flags", "my_flags(depth, topk, nodes)")
_choose = task("08_production", "choice", "my_choice(drafters, v, margin)")
_metrics = task("08_production", "metrics", "my_metrics(emitted, num_draft_tokens)")
_capacity = task("08_production", "capacity", "my_plan(rows, limit)")


def _page(
    name: str, told: str, tau: str = "1 + a / r", rate: str = "a / d", shares: str = "[c / r for c in counts]"
) -> Wrong:
    body = f"""
    p = "vllm:spec_decode_num_"
    r, d, a = page[p + "drafts_total"], page[p + "draft_tokens_total"], page[p + "accepted_tokens_total"]
    counts = [page[key] for key in page if "per_pos" in key]
    return {tau}, {rate}, {shares}
    """
    return _read(name, told, body)


def _triple(name: str, told: str, checks: str, made: str) -> Wrong:
    lines = "\n    ".join(checks.splitlines() or ["pass"])
    body = f"""
    most = 1 + topk + (depth - 1) * topk**2
    chain = depth + 1
    {lines}
    names = ["num-steps", "eagle-topk", "num-draft-tokens"]
    return {{"--speculative-" + n: x for n, x in zip(names, {made})}}
    """
    return _flags(name, told, body)


def _pick(
    name: str,
    told: str,
    tau: str = "1 + sum(alive[:g])",
    cost: str = "share * (g * c + v(g + 1)) + 1 - share",
    lengths: str = "range(1, len(alive) + 1)",
    end: str = 'best[:2] if best[2] >= margin else ("none", 0)',
) -> Wrong:
    body = f"""
    best = ("none", 0, 0.0)
    for name, (alive, c, share) in drafters.items():
        for g in {lengths}:
            gain = ({tau}) / ({cost})
            if gain > best[2]:
                best = (name, g, gain)
    return {end}
    """
    return _choose(name, told, body)


def _load(
    name: str,
    told: str,
    ahead: str = "fast[level, 'other'] > fast[level, 'plain']",
    pays: str = "level",
    stop: str = "break",
    levels: str = "sorted({row['concurrency'] for row in rows})",
    keeps: str = "row['tpot_ms'][1] <= limit",
    key: str = "row['tokens_per_s']",
    end: str = "max(kept)[1:] if kept else ('none', 0)",
) -> Wrong:
    body = f"""
    side = lambda row: "plain" if row["method"] == "plain" else "other"
    fast = {{(row["concurrency"], side(row)): row["tokens_per_s"] for row in rows}}
    slow = {{(row["concurrency"], side(row)): row["tpot_ms"] for row in rows}}
    pays = 0
    for level in {levels}:
        if {ahead}:
            pays = {pays}
        else:
            {stop}
    kept = [({key}, row["method"], row["concurrency"]) for row in rows if {keeps}]
    return pays, {end}
    """
    return _capacity(name, told, body)


BOTH = """\
if nodes is not None and (nodes != chain if topk == 1 else nodes > most):
    raise ValueError("no")"""
CHAIN = """\
if topk == 1 and nodes not in (None, chain):
    raise ValueError("no")"""
GIVEN = "(depth, topk, nodes or chain)"

ANSWERS = (
    _page("bonus forgotten", "The bonus is forgotten", tau="a / r"),
    _page("rounds for drafts", "It counts rounds", rate="a / r"),
    _page("bonus accepted", "counted as an accepted draft", rate="(a + r) / d"),
    _page("conditional", "divided by the one before it",
          shares="[c / b if b else 0.0 for c, b in zip(counts, [r, *counts])]"),
    _page("of accepted", "divided by all accepted tokens", shares="[c / a if a else 0.0 for c in counts]"),
    _page("rate plus one", "accept rate plus one", tau="1 + a / d"),
    _page("of proposed", "divided by proposed tokens", shares="[c / d for c in counts]"),
    _page("sorted as words", "sorted as words", shares="[page[k] / r for k in sorted(page) if 'per_pos' in k]"),
    _page("three positions", "11 numbers were expected", shares="[c / r for c in counts[:3]]"),
    _triple("drafts for nodes", "is the number of drafts here", BOTH, "(depth, topk, nodes or depth)"),
    _triple("a step too many", "steps are one too many", "", "(depth + 1, topk, nodes or chain)"),
    _triple("anything goes", "Nothing is refused", "", GIVEN),
    _triple("put right in silence", "put right in silence", "", "(depth, topk, chain if topk == 1 else min(nodes, most))"),
    _triple("chains only", "Only chains are checked", CHAIN, GIVEN),
    _triple("no trees", "SGLang verifies trees", "if nodes not in (None, chain):\n    raise ValueError('no')", GIVEN),
    _triple("a node too many", "without the root", "", "(depth, topk, chain if nodes is None else nodes + 1)"),
    _triple("a full tree", "A full tree is counted", BOTH.replace("> most", "> sum(topk**i for i in range(depth + 1))"), GIVEN),
    _triple("topk a step", "topk nodes a step are counted", BOTH.replace("> most", "> 1 + depth * topk"), GIVEN),
    _triple("largest refused", "The largest tree itself is refused", BOTH.replace("> most", ">= most"), GIVEN),
    _triple("root not in the limit", "The largest tree itself is refused", BOTH.replace("> most", "> most - 1"), GIVEN),
    _triple("steps from nodes", "taken from the number of nodes", BOTH, "((nodes or chain) - 1, topk, nodes or chain)"),
    _triple("returned", "is raised, not returned", BOTH.replace("raise ", "return "), GIVEN),
    _pick("margin forgotten", "margin is not asked for", end='best[:2] if best[2] > 1 else ("none", 0)'),
    _pick("margin on top", "added to 1", end='best[:2] if best[2] >= 1 + margin else ("none", 0)'),
    _pick("one draft paid", "A round pays for one draft", cost="share * (c + v(g + 1)) + 1 - share"),
    _pick("last length", "longest length is never tried", lengths="range(1, len(alive))"),
    _pick("silent rounds free", "Rounds without a draft cost nothing", cost="share * (g * c + v(g + 1))"),
    _pick("drafts always paid", "Drafts are paid for in every round", cost="g * c + share * v(g + 1) + 1 - share"),
    _pick("mean of ratios", "Two speed-ups are averaged", tau="(share + sum(alive[:g])) / (g * c + v(g + 1)) + 1 - share",
          cost="1"),
    _pick("share twice", "multiplied by `share` once more", tau="1 + share * sum(alive[:g])"),
    _choose("last drafter", "judged by itself", """
        chosen = ("none", 0)
        for name, (alive, c, share) in drafters.items():
            best = margin
            for g in range(1, len(alive) + 1):
                gain = (1 + sum(alive[:g])) / (share * (g * c + v(g + 1)) + 1 - share)
                if gain > best:
                    best, chosen = gain, (name, g)
        return chosen
        """),
    _pick("products", "They are products already", tau="1 + sum(__import__('math').prod(alive[:j]) for j in range(1, g + 1))"),
    _pick("the longest", "The longest draft is taken", lengths="[len(alive)]"),
    _pick("free checks", "v is left out", cost="share * (g * c + 1) + 1 - share"),
    _pick("free drafts", "c is left out", cost="share * v(g + 1) + 1 - share"),
    _pick("always charged", "a round without a match is a plain step", cost="g * c + v(g + 1)"),
    _pick("tau alone", "tau decides alone", cost="1"),
    _pick("always something", "is never the answer", end="best[:2]"),
    _pick("v of gamma", "v is asked for gamma tokens", cost="share * (g * c + v(g)) + 1 - share"),
    _pick("own token", "own token is forgotten", tau="sum(alive[:g])"),
    _metrics("as it was", "Still the bonus", """
        n = len(emitted)
        return sum(emitted) / n, sum(emitted) / n / (num_draft_tokens - 1)
        """),
    _metrics("below one", "A rate below 1 hides", """
        mean = sum(emitted) / len(emitted)
        return mean, mean / num_draft_tokens
        """),
    _metrics("root drafted", "one fewer is drafted.", """
        n = len(emitted)
        return sum(emitted) / n, (sum(emitted) - n) / n / num_draft_tokens
        """),
    _metrics("one bonus", "One bonus is taken off", """
        n = len(emitted)
        return sum(emitted) / n, (sum(emitted) - 1) / n / (num_draft_tokens - 1)
        """),
    _metrics("bonus twice", "counted twice in the length", """
        n = len(emitted)
        return sum(emitted) / n + 1, (sum(emitted) - n) / n / (num_draft_tokens - 1)
        """),
    _metrics("cut off", "cut off at 1", """
        mean = sum(emitted) / len(emitted)
        return mean, min(mean / (num_draft_tokens - 1), 1)
        """),
    _metrics("length without bonus", "The length lost its bonus", """
        mean = sum(emitted) / len(emitted) - 1
        return mean, mean / (num_draft_tokens - 1)
        """),
    _load("any lead", "although the plain server is ahead at a lower one", stop="continue"),
    _load("first behind", "The first level without a lead", ahead="True",
          pays="level\n            if fast[level, 'other'] <= fast[level, 'plain']: break"),
    _load("levels counted", "Levels are counted here", pays="pays + 1"),
    _load("order as given", "in the order in which they come", levels="dict.fromkeys(row['concurrency'] for row in rows)"),
    _load("slowest tenth compared", "Time per token is compared", ahead="slow[level, 'other'][1] < slow[level, 'plain'][1]"),
    _load("peak", "at which the speculating server is fastest", ahead="True",
          pays="max((v, k[0]) for k, v in fast.items() if k[1] == 'other')[1]"),
    _load("median", "The median is held against the limit", keeps="row['tpot_ms'][0] <= limit"),
    _load("99th", "The 99th percentile is held against the limit", keeps="row['tpot_ms'][2] <= limit"),
    _load("first token", "The time to the first token is held against the limit", keeps="row['ttft_ms'][1] <= limit"),
    _load("no promise", "The promise is left out", keeps="True"),
    _load("below only", "A row at the limit itself is refused", keeps="row['tpot_ms'][1] < limit"),
    _load("most clients", "An overloaded server can have more requests", key="row['concurrency'], row['tokens_per_s']",
          end="max(kept)[2:] if kept else ('none', 0)"),
    _load("fastest tokens", "The row with the shortest time per token", key="-row['tpot_ms'][1]"),
    _load("speculating only", "Only the speculating server is considered",
          keeps="row['tpot_ms'][1] <= limit and row['method'] != 'plain'"),
    _load("plain only", "Only the plain server is considered",
          keeps="row['tpot_ms'][1] <= limit and row['method'] == 'plain'"),
    _load("always a plan", '"none" is never the answer', end="max(kept or [(0, *min((r['tpot_ms'][1], r['method'], "
          "r['concurrency']) for r in rows)[1:])])[1:]"),
    _load("level alone", "(level, (method, level)) was expected", end="max(kept)[2] if kept else 0"),
)  # fmt: skip
