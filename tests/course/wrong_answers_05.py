"""Plausible wrong answers to exercise 05."""

from textwrap import indent

from wrong import Wrong, function

__all__ = ["ANSWERS"]


def _view(name: str, told: str, body: str) -> Wrong:
    return Wrong("05_tree", "view", name, told, function("my_view(parents, length)", body))


def _rerank(name: str, told: str, body: str) -> Wrong:
    return Wrong("05_tree", "rerank", name, told, function("my_rerank(confidence, parents, nodes)", body))


def _verify(name: str, told: str, body: str) -> Wrong:
    call = indent(function("__call__(self, tree, p, rng)", body), "    ")
    dists = 'lossless_for = frozenset({"iid", "without_replacement"})'
    return Wrong("05_tree", "verifier", name, told, f"class MyTreeVerifier:\n    {dists}\n\n{call}")


def _tau(name: str, told: str, body: str) -> Wrong:
    return Wrong("05_tree", "sequoia", name, told, function("my_best_tau(acceptance, nodes)", body))


def _links(name: str, told: str, body: str) -> Wrong:
    return Wrong("05_tree", "links", name, told, function("my_links(tokens, parents, size)", body))


# Frames of right answers; the wrong ones differ in one place.
VIEW = """
    n = len(parents)
    mask = [[False] * n for _ in range(n)]
    depth = [0] * n
    for i in range(n):
        if i:
            depth[i] = depth[parents[i]] + 1
        j = {start}
        while j != -1:
            {mark}
            j = {step}
    return mask, {positions}
    """
POSITIONS = "[length + d for d in depth]"


def _seen(
    start: str = "i", mark: str = "mask[i][j] = True", step: str = "parents[j]", positions: str = POSITIONS
) -> str:
    return VIEW.format(start=start, mark=mark, step=step, positions=positions)


RANK = """
    value = []
    for c, parent in zip(confidence, parents):
        value.append({value})
    order = list(range(len(value)))
    order.sort(key=lambda i: {key})
    return {kept}
    """


def _ranked(
    value: str = "c * value[parent] if parent >= 0 else c",
    key: str = "(-value[i], i)",
    kept: str = "sorted(order[: nodes - 1])",
) -> str:
    return RANK.format(value=value, key=key, kept=kept)


ROUNDS = """
    node, path = 0, []
    while True:
        owed, q = p[node].clone(), tree.q[node].clone()
        kids = {kids}
        for kid in kids:
            x = tree.token_list[kid]
            if rng.accept(float({ratio})):
                path.append(kid)
                node = kid
                break
            owed = {owed}
            if {drop}:
                q = {rest}
        else:
            return VerifyResult(tuple(path), rng.draw({last}))
        {then}
    """
OTHERS = "(torch.arange(len(q)) != x)"


def _rounds(
    ratio: str = "owed[x] / q[x]",
    owed: str = "residual(owed, q) / residual(owed, q).sum()",
    last: str = "owed",
    drop: str = 'tree.drawn == "without_replacement"',
    rest: str = f"q * {OTHERS} / (q * {OTHERS}).sum()",
    kids: str = "tree.children(node)",
    then: str = "continue",
) -> str:
    return ROUNDS.format(ratio=ratio, owed=owed, last=last, drop=drop, rest=rest, kids=kids, then=then)


FOREST = """
    @cache
    def best(m, r):
        if m == 0 or r == len({row}):
            return 0.0
        return max({row}[r] * (1 + best(s - 1, 0)) + best(m - s, r + 1) for s in range(1, m + 1))

    return {answer}
    """


def _forest(row: str = "acceptance", answer: str = "1 + best(nodes - 1, 0)") -> str:
    return FOREST.format(row=row, answer=answer)


LINKS = """
    pads = size - len(tokens)
    guesses, tokens, parents = len(tokens), tokens + [{pad}] * pads, {parents}
    child, sibling, latest = [-1] * size, [-1] * size, {{}}
    for node in range(1, {end}):
        if {skip}:
            continue
        above = parents[node]
        if above in latest:
            sibling[latest[above]] = node
        else:
            child[above] = node
        latest[above] = node
    return {answer}
    """


def _linked(
    pad: str = "0",
    parents: str = "parents + [0] * pads",
    end: str = "size",
    skip: str = "False",
    answer: str = "tokens, child, sibling",
) -> str:
    return LINKS.format(pad=pad, parents=parents, end=end, skip=skip, answer=answer)


ANSWERS = (
    _view("a triangle", "That is the mask of a chain", """
        n = len(parents)
        depth = [0] * n
        for i in range(1, n):
            depth[i] = depth[parents[i]] + 1
        return torch.ones(n, n).tril().bool(), [length + d for d in depth]
        """),
    _view("upside down", "wrong way round", _seen(mark="mask[j][i] = True")),
    _view("parent alone", "not the ancestors above these", _seen(mark="mask[i][j] = j in (i, parents[i])")),
    _view("not itself", "does not see itself", _seen(start="parents[i]")),
    _view("siblings", "also sees its siblings", """
        n = len(parents)
        mask, depth = torch.eye(n).bool(), [0] * n
        for i in range(1, n):
            mask[i] |= mask[parents[i]]
            depth[i] = depth[parents[i]] + 1
        for i in range(1, n):
            for j in range(1, n):
                if parents[i] == parents[j]:
                    mask[i, j] = True
        return mask, [length + d for d in depth]
        """),
    _view("blind to the root", "Node 0 is left out", _seen(mark="mask[i][j] = j > 0 or i == 0")),
    _view("numbered", "count along the list", _seen(positions="[length + i for i in range(n)]")),
    _view("row sums", "one too many", _seen(positions="[length + sum(row) for row in mask]")),
    _view("one too small", "one too small", _seen(positions="[length - 1 + d for d in depth]")),
    _view("mask alone", "two things were expected", _seen().replace(f"return mask, {POSITIONS}", "return mask")),
    _rerank("own confidence", "ranked by their own confidence", _ranked(value="c")),
    _rerank("added up", "along the path are added", _ranked(value="c + value[parent] if parent >= 0 else c")),
    _rerank("later first", "Of equally valuable candidates the later one", _ranked(key="(-value[i], -i)")),
    _rerank("root forgotten", "One candidate too many", _ranked(kept="sorted(order[:nodes])")),
    _rerank("by value", "the most valuable first", _ranked(kept="order[: nodes - 1]")),
    _rerank("level by level", "level by level", "return list(range(min(nodes - 1, len(parents))))"),
    _rerank("two levels", "goes on up to the root", _ranked(value="c * confidence[parent] if parent >= 0 else c")),
    _rerank("tokens of one", "a list of candidates' numbers", _ranked(kept="max(order)")),
    _verify("p as it was", "tested against p as it was",
            _rounds(ratio="p[node][x] / q[x]", owed="residual(p[node], q)")),
    _verify("tensors for numbers, one q for all", "against the q that the first one came from",
            _rounds(drop="False").replace("float(owed[x] / q[x])", "owed[x] / q[x]")),
    _verify("p as it was, and what is owed kept", "though what is owed is kept", _rounds(ratio="p[node][x] / q[x]")),
    _verify("p less q each time", "the refusals before it are forgotten",
            _rounds(owed="residual(p[node], q) / residual(p[node], q).sum()")),
    _verify("the first q taken off", "always computed with the first child's q",
            _rounds(owed="residual(owed, tree.q[node]) / residual(owed, tree.q[node]).sum()")),
    _verify("q changed first", "too often. Over all outcomes", _rounds(
        owed="owed", rest=f"q * {OTHERS} / (q * {OTHERS}).sum()").replace(
        "else:\n            return", "    owed = residual(owed, q) / residual(owed, q).sum()\n        else:\n            return")),
    _verify("draws from p", "draw from p itself", _rounds(last="p[node]")),
    _verify("one q for all", "against the q that the first one came from", _rounds(drop="False")),
    _verify("q without scale", "against the q that the first one came from", _rounds(rest=f"q * {OTHERS}")),
    _verify("always without", "for independent children as well", _rounds(drop="q.sum() > q[x]")),
    _verify("unscaled", "not normalised", _rounds(owed="residual(owed, q)")),
    _verify("only rules out x", "only rules out the refused word", _rounds(owed=f"owed * {OTHERS} / (owed * {OTHERS}).sum()")),
    _verify("nothing learnt", "changes nothing at all", _rounds(owed="owed")),
    _verify("q left out", "leaves q out", _rounds(ratio="owed[x]", owed=f"owed * {OTHERS} / (owed * {OTHERS}).sum()")),
    _verify("first child", "Only the first child", _rounds(kids="tree.children(node)[:1]")),
    _verify("one level", "ends at the first accepted child",
            _rounds(then="return VerifyResult(tuple(path), rng.draw(p[node]))")),
    _verify("no repeats", "Repeated siblings are left out",
            _rounds(kids="list({tree.token_list[k]: k for k in reversed(tree.children(node))}.values())[::-1]")),
    _verify("row of the child", "its own row of p", _rounds(ratio="p[kid][x] / q[x]", owed="residual(p[kid], q) / residual(p[kid], q).sum()")),
    _verify("q spoilt", "it changed tree.q", _rounds(rest="q / q.sum()").replace(
        "tree.q[node].clone()", "tree.q[node]").replace("q = q / q.sum()", "q[x] = 0; q /= q.sum()")),
    _verify("words for nodes", "the indices of the accepted nodes",
            _rounds().replace("path.append(kid)", "path.append(x)")),
    Wrong("05_tree", "verifier", "another way of drawing claimed", "its `lossless_for` must be a set", """
class MyTreeVerifier:
    lossless_for = frozenset({"point"})

    def __call__(self, tree, p, rng):
        return VerifyResult((), rng.draw(p[0]))
"""),
    _tau("own token forgotten", "own token is not counted", _forest(answer="best(nodes - 1, 0)")),
    _tau("root for nothing", "one guess too many", _forest(answer="1 + best(nodes, 0)")),
    _tau("rank stays", "The rank never advances", _forest().replace("r + 1", "r")),
    _tau("rank goes down", "counted anew below every node", _forest().replace("best(s - 1, 0)", "best(s - 1, r)")),
    _tau("a chain", "the best chain", "return sum(acceptance[0] ** i for i in range(nodes))"),
    _tau("a fan", "a fan", "return 1 + sum(acceptance[: nodes - 1])"),
    _tau("greedy", "most valuable open place", """
        tau, open_places = 0.0, [(1.0, 0, None)]
        for _ in range(nodes):
            open_places.sort(key=lambda place: place[0])
            value, rank, above = open_places.pop()
            tau += value
            open_places.append((value * acceptance[0], 0, value))
            if above is not None and rank + 1 < len(acceptance):
                open_places.append((above * acceptance[rank + 1], rank + 1, above))
        return tau
        """),
    _tau("sorted", "the place of another rank", _forest(row="row").replace("    @cache", "    row = sorted(acceptance)[::-1]\n    @cache", 1)),
    _tau("endless", "RecursionError", """
        def best(m, r):
            return max(acceptance[r] * (1 + best(m - 1, 0)), best(m, r))

        return 1 + best(nodes - 1, 0)
        """),
    _links("unmended", "links as the server did", _linked()),
    _links("another token", "still meets them", _linked(pad="-1")),
    _links("no word 0", "Every token 0 is left out", _linked(skip="tokens[node] == 0")),
    _links("below the last", "hang on the last guess", _linked(parents="parents + [guesses - 1] * pads").replace(
        "guesses, tokens, parents = len(tokens), ", "guesses = len(tokens)\n    tokens, parents = ")),
    _links("a tail of pads", "a chain below the last guess", _linked(parents="parents + list(range(len(parents) - 1, size - 1))")),
    _links("last guess lost", "The last guess is linked nowhere", _linked(end="guesses - 1")),
    _links("one pad left", "One pad is left", _linked(end="min(size, guesses + 1)")),
    _links("no padding", "8 numbers were expected", """
        child, sibling, latest = [-1] * len(tokens), [-1] * len(tokens), {}
        for node in range(1, len(tokens)):
            above = parents[node]
            if above in latest:
                sibling[latest[above]] = node
            else:
                child[above] = node
            latest[above] = node
        return tokens, child, sibling
        """),
)  # fmt: skip
