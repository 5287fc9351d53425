"""Plausible wrong answers to exercise 06."""

from wrong import Wrong, task

__all__ = ["ANSWERS"]

_count = task("06_metrics", "counts", "my_counts(records, nodes)")
_tau = task("06_metrics", "tau", "my_tau(chances)")
_length = task("06_metrics", "length", "my_best_length(chances, draft, forward, rows)")
_steer = task("06_metrics", "control", "my_lengths(draft, rounds, tiers)")
_ask = task("06_metrics", "heuristic", "my_asked_for(rounds, first)")

RIGHT = {
    "tau": "emitted / n", "alpha": "accepted / max(tested, 1)", "sglang_rate": "accepted / (n * (nodes - 1))",
    "vllm_length": "(drafting + accepted) / max(drafting, 1)", "vllm_rate": "accepted / max(drafted, 1)",
    "shares": "[sum(r.accepted >= i for r in records) / n for i in range(1, longest + 1)]",
}  # fmt: skip


def _numbers(name: str, told: str, **wrong: str) -> Wrong:
    made = ", ".join(f'"{key}": {code}' for key, code in {**RIGHT, **wrong}.items())
    return _count(
        name,
        told,
        f"""
        n = len(records)
        if n == 0:
            return dict(tau=0, alpha=0, sglang_rate=0, vllm_length=0, vllm_rate=0, shares=[])
        drafted = sum(r.drafted for r in records)
        tested = sum(r.tested for r in records)
        accepted = sum(r.accepted for r in records)
        emitted = sum(r.emitted for r in records)
        longest, drafting = max(r.drafted for r in records), sum(r.drafted > 0 for r in records)
        return {{{made}}}
        """,
    )


def _best(
    name: str,
    told: str,
    tokens: str = "tau",
    steps: str = "(g * draft + forward(rows * (g + 1))) / forward(rows)",
    start: str = "0",
    better: str = "gain > best[1]",
    tau: str = "tau += reached",
) -> Wrong:
    return _length(
        name,
        told,
        f"""
        best = (0, 0.0)
        tau, reached = 1.0, 1.0
        for g in range(len(chances) + 1):
            if g:
                reached *= chances[g - 1]
                {tau}
            gain = ({tokens}) / ({steps})
            if g >= {start} and ({better}):
                best = (g, gain)
        return best
        """,
    )


def _loop(
    name: str,
    told: str,
    *,
    see: str = "if a is not None and size:\n    mean = mean + 0.5 * (a - mean)",
    when: str = "(i + 1) % 5 == 0",
    wake: str = "at = at + 1",
    low: str = "0",
    fall: str = "while",
    down: str = "0.75",
    up: str = "0.25",
    after: str = "",
) -> Wrong:
    body = f"""
at, mean, out = 2, float(tiers[2]), []
for i in range(rounds):
    size = tiers[at]
    out.append(size)
    a = draft(size)
{_deep(see, 1)}
    if {when}:
        before = at
        if size == 0:
            {wake}
        else:
            {fall} at > {low} and mean <= max(tiers[at - 1], 1) - {down}:
                at -= 1
            if at >= before and at + 1 < len(tiers) and mean > tiers[at] - 0.5 + {up}:
                at += 1
{_deep(after or "pass", 2)}
return out
"""
    return _steer(name, told, body)


def _deep(code: str, level: int) -> str:
    return "\n".join("    " * level + line for line in code.splitlines())


def _schedule(name: str, told: str, body: str) -> Wrong:
    lines = "\n".join("    " + line for line in body.splitlines())
    return _ask(
        name,
        told,
        f"asked, out = first, []\nfor drafted, accepted in rounds:\n    out.append(asked)\n{lines}\nreturn out",
    )


ANSWERS = (
    _numbers("own token forgotten", "own token is forgotten in tau", tau="accepted / n"),
    _numbers("a token in every round", "gives every round a token", tau="1 + accepted / n"),
    _numbers("alpha of drafted", "over all that was drafted", alpha="accepted / max(drafted, 1)"),
    _numbers("alpha of emitted", "own token as an accepted draft", alpha="emitted / max(tested, 1)"),
    _numbers("mean of rates", "Add up first, then divide",
             alpha="sum(r.accepted / r.tested for r in records if r.tested) / max(1, sum(r.tested > 0 for r in records))"),
    _numbers("SGLang over drafted", "divides by a full tree", sglang_rate="accepted / max(drafted, 1)"),
    _numbers("the root drafts", "of n nodes n - 1 are guesses", sglang_rate="accepted / (n * nodes)"),
    _numbers("SGLang with bonus", "can then be above 1", sglang_rate="emitted / (n * (nodes - 1))"),
    _numbers("one length for all", "ignores where a text ended", vllm_length="emitted / n"),
    _numbers("length of 2024", "Since May 2025 it includes it", vllm_length="accepted / max(drafting, 1)"),
    _numbers("vLLM over full drafts", "tokens that were really drafted", vllm_rate="accepted / (n * (nodes - 1))"),
    _numbers("vLLM over rounds", "num_drafts counts rounds", vllm_rate="accepted / n"),
    _numbers("exactly so many", "accepted exactly",
             shares="[sum(r.accepted == i for r in records) / n for i in range(1, longest + 1)]"),
    _numbers("conditional shares", "once it is tested",
             shares="[sum(r.accepted > i for r in records) / (sum(r.accepted >= i for r in records) or 1)"
                    " for i in range(longest)]"),
    _numbers("of rounds that drafted", "A round without a draft is a round",
             shares="[sum(r.accepted > i for r in records) / sum(r.drafted > i for r in records) for i in range(longest)]"),
    _count("nothing by nothing", "ZeroDivisionError", """
        n = len(records)
        add = lambda name: sum(getattr(r, name) for r in records)
        a, d = add("accepted"), add("drafted") or 1
        longest = max([r.drafted for r in records] or [0])
        return {"tau": add("emitted") / n, "alpha": a / (add("tested") or 1), "sglang_rate": a / n / (nodes - 1),
                "vllm_length": 1 + a / sum(r.drafted > 0 for r in records), "vllm_rate": a / d,
                "shares": [sum(r.accepted > i for r in records) / n for i in range(longest)]}
        """),
    _numbers("tested so far", "in which that guess was tested",
             shares="[sum(r.accepted > j for r in records) / max(1, sum(r.tested > j for r in records)) for j in range(longest)]"),
    _numbers("all rounds", "skips the rounds without a draft", vllm_length="1 + accepted / n"),
    _numbers("as alpha", "over what was tested, as alpha is", sglang_rate="accepted / max(tested, 1)"),
    _numbers("emitted less one", "off every round's emitted tokens", sglang_rate="(emitted - n) / (n * (nodes - 1))"),
    _tau("last product", "longest product is missing", """
        total, reached = 1.0, 1.0
        for chance in chances[:-1]:
            reached *= chance
            total += reached
        return total
        """),
    _tau("one twice", "counted twice", """
        total, reached = 1.0, 1.0
        for chance in [*chances, 0.0]:
            total += reached
            reached *= chance
        return total
        """),
    _tau("added", "multiply along the draft", "return 1 + sum(chances)"),
    _tau("own token", "a round that accepts nothing also yields one", """
        total, reached = 0.0, 1.0
        for chance in chances:
            reached *= chance
            total += reached
        return total
        """),
    _tau("one alpha", "One mean chance stands for all", """
        if not chances:
            return 1.0
        alpha = sum(chances) / len(chances)
        return sum(alpha**k for k in range(len(chances) + 1))
        """),
    _tau("the fraction", "ZeroDivisionError", """
        alpha = sum(chances) / len(chances)
        return (1 - alpha ** (len(chances) + 1)) / (1 - alpha)
        """),
    _tau("all or nothing", "hold to the end", """
        whole = 1.0
        for chance in chances:
            whole *= chance
        return 1 + whole * len(chances)
        """),
    _best("beside one row", "Plain decoding of one row", steps="(g * draft + forward(rows * (g + 1))) / forward(1) if g else 1"),
    _best("a forward a row", "for each row by itself", steps="(g * draft + rows * forward(g + 1)) / forward(rows) if g else 1"),
    _best("milliseconds", "in milliseconds, and not divided", steps="g * draft + forward(rows * (g + 1)) if g else 1"),
    _best("tokens a millisecond", "This is tokens per millisecond", steps="g * draft + forward(rows * (g + 1))"),
    _best("rows plus length", "Each row has drafts of its own", steps="(g * draft + forward(rows + g)) / forward(rows)"),
    _best("one draft paid", "A round pays for one draft", steps="(draft + forward(rows * (g + 1))) / forward(rows) if g else 1"),
    _best("last length", "longest length is never tried", better="gain > best[1] and g < len(chances)"),
    _best("one row checked", "The check is that of one row", steps="(g * draft + forward(g + 1)) / forward(1)"),
    _best("plain step of one row", "as many tokens as there are rows",
          steps="(g * draft + forward(rows * (g + 1))) / forward(1)"),
    _best("a token too few", "one token per row too few", steps="(g * draft + forward(rows * max(g, 1))) / forward(rows)"),
    _best("draft a row", "for the whole batch", steps="(g * draft * rows + forward(rows * (g + 1))) / forward(rows)"),
    _best("free drafts", "Drafting is free here", steps="forward(rows * (g + 1)) / forward(rows)"),
    _best("free checks", "Checking is free here", steps="(g * draft + forward(rows)) / forward(rows)"),
    _best("always drafts", "It always drafts", start="1"),
    _best("longest", "with most tokens per round", better="True"),
    _best("own token", "own token is forgotten in the tokens", tokens="tau - 1 if g else 1"),
    _best("added", "Multiply along the draft", tau="tau += chances[g - 1]"),
    _loop("never stops", "It never stops", low="1"),
    _loop("never wakes", "never drafts again", wake="pass"),
    _loop("with bonus", "the mean is of accepted drafts",
          see="if a is not None and size:\n    mean = mean + 0.5 * (a + 1 - mean)"),
    _loop("no margins", "There is no hysteresis", down="0.5", up="0.0"),
    _loop("margin upside down", "The margin pulls the wrong way", down="0.25"),
    _loop("every round", "It decides after every round", when="True"),
    _loop("a tier at a time", "It goes down one tier at a time", fall="if"),
    _loop("silence is failure", "counts as one that accepted nothing", see="mean = mean + 0.5 * ((a or 0) - mean)"),
    _loop("last round only", "The last round decides alone", see="if a is not None and size:\n    mean = a"),
    _loop("forgets", "forgotten with every change", after="if at != before:\n    mean = float(tiers[at])"),
    _loop("a round late", "a round too late", when="i and i % 5 == 0"),
    _loop("the first decides", "after the first round, the sixth", when="i % 5 == 0"),
    _schedule("afterwards", "length after each round",
              "asked = (asked + 2 if accepted == drafted else max(1, asked - 1)) if drafted else asked\nout[-1] = asked"),
    _schedule("as it shipped", "still what shipped", "asked = asked + 2 if accepted == asked else max(1, asked - 1)"),
    _schedule("half mended", "still compared with what was asked for",
              "if drafted > 0:\n    asked = asked + 2 if accepted == asked else max(1, asked - 1)"),
    _schedule("nothing of nothing", "counts as completely accepted",
              "asked = asked + 2 if accepted == drafted else max(1, asked - 1)"),
    _schedule("silence shortens", "makes the length shorter",
              "asked = asked + 2 if drafted and accepted == drafted else max(1, asked - 1)"),
    _schedule("from what came", "goes on from the length that was drafted",
              "if drafted > 0:\n    asked = drafted + 2 if accepted == drafted else max(1, drafted - 1)"),
    _schedule("down to zero", "can fall to 0",
              "if drafted > 0:\n    asked = asked + 2 if accepted == drafted else asked - 1 if asked > 0 else 0"),
    _schedule("any will do", "Any accepted guess", "if drafted > 0:\n    asked = asked + 2 if accepted else max(1, asked - 1)"),
)  # fmt: skip
