"""Plausible wrong answers to exercise 10."""

from wrong import Wrong, task

__all__ = ["ANSWERS"]

_output = task("10_after_eagle", "output", "my_output(drafts, p1, p2)")
_block = task("10_after_eagle", "block", "my_block(base, first, W1, W2, rng)")
_tree = task("10_after_eagle", "tree", "my_tree(rows, nodes)")
_length = task("10_after_eagle", "length", "my_length(words, confidence, v)")
_suffix = task("10_after_eagle", "suffix", "my_suffix(text, follows, factor, min_prob)")


def _emitted(
    name: str, told: str, keep: str = "min(1, p[x] / q[x])", owed: str = "max(0, pi - qi)", total: str = "sum(rest) or 1",
    chance: str = "chance", second: str = "p2[s][t]", next_p: str = "p2[a]",
) -> Wrong:  # fmt: skip
    body = f"""
    out = [[0] * 3 for _ in range(3)]
    for chance, (a, b), (q1, q2) in drafts:
        x, p, q = a, p1, q1
        first = {keep}
        rest = [{owed} for pi, qi in zip(p, q)]
        total = {total}
        for s in range(3):
            for t in range(3):
                out[s][t] += {chance} * (1 - first) * rest[s] / total * {second}
        x, p, q = b, {next_p}, q2
        both = {keep}
        rest = [{owed} for pi, qi in zip(p, q)]
        total = {total}
        out[a][b] += {chance} * first * both
        for t in range(3):
            out[a][t] += {chance} * first * (1 - both) * rest[t] / total
    return out
    """
    return _output(name, told, body)


def _drawn(
    name: str, told: str, before: str = "first if k == 0 else words[k - 1]", bias: str = "W1[before] @ W2",
    row: str = "torch.softmax(base[k] + bias, -1)", word: str = "rng.draw(row)", kept: str = "row",
) -> Wrong:  # fmt: skip
    body = f"""
    words, rows = [], []
    for k in range(len(base)):
        before = {before}
        bias = {bias}
        row = {row}
        words.append({word})
        rows.append({kept})
    return words, rows
    """
    return _block(name, told, body)


def _grown(
    name: str, told: str, value: str = "-minus * share", room: str = "nodes - 1", some: str = "if share > 0",
    push: str = "(-value, len(words), word, depth + 1)", words: str = "enumerate(rows[depth])",
) -> Wrong:  # fmt: skip
    body = f"""
    words, parents, heap = [], [], []
    node, depth, minus = 0, 0, -1.0
    while True:
        if depth < len(rows):
            for word, share in {words}:
                {some or "if True"}:
                    value = {value}
                    heapq.heappush(heap, {push})
        if not heap or len(words) == {room}:
            return words, parents
        minus, node, word, depth = heapq.heappop(heap)
        words.append(word)
        parents.append(node)
    """
    return _tree(name, told, body)


def _cut(
    name: str, told: str, seen: str = "words[:k]", alive: str = "alive * confidence(seen)", cost: str = "v(k + 2)",
    stop: str = "return k", start: str = "1.0", least: str = "", rises: str = "tau / v(k + 2) > most",
    most: str = "tau / {cost}",
) -> Wrong:  # fmt: skip
    rises, most = rises.replace("v(k + 2)", cost), most.format(cost=cost)
    body = f"""
    most, size, alive, tau = {least or start}, 0, 1.0, {start}
    for k in range(len(words)):
        seen = {seen}
        alive = {alive}
        tau = tau + alive
        if {rises}:
            most, size = {most}, k + 1
        else:
            {stop}
    return size
    """
    return _length(name, told, body)


def _copied(
    name: str, told: str, limit: str = "int(factor * match)", prob: str = "prob * share", low: str = "prob < min_prob",
    after: str = "False", score: str = "sum(chances)", better: str = "score >= best[1]", string: str = "string + [token]",
    share: str = "nexts[token] / sum(nexts.values())", order: str = "nexts",
) -> Wrong:  # fmt: skip
    body = f"""
    best = ([], 0.0)
    for match in range(1, len(text) + 1):
        string, draft, chances, prob = text[-match:], [], [], 1.0
        while len(draft) < {limit}:
            nexts = follows.get(tuple(string), {{}})
            if not nexts:
                break
            token = max({order}, key=lambda each: nexts[each])
            share = {share}
            prob = {prob}
            if {low}:
                break
            draft.append(token)
            chances.append(prob)
            string = {string}
            if {after}:
                break
        if draft:
            score = {score}
            if {better}:
                best = (draft, score)
    return best
    """
    return _suffix(name, told, body)


ANSWERS = (
    _emitted("correction from p", "is drawn from p. It comes from the residual", owed="pi"),
    _emitted("residual not normalised", "The residual is not normalised", total="1"),
    _emitted("second word after the rejected draft", "follows the rejected draft", second="p2[a][t]"),
    _emitted("second word from p1", "comes from p1", second="p1[t]"),
    _emitted("second word from the draft's row", "comes from the draft's row", second="q2[t]"),
    _emitted("second draft against p1", "is tested against p1", next_p="p1"),
    _emitted("ratio upside down", "Acceptance is q/p here", keep="min(1, q[x] / p[x])"),
    _emitted("ratio not capped", "not capped at 1", keep="p[x] / q[x]"),
    _emitted("drafts not weighted", "All drafts count alike", chance="1 / len(drafts)"),
    _emitted("corrections left out", "is left out, so the nine numbers sum to less", owed="0"),
    _output("goes on after a rejection", "still tested after the first was rejected", """
        out = [[0.0] * 3 for _ in range(3)]
        for chance, draft, rows in drafts:
            ways = {(): chance}
            for x, q in zip(draft, rows):
                new = {}
                for text, weight in ways.items():
                    p = p2[text[0]] if text else p1
                    keep = min(1.0, p[x] / q[x])
                    rest = [max(a - b, 0.0) for a, b in zip(p, q)]
                    for w in range(3):
                        share = keep * (w == x) + (1 - keep) * (rest[w] / sum(rest) if sum(rest) else 0.0)
                        new[(*text, w)] = new.get((*text, w), 0.0) + weight * share
                ways = new
            for (s, t), weight in ways.items():
                out[s][t] += weight
        return out
    """),
    _output("p = q divides by zero", "Where p = q, the residual is all zeros", """
        out = [[0.0] * 3 for _ in range(3)]
        for chance, (a, b), (q1, q2) in drafts:
            keep = min(1, p1[a] / q1[a])
            rest = [max(p - q, 0) for p, q in zip(p1, q1)]
            for s in range(3):
                for t in range(3):
                    out[s][t] += chance * (1 - keep) * rest[s] / sum(rest) * p2[s][t]
            both = min(1, p2[a][b] / q2[b])
            rest = [max(p - q, 0) for p, q in zip(p2[a], q2)]
            out[a][b] += chance * keep * both
            for t in range(3):
                out[a][t] += chance * keep * (1 - both) * rest[t] / sum(rest)
        return out
    """),
    _emitted("second draft kept after a rejection", "is kept after the first was rejected", second="(t == b)"),
    _emitted("residual the wrong way round", "The residual is max(q - p, 0) here", owed="max(0, qi - pi)"),
    _drawn("row after the word", "The row is computed after `previous` was replaced",
           kept="torch.softmax(base[k] + W1[words[k]] @ W2, -1)"),
    _drawn("point rows", "These rows keep the output as well", kept="torch.eye(3)[words[k]]"),
    _drawn("argmax with a one-hot row", "The likeliest word is taken, with a one-hot row", word="int(row.argmax())",
           kept="torch.eye(3)[words[k]]"),
    _block("words alone", "the words alone", """
        words, previous = [], first
        for logits in base:
            previous = rng.draw(torch.softmax(logits + W1[previous] @ W2, -1))
            words.append(previous)
        return words
    """),
    _block("rows first", "The words come first", """
        words, rows, previous = [], [], first
        for logits in base:
            rows.append(torch.softmax(logits + W1[previous] @ W2, -1))
            previous = rng.draw(rows[-1])
            words.append(previous)
        return rows, words
    """),
    _block("bias adds up", "The biases add up", """
        words, rows, bias, previous = [], [], 0.0, first
        for logits in base:
            bias = bias + W1[previous] @ W2
            rows.append(torch.softmax(logits + bias, -1))
            previous = rng.draw(rows[-1])
            words.append(previous)
        return words, rows
    """),
    _drawn("rows without the head", "The rows lack the Markov head", kept="torch.softmax(base[k], -1)"),
    _drawn("drawn without the head", "are drawn from softmax(base), and the rows have the bias",
           word="rng.draw(torch.softmax(base[k], -1))"),
    _drawn("no head at all", "The Markov head is left out", bias="0.0"),
    _drawn("always the first word", "that of the last verified word at every position", before="first"),
    _drawn("no bias at the first position", "The first position has no bias",
           bias="W1[before] @ W2 if k else torch.zeros(3)"),
    _drawn("argmax with a softmax row", "The likeliest word is taken", word="int(row.argmax())"),
    _drawn("logits as rows", "The rows are logits", kept="base[k] + bias"),
    _drawn("two positions back", "two positions back", before="words[k - 2] if k > 1 else first"),
    _grown("own probability", "ranked by its own probability", value="share"),
    _grown("one node too many", "`nodes` counts the root", room="nodes"),
    _grown("sums instead of products", "added along the path", value="-minus + share - (not depth)"),
    _grown("least likely first", "The least likely path is taken first", value="abs(minus) * share",
           push="(value, len(words), word, depth + 1)"),
    _grown("words that never come", "Words of probability 0 are drafted", some=""),
    _grown("two words a node", "Only two words are considered below each node",
           words="sorted(enumerate(rows[depth]), key=lambda pair: -pair[1])[:2]"),
    _tree("parents one too low", "The parent's number is one too low", """
        words, parents, heap = [], [], []

        def offer(node, depth, value):
            if depth < len(rows):
                for word, share in enumerate(rows[depth]):
                    if share > 0:
                        heapq.heappush(heap, (-value * share, node, word, depth + 1))

        offer(0, 0, 1.0)
        while heap and len(words) < nodes - 1:
            minus, parent, word, depth = heapq.heappop(heap)
            words.append(word)
            parents.append(parent)
            offer(len(words) - 1, depth, -minus)
        return words, parents
    """),
    _tree("a chain", "That is a chain of the likeliest words", """
        words = [max(range(len(row)), key=row.__getitem__) for row in rows][: nodes - 1]
        return words, list(range(len(words)))
    """),
    _tree("level by level", "Level by level", """
        words, parents, level = [], [], [(0, 1.0)]
        for row in rows:
            made = [(-value * share, node, word) for node, value in level for word, share in enumerate(row) if share]
            level = []
            for minus, node, word in sorted(made, key=lambda each: each[0]):
                if len(words) < nodes - 1:
                    words.append(word)
                    parents.append(node)
                    level.append((len(words), -minus))
        return words, parents
    """),
    _tree("sorted by depth", "the right drafts, listed level by level", """
        paths, found = [((), 1.0)], []
        for row in rows:
            paths = [(path + (word,), value * share) for path, value in paths for word, share in enumerate(row) if share]
            found += paths
        kept = sorted(found, key=lambda each: -each[1])[: nodes - 1]
        kept = [path for path, _ in sorted(kept, key=lambda each: (len(each[0]), -each[1]))]
        place = {(): 0, **{path: i for i, path in enumerate(kept, 1)}}
        return [path[-1] for path in kept], [place[path[:-1]] for path in kept]
    """),
    _cut("sees its own word", "still uses the word that it decides about", seen="words[: k + 1]"),
    _cut("best of all lengths", "The best of all lengths is taken", stop="pass"),
    _cut("as it was", "This is the scheduler as it was", seen="words[: k + 1]", stop="pass"),
    _cut("one position past the stop", "The position that lowers the ratio is verified as well", stop="return k + 1"),
    _cut("price without the root", "The price is one token too low", cost="v(k + 1)"),
    _cut("confidences not multiplied", "Confidences are not multiplied", alive="confidence(seen)"),
    _cut("no bonus", "own token is left out of the expected tokens", start="0.0"),
    _cut("at equality too", "verified at equality, too", rises="tau / v(k + 2) >= most"),
    _cut("best never updated", "Each ratio is compared with 1", most="most"),
    _cut("best from zero", "The first position is verified even where that does not pay", least="0.0"),
    _cut("added chance against added cost", "The added chance is compared with the added cost",
         rises="alive > v(k + 2) - v(k + 1)"),
    _cut("confidence of the first position", "Each position gets confidence(())", seen="()"),
    _cut("one word too few", "gets one word too few", seen="words[: k - 1]"),
    _cut("one word too few, none for the first", "gets one word too few", seen="words[: max(k - 1, 0)]"),
    _length("threshold", "The cost is ignored", """
        for k in range(len(words)):
            if confidence(words[:k]) < 0.5:
                return k
        return len(words)
    """),
    _length("tokens without cost", "Every block is verified whole", """
        tau = 1.0
        for k in range(len(words)):
            if tau + confidence(words[:k]) <= tau:
                return k
            tau += confidence(words[:k])
        return len(words)
    """),
    _length("never", "Nothing is ever verified", "return 0"),
    _length("always", "Every block is verified whole", "return len(words)"),
    _copied("longest match only", "The longest match always wins", better="True"),
    _copied("shorter match on a tie", "the shorter match wins", better="score > best[1]"),
    _copied("last probability as the score", "The score is the last probability", score="chances[-1]"),
    _copied("length as the score", "The score is the number of drafts", score="float(len(draft))"),
    _copied("no limit", "The length is not limited by the match", limit="99"),
    _copied("one draft too many", "One draft too many", limit="int(factor * match) + 1"),
    _copied("limit rounded up", "The limit is rounded up", limit="-int(-factor * match // 1)"),
    _copied("each step against the least probability", "held against each step", low="share < min_prob"),
    _copied("a token below the least probability", "is still drafted", low="False", after="prob < min_prob"),
    _copied("an end at the least probability", "exactly `min_prob`, too", low="prob <= min_prob"),
    _copied("share instead of the product", "P is the share of one step", prob="share"),
    _copied("last of equal counts", "the last is taken", order="reversed(list(nexts))"),
    _copied("at least one draft", "At least one token is drafted", limit="max(1, int(factor * match))"),
    _copied("at most factor drafts", "At most `factor` tokens are drafted", limit="int(factor)"),
    _copied("factor rounded first", "The factor is rounded before", limit="int(factor) * match"),
    _copied("limit rounded", "rounded to the nearest number", limit="round(factor * match)"),
    _copied("mean as the score", "The score is the mean", score="sum(chances) / len(chances)"),
    _copied("least probability ignored", "The least probability is ignored", low="False"),
    _copied("string of one length", "The string does not grow with its drafts", string="(string + [token])[-match:]"),
    _copied("counts for shares", "is taken as its count", share="float(nexts[token])"),
)  # fmt: skip
