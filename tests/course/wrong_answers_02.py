"""Plausible wrong answers to exercise 02."""

from textwrap import dedent, indent

from wrong import Wrong, function, task

__all__ = ["ANSWERS"]


_accept = task("02_verification", "acceptance", "my_acceptance(p, q, x)")
_correct = task("02_verification", "correction", "my_correction(p, q)")
_tau = task("02_verification", "tau", "my_tau(p, q)")
_draft = task("02_verification", "draft", "my_draft(distribution, text, gamma, rng)")


def _verifier(body: str, dists: str = '"iid", "point"') -> str:
    call = indent(function("__call__(self, tree, p, rng)", body), "    ")
    return f"class MyVerifier:\n    lossless_for = frozenset({{{dists}}})\n\n{call}"


def _verify(name: str, told: str, body: str) -> Wrong:
    return Wrong("02_verification", "verifier", name, told, _verifier(body))


# The frame of a right verifier; the wrong ones fill in `ratio`, `rest`, or the end of it.
CHAIN = """
    kept = []
    for i, x in enumerate(tree.token_list[1:]):
        if tree.q is None:
            q = torch.nn.functional.one_hot(torch.tensor(x), p.shape[1]).to(p.dtype)
        else:
            q = tree.q[i]
        if not rng.accept(float({ratio})):
            rest = {rest}
            return VerifyResult(tuple(kept), rng.draw(rest))
        kept.append(i + 1)
    {end}
    """
END = "return VerifyResult(tuple(kept), rng.draw(p[-1]))"


def _chain(ratio: str = "p[i][x] / q[x]", rest: str = "residual(p[i], q)", end: str = END) -> str:
    return CHAIN.format(ratio=ratio, rest=rest, end=indent(dedent(end), "    ").strip())


GREEDY_CHAIN = """
    words, distributions = list(text), []
    for _ in range(gamma):
        q = distribution({given})
        words.append({pick})
        distributions.append(q)
    distributions.append(torch.zeros_like(distribution(text)))
    chain = torch.tensor(words[len(text) - 1 :])
    return DraftTree(chain, torch.arange(len(chain)) - 1, {says})
    """

ANSWERS = (
    _accept("no cap", "has no cap", "return p[x] / q[x]"),
    _accept("upside down", "wrong way round", "return float(torch.clamp(q[x] / p[x], max=1))"),
    _accept("p alone", "q is left out", "return p[x].item()"),
    _accept("overlap", "drafted AND kept", "return float(torch.minimum(p, q)[x])"),
    _accept("threshold", "threshold", "return 1.0 if p[x] >= q[x] else 0.0"),
    _accept("greedy", "rule of temperature 0", "return 1.0 if p.argmax() == x else 0.0"),
    _correct("the target itself", "p itself", "return p"),
    _correct("absolute", "absolute difference", "d = abs(p - q)\nreturn d / d.sum()"),
    _correct("negative", "Negative differences stay in", "return p - q"),
    _correct("swapped", "wrong way round", "d = torch.relu(q - p)\nreturn d / d.sum() if d.sum() > 0 else p"),
    _correct("unscaled", "not scaled", "d = torch.relu(p - q)\nreturn d if d.sum() > 0 else p"),
    _correct("no number", "0/0 is not a number", "d = torch.relu(p - q)\nreturn d / d.sum()"),
    _correct("in place", "changes the tensor it is given", """
        if torch.equal(p, q):
            return p
        p -= q
        p.clamp_(min=0)
        return p / p.sum()
        """),
    _correct("the package's residual", "it calls `residual`", "rest = residual(p, q)\nreturn rest / rest.sum()"),
    _verify("draws from p", "draw from p itself", _chain(rest="p[i]")),
    _verify("only rules out x", "only rule out the rejected word",
            _chain(rest="p[i] * (torch.arange(p.shape[1]) != x)")),
    _verify("no bonus", "the bonus is forgotten", _chain(end="""
        if kept:
            return VerifyResult(tuple(kept[:-1]), tree.token_list[-1])
        return VerifyResult((), rng.draw(p[0]))
        """)),
    _verify("bonus from the row before", "row before the last draft",
            _chain(end="return VerifyResult(tuple(kept), rng.draw(p[len(kept) - 1 if kept else 0]))")),
    _verify("tested with the next row", "row after its own", _chain(ratio="p[i + 1][x] / q[x]")),
    _verify("corrected by the next row", "row after the one that the word was tested with",
            _chain(rest="residual(p[i + 1], q)")),
    _verify("upside down", "is upside down", _chain(ratio="q[x] / p[i][x]")),
    _verify("p alone", "leaves q out", _chain(ratio="p[i][x]")),
    _verify("threshold", "a threshold instead of a coin", _chain(ratio="1.0 if p[i][x] >= q[x] else 0.0")),
    _verify("greedy", "rule of temperature 0", _chain(ratio="1.0 if p[i].argmax() == x else 0.0")),
    _verify("keeps everything", "Every draft is kept", """
        return VerifyResult(tuple(range(1, len(tree))), rng.draw(p[-1]))
        """),
    _verify("keeps nothing", "No draft is ever kept", "return VerifyResult((), rng.draw(p[0]))"),
    _verify("a coin of its own", "random numbers, or memory, from outside", """
        import random
        return VerifyResult((), int(random.random() * p.shape[1]))
        """),
    _verify("certain drafts forgotten", "has no q: tree.q is None", """
        for i, x in enumerate(tree.token_list[1:]):
            q = tree.q[i]
            if not rng.accept(float(p[i][x] / q[x])):
                return VerifyResult(tuple(range(1, i + 1)), rng.draw(residual(p[i], q)))
        return VerifyResult(tuple(range(1, len(tree))), rng.draw(p[-1]))
        """),
    _verify("words for a path", "the indices of the accepted nodes",
            _chain(end="return VerifyResult(tree.token_list[1:], rng.draw(p[-1]))")),
    _verify("root in the path", "the root, node 0, is left out",
            _chain(end="return VerifyResult((0, *kept), rng.draw(p[-1]))")),
    _tau("own token forgotten", "own token is not counted", """
        total, alive = 0.0, 1.0
        for a, b in zip(p, q):
            alive *= torch.minimum(a, b).sum().item()
            total += alive
        return total
        """),
    _tau("rates added", "rates are added", "return 1 + sum(float(torch.minimum(a, b).sum()) for a, b in zip(p, q))"),
    _tau("no half", "factor of one half", """
        total, alive = 1.0, 1.0
        for a, b in zip(p, q):
            alive *= 1 - float(abs(a - b).sum())
            total += alive
        return total
        """),
    _tau("averaged", "averaged first", """
        rates = [1 - float(abs(a - b).sum()) / 2 for a, b in zip(p, q)]
        alpha = sum(rates) / len(rates)
        return sum(alpha**i for i in range(len(rates) + 1))
        """),
    _tau("two draws agree", "two independent draws agree", """
        total, alive = 1.0, 1.0
        for a, b in zip(p, q):
            alive *= float(a @ b)
            total += alive
        return total
        """),
    _draft("unmended", "drafts as the library did",
           GREEDY_CHAIN.format(given="words", pick="q.argmax().item()", says='"iid", torch.stack(distributions)')),
    _draft("called certain", "declares them as deterministic",
           GREEDY_CHAIN.format(given="words", pick="rng.draw(q)", says='"point"')),
    _draft("always for the same text", "drafted for the same text",
           GREEDY_CHAIN.format(given="text", pick="rng.draw(q)", says='"iid", torch.stack(distributions)')),
    _draft("drafts nothing", "no longer speculation", "return DraftTree(torch.tensor(text[-1:]), torch.tensor([-1]))"),
)  # fmt: skip
