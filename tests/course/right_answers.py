"""Right answers to the exercises, written differently from the reference solutions: each must pass all its tests."""

from dataclasses import dataclass
from textwrap import dedent

__all__ = ["RIGHT", "Right"]


@dataclass(frozen=True)
class Right:
    """`task`: grade id of the cell that holds the answer; `name`: what is different about it."""

    exercise: str
    task: str
    name: str
    code: str


def right(exercise: str, task: str, name: str, code: str) -> Right:
    return Right(exercise, task, name, dedent(code).strip() + "\n")


RIGHT = (
    right("01_bottleneck", "step", "counted text by text", """
        def my_step(weights, size, texts, k, context, kv):
            moved, work = weights * size, 0
            for _ in range(texts):
                moved += context * kv  # read
                moved += k * kv  # written
                work += 2 * weights * k
            return moved, work
        """),
    right("01_bottleneck", "roofline", "a sorted list of times", """
        def my_roofline(moved, work, bandwidth, peak):
            return sorted([(moved / bandwidth, "memory"), (work / peak, "arithmetic")])[-1]
        """),
    right("01_bottleneck", "kv", "an if instead of `or`, factors in another order", """
        def my_kv_bytes(config, tokens, cache_dtype):
            if config.head_dim is None:
                width = config.hidden_size // config.num_attention_heads
            else:
                width = config.head_dim
            one_layer = 2 * config.num_key_value_heads * width * cache_dtype.itemsize
            return float(config.num_hidden_layers * one_layer * tokens)
        """),
    right("01_bottleneck", "speedup", "a loop over the drafts", """
        def my_speedup(alpha, gamma, seconds, draft_seconds):
            tau, alive = 1.0, 1.0
            for _ in range(gamma):
                alive = alive * alpha
                tau = tau + alive
            plain = tau * seconds[1]
            return plain / (draft_seconds * gamma + seconds[1 + gamma])
        """),
    right("01_bottleneck", "speedup", "the closed form, with alpha = 1 apart", """
        def my_speedup(alpha, gamma, seconds, draft_seconds):
            tau = gamma + 1 if alpha == 1 else (1 - alpha ** (gamma + 1)) / (1 - alpha)
            c, v = draft_seconds / seconds[1], seconds[gamma + 1] / seconds[1]
            return tau / (gamma * c + v)
        """),
    right("01_bottleneck", "gamma", "a loop that remembers the best, own formulas", """
        def my_best_gamma(alpha, c, v, longest):
            best, fastest = 0, 1.0
            for g in range(1, longest + 1):
                speed = sum(alpha**i for i in range(g + 1)) / (g * c + v(g + 1))
                if speed > fastest:
                    best, fastest = g, speed
            return best
        """),
    right("02_verification", "acceptance", "an if instead of min", """
        def my_acceptance(p, q, x):
            if p[x] >= q[x]:
                return 1
            return p[x] / q[x]
        """),
    right("02_verification", "correction", "word by word, as a list", """
        def my_correction(p, q):
            owed = [max(0.0, float(a) - float(b)) for a, b in zip(p, q)]
            if sum(owed) == 0:
                return [1 / len(owed)] * len(owed)
            return [each / sum(owed) for each in owed]
        """),
    right("02_verification", "verifier", "block verification: it may yield more than the rule of the task", """
        from specdec_ref.verifiers import BlockVerifier as MyVerifier
        """),
    right("02_verification", "verifier", "deterministic and drawn drafts in two branches", """
        class MyVerifier:
            lossless_for = {"iid", "point"}

            def __call__(self, tree, p, rng):
                accepted = []
                for node in range(1, len(tree)):
                    word, above = tree.token_list[node], p[node - 1]
                    if tree.drawn == "point":
                        ratio = float(above[word])
                        rest = above.clone()
                        rest[word] = 0.0
                    else:
                        q = tree.q[node - 1]
                        ratio = min(1.0, float(above[word]) / float(q[word]))
                        rest = torch.relu(above - q)
                    if rng.accept(ratio):
                        accepted.append(node)
                    else:
                        return VerifyResult(tuple(accepted), rng.draw(rest / rest.sum()))
                return VerifyResult(tuple(accepted), rng.draw(p[-1]))
        """),
    right("02_verification", "tau", "with the distance, and a running product", """
        def my_tau(p, q):
            keep = 1 - 0.5 * (p[:-1] - q).abs().sum(-1)
            return 1 + keep.cumprod(0).sum()
        """),
    right("02_verification", "tau", "recursion", """
        def my_tau(p, q):
            if len(q) == 0:
                return 1.0
            return 1.0 + float(torch.minimum(p[0], q[0]).sum()) * my_tau(p[1:], q[1:])
        """),
    right("02_verification", "draft", "the favourite, declared as deterministic", """
        def my_draft(dist, text, gamma, rng):
            chain = [text[-1]]
            while len(chain) <= gamma:
                chain.append(int(dist(text + chain[1:]).argmax()))
            return DraftTree(torch.tensor(chain), torch.arange(-1, gamma))
        """),
    right("02_verification", "draft", "drawn from the squared distribution, and declared so", """
        def my_draft(dist, text, gamma, rng):
            chain, rows = [text[-1]], []
            for _ in range(gamma):
                q = dist(text + chain[1:]) ** 2
                q = q / q.sum()
                rows.append(q)
                chain.append(rng.draw(q))
            rows.append(torch.zeros_like(rows[0]))
            return DraftTree(torch.tensor(chain), torch.arange(-1, gamma), "iid", torch.stack(rows))
        """),
    right("03_eagle", "vocabulary", "counts in a tensor, a stable sort", """
        def my_draft_map(texts, size, vocab):
            counts = torch.bincount(torch.tensor([t for text in texts for t in text]), minlength=vocab)
            kept = counts.argsort(descending=True, stable=True)[:size].sort().values
            d2t = [int(token) - i for i, token in enumerate(kept)]
            return d2t, [token in kept.tolist() for token in range(vocab)]
        """),
    right("03_eagle", "draft", "the q rows in a tensor that is filled", """
        def my_draft(head, features, text, gamma, rng):
            words = head.q_vocab.tolist()
            q = torch.zeros(gamma + 1, len(words), dtype=torch.float64)
            tokens, g = [text[-1]], head.read(features, text[1:])
            for i in range(gamma):
                if i:
                    g = head.step(g, tokens[-1])
                q[i] = torch.softmax(head.logits(g), 0)
                tokens.append(words[rng.draw(q[i])])
            return DraftTree(torch.tensor(tokens), torch.arange(gamma + 1) - 1, "iid", q, head.q_vocab)
        """),
    right("03_eagle", "commit", "a loop over the path", """
        def my_commit(verified, own, features, chain, path, next_token):
            kept, tokens = [features[0]], []
            for node in path:
                kept.append(features[node])
                tokens.append(chain[node])
            tokens.append(next_token)
            return verified, torch.stack(kept), tokens
        """),
    right("03_eagle", "commit", "by the number of accepted drafts", """
        def my_commit(verified, own, features, chain, path, next_token):
            n = len(path)
            return verified, features[: n + 1], chain[1 : n + 1] + [next_token]
        """),
    right("03_eagle", "mask", "place by place", """
        def my_mask(columns, step):
            rows = []
            for i in range(columns):
                row = [j <= i for j in range(columns)]
                for _ in range(step):
                    row += [j == i for j in range(columns)]
                rows.append(row)
            return rows
        """),
    right("03_eagle", "loss", "a loop over the rows that count", """
        def my_loss(log_q, p, answer, q_vocab):
            losses = []
            for i in range(len(log_q) - 1):
                if answer[i + 2]:
                    goal = p[i + 1][q_vocab]
                    losses.append(-(goal / goal.sum()) @ log_q[i])
            return torch.stack(losses).mean()
        """),
    right("03_eagle", "loss", "weights instead of a selection", """
        def my_loss(log_q, p, answer, q_vocab):
            goal = p[1:, q_vocab]
            goal = goal / goal.sum(1, keepdim=True)
            weight = torch.zeros(len(log_q), dtype=log_q.dtype)
            weight[:-1] = answer[2:].to(log_q.dtype)
            return -(weight[:, None] * goal * log_q).sum() / weight.sum()
        """),
    right("04_ngram", "lookup", "all matches, the best by length and place", """
        def my_lookup(text, gamma, longest, shortest):
            found = [
                (n, end)
                for end in range(1, len(text))
                for n in range(shortest, min(longest, end) + 1)
                if text[end - n : end] == text[len(text) - n :]
            ]
            if not found:
                return []
            end = max(found)[1]
            return text[end : end + gamma]
        """),
    right("04_ngram", "lookup", "recursion over the length", """
        def my_lookup(text, gamma, longest, shortest):
            if longest < shortest:
                return []
            end = len(text) - 1
            while end >= longest:
                if text[end - longest : end] == text[-longest:]:
                    return text[end:][:gamma]
                end -= 1
            return my_lookup(text, gamma, longest - 1, shortest)
        """),
    right("04_ngram", "tree", "paths as keys", """
        def my_tree(root, branches, nodes):
            number = {(): 0}
            for branch in branches:
                for depth in range(1, len(branch) + 1):
                    path = tuple(branch[:depth])
                    if path not in number and len(number) < nodes:
                        number[path] = len(number)
            paths = list(number)
            tokens = [root] + [path[-1] for path in paths[1:]]
            parents = [-1] + [number[path[:-1]] for path in paths[1:]]
            return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    right("04_ngram", "grams", "windows of each length, a Counter", """
        from collections import Counter

        def my_grams(texts, depth):
            return Counter(
                tuple(text[i : i + n])
                for n in range(1, depth + 1)
                for text in texts
                for i in range(len(text) - n + 1)
            )
        """),
    right("04_ngram", "propose", "a comprehension", """
        def my_propose(texts, ready, gamma):
            return [look(text, gamma) if is_ready else [] for text, is_ready in zip(texts, ready)]
        """),
    right("05_tree", "view", "by climbing to the root", """
        def my_view(parents, length):
            mask, positions = [], []
            for node in range(len(parents)):
                up, seen = node, []
                while up != -1:
                    seen.append(up)
                    up = parents[up]
                mask.append([other in seen for other in range(len(parents))])
                positions.append(length + len(seen) - 1)
            return mask, positions
        """),
    right("05_tree", "rerank", "a stable sort of a tensor, values by recursion", """
        def my_rerank(confidence, parents, nodes):
            def value(i):
                return 1.0 if i == -1 else confidence[i] * value(parents[i])

            values = torch.tensor([value(i) for i in range(len(parents))])
            order = values.sort(descending=True, stable=True).indices
            return order[: nodes - 1].sort().values
        """),
    right("05_tree", "verifier", "recursion over the nodes", """
        class MyTreeVerifier:
            lossless_for = frozenset({"iid", "without_replacement"})

            def __call__(self, tree, p, rng, node=0, path=()):
                owed, q = p[node].clone(), tree.q[node].clone()
                for child in [n for n in range(len(tree)) if tree.parent_list[n] == node]:
                    word = tree.token_list[child]
                    if rng.accept(min(1.0, float(owed[word]) / float(q[word]))):
                        return self(tree, p, rng, child, (*path, child))
                    owed = torch.relu(owed - q)
                    owed = owed / owed.sum()
                    if tree.drawn != "iid":
                        q[word] = 0.0
                        q = q / q.sum()
                return VerifyResult(path, rng.draw(owed))
        """),
    right("05_tree", "sequoia", "a table filled from below", """
        def my_best_tau(acceptance, nodes):
            ranks = len(acceptance)
            best = [[0.0] * (ranks + 1) for _ in range(nodes)]
            for count in range(1, nodes):
                for rank in range(ranks - 1, -1, -1):
                    for size in range(1, count + 1):
                        worth = acceptance[rank] * (1 + best[size - 1][0]) + best[count - size][rank + 1]
                        best[count][rank] = max(best[count][rank], worth)
            return 1 + best[nodes - 1][0]
        """),
    right("05_tree", "links", "children collected first", """
        def my_links(tokens, parents, size):
            pads = size - len(tokens)
            children = [[i for i, parent in enumerate(parents) if parent == node] for node in range(size)]
            first = [each[0] if each else -1 for each in children]
            after = [-1] * size
            for each in children:
                for one, other in zip(each, each[1:]):
                    after[one] = other
            return tokens + pads * [0], first, after
        """),
    right("06_metrics", "counts", "one loop, with tries for the divisions", """
        def my_counts(records, nodes):
            drafted = tested = accepted = emitted = drafting = 0
            by_place = []
            for each in records:
                drafted += each.drafted
                tested += each.tested
                accepted += each.accepted
                emitted += each.emitted
                drafting += bool(each.drafted)
                by_place += [0] * (each.drafted - len(by_place))
                for place in range(each.accepted):
                    by_place[place] += 1
            n = len(records)

            def ratio(a, b):
                try:
                    return a / b
                except ZeroDivisionError:
                    return 0

            return {
                "shares": [ratio(count, n) for count in by_place],
                "vllm_rate": ratio(accepted, drafted),
                "vllm_length": 1 + accepted / drafting if drafting else 0,
                "sglang_rate": ratio(accepted, n * (nodes - 1)),
                "alpha": ratio(accepted, tested),
                "tau": ratio(emitted, n),
            }
        """),
    right("06_metrics", "tau", "from the last draft to the first", """
        def my_tau(chances):
            tokens = 1
            for chance in reversed(chances):
                tokens = 1 + chance * tokens
            return tokens
        """),
    right("06_metrics", "tau", "over the outcomes of a round", """
        def my_tau(chances):
            mean, reached = 0.0, 1.0
            for accepted, chance in enumerate(chances):
                mean += reached * (1 - chance) * (accepted + 1)
                reached *= chance
            return mean + reached * (len(chances) + 1)
        """),
    right("06_metrics", "length", "all speed-ups in a list", """
        def my_best_length(chances, draft, forward, rows):
            plain, gains = forward(rows), []
            for length in range(len(chances) + 1):
                tokens, alive = 1.0, 1.0
                for i in range(length):
                    alive *= chances[i]
                    tokens += alive
                gains.append(tokens * plain / (draft * length + forward(rows + rows * length)))
            best = gains.index(max(gains))
            return [best, gains[best]]
        """),
    right("06_metrics", "control", "rounds in groups of five", """
        def my_lengths(draft, rounds, tiers):
            lengths, tier, mean = [], 2, tiers[2] * 1.0
            while len(lengths) < rounds:
                length = tiers[tier]
                for _ in range(5):
                    lengths.append(length)
                    if length:
                        held = draft(length)
                        if held is not None:
                            mean = (mean + held) / 2
                if length == 0:
                    tier = 1
                    continue
                down = tier
                while down > 0 and mean <= max(1, tiers[down - 1]) - 0.75:
                    down -= 1
                if down < tier:
                    tier = down
                elif tier < len(tiers) - 1 and mean > length - 0.25:
                    tier += 1
            return lengths[:rounds]
        """),
    right("06_metrics", "heuristic", "cases in the other order", """
        def my_asked_for(rounds, first):
            lengths = [first]
            for drafted, accepted in rounds:
                now = lengths[-1]
                if drafted == 0:
                    lengths.append(now)
                elif accepted < drafted:
                    lengths.append(now - 1 if now > 1 else 1)
                else:
                    lengths.append(now + 2)
            return lengths[:-1]
        """),
    right("07_kernels", "bytes", "pass by pass", """
        def my_bytes(vocab, size, gamma):
            stored = raw = 0
            for _ in range(gamma + 1):
                stored += vocab * size  # read the logits
                stored += vocab * 4  # write the probabilities
                stored += vocab * 4  # write zeros
                raw += vocab * size
            stored += vocab * 4 * 4
            return stored, raw
        """),
    right("07_kernels", "maxima", "a where instead of `other`", """
        @triton.jit
        def my_block_max(x, stride, peak, vocab, blocks, BLOCK: tl.constexpr):
            block = tl.program_id(1)
            row = tl.program_id(0).to(tl.int64)
            lane = tl.arange(0, BLOCK) + BLOCK * block
            inside = lane < vocab
            values = tl.load(x + (row * stride + lane), mask=inside, other=0.0)
            values = tl.where(inside, values, -float("inf"))
            tl.store(peak + block + row * blocks, tl.max(values, axis=0))
        """),
    right("07_kernels", "stats", "branches for an empty block", """
        @triton.jit
        def my_row_stats(x, stride, peak, mass, best, vocab, temperature, BLOCK: tl.constexpr):
            row = tl.program_id(0).to(tl.int64)
            lane = tl.arange(0, BLOCK)
            m = -float("inf")
            s = 0.0
            a = 0
            for start in range(0, vocab, BLOCK):
                values = tl.load(x + row * stride + start + lane, mask=start + lane < vocab, other=-float("inf"))
                high = tl.max(values, 0)
                if high > m:
                    a = start + tl.argmax(values, 0)
                    s = s * tl.exp((m - high) / temperature)
                    m = high
                if m > -float("inf"):
                    s += tl.sum(tl.exp((values - m) / temperature), 0)
            tl.store(peak + row, m)
            tl.store(mass + row, s)
            tl.store(best + row, a)
        """),
    right("07_kernels", "accept", "probabilities instead of logarithms", """
        @triton.jit
        def my_keeps(logits, stride, drafts, coins, kept, vocab, BLOCK: tl.constexpr):
            row = tl.program_id(0).to(tl.int64)
            token = tl.arange(0, BLOCK)
            x = tl.load(logits + row * stride + token, mask=token < vocab, other=-float("inf"))
            weight = tl.exp(x - tl.max(x, 0))
            draft = tl.load(drafts + row)
            mine = tl.sum(tl.where(token == draft, weight, 0.0), 0)
            tl.store(kept + row, tl.where(tl.load(coins + row) * tl.sum(weight, 0) < mine, 1, 0))
        """),
    right("07_kernels", "walk", "one loop over candidates", """
        @triton.jit
        def my_walk(tokens, nodes, first_child, next_sibling, best, path, extra):
            base = tl.program_id(0).to(tl.int64) * nodes
            node = base * 0
            steps = base * 0
            wanted = tl.load(best + base)
            tl.store(path + base, node)
            child = tl.load(first_child + base)
            while child >= 0:
                if tl.load(tokens + base + child) == wanted:
                    node = child
                    steps += 1
                    tl.store(path + base + steps, node)
                    wanted = tl.load(best + base + node)
                    child = tl.load(first_child + base + node)
                else:
                    child = tl.load(next_sibling + base + child)
            tl.store(extra + tl.program_id(0), wanted)
        """),
    right("08_production", "reading", "positions counted first", """
        def my_reading(page):
            def get(name):
                return page["vllm:spec_decode_num_" + name]

            n = get("drafts_total")
            count = sum("per_pos" in key for key in page)
            shares = [get('accepted_tokens_per_pos_total{position="%d"}' % i) / n for i in range(count)]
            return (n + get("accepted_tokens_total")) / n, get("accepted_tokens_total") / get("draft_tokens_total"), shares
        """),
    right("08_production", "flags", "the levels of the tree counted one by one", """
        def my_flags(depth, topk, nodes):
            most, wide = 1, 1
            for level in range(depth):
                most += wide * topk
                wide = topk
            if nodes is None:
                nodes = depth + 1
            if (topk == 1 and nodes != most) or nodes > most:
                raise ValueError("not possible")
            names = ("num-steps", "eagle-topk", "num-draft-tokens")
            return {f"--speculative-{name}": value for name, value in zip(names, (depth, topk, nodes))}
        """),
    right("08_production", "choice", "all ways in a list", """
        def my_choice(drafters, v, margin):
            ways = [(margin, "none", 0)]
            for name in drafters:
                alive, c, share = drafters[name]
                for g in range(1, 1 + len(alive)):
                    drafting = g * c + v(g + 1)
                    ways.append(((1 + sum(alive[:g])) / (share * drafting + (1 - share) * v(1)), name, g))
            return max(ways, key=lambda way: way[0])[1:]
        """),
    right("08_production", "metrics", "round by round", """
        def my_metrics(emitted, num_draft_tokens):
            accepted = [tokens - 1 for tokens in emitted]
            drafts = num_draft_tokens - 1
            return 1 + sum(accepted) / len(accepted), sum(a / drafts for a in accepted) / len(accepted)
        """),
    right("08_production", "capacity", "two tables and a sort", """
        def my_plan(rows, limit):
            plain = {r["concurrency"]: r["tokens_per_s"] for r in rows if r["method"] == "plain"}
            other = {r["concurrency"]: r["tokens_per_s"] for r in rows if r["method"] != "plain"}
            level = 0
            for each in sorted(plain):
                if not other[each] > plain[each]:
                    break
                level = each
            ranked = sorted(rows, key=lambda r: r["tokens_per_s"], reverse=True)
            for row in ranked:
                if row["tpot_ms"][1] <= limit:
                    return level, (row["method"], row["concurrency"])
            return level, ("none", 0)
        """),
    right("09_capstone", "index", "a dict per length, and lists of places", """
        class MyIndex:
            def __init__(self):
                self.text = []
                self.places = {2: {}, 3: {}, 4: {}}

            def add(self, tokens):
                for token in tokens:
                    for n, places in self.places.items():
                        if len(self.text) >= n:
                            places.setdefault(tuple(self.text[-n:]), []).append(len(self.text))
                    self.text.append(token)

            def guess(self, gamma):
                for n in (4, 3, 2):
                    if len(self.text) > n:
                        found = self.places[n].get(tuple(self.text[-n:]))
                        if found:
                            return self.text[found[-1] :][:gamma]
                return []
        """),
    right("09_capstone", "greedy", "a loop that builds the tokens", """
        def my_greedy_round(model, last, guess):
            p = model.score([last] + list(guess))
            new = [int(p[0].argmax())]
            for i, token in enumerate(guess):
                if token != new[-1]:
                    break
                new.append(int(p[i + 1].argmax()))
            model.keep(list(range(len(new))))
            return new
        """),
    right("09_capstone", "sampled", "the target's word is drawn first, and compared with the guess", """
        def my_sampled_round(model, last, guess, rng):
            p = model.score([last, *guess])
            new = []
            for row in range(len(guess) + 1):
                new.append(rng.draw(p[row]))
                if row == len(guess) or new[-1] != guess[row]:
                    break
            model.keep(range(len(new)))
            return new
        """),
    right("09_capstone", "loop", "the end looked for in the whole text", """
        def my_generate(model, prompt, max_new_tokens, eos, guess):
            new = []
            while len(new) < max_new_tokens and not eos & set(new):
                text = prompt + new
                new = new + greedy_round(model, text[-1], guess(text))
            ends = [i for i, token in enumerate(new) if token in eos]
            if ends:
                new = new[: ends[0] + 1]
            return new[:max_new_tokens]
        """),
    right("09_capstone", "decoder", "a scan of the text instead of an index, the word drawn first", """
        class MyDecoder:
            def generate(self, model, prompt, max_new_tokens, eos, rng):
                text, size = list(prompt), 4
                end = len(prompt) + max_new_tokens
                while len(text) < end:
                    guess = self.find(text)[: min(size, end - len(text) - 1)]
                    p = model.score([text[-1], *guess])
                    count = 0
                    while True:
                        row = p[count]
                        token = int(row.argmax()) if model.temperature == 0 else rng.draw(row)
                        text.append(token)
                        if token in eos or count == len(guess) or token != guess[count]:
                            break
                        count += 1
                    model.keep(range(count + 1))
                    if guess:
                        size = min(16, 2 * size) if count == len(guess) else count + 1
                    if token in eos:
                        break
                return text[len(prompt) :]

            def find(self, text):
                for n in (4, 3, 2):
                    for at in range(len(text) - 1, n - 1, -1):
                        if text[at - n : at] == text[-n:]:
                            return text[at:]
                return []
        """),
    right("10_after_eagle", "output", "word pairs in a dict, one emission function", """
        def my_output(drafts, p1, p2):
            def emit(p, q, x):
                kept = {x: min(p[x] / q[x], 1.0)}
                owed = {w: p[w] - q[w] for w in range(3) if p[w] > q[w]}
                lost = {w: (1 - kept[x]) * gap / sum(owed.values()) for w, gap in owed.items()}
                return kept, lost

            out = {(s, t): 0.0 for s in range(3) for t in range(3)}
            for chance, (a, b), rows in drafts:
                kept, lost = emit(p1, rows[0], a)
                for s, share in lost.items():
                    for t in range(3):
                        out[s, t] += chance * share * p2[s][t]
                for part in emit(p2[a], rows[1], b):
                    for t, share in part.items():
                        out[a, t] += chance * kept[a] * share
            return [[out[s, t] for t in range(3)] for s in range(3)]
        """),
    right("10_after_eagle", "output", "tensors in float32", """
        def my_output(drafts, p1, p2):
            p1, p2 = torch.tensor(p1), torch.tensor(p2)
            out = torch.zeros(3, 3)

            def one(p, q, x):
                q = torch.tensor(q)
                stays = min(1.0, float(p[x] / q[x]))
                rest = (p - q).clamp(min=0)
                return stays, (1 - stays) * rest / rest.sum().clamp(min=1e-9)

            for chance, pair, rows in drafts:
                stays, others = one(p1, rows[0], pair[0])
                out += chance * others[:, None] * p2
                also, rest = one(p2[pair[0]], rows[1], pair[1])
                rest[pair[1]] += also
                out[pair[0]] += chance * stays * rest
            return out
        """),
    right("10_after_eagle", "block", "exponentials by hand, positions by number", """
        def my_block(base, first, W1, W2, rng):
            rows = torch.zeros(base.shape, dtype=torch.float64)
            words = [first]
            for k in range(base.shape[0]):
                logits = base[k].clone()
                for r in range(W1.shape[1]):
                    logits += W1[words[-1], r] * W2[r]
                weights = logits.exp()
                rows[k] = weights / weights.sum()
                words.append(int(rng.draw(rows[k])))
            return words[1:], rows
        """),
    right("10_after_eagle", "tree", "all paths, sorted", """
        def my_tree(rows, nodes):
            paths, level = [], [((), 1.0)]
            for row in rows:
                level = [(path + (w,), value * row[w]) for path, value in level for w in range(len(row))]
                paths += [(value, path) for path, value in level if value > 0]
            paths.sort(key=lambda each: (-each[0], len(each[1])))
            numbers = {(): 0}
            words, parents = [], []
            for value, path in paths[: nodes - 1]:
                parents.append(numbers[path[:-1]])
                words.append(path[-1])
                numbers[path] = len(words)
            return words, parents
        """),
    right("10_after_eagle", "tree", "the best candidate looked for each time", """
        def my_tree(rows, nodes):
            words, parents, values, depths = [], [], [1.0], [0]
            while len(words) < nodes - 1:
                taken = set(zip(parents, words))
                best = None
                for node, (value, depth) in enumerate(zip(values, depths)):
                    for word in range(len(rows[0])) if depth < len(rows) else ():
                        made = value * rows[depth][word]
                        if made > 0 and (node, word) not in taken and (best is None or made > best[0]):
                            best = (made, node, word)
                if best is None:
                    break
                values.append(best[0])
                parents.append(best[1])
                depths.append(depths[best[1]] + 1)
                words.append(best[2])
            return words, parents
        """),
    right("10_after_eagle", "length", "a while loop and two ratios", """
        def my_length(words, confidence, v):
            size, sure, tokens = 0, 1.0, 1.0
            while size < len(words):
                sure = sure * confidence(words[0:size])
                now, then = tokens / v(size + 1), (tokens + sure) / v(size + 2)
                if not then > now:
                    break
                size, tokens = size + 1, tokens + sure
            return size
        """),
    right("10_after_eagle", "suffix", "shares first, the length cut afterwards", """
        def my_suffix(text, follows, factor, min_prob):
            found = []
            for size in range(1, len(text) + 1):
                if tuple(text[len(text) - size :]) not in follows:
                    break
                chain, probs = list(text[len(text) - size :]), [1.0]
                for _ in range(int(factor * size)):
                    nexts = list(follows.get(tuple(chain), {}).items())
                    if not nexts:
                        break
                    token, count = max(nexts, key=lambda pair: pair[1])
                    probs.append(probs[-1] * (count / sum(n for _, n in nexts)))
                    chain.append(token)
                drafted = [p for p in probs[1:] if p >= min_prob]
                if drafted:
                    found.append((sum(drafted), size, chain[size : size + len(drafted)]))
            if not found:
                return [], 0.0
            best = max(found, key=lambda each: each[:2])
            return best[2], best[0]
        """),
)  # fmt: skip
